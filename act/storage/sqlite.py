"""All that is SQLite's own in the ledger. Its limits and how they are met: `hmskit.sqlite`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from hmskit.database import CannotOpenError
from hmskit.sqlite import (
    FileGuard,
    check_version,
    database_path,
    reader_engine,
    why_unavailable,
    writer_engine,
)

READERS = 4
"""Connections that read; as many threads use them."""


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """An open ledger file: one connection that writes, some that read, and the lock that keeps others out."""

    name: str
    writer: Engine
    reader: Engine
    guard: FileGuard
    warning: str | None
    readers: int = READERS

    def lock_appends(self, tx: Connection) -> None:
        """Do nothing: the transaction has begun with the file's write lock, and no other process has the file."""

    def end_stuck(self, _tx: Connection) -> int:
        """Return 0: the file is this process's alone."""
        return 0

    def lost(self) -> str | None:
        """Return why nothing written now would be kept; None while the file is the one that was opened."""
        if self.guard.is_gone():
            return "the database file was deleted or replaced while it was open: restart the service"
        return None

    def why_unavailable(self, error: Exception) -> str | None:
        """Return why the database cannot take it now, in words; None where the statement itself is at fault."""
        if isinstance(error, CannotOpenError):
            return str(error)
        return why_unavailable(error) if isinstance(error, DBAPIError) else None

    def close(self) -> None:
        """Close the connections, the writing one last: it checkpoints; then give the lock back."""
        self.reader.dispose()
        self.writer.dispose()
        self.guard.close()


def open_file(url: URL) -> SqliteFile:
    """Open the ledger file, or make an empty one.

    Raises:
        CannotOpenError: it cannot be used; the message says why and what to do.
    """
    if url.query:
        raise CannotOpenError("a SQLite URL takes no parameters: name only the file, such as sqlite:///act.db")
    warning = check_version()
    path = database_path(url)
    guard = FileGuard(path)
    writer = writer_engine(url)
    try:
        writer.connect().close()
        guard.opened()
    except BaseException as error:
        writer.dispose()
        guard.close()
        if isinstance(error, DBAPIError):
            raise CannotOpenError(f"cannot open {path}: {error.orig}") from None
        raise
    return SqliteFile(str(url.database), writer, reader_engine(url, connections=READERS), guard, warning)
