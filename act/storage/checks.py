"""What a full check reads of the ledger, as it is: no value is trusted to have its type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, select, text
from sqlalchemy.exc import DBAPIError

from act.storage.tables import TREE_ID, events, tiles, tree
from act.storage.whole import blocks_from, checkpoints_after, forks_from, heads_after
from hmskit.prepared import Prepared

PAGE = 2_000
_FIRST = -(2**62)
"""Before every index: a row in front of the first one is a finding, too."""

COLUMNS = tuple(column.name for column in events.c)
_ROWS = Prepared(
    select(events).where(events.c.idx >= bindparam("first")).order_by(events.c.idx).limit(bindparam("count")),
    ["first", "count"],
)
_BETWEEN = Prepared(
    select(events).where(events.c.idx >= bindparam("first"), events.c.idx < bindparam("end")).order_by(events.c.idx),
    ["first", "end"],
)
_TILE = Prepared(
    select(tiles.c.hashes, tiles.c.root).where(
        tiles.c.level == bindparam("of_level"), tiles.c.number == bindparam("of_number")
    ),
    ["of_level", "of_number"],
)
_TREE = select(tree.c.size, tree.c.peaks).where(tree.c.id == TREE_ID)
_ENTRY_AT = select(events.c.entry).where(events.c.idx == bindparam("at"))
_INDEX_OF = select(events.c.idx).where(events.c.stream == bindparam("of_stream")).order_by(events.c.seq.desc()).limit(1)


def event_rows(tx: Connection, first: int = _FIRST) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of ``events`` in the order of their indexes, page by page, each by column name.

    Args:
        tx: a reader's transaction.
        first: the index from which on; by default all, also such as are before every index.

    Raises:
        DBAPIError: the next one cannot be read. All before it have been given.
    """
    count = PAGE
    while True:
        try:
            rows = _ROWS.rows(tx, first, count)
        except DBAPIError:
            if count == 1 or tx.dialect.name != "sqlite":  # PostgreSQL reads no further in this transaction
                raise
            count = 1
            continue
        if not rows:
            return
        yield [_row(row) for row in rows]
        first = rows[-1][0] + 1


def rows_between(tx: Connection, first: int, end: int) -> list[dict[str, Any]]:
    """Return the rows of ``events`` with an index in ``[first, end)``.

    Raises:
        DBAPIError: one cannot be read.
    """
    return [_row(row) for row in _BETWEEN.rows(tx, first, end)]


def is_before_all(tx: Connection) -> bool:
    """Tell whether there is a row in front of the first index."""
    return bool(tx.execute(select(events.c.idx).where(events.c.idx < 0).limit(1)).all())


def _row(row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))


def tile_row(tx: Connection, level: int, number: int) -> tuple[Any, Any] | None:
    """Return what stands in a tile's row: hashes and root; None where there is none."""
    rows = _TILE.rows(tx, level, number)
    return (rows[0][0], rows[0][1]) if rows else None


def tree_row(tx: Connection) -> tuple[Any, Any] | None:
    """Return what stands in the tree's row: size and peaks; None where there is none."""
    row = tx.execute(_TREE).first()
    return None if row is None else (row.size, row.peaks)


def count_tiles(tx: Connection) -> int:
    """Return how many full tiles are stored."""
    return int(tx.execute(select(func.count()).select_from(tiles)).scalar_one())


def index_of_head(tx: Connection, stream: str) -> int | None:
    """Return the index of a stream's last event; None where it has none."""
    found: int | None = tx.execute(_INDEX_OF, {"of_stream": stream}).scalar_one_or_none()
    return found


def head_rows(tx: Connection) -> Iterator[RowMapping]:
    """Yield the rows of ``heads``."""
    after = ""
    while rows := heads_after(tx, after, count=PAGE):
        yield from rows
        after = rows[-1]["stream"]


def block_rows(tx: Connection) -> Iterator[RowMapping]:
    """Yield the rows of ``blocks`` in order."""
    first = _FIRST
    while rows := blocks_from(tx, first, count=PAGE):
        yield from rows
        first = rows[-1]["block"] + 1


def checkpoint_rows(tx: Connection) -> Iterator[RowMapping]:
    """Yield the rows of ``checkpoints`` by size."""
    size, key = _FIRST, ""
    while rows := checkpoints_after(tx, size, key, count=PAGE):
        yield from rows
        size, key = rows[-1]["size"], rows[-1]["key"]


def fork_rows(tx: Connection) -> Iterator[RowMapping]:
    """Yield the rows of ``forks`` in order."""
    first = _FIRST
    while rows := forks_from(tx, first, count=PAGE):
        yield from rows
        first = rows[-1]["number"] + 1


def entry_at(tx: Connection, index: object) -> Any:  # noqa: ANN401 - whatever stands there
    """Return what stands in the entry's place; None where there is none."""
    return tx.execute(_ENTRY_AT, {"at": index}).scalar_one_or_none() if isinstance(index, int) else None


def file_faults(tx: Connection) -> Sequence[str]:
    """Return what SQLite finds wrong with its file: pages, and indexes that say something else than their table.

    Dashboards read through these indexes. Nothing on PostgreSQL, whose own tool is ``pg_amcheck``.
    """
    if tx.dialect.name != "sqlite":
        return ()
    found = [str(row[0]) for row in tx.execute(text("PRAGMA integrity_check(1)"))]
    return () if found == ["ok"] else found
