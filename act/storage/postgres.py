"""All that is PostgreSQL's own in the ledger. What is particular about it, and what is done: `hmskit.postgres`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import URL, Connection, Engine, select
from sqlalchemy.exc import DBAPIError

from act.storage.tables import LOCK_ID, append_lock
from hmskit import postgres
from hmskit.errors import CannotOpenError
from hmskit.prepared import Prepared

READERS = 8
"""Connections that read, in each process; as many threads use them."""

WRITER = "act writer"
"""What the server calls the sessions that append."""

_LOCK = Prepared(select(append_lock.c.id).where(append_lock.c.id == LOCK_ID).with_for_update(), [])


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """An open ledger that any number of processes share: in each, one connection that writes and some that read."""

    name: str
    writer: Engine
    reader: Engine
    warning: str | None = None
    readers: int = READERS

    def lock_appends(self, tx: Connection) -> None:
        """Wait until no other process appends, and keep it so until ``tx`` ends.

        The index of an event is the number of those before it. So the next one is known only once the last append is
        committed, and must be looked up by a statement after this one: at READ COMMITTED, each sees what was
        committed before it began. A locked row, and no advisory lock: PostgreSQL's distributed relatives have it too.

        Raises:
            CannotOpenError: the row is gone. There is nothing to lock, and no lock must not pass for one.
        """
        if not _LOCK.rows(tx):
            raise CannotOpenError("the table append_lock is empty: INSERT INTO append_lock (id) VALUES (1)")

    def end_stuck(self, tx: Connection) -> int:
        """End sessions of frozen processes, which would keep the append's lock; return how many."""
        return postgres.end_stuck_sessions(tx, applications=[WRITER])

    def lost(self) -> str | None:
        """Return None: a server that is gone answers no statement, so nothing can be written past it."""
        return None

    def why_unavailable(self, error: Exception) -> str | None:
        """Return why the database cannot take it now, in words; None where the statement itself is at fault."""
        if isinstance(error, CannotOpenError):
            return str(error)
        return postgres.why_unavailable(error) if isinstance(error, DBAPIError) else None

    def close(self) -> None:
        """Close the connections."""
        self.reader.dispose()
        self.writer.dispose()


def open_database(url: URL) -> PostgresDatabase:
    """Open the ledger's database; it must exist.

    Raises:
        CannotOpenError: it cannot be used; the message says why and what to do.
    """
    url = url.set(drivername="postgresql+psycopg")
    name = postgres.shown(url)
    writer = postgres.engine_of(url, connections=1, application=WRITER, writes=True)
    try:
        with writer.connect() as connection:
            postgres.check_version(connection)
    except DBAPIError as error:
        writer.dispose()
        raise CannotOpenError(f"cannot open {name}: {' '.join(str(error.orig).split())}") from None
    except CannotOpenError:
        writer.dispose()
        raise
    reader = postgres.engine_of(url, connections=READERS, application="act reader", writes=False)
    return PostgresDatabase(name, writer, reader)
