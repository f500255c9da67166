"""Open OMS's database: connections that write, some that read, and the schema they expect."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from hmskit import migrate
from hmskit.database import CannotOpenError, may_run_again, why_unavailable
from hmskit.kept_connections import KeptConnections
from oms.domain.errors import UnavailableError
from oms.storage.database import Database
from oms.storage.plan_cache import PlanCache
from oms.storage.set_aside import SetAside
from oms.storage.sqlite import open_file
from oms.storage.tables import SCHEMA_REVISION
from oms.storage.transaction import Transaction

MIGRATIONS = Path(__file__).parent / "migrations"
DEFAULT_WRITERS = 1
COUNT_SHARDS = 64
"""How many rows the counts of a lane are spread over at most."""


class RunAgainError(UnavailableError):
    """Another transaction was in the way, or the connection broke before the commit: nothing was changed."""


class Store:
    """An open database. ``close`` gives it back.

    Attributes:
        plans: the compiled plans.
        set_aside: what this tower could not handle when it was due.
        writers: how many connections may write at once, each in a thread of its own.
        is_shared: other processes may use the database, too.
        warning: what an operator should know of this database's engine; None where all is well.
    """

    def __init__(self, database: Database) -> None:
        self.url = database.url
        self.name = database.name
        self.writers = database.writers
        self.dialect = database.dialect
        self.is_shared = database.dialect.is_shared
        self.warning = database.warning
        self.plans = PlanCache()
        self.set_aside = SetAside()
        self._database = database
        self._kept = KeptConnections(database.writer)
        self._must_scrub = False
        # Where many write at once, each adds to rows of its own; that two share one costs them a wait, no more.
        self._first_shard = secrets.randbelow(COUNT_SHARDS) if self.is_shared else 0

    @contextmanager
    def connect_writer(self) -> Iterator[Connection]:
        """Give a connection that writes; there are `writers` of them, and each is one thread's."""
        try:
            with self._kept.one() as connection:
                yield connection
        except (PoolTimeoutError, DBAPIError) as error:
            raise _translated(error) from error

    @contextmanager
    def begin(self, connection: Connection, *, now_ms: int | None = None, writer: int = 0) -> Iterator[Transaction]:
        """Open a transaction on a writing connection; flush and commit it at the end of the block.

        When the block returns, everything in it is on disk; when it raises, nothing is, but for a connection that
        breaks while its COMMIT is on the way: then nobody knows.

        Args:
            connection: from `connect_writer`.
            now_ms: the transaction's time; None: by the clock that all who use the database share.
            writer: which of the `writers` this is.

        Raises:
            RunAgainError: nothing was changed, and the same may succeed at once.
            UnavailableError: the database cannot take it now.
        """
        self._check_lost()
        is_committing = False
        try:
            with connection.begin():
                tx = Transaction(
                    connection=connection,
                    dialect=self.dialect,
                    plans=self.plans,
                    set_aside=self.set_aside,
                    now_ms=self.dialect.now_ms(connection) if now_ms is None else now_ms,
                    random_bytes=os.urandom,
                    random_unit=random.random,
                    shard=(self._first_shard + writer) % COUNT_SHARDS,
                )
                yield tx
                tx.flush()
                is_committing = True
            # A reader may be in the way: then the next commit tries again, and there is one at least every minute.
            self._must_scrub = self._must_scrub or tx.has_erased
            if self._must_scrub:
                self._must_scrub = not self._database.scrub(connection)
        except BaseException as error:
            # Also where the COMMIT failed: SQLAlchemy sends no ROLLBACK after that.
            with suppress(Exception):
                connection.connection.rollback()
            if not isinstance(error, DBAPIError):
                raise
            if not is_committing and may_run_again(error):
                reason = why_unavailable(error) or "another transaction took the same key"
                raise RunAgainError(f"The database cannot take it now: {reason}.") from error
            raise _translated(error) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one moment of the database and can only read.

        Raises:
            UnavailableError: the database cannot answer now.
        """
        self._check_lost()
        with self.translated(), self._database.reader.begin() as connection:
            yield connection

    def _check_lost(self) -> None:
        lost = self._database.lost()
        if lost is not None:
            raise UnavailableError(f"{lost[:1].upper()}{lost[1:]}.")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's passing errors into `UnavailableError`; those of a wrong statement stay as they are."""
        try:
            yield
        except (PoolTimeoutError, DBAPIError) as error:
            raise _translated(error) from error

    def is_ready(self) -> str | None:
        """Return None when the database answers and its schema is current, else what is wrong."""
        lost = self._database.lost()
        if lost is not None:
            return lost
        try:
            with self.reading() as connection:
                revision = migrate.schema_revision(connection)
        except UnavailableError as error:
            return error.detail
        if not migrate.works_with(revision, own=SCHEMA_REVISION):
            return f"the schema is at {revision}, this release needs {SCHEMA_REVISION}: run 'oms migrate'"
        return None

    def migrate(self) -> None:
        """Bring the schema up to date."""
        self._kept.give_back()
        with self.translated():
            migrate.upgrade(self._database.writer, MIGRATIONS)

    def close(self) -> None:
        """Close every connection and give the database back."""
        self._kept.close()
        self._database.close()


