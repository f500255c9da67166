"""The Merkle tree beside the events. Functions that take an open transaction.

Who appends holds the append lock, and the tree grows in the same transaction: they are the same size once it is
committed. Two things leave the tree behind, and `catch_up` brings it on: a ledger that is older than the tree, and a
process of a release before, which appends without it while a site is updated.

A damaged tree is left as it is, and events are taken all the same: the signer finds it out and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, exists, insert, select, update

from act.domain.encoding import HASH_BYTES
from act.domain.tiles import FULL_TILE_BYTES, FullTile, Tile, TileError, full_tiles
from act.domain.tree import Frontier, append
from act.storage.entries import size_of
from act.storage.tables import TREE_ID, events, tiles, tree
from hmskit.prepared import Prepared

MAX_BEHIND = 5_000
"""How many entries an append adds to the tree beside its own; a tree that is further behind is left to `catch_up`."""

_TREE = Prepared(select(tree.c.size, tree.c.peaks).where(tree.c.id == TREE_ID), [])
_GROW = Prepared(
    update(tree).where(tree.c.id == TREE_ID).values(size=bindparam("to_size"), peaks=bindparam("to_peaks")),
    ["to_size", "to_peaks"],
)
_LEAVES = Prepared(
    select(events.c.leaf_hash)
    .where(events.c.idx >= bindparam("first"), events.c.idx < bindparam("end"))
    .order_by(events.c.idx),
    ["first", "end"],
)
_ENTRIES = Prepared(
    select(events.c.entry)
    .where(events.c.idx >= bindparam("first"), events.c.idx < bindparam("end"))
    .order_by(events.c.idx),
    ["first", "end"],
)
_ROOTS = Prepared(
    select(tiles.c.root)
    .where(
        tiles.c.level == bindparam("of_level"), tiles.c.number >= bindparam("first"), tiles.c.number < bindparam("end")
    )
    .order_by(tiles.c.number),
    ["of_level", "first", "end"],
)
_TILE = Prepared(
    select(tiles.c.hashes, tiles.c.root).where(
        tiles.c.level == bindparam("of_level"), tiles.c.number == bindparam("of_number")
    ),
    ["of_level", "of_number"],
)
# A row that stands in the way is no reason to refuse events: what it should read, the signer knows.
_ADD_TILE = Prepared(
    insert(tiles).from_select(
        ["level", "number", "hashes", "root"],
        select(
            bindparam("new_level", type_=tiles.c.level.type),
            bindparam("new_number", type_=tiles.c.number.type),
            bindparam("new_hashes", type_=tiles.c.hashes.type),
            bindparam("new_root", type_=tiles.c.root.type),
        ).where(
            ~exists(
                select(tiles.c.level).where(
                    tiles.c.level == bindparam("at_level"), tiles.c.number == bindparam("at_number")
                )
            )
        ),
    ),
    ["new_level", "new_number", "new_hashes", "new_root", "at_level", "at_number"],
)


def frontier_of(tx: Connection) -> Frontier | None:
    """Return the tree's frontier; None where its row is gone, or is none."""
    rows = _TREE.rows(tx)
    try:
        return Frontier.unpacked(rows[0][0], bytes(rows[0][1])) if rows else None
    except ValueError:
        return None


def behind(tx: Connection) -> int:
    """Return how many of the ledger's entries the tree does not have; 0 for a damaged tree, which gets none."""
    frontier = frontier_of(tx)
    return 0 if frontier is None else max(size_of(tx) - frontier.size, 0)


@dataclass(frozen=True, slots=True)
class Growth:
    """What is to be written when the tree grows.

    Attributes:
        frontier: after it.
        filled: the tiles that have become full.
    """

    frontier: Frontier
    filled: Sequence[FullTile]


def grown(tx: Connection, leaf_hashes: Sequence[bytes], *, size_before: int) -> Growth | None:
    """Return how the tree grows by the entries that are appended now; None where it is left as it is. Only reads.

    Args:
        tx: the transaction that appends them, before it does.
        leaf_hashes: theirs, in order.
        size_before: how many entries the ledger had before.
    """
    frontier = frontier_of(tx)
    if frontier is None or not 0 <= size_before - frontier.size <= MAX_BEHIND:
        return None
    missing = leaves(tx, frontier.size, size_before)
    return _growth(tx, frontier, [*missing, *leaf_hashes], to=size_before + len(leaf_hashes))


def write_growth(tx: Connection, growth: Growth | None) -> None:
    """Write what `grown` gave, in its transaction."""
    if growth is None:
        return
    _ADD_TILE.many(
        tx, [(tile.level, tile.index, tile.hashes, tile.root, tile.level, tile.index) for tile in growth.filled]
    )
    _GROW.many(tx, [(growth.frontier.size, growth.frontier.packed)])


def catch_up(tx: Connection, *, count: int) -> int:
    """Add at most ``count`` entries that the ledger has and the tree has not; return how many are left after that.

    Args:
        tx: a writer's, with the append lock.
        count: how many.
    """
    frontier, size = frontier_of(tx), size_of(tx)
    if frontier is None or frontier.size >= size:
        return 0
    end = min(size, frontier.size + count)
    growth = _growth(tx, frontier, leaves(tx, frontier.size, end), to=end)
    write_growth(tx, growth)
    return 0 if growth is None else size - end


def leaves(tx: Connection, first: int, end: int) -> list[bytes]:
    """Return the stored leaf hashes of the entries ``[first, end)``."""
    return [bytes(leaf) for (leaf,) in _LEAVES.rows(tx, first, end)] if first < end else []


def entries(tx: Connection, first: int, end: int) -> list[bytes]:
    """Return the entries ``[first, end)``."""
    return [bytes(entry) for (entry,) in _ENTRIES.rows(tx, first, end)]


def full_tile(tx: Connection, level: int, number: int) -> tuple[bytes, bytes] | None:
    """Return a full tile's hashes and the root over them; None where it is not stored."""
    rows = _TILE.rows(tx, level, number)
    return (bytes(rows[0][0]), bytes(rows[0][1])) if rows else None


def tile_bytes(tx: Connection, tile: Tile) -> bytes:
    """Return a tile of the tree, full or partial; the caller knows that the tree has it.

    A partial one is cut from the full one where that is stored, and made from what it sums up where it is not.

    Raises:
        TileError: what the database has of it has not its size.
    """
    stored = full_tile(tx, tile.level, tile.index)
    data = _partial(tx, tile) if stored is None else stored[0][: tile.width * HASH_BYTES]
    if len(data) != tile.width * HASH_BYTES:
        raise TileError(f"the database has {len(data)} of the {tile.width * HASH_BYTES} bytes of {tile.path}")
    return data


def _partial(tx: Connection, tile: Tile) -> bytes:
    first, end = tile.first, tile.first + tile.width
    if tile.level == 0:
        return b"".join(leaves(tx, first, end))
    return b"".join(bytes(root) for (root,) in _ROOTS.rows(tx, tile.level - 1, first, end))


def _growth(tx: Connection, frontier: Frontier, leaf_hashes: Sequence[bytes], *, to: int) -> Growth | None:
    """Return what makes it the tree of ``to`` entries; None where something of it is missing."""
    try:
        after, runs = append(frontier, leaf_hashes)
        filled = full_tiles(runs, lambda tile: _partial(tx, tile))
    except ValueError:  # a leaf hash that has not 32 bytes
        return None
    if after.size != to or any(len(tile.hashes) != FULL_TILE_BYTES for tile in filled):
        return None
    return Growth(after, filled)
