"""One database of a test, of either kind, and how it gets a service's schema."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

Kind = Literal["sqlite", "postgres"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgres")
Schema = Literal["oms", "act"]

CONNECT_TIMEOUT_SEC = 5
END_SEC = 10.0
_END = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def connect(url: URL) -> psycopg.Connection[Any]:
    """Return a plain connection to a PostgreSQL database, on which each statement is a transaction."""
    return psycopg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False),
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_SEC,
    )


@dataclass(frozen=True)
class Database:
    """A database of a test's own.

    Attributes:
        kind: ``sqlite`` or ``postgres``.
        url: as ``OMS_DATABASE_URL`` and ``ACT_DATABASE_URL`` take it.
        server_url: of another database on the same server; empty for a file.
    """

    kind: Kind
    url: str
    server_url: str = ""

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Run an SQL statement, beside whatever has the database open; return the rows it gives, if any."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.path)) as connection, connection:
                return connection.execute(statement).fetchall()
        with connect(make_url(self.url)) as session, session.cursor() as cursor:
            cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        ((rows,),) = self.rows(f'SELECT count(*) FROM "{table}"')
        return int(rows)

    @property
    def name(self) -> str:
        """The file, or the name on the server."""
        return str(make_url(self.url).database)

    @property
    def path(self) -> Path:
        """The file of an SQLite database."""
        assert self.kind == "sqlite"
        return Path(self.name)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let nobody reach the database until the end of the block: its file is elsewhere, its server refuses."""
        if self.kind == "sqlite":
            aside = self.path.with_name("aside.db")
            self.path.rename(aside)
            try:
                yield
            finally:
                aside.rename(self.path)
            return
        with connect(make_url(self.server_url)) as session:
            name = sql.Identifier(self.name)
            session.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            try:
                self.end_sessions()
                yield
            finally:
                session.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))

    def end_sessions(self) -> None:
        """End all connections to a PostgreSQL database, as an operator or a restart would."""
        with connect(make_url(self.server_url)) as session:
            end_sessions(session, self.name)


def end_sessions(session: psycopg.Connection[Any], name: str) -> None:
    """End all other connections to a database, over a session on its server."""
    ends = time.monotonic() + END_SEC
    while session.execute(_END, [name]).fetchall():
        assert time.monotonic() < ends, f"a session on {name} does not end"


def migrate(url: str, schema: Schema) -> None:
    """Bring a database to a service's newest schema, as the service does on start."""
    if schema == "oms":
        from oms.storage.store import open_store as open_oms

        open_oms(url).close()
    else:
        from act.storage.store import open_store as open_act

        open_act(url, migrate=True).close()
