"""Fresh PostgreSQL databases for tests, at some milliseconds each.

``CREATE DATABASE`` and ``DROP DATABASE`` cost more than most tests. So a database that is given back is emptied and
given out again, unless its schema was changed: then it is dropped, and a copy of a template takes its place.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from tests.database import Database, Schema, connect, end_sessions, migrate
from tests.postgres_server import Server

PREFIX = "hms_test_"
"""Others may use the server, too: names are ``hms_test_<seconds since the epoch>_<process>_<number>``."""
STALE_SEC = 24 * 3600
"""After so long a database is what a killed run left behind, and the next run drops it."""
GROWTH_BYTES = 32_000_000
"""A database that grew by so much is not emptied: what was deleted would make the next tests slow."""


class PostgresDatabases:
    """Databases on a server. `close` drops all that were made here."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.run = f"{PREFIX}{time.time():.0f}_{os.getpid()}{secrets.token_hex(2)}"
        self._numbers = count(1)
        self._admin = connect(server.url)
        self._templates: dict[Schema, Template] = {}
        self._free: dict[Schema, list[str]] = defaultdict(list)
        self._made: list[str] = []
        self.drop_stale(now=time.time())

    @contextmanager
    def lend(self, migrated_by: Schema | None = None) -> Iterator[Database]:
        """Give a fresh database; at the end of the block the connections to it that were left open are ended."""
        if migrated_by is None:
            name = self._create("template0")
        else:
            template = self._template(migrated_by)
            name = self._free[migrated_by].pop() if self._free[migrated_by] else self._create(template.name)
        database = Database("postgres", self._url(name), self._url(self._server.url.database or ""))
        try:
            yield database
        finally:
            if migrated_by is not None and self._is_emptied(database, template):
                self._free[migrated_by].append(name)
            else:
                self._drop(name)

    def close(self) -> None:
        """Drop every database that was made here, and give the server back."""
        for name in list(self._made):
            self._drop(name)
        self._admin.close()
        self._server.close()

    def drop_stale(self, *, now: float) -> None:
        """Drop what runs left behind that were killed.

        Args:
            now: in seconds since the epoch.
        """
        names = self._admin.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
        for (name,) in names.fetchall():
            made_at = name.removeprefix(PREFIX).partition("_")[0]
            if made_at.isdecimal() and int(made_at) < now - STALE_SEC:
                self._drop(name)

    def _template(self, schema: Schema) -> Template:
        if schema not in self._templates:
            name = self._create("template0")
            migrate(self._url(name), schema)
            with connect(self._server.url.set(database=name)) as session:
                self._templates[schema] = Template(name, session)
        return self._templates[schema]

    def _url(self, name: str) -> str:
        return self._server.url.set(database=name).render_as_string(hide_password=False)

    def _create(self, template: str) -> str:
        name = f"{self.run}_{next(self._numbers)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'")
        self._admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        self._made.append(name)
        return name

    def _drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        if name in self._made:
            self._made.remove(name)

    def _is_emptied(self, database: Database, template: Template) -> bool:
        """Make the database what its template is; return False where that cannot be done."""
        try:
            # What a test left open would write into the next one's database, or hold its locks.
            end_sessions(self._admin, database.name)
            with connect(make_url(database.url)) as session:
                return template.empty(session)
        except psycopg.Error:  # the test ruined it in a way that nobody foresaw
            return False


OWN_ROWS = "hms_test_rows"
"""The schema in which a template keeps a copy of the rows that the migrations make."""
_HERE = "relnamespace = 'public'::regnamespace"
_TABLES = f"SELECT relname FROM pg_class WHERE {_HERE} AND relkind = 'r' ORDER BY relname"
_SEQUENCES = "SELECT sequencename, start_value FROM pg_sequences WHERE schemaname = 'public'"
_TRIGGERS = f"""
    SELECT relname, tgname, tgenabled FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE {_HERE} AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY relname, tgname
"""
_FIRES = {"O": "ENABLE TRIGGER", "A": "ENABLE ALWAYS TRIGGER", "R": "ENABLE REPLICA TRIGGER"}
_DEFINITIONS = f"""
    SELECT md5(string_agg(definition, E'\\n' ORDER BY definition)) FROM (
        SELECT concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
            pg_get_expr(adbin, adrelid)) AS definition
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE {_HERE} AND attnum > 0
        UNION ALL
        SELECT concat_ws(' ', relname, relkind, relpersistence, reloptions, indisvalid, pg_get_indexdef(pg_class.oid))
        FROM pg_class LEFT JOIN pg_index ON indexrelid = pg_class.oid WHERE {_HERE}
        UNION ALL
        SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL
        SELECT concat_ws(' ', tgenabled, pg_get_triggerdef(pg_trigger.oid))
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE {_HERE}
        UNION ALL
        SELECT concat_ws(' ', oid::regprocedure, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT concat_ws(' ', 'schema', nspname) FROM pg_namespace WHERE NOT starts_with(nspname, 'pg_')
        UNION ALL
        SELECT concat_ws(' ', 'setting', setconfig)
        FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = current_database()
    ) AS definitions
"""
"""A digest of all that a test may change in a database but its rows."""


class Template:
    """A database with a service's schema, to be copied, and how to make a copy again what it was.

    Attributes:
        name: of the database.
    """

    def __init__(self, name: str, session: psycopg.Connection[Any]) -> None:
        self.name = name
        self._empty = _keep_rows(session)
        self._definitions, self._size = _state(session)

    def empty(self, session: psycopg.Connection[Any]) -> bool:
        """Put a copy's rows back to what the migrations made; return False where more than its rows was changed."""
        definitions, size = _state(session)
        if definitions != self._definitions or size > self._size + GROWTH_BYTES:
            return False
        with session.transaction():
            session.execute(self._empty)
        return True


def _state(session: psycopg.Connection[Any]) -> tuple[str, int]:
    """Return a digest of the definitions, and the size in bytes."""
    row = session.execute(f"SELECT ({_DEFINITIONS}), pg_database_size(current_database())".encode()).fetchone()
    assert row is not None
    return row[0], row[1]


def _keep_rows(session: psycopg.Connection[Any]) -> sql.Composed:
    """Copy the rows that are there now, and return the statements that put a copy of the database back to them."""
    session.execute(f"CREATE SCHEMA {OWN_ROWS}".encode())
    steps: list[sql.Composable] = []
    triggers = session.execute(_TRIGGERS.encode()).fetchall()
    for (table,) in session.execute(_TABLES.encode()).fetchall():
        names = {"table": sql.Identifier("public", table), "rows": sql.Identifier(OWN_ROWS, table)}
        fires = [(name, _FIRES[how]) for of, name, how in triggers if of == table]
        if fires:
            steps.append(sql.SQL("ALTER TABLE {table} DISABLE TRIGGER USER").format(**names))
        steps.append(sql.SQL("DELETE FROM {table}").format(**names))
        session.execute(sql.SQL("CREATE TABLE {rows} AS TABLE {table}").format(**names))
        if session.execute(sql.SQL("SELECT 1 FROM {rows} LIMIT 1").format(**names)).fetchone():
            steps.append(sql.SQL("INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE {rows}").format(**names))
        steps += [
            sql.SQL("ALTER TABLE {table} {how} {name}").format(**names, how=sql.SQL(how), name=sql.Identifier(name))
            for name, how in fires
        ]
    for name, start in session.execute(_SEQUENCES).fetchall():
        sequence = sql.Literal(f'public."{name}"')
        steps.append(sql.SQL("SELECT setval({}, {}, false)").format(sequence, sql.Literal(start)))
    return sql.SQL("; ").join(steps)
