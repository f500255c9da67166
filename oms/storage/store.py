"""Open OMS's database: one connection that writes, some that read, and the schema they expect."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from hmskit import migrate, sqlite
from hmskit.database import CannotOpenError
from oms.domain.errors import UnavailableError
from oms.storage.plan_cache import PlanCache
from oms.storage.sqlite import SQLITE
from oms.storage.tables import SCHEMA_REVISION
from oms.storage.transaction import Dialect, Transaction

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    """An open database. ``close`` gives its file back.

    Attributes:
        plans: the compiled plans.
        warning: what an operator should know of this database's engine; None where all is well.
    """

    def __init__(self, url: URL, writer: Engine, reader: Engine, guard: sqlite.FileGuard, dialect: Dialect) -> None:
        self.url = url
        self.warning: str | None = None
        self.plans = PlanCache()
        self._writer = writer
        self._reader = reader
        self._guard = guard
        self._dialect = dialect

    @contextmanager
    def connect_writer(self) -> Iterator[Connection]:
        """Give the writing connection; there is one, and one thread may use it."""
        with self._writer.connect() as connection:
            yield connection

    @contextmanager
    def begin(self, connection: Connection, *, now_ms: int) -> Iterator[Transaction]:
        """Open a transaction on the writing connection; flush and commit it at the end of the block.

        When the block returns, everything in it is on disk; when it raises, nothing is.

        Raises:
            UnavailableError: the database cannot take it now.
        """
        self._check_file()
        with self.translated(), _rolled_back(connection), connection.begin():
            tx = Transaction(
                connection=connection,
                dialect=self._dialect,
                plans=self.plans,
                now_ms=now_ms,
                random_bytes=os.urandom,
                random_unit=random.random,
            )
            yield tx
            tx.flush()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one moment of the database and can only read.

        Raises:
            UnavailableError: the database cannot answer now.
        """
        self._check_file()
        with self.translated(), self._reader.begin() as connection:
            yield connection

    def _check_file(self) -> None:
        if self._guard.is_gone():
            raise UnavailableError(
                f"The database file {self.url.database} is gone or was replaced while the service ran: "
                "put it back and restart the service."
            )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's passing errors into `UnavailableError`; those of a wrong statement stay as they are."""
        try:
            yield
        except PoolTimeoutError as error:
            raise UnavailableError("Too many reads at once; try again.") from error
        except DBAPIError as error:
            reason = sqlite.why_unavailable(error)
            if reason is None:
                raise
            raise UnavailableError(f"The database cannot take it now: {reason}. Nothing was changed.") from error

    def is_ready(self) -> str | None:
        """Return None when the database answers and its schema is current, else what is wrong."""
        if self._guard.is_gone():
            return "the database file is gone or was replaced"
        try:
            with self.reading() as connection:
                revision = migrate.schema_revision(connection)
        except UnavailableError as error:
            return error.detail
        if revision != SCHEMA_REVISION:
            return f"the schema is at {revision}, this release needs {SCHEMA_REVISION}: run 'oms migrate'"
        return None

    def close(self) -> None:
        """Close every connection and give the file back."""
        self._reader.dispose()
        self._writer.dispose()
        self._guard.close()


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """Leave no transaction open where one failed: SQLAlchemy sends no ROLLBACK after a COMMIT that failed."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            connection.connection.rollback()
        raise


def open_store(database_url: str, *, may_migrate: bool = True) -> Store:
    """Open the database, and bring its schema up to date first where that is allowed.

    Raises:
        CannotOpenError: it cannot be used; the message says what to do.
    """
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise CannotOpenError(f"{database_url!r} is no database URL; one reads sqlite:///oms.db") from None
    if url.get_backend_name() != "sqlite":
        raise CannotOpenError(f"{url.get_backend_name()!r} is not supported; use a URL like sqlite:///oms.db")
    path = sqlite.database_path(url)
    warning = sqlite.check_version()
    guard = sqlite.FileGuard(path)
    writer = sqlite.writer_engine(url)
    store = Store(url, writer, sqlite.reader_engine(url), guard, SQLITE)
    store.warning = warning
    try:
        with store.translated(), writer.connect() as connection:
            revision = migrate.schema_revision(connection)
        guard.opened()
        if revision != SCHEMA_REVISION:
            _bring_up_to_date(store, writer, revision, may_migrate=may_migrate)
    except UnavailableError as error:
        store.close()
        raise CannotOpenError(error.detail) from error
    except BaseException:
        store.close()
        raise
    return store


def _bring_up_to_date(store: Store, writer: Engine, revision: str | None, *, may_migrate: bool) -> None:
    known = {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*.py")}
    if revision is not None and revision not in known:
        raise CannotOpenError(
            f"the schema of {store.url.database} is at {revision}, newer than this release knows: install the "
            "release that wrote it, or restore a back-up from before"
        )
    if not may_migrate:
        raise CannotOpenError(
            f"the schema of {store.url.database} is at {revision}, this release needs {SCHEMA_REVISION}: "
            "run 'oms migrate', or allow it on start with OMS_MIGRATE=1"
        )
    with store.translated():
        migrate.upgrade(writer, MIGRATIONS)
