"""An open database, as the store works with it, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import URL, Connection, Engine, event

from hmskit.sqlite import FileGuard
from oms.storage.transaction import Dialect


@dataclass(frozen=True, slots=True)
class Database:
    """The engines of one database, and what differs by it.

    Attributes:
        url: where it is.
        name: what messages call it; without a password.
        writer: its connections write.
        reader: its connections can only read; each transaction sees one moment.
        writers: how many may write at once, a connection and a thread each.
        dialect: what differs by database.
        guard: holds a file's lock; None where there is no file.
        warning: what an operator should know of its engine; None where all is well.
        scrub: takes a writing connection after its commit and leaves no copy of replaced values in the database's
            files, as far as that is ours to do; False where somebody still reads one: try again later.
    """

    url: URL
    name: str
    writer: Engine
    reader: Engine
    writers: int
    dialect: Dialect
    guard: FileGuard | None = None
    warning: str | None = None
    scrub: Callable[[Connection], bool] = lambda _connection: True

    def lost(self) -> str | None:
        """Return why nothing written now would be kept; None while all is well. Cheap enough for every commit."""
        if self.guard is not None and self.guard.is_gone():
            return (
                f"the database file {self.url.database} is gone or was replaced while the service ran: "
                "put it back and restart the service"
            )
        return None

    def close(self) -> None:
        """Close every connection, the writing ones last, and give a file back."""
        for engine in (self.reader, self.writer):
            # The read of a request that was cancelled goes on in its thread, and gives its connection back only then.
            event.listen(engine.pool, "checkin", lambda _driver, record: record.invalidate())
            engine.dispose()
        if self.guard is not None:
            self.guard.close()