def _translated(error: PoolTimeoutError | DBAPIError) -> Exception:
    """Return `UnavailableError` for what passes by itself, and ``error`` itself where a statement is wrong."""
    if isinstance(error, PoolTimeoutError):
        return UnavailableError("Too many reads at once; try again.")
    reason = why_unavailable(error)
    return error if reason is None else UnavailableError(f"The database cannot take it now: {reason}.")


def open_store(database_url: str, *, may_migrate: bool = True, writers: int = DEFAULT_WRITERS) -> Store:
    """Open the database, and bring its schema up to date first where that is allowed.

    Args:
        database_url: ``sqlite:///...`` or ``postgresql+psycopg://...``.
        may_migrate: False: an older schema is refused.
        writers: how many connections may write at once; a SQLite file has one.

    Raises:
        CannotOpenError: it cannot be used; the message says what to do.
    """
    store = Store(_open_database(database_url, writers=writers))
    try:
        with store.connect_writer() as connection:
            revision = migrate.schema_revision(connection)
        if not migrate.works_with(revision, own=SCHEMA_REVISION):
            _bring_up_to_date(store, revision, may_migrate=may_migrate)
    except UnavailableError as error:
        store.close()
        raise CannotOpenError(error.detail) from error
    except BaseException:
        store.close()
        raise
    return store


def _open_database(database_url: str, *, writers: int) -> Database:
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise CannotOpenError("the database URL cannot be read: write it like sqlite:///oms.db") from None
    match url.drivername:
        case "sqlite" | "sqlite+pysqlite":
            return open_file(url)
        case "postgresql" | "postgresql+psycopg":
            from oms.storage.postgres import open_server  # noqa: PLC0415 - its driver is an extra

            return open_server(url, writers=writers)
        case other:
            raise CannotOpenError(
                f"{other!r} is not supported; use a URL like sqlite:///oms.db or "
                "postgresql+psycopg://user:password@host/oms"
            )


def _bring_up_to_date(store: Store, revision: str | None, *, may_migrate: bool) -> None:
    known = {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*.py")}
    if revision is not None and revision not in known:
        raise CannotOpenError(
            f"the schema of {store.name} is at {revision}, newer than this release knows: install the "
            "release that wrote it, or restore a back-up from before"
        )
    if not may_migrate:
        raise CannotOpenError(
            f"the schema of {store.name} is at {revision}, this release needs {SCHEMA_REVISION}: "
            "run 'oms migrate', or allow it on start with OMS_MIGRATE=1"
        )
    store.migrate()
