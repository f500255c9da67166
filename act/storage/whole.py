"""Read and write the ledger's tables as they are, for a copy. Functions that take an open transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, tuple_

from act.storage.entries import add_events, close_blocks, event_row, heads_of, move_heads
from act.storage.tables import blocks, checkpoints, events, fanout, forks, heads, tiles
from act.storage.tree import grown, write_growth

_ROWS = select(events).where(events.c.idx >= bindparam("first")).order_by(events.c.idx).limit(bindparam("count"))
_HEADS = select(heads).where(heads.c.stream > bindparam("after")).order_by(heads.c.stream).limit(bindparam("count"))
_BLOCKS = select(blocks).where(blocks.c.block >= bindparam("first")).order_by(blocks.c.block).limit(bindparam("count"))

_TILES = (
    select(tiles)
    .where(tuple_(tiles.c.level, tiles.c.number) > tuple_(bindparam("level"), bindparam("number")))
    .order_by(tiles.c.level, tiles.c.number)
    .limit(bindparam("count"))
)
_CHECKPOINTS = (
    select(checkpoints)
    .where(tuple_(checkpoints.c.size, checkpoints.c.key) > tuple_(bindparam("size"), bindparam("key")))
    .order_by(checkpoints.c.size, checkpoints.c.key)
    .limit(bindparam("count"))
)
_FORKS = select(forks).where(forks.c.number >= bindparam("first")).order_by(forks.c.number).limit(bindparam("count"))


def rows_from(tx: Connection, first: int, *, count: int) -> Sequence[RowMapping]:
    """Return the rows of ``events`` from the index ``first`` on, at most ``count``, all columns."""
    return tx.execute(_ROWS, {"first": first, "count": count}).mappings().all()


def heads_after(tx: Connection, stream: str, *, count: int) -> Sequence[RowMapping]:
    """Return the rows of ``heads`` behind the stream, by their names' bytes, at most ``count``."""
    return tx.execute(_HEADS, {"after": stream, "count": count}).mappings().all()


def blocks_from(tx: Connection, first: int, *, count: int) -> Sequence[RowMapping]:
    """Return the rows of ``blocks`` from the number ``first`` on, at most ``count``."""
    return tx.execute(_BLOCKS, {"first": first, "count": count}).mappings().all()


def tiles_after(tx: Connection, level: int, number: int, *, count: int) -> Sequence[RowMapping]:
    """Return the rows of ``tiles`` behind the one with this level and number, at most ``count``."""
    return tx.execute(_TILES, {"level": level, "number": number, "count": count}).mappings().all()


def checkpoints_after(tx: Connection, size: int, key: str, *, count: int) -> Sequence[RowMapping]:
    """Return the rows of ``checkpoints`` behind the one of this size and key, at most ``count``."""
    return tx.execute(_CHECKPOINTS, {"size": size, "key": key, "count": count}).mappings().all()


def forks_from(tx: Connection, first: int, *, count: int) -> Sequence[RowMapping]:
    """Return the rows of ``forks`` from the number ``first`` on, at most ``count``."""
    return tx.execute(_FORKS, {"first": first, "count": count}).mappings().all()


def add_checkpoints(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows of another ledger's ``checkpoints`` as they are."""
    if rows:
        tx.execute(insert(checkpoints), list(rows))


def add_forks(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows of another ledger's ``forks`` as they are."""
    if rows:
        tx.execute(insert(forks), list(rows))


def add_rows(tx: Connection, rows: Sequence[Mapping[str, Any]], *, size_before: int) -> None:
    """Append rows of another ledger's ``events`` as they are, and what is derived from them."""
    streams = {row["stream"]: row["seq"] for row in rows}
    growth = grown(tx, [row["leaf_hash"] for row in rows], size_before=size_before)
    add_events(tx, [event_row(row) for row in rows])
    move_heads(tx, streams, known=heads_of(tx, streams))
    write_growth(tx, growth)
    close_blocks(tx, size_before=size_before, size=size_before + len(rows))


def positions_of(tx: Connection) -> dict[str, int]:
    """Return how far the ledger has been published, by the exchange's name."""
    return {row.name: row.position for row in tx.execute(select(fanout.c.name, fanout.c.position))}


def add_positions(tx: Connection, positions: Mapping[str, int]) -> None:
    """Note how far the ledger has been published, for the exchanges of which nothing is noted yet."""
    new = positions.keys() - positions_of(tx).keys()
    if new:
        tx.execute(insert(fanout), [{"name": name, "position": positions[name], "lease_until_ms": 0} for name in new])
