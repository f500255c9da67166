"""Lets SQLAlchemy's SQLite dialect connect through apsw, and so through a VFS of a test's.

Python's ``sqlite3`` takes no VFS that is written in Python. What the product asks of that module's connections and
cursors is little, and here it is over apsw's; what fails is raised as ``sqlite3`` would raise it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import apsw
from sqlalchemy import Engine, event

from tests.faults.disk import PowerCutError

Row = tuple[Any, ...]


class Cursor:
    """A cursor; rows are read as soon as a statement is run."""

    arraysize = 1
    lastrowid = None

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._cursor.exec_trace = self._note_columns
        self._rows: Iterator[Row] = iter(())
        self.description: tuple[Any, ...] | None = None
        self.rowcount = -1

    def _note_columns(self, cursor: apsw.Cursor, _sql: str, _values: Any) -> bool:
        self.description = tuple((column[0], *(None,) * 6) for column in cursor.get_description()) or None
        return True

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        with _translated():
            self._rows = iter(self._cursor.execute(sql, tuple(values)).fetchall())
        self.rowcount = self._connection.changes()
        return self

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> Cursor:
        count = 0
        for row in rows:
            self.execute(sql, row)
            count += self.rowcount
        self.rowcount = count
        return self

    def fetchone(self) -> Row | None:
        return next(self._rows, None)

    def fetchmany(self, size: int = arraysize) -> list[Row]:
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[Row]:
        return list(self._rows)

    def close(self) -> None:
        self._rows = iter(())
        self._cursor.close(force=True)


class Connection:
    """A connection without transactions of its own accord, as the product sets it."""

    isolation_level: str | None = None

    def __init__(self, path: str, vfs: str) -> None:
        self._connection = apsw.Connection(path, vfs=vfs)

    def cursor(self) -> Cursor:
        return Cursor(self._connection)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        return self.cursor().execute(sql, values)

    def create_function(self, name: str, arity: int, function: Callable[..., Any], *, deterministic: bool) -> None:
        self._connection.create_scalar_function(name, function, arity, deterministic=deterministic)

    def commit(self) -> None:
        self._end("COMMIT")

    def rollback(self) -> None:
        self._end("ROLLBACK")

    def _end(self, statement: str) -> None:
        if self._connection.in_transaction:
            self.execute(statement)

    def close(self) -> None:
        with suppress(PowerCutError):  # closing checkpoints, which nobody can do without power
            self._connection.close(force=True)


@contextmanager
def _translated() -> Generator[None]:
    """Raise what ``sqlite3`` would raise.

    Raises:
        sqlite3.OperationalError: with SQLite's code.
    """
    try:
        yield
    except apsw.Error as error:
        raised = sqlite3.OperationalError(str(error))
        raised.sqlite_errorcode = error.extendedresult  # type: ignore[attr-defined]  # missing in apsw's stubs
        raise raised from error


@contextmanager
def connecting_through(vfs: str) -> Generator[None]:
    """Let every engine of SQLAlchemy's SQLite dialect connect through the VFS, until the end of the block.

    The one thing that differs from a connection of the product's own: such a VFS has no shared memory, so the WAL's
    index is the connection's own (``locking_mode=EXCLUSIVE``). It was never on disk: a cut loses it either way.
    """

    def connect(_dialect: Any, _record: Any, arguments: list[Any], _options: dict[str, Any]) -> Connection:
        connection = Connection(arguments[0], vfs)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        return connection

    event.listen(Engine, "do_connect", connect)
    try:
        yield
    finally:
        event.remove(Engine, "do_connect", connect)
