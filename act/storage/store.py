"""Open the ledger's database, whichever it is, at the schema that this code needs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Connection, Engine, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from act.storage import postgres, sqlite
from act.storage.tables import SCHEMA_REVISION
from hmskit.database import CannotOpenError
from hmskit.migrate import schema_revision, upgrade, works_with

EXAMPLES = "sqlite:///act.db or postgresql+psycopg://user:password@host/act"
MIGRATIONS = Path(__file__).with_name("migrations")


class Store(Protocol):
    """An open database. One connection writes; the others can only read, each transaction one moment of it."""

    @property
    def name(self) -> str:
        """What to call it in a message; without a password."""

    @property
    def writer(self) -> Engine:
        """The engine of the writing thread."""

    @property
    def reader(self) -> Engine:
        """The engine of the readers."""

    @property
    def readers(self) -> int:
        """How many threads may read at once: one connection each."""

    @property
    def warning(self) -> str | None:
        """What its operator should know about it."""

    def lock_appends(self, tx: Connection) -> None:
        """Wait until nobody else appends, and keep it so until ``tx``, a writer's, ends. Its first statement."""

    def end_stuck(self, tx: Connection) -> int:
        """End what processes that stand still hold open; return how many sessions there were. Called now and then."""

    def lost(self) -> str | None:
        """Return why nothing written now would be kept; None while all is well. Cheap enough for every commit."""

    def why_unavailable(self, error: Exception) -> str | None:
        """Return why the database cannot take it now, in words; None where the statement itself is at fault."""

    def close(self) -> None:
        """Close it."""


def open_store(database_url: str, *, migrate: bool) -> Store:
    """Open the database and check its schema.

    Args:
        database_url: ``sqlite:///act.db``, or ``postgresql+psycopg://user:password@host/act``.
        migrate: bring an older schema up to date; otherwise it is refused.

    Raises:
        CannotOpenError: it cannot be used; the message says why and what to do.
    """
    store = _open(_read(database_url))
    try:
        _check_schema(store, migrate=migrate)
    except DBAPIError as error:
        store.close()
        why = store.why_unavailable(error) or error.orig
        raise CannotOpenError(f"the schema of {store.name} cannot be read or brought up to date: {why}") from error
    except BaseException:
        store.close()
        raise
    return store


def _read(database_url: str) -> URL:
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):  # the latter from a port that is no number: maybe a piece of the password
        raise CannotOpenError(f"the database URL cannot be read: write it like {EXAMPLES}") from None
    if "@" in (url.host or ""):
        raise CannotOpenError("the database URL has two @: in a password, write @ as %40")
    return url


def _open(url: URL) -> Store:
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return sqlite.open_file(url)
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return postgres.open_database(url)
    raise CannotOpenError(f"{url.drivername} is not supported: write the database URL like {EXAMPLES}")


def _check_schema(store: Store, *, migrate: bool) -> None:
    with store.writer.connect() as connection:
        revision = schema_revision(connection)
        if works_with(revision, own=SCHEMA_REVISION):
            return
        if revision is None and inspect(connection).get_table_names():
            # Another process may have made them in between; then their revision is there with them.
            revision = schema_revision(connection)
            is_strange = revision is None
        else:
            is_strange = False
    if is_strange:
        raise CannotOpenError("the database holds another program's tables: name another one for the ledger")
    if revision is not None and revision not in known_revisions():
        raise CannotOpenError(
            f"the database's schema is at {revision}, which this version does not know ({SCHEMA_REVISION} is its own): "
            "run the newer release that wrote it, or name another database"
        )
    if not migrate:
        raise CannotOpenError(
            f"the database's schema is at {revision or 'nothing yet'}, and {SCHEMA_REVISION} is needed: "
            "run `act migrate`, or let the start do it (ACT_MIGRATE=1)"
        )
    upgrade(store.writer, MIGRATIONS)


def known_revisions() -> set[str]:
    """Return every revision that this code can bring up to date."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - a start that finds the schema current goes without

    return {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
