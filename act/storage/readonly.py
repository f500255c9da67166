"""Open a ledger only to read it, beside a running ACT or without one: nothing is written, migrated or locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from act.storage.tables import SCHEMA_REVISION
from hmskit import postgres
from hmskit.database import CannotOpenError, why_unavailable
from hmskit.migrate import schema_revision, works_with


@contextmanager
def reading(database: str) -> Generator[Connection]:
    """Open a ledger; give a transaction that sees one moment of it.

    Args:
        database: a file, or a URL as ``ACT_DATABASE_URL`` has it.

    Raises:
        CannotOpenError: it cannot be read, or holds no ledger that this release knows.
    """
    engine = _engine(database)
    try:
        with engine.begin() as tx:
            revision = schema_revision(tx)
            if not works_with(revision, own=SCHEMA_REVISION):
                raise CannotOpenError(
                    f"{database} is no ledger of this release: its schema is at {revision or 'nothing'}, and "
                    f"{SCHEMA_REVISION} is needed. An older one: run `act migrate` on a copy"
                )
            yield tx
    except DBAPIError as error:
        why = why_unavailable(error)
        if why is None:
            raise
        raise CannotOpenError(f"{_shown(database)} cannot be read: {why}") from None
    finally:
        engine.dispose()


def _engine(database: str) -> Engine:
    if "://" not in database:
        return _sqlite(Path(database))
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise CannotOpenError("the database URL cannot be read: write @ in a password as %40") from None
    if url.drivername.startswith("sqlite"):
        return _sqlite(Path(url.database or ""))
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        url = url.set(drivername="postgresql+psycopg")
        return postgres.engine_of(url, connections=1, application="act verify", writes=False)
    raise CannotOpenError(f"{url.drivername} is not supported: name an SQLite file, or postgresql+psycopg://...")


def _sqlite(path: Path) -> Engine:
    if not path.is_file():
        raise CannotOpenError(f"there is no file {path}")
    name = f"file:{quote(str(path.absolute()))}?mode=ro"
    if not path.with_name(f"{path.name}-wal").exists() and not _is_readable(name):
        name += "&immutable=1"  # a copy on a medium that cannot be written to: nobody else can change it either
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(name, uri=True), poolclass=NullPool, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _is_readable(name: str) -> bool:
    connection = sqlite3.connect(name, uri=True)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:
        return True  # it is no database: who reads it says so
    finally:
        connection.close()
    return True


def _shown(database: str) -> str:
    return postgres.shown(make_url(database)) if "://" in database else database
