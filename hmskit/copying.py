"""Copy the tables of one database to another of whatever kind, page by page, and check that the copy is the same.

Each page is committed together with how far the copy has come (the table `copy_progress` in the target): a copy that
was killed goes on behind its last page. At the end every table is read again on both sides, in the order of its key;
how many rows there are and their SHA-256 digest must be equal. Only then is `copy_progress` dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Select,
    String,
    Table,
    Text,
    func,
    insert,
    inspect,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import DBAPIError

from hmskit.database import why_unavailable

PAGE_ROWS = 1_000
PAGE_BYTES = 8 * 1024 * 1024
"""How many rows are committed at once, and how long their texts may be together; but always one row."""
ROWS_AT_ONCE = 100
"""How many rows are fetched at once; with pages, what the copy's memory depends on."""

_PROGRESS = Table(
    "copy_progress",
    MetaData(),
    Column("name", String(100), primary_key=True),
    Column("source", Text, nullable=False),
    Column("after", Text),
    Column("rows", BigInteger, nullable=False),
)
"""Of each table how far its copy has come: the key of the last row, as JSON, and how many rows there are so far."""

Row = tuple[Any, ...]


class CannotCopyError(Exception):
    """The copy cannot be made, or is not what it should be; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Side:
    """A database that is copied from or to.

    Attributes:
        name: what messages call it, and what it is known by when a copy goes on; without a password.
        reading: opens a transaction that sees one moment.
        writing: opens a transaction that is committed at the end of its block.
    """

    name: str
    reading: Callable[[], AbstractContextManager[Connection]]
    writing: Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Digest:
    """What a table holds: how many rows, and the SHA-256 of them all, in hex.

    It goes over one line of JSON for each row, in the order of the key (texts by their code points): the values as
    they are, bytes in hex.
    """

    rows: int
    sha256: str


def begin(source: Side, target: Side, tables: Sequence[Table], *, is_new: Callable[[Connection], bool]) -> int:
    """Prepare the target for the copy, and return how many rows an earlier, unfinished copy of ``source`` has made.

    Args:
        source: where the rows are.
        target: where they go; its schema is up to date.
        tables: all that are copied.
        is_new: tells whether the target never held anything else either.

    Raises:
        CannotCopyError: the target holds something that is no unfinished copy of this source.
    """
    with target.writing() as connection:
        if inspect(connection).has_table(_PROGRESS.name):
            known = connection.execute(select(_PROGRESS)).all()
            if {row.source for row in known} != {source.name} or {row.name for row in known} != _names(tables):
                raise CannotCopyError(
                    f"{target.name} is the unfinished copy of another database or of another release: "
                    "name an empty database"
                )
            return sum(row.rows for row in known)
        for table in tables:
            if connection.execute(select(literal_column("1")).select_from(table).limit(1)).first() is not None:
                raise CannotCopyError(f"{target.name} is not empty (table {table.name}): name an empty database")
        if not is_new(connection):
            raise CannotCopyError(f"{target.name} was used before: name an empty database")
        _PROGRESS.create(connection)
        values = [{"name": table.name, "source": source.name, "after": None, "rows": 0} for table in tables]
        connection.execute(insert(_PROGRESS), values)
    return 0


def count_rows(side: Side, table: Table) -> int:
    """Return how many rows there are."""
    with side.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def copy_rows(source: Side, target: Side, table: Table, *, on_rows: Callable[[int], None]) -> None:
    """Copy what is not copied yet.

    Args:
        source: where the rows are.
        target: where they go; `begin` has prepared it.
        table: which rows.
        on_rows: called after each page is on disk, with how many rows it had.

    Raises:
        CannotCopyError: the target does not take a row.
    """
    with target.reading() as connection:
        last = connection.execute(select(_PROGRESS.c.after).where(_PROGRESS.c.name == table.name)).scalar_one()
    after = None if last is None else from_json(last)
    names = [column.name for column in table.columns]
    key = [names.index(column.name) for column in table.primary_key.columns]
    statement = insert(table)
    with source.reading() as connection, _rows(connection, table, after=after) as rows:
        for page in _pages(rows):
            reached = to_json([page[-1][place] for place in key]).decode()
            try:
                with target.writing() as writing:
                    writing.execute(statement, [dict(zip(names, row, strict=True)) for row in page])
                    writing.execute(
                        update(_PROGRESS)
                        .where(_PROGRESS.c.name == table.name)
                        .values(after=reached, rows=_PROGRESS.c.rows + len(page))
                    )
            except DBAPIError as error:
                if why_unavailable(error) is not None:
                    raise
                first_line = str(error.orig).partition("\n")[0]
                raise CannotCopyError(
                    f"{target.name} does not take the rows of {table.name} up to {reached}: {first_line}"
                ) from error
            on_rows(len(page))


def digest_rows(side: Side, table: Table, *, on_rows: Callable[[int], None]) -> Digest:
    """Read a whole table and return what it holds; ``on_rows`` is told how many rows more were read."""
    rows = 0
    sha256 = hashlib.sha256()
    with side.reading() as connection, _rows(connection, table) as found:
        for page in _pages(found):
            for row in page:
                sha256.update(to_json(row, bytes_mode="hex") + b"\n")
            rows += len(page)
            on_rows(len(page))
    return Digest(rows, sha256.hexdigest())


def end(connection: Connection) -> None:
    """Forget the progress, in the transaction that ends the copy."""
    _PROGRESS.drop(connection)


def is_unfinished(connection: Connection) -> bool:
    """Tell whether a database is a copy that was not finished: no service may run on it."""
    return inspect(connection).has_table(_PROGRESS.name)


def _names(tables: Sequence[Table]) -> set[str]:
    return {table.name for table in tables}


@contextmanager
def _rows(connection: Connection, table: Table, *, after: list[Any] | None = None) -> Iterator[Iterator[Row]]:
    """Give the rows behind the key ``after``, in the order of the key, without holding more than a few of them."""
    statement = _ordered(connection, table, after)
    with connection.execute(statement, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        yield (tuple(map(_plain, row)) for row in result)


def _ordered(connection: Connection, table: Table, after: list[Any] | None) -> Select[Any]:
    # By code points on both sides, whatever language the database sorts in; numbers go along the primary key.
    by_code = "C" if connection.dialect.name == "postgresql" else "BINARY"
    key: list[ColumnElement[Any]] = [
        column.collate(by_code) if isinstance(column.type, String) else column for column in table.primary_key.columns
    ]
    statement = select(table).order_by(*key)
    return statement if after is None else statement.where(tuple_(*key) > tuple_(*after))


def _plain(value: Any) -> Any:  # noqa: ANN401 - a column's value
    """Return a value as every database takes it: PostgreSQL has no U+0000, which SQLite keeps in an error's text."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _pages(rows: Iterator[Row]) -> Iterator[list[Row]]:
    page: list[Row] = []
    size_bytes = 0
    for row in rows:
        page.append(row)
        size_bytes += _size(row)
        if len(page) >= PAGE_ROWS or size_bytes >= PAGE_BYTES:
            yield page
            page, size_bytes = [], 0
    if page:
        yield page


def _size(row: Row) -> int:
    return sum(len(value) for value in row if isinstance(value, str | bytes))
