"""The tree of a running ACT, read tile by tile, each proven by the newest checkpoint before anything is believed.

What ACT shows of an entry, and what it has signed, are two things: only that the entry's hash is in the signed tree
makes it evidence. A tile proves 256 entries at once, so that a million receipts cost 4,000 tiles and not a million
proofs.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from act.domain.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from act.domain.encoding import HASH_BYTES
from act.domain.note import NoteError, VerifierKey, read_note
from act.domain.tiles import (
    MAX_LEVEL,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    TileError,
    TileHashes,
    perfect_root,
    read_hashes,
    tile_at,
)
from act.domain.tree import ProofError, check_consistency, root_at
from act.domain.witness import AddCheckpoint, RefusedError

KEPT_TILES = 2_000
"""Of 8 KiB each; the receipts of jobs that ran at one time are in few of them."""

Fetch = Callable[[str], Awaitable[bytes | None]]
"""Returns what ACT answers at a path; None where it answers that it has no such thing, or cannot prove it."""


class TreeError(Exception):
    """What ACT shows of its tree does not give the root that it signed, or is not signed by the log."""


class RemoteTree:
    """A log's tree as its newest checkpoint has it. Belongs to one event loop.

    Args:
        fetch: what asks ACT.
        keys: the log's verifier keys; empty: who signed the checkpoint is not checked.
    """

    def __init__(self, fetch: Fetch, keys: Sequence[VerifierKey]) -> None:
        self._fetch = fetch
        self._keys = keys
        self._lock = asyncio.Lock()
        self._edge: dict[Tile, bytes] = {}
        self._full: OrderedDict[Tile, bytes] = OrderedDict()
        self.checkpoint: Checkpoint | None = None

    @property
    def size(self) -> int:
        """How many entries the checkpoint covers; 0 where there is none."""
        return 0 if self.checkpoint is None else self.checkpoint.size

    async def renew(self) -> None:
        """Take the newest checkpoint, which must go on from the one before; nothing where none is newer.

        Raises:
            TreeError: it does not, or its tree is not what ACT shows.
        """
        async with self._lock:
            note = await self._fetch("/checkpoint")
            if note is None:
                return
            known, new = self.checkpoint, self._opened(note)
            if known is not None and new.size <= known.size:
                if new.size == known.size and new.root != known.root:
                    raise TreeError(f"two checkpoints of {new.size} entries have different roots")
                return
            if known is not None:
                await self._check_growth(known, new)
            self._edge = await self._edge_of(new)
            self.checkpoint = new

    async def leaf_hash(self, index: int) -> bytes:
        """Return the leaf hash at an index below `size`, which the checkpoint proves.

        Raises:
            TreeError: the tile that it is in is not the one that was signed.
        """
        async with self._lock:
            tile = await self._tile(0, index // TILE_WIDTH)
        at = index % TILE_WIDTH * HASH_BYTES
        return tile[at : at + HASH_BYTES]

    def _opened(self, note: bytes) -> Checkpoint:
        try:
            if not self._keys:
                return Checkpoint.parse(read_note(note).text)
            return open_checkpoint(note, self._keys, origin=self._keys[0].name).checkpoint
        except (NoteError, CheckpointError) as error:
            raise TreeError(f"the checkpoint: {error}") from None

    async def _check_growth(self, old: Checkpoint, new: Checkpoint) -> None:
        body = await self._fetch(f"/proof/consistency?from={old.size}&to={new.size}")
        try:
            if body is None:
                raise ProofError("ACT gives no proof")
            check_consistency(old.size, old.root, new.size, new.root, AddCheckpoint.parse(body).proof)
        except (ProofError, RefusedError) as error:
            raise TreeError(
                f"the checkpoint of {new.size} entries does not go on from that of {old.size}: {error}"
            ) from None

    async def _edge_of(self, checkpoint: Checkpoint) -> dict[Tile, bytes]:
        """Return the partial tiles at the tree's right edge: their hashes are all that its root is made of."""
        size = checkpoint.size
        last = [
            tile_at(level, max((size >> TILE_HEIGHT * level) - 1, 0) // TILE_WIDTH, size)
            for level in range(MAX_LEVEL // TILE_HEIGHT + 1)
        ]
        edge = {tile: await self._read(tile) for tile in last if tile is not None and tile.is_partial}
        if root_at(size, TileHashes(size, edge.__getitem__)) != checkpoint.root:
            raise TreeError(f"the tiles of {size} entries do not give the root that was signed")
        return edge

    async def _tile(self, level: int, index: int) -> bytes:
        """Return a tile's bytes, proven; a full one by its hash in the tile above it."""
        tile = tile_at(level, index, self.size)
        assert tile is not None
        if tile.is_partial:
            return self._edge[tile]
        known = self._full.get(tile)
        if known is not None:
            self._full.move_to_end(tile)
            return known
        above = await self._tile(level + 1, index // TILE_WIDTH)
        data = await self._read(tile)
        at = index % TILE_WIDTH * HASH_BYTES
        if perfect_root(read_hashes(data, TILE_WIDTH)) != above[at : at + HASH_BYTES]:
            raise TreeError(f"{tile.path} is not the tile that was signed")
        self._full[tile] = data
        if len(self._full) > KEPT_TILES:
            self._full.popitem(last=False)
        return data

    async def _read(self, tile: Tile) -> bytes:
        data = await self._fetch(f"/{tile.path}")
        try:
            if data is None:
                raise TileError("ACT has it no more")
            read_hashes(data, tile.width)
        except TileError as error:
            raise TreeError(f"{tile.path}: {error}") from None
        return data
