"""Read entries back from the database and compute the tree anew, before anything is signed.

A bit that flipped between the hash and the disk would be signed for ever: a transparency log was lost to one (Yeti
2022). So the signer trusts nothing that was computed when the entries were appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from act.contract import leaf_hash
from act.domain.errors import LedgerDamagedError
from act.domain.tiles import TILE_HEIGHT, TILE_WIDTH, TileError, TileHashes, perfect_root, read_hashes
from act.domain.tree import Frontier, ProofError, Run, append, check_consistency, consistency_proof, frontier_at
from act.storage.checkpoints import stored_entries
from act.storage.tree import full_tile, tile_bytes


def read_back(tx: Connection, base: Frontier, *, end: int) -> Frontier:
    """Return the frontier at ``end``, computed from the entries' bytes; ``base`` is where they go on.

    The stored leaf hashes, and the full tiles that end within, are compared with what the bytes give.

    Raises:
        LedgerDamagedError: something is not as it was appended.
    """
    rows = stored_entries(tx, base.size, end)
    try:
        computed = [leaf_hash(entry) for _, _, entry in rows]
    except TypeError:  # one of them is no longer bytes
        computed = []
    expected = list(zip(range(base.size, end), computed, strict=False))
    if len(rows) != end - base.size or [(index, leaf) for index, leaf, _ in rows] != expected:
        raise _first_damage(rows, first=base.size, end=end)
    after, runs = append(base, computed)
    for level, run in enumerate(runs[TILE_HEIGHT::TILE_HEIGHT]):
        _check_tiles(tx, level, run)
    return after


def signed_frontier(tx: Connection, size: int, root: bytes) -> Frontier:
    """Return the frontier of a size whose root was signed, out of the stored tree: the root vouches for it.

    Raises:
        LedgerDamagedError: the stored tree does not give that root.
    """
    try:
        frontier = frontier_at(size, TileHashes(size, lambda tile: tile_bytes(tx, tile)))
    except TileError as error:
        raise LedgerDamagedError(f"the tree of {size} entries, which was signed, cannot be read: {error}") from None
    if frontier.root != root:
        raise LedgerDamagedError(f"the tree of {size} entries in the database is not the one that was signed")
    return frontier


def check_grown(tx: Connection, old: tuple[int, bytes], new: tuple[int, bytes]) -> None:
    """Check that one signed tree is how another, a larger one, begins; each is a size and a root.

    Raises:
        LedgerDamagedError: they contradict each other.
    """
    (old_size, old_root), (size, root) = old, new
    try:
        hashes = TileHashes(size, lambda tile: tile_bytes(tx, tile))
        check_consistency(old_size, old_root, size, root, consistency_proof(old_size, size, hashes))
    except (ProofError, TileError) as error:
        raise LedgerDamagedError(f"two checkpoints that were signed contradict each other: {error}") from None


def _first_damage(rows: Sequence[tuple[Any, Any, Any]], *, first: int, end: int) -> LedgerDamagedError:
    """Return what is wrong with the entries that should be ``[first, end)``."""
    for expected, (index, stored, entry) in enumerate(rows, start=first):
        if index != expected:
            return LedgerDamagedError(f"the entry {expected} is missing", index=expected)
        if not isinstance(entry, bytes) or leaf_hash(entry) != stored:
            return LedgerDamagedError(f"the entry {index} is not the one that was appended", index=index)
    missing = min(first + len(rows), end)
    return LedgerDamagedError(f"the entry {missing} is missing", index=missing)


def _check_tiles(tx: Connection, level: int, above: Run) -> None:
    """Compare the stored full tiles of a level with their roots, which were computed anew."""
    for number, root in enumerate(above.hashes, start=above.start):
        stored = full_tile(tx, level, number)
        first = number * TILE_WIDTH ** (level + 1)
        if stored is None:
            raise LedgerDamagedError(f"the tile {number} of level {level} is missing", index=first)
        if stored[1] != root or perfect_root(read_hashes(stored[0], TILE_WIDTH)) != root:
            raise LedgerDamagedError(f"the tile {number} of level {level} is not the one of its entries", index=first)
