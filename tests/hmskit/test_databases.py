"""The tests' own databases: fresh, apart from each other, and gone afterwards."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.database import Database, Schema, connect
from tests.databases import NewDatabase, postgres_only
from tests.postgres_databases import GROWTH_BYTES, PREFIX, STALE_SEC, PostgresDatabases
from tests.postgres_server import Server, start_server


def test_fresh_databases_are_apart(new_database: NewDatabase) -> None:
    one, other = new_database("oms"), new_database("oms")
    one.rows("UPDATE sequences SET value = 7")
    assert one.rows("SELECT DISTINCT value FROM sequences") == [(7,)]
    assert other.rows("SELECT DISTINCT value FROM sequences") == [(0,)]
    assert other.count("sequences") == 2


def test_an_empty_database_has_no_table(database: Database) -> None:
    catalog = {"sqlite": "sqlite_master", "postgres": "pg_tables WHERE schemaname = 'public'"}[database.kind]
    assert database.rows(f"SELECT 1 FROM {catalog}") == []


OMS_EVENT = "INSERT INTO outbox (stream, seq, body, created_at, delivered) VALUES ('JOB-1', 1, '', 0, false)"
ACT_EVENT = """
    INSERT INTO events
        (idx, stream, seq, event_id, entity, status, ts_ms, received_us, detail, leaf_hash, entry)
    VALUES (0, 'JOB-1', 1, 'JOB-1.1', 'job', 'queued', 0, 0, '{}', decode(repeat('00', 32), 'hex'), '')
"""


KEPT_FOR_EVER = {"events", "tiles", "checkpoints", "forks"}
"""ACT's database refuses to remove their rows."""


@pytest.mark.parametrize(("schema", "write"), [("oms", OMS_EVENT), ("act", ACT_EVENT)])
def test_the_next_one_is_as_new(postgres_databases: PostgresDatabases, schema: Schema, write: str) -> None:
    """Rows and numbers are what the migrations made, also where triggers forbid it; the database itself is the same."""
    with postgres_databases.lend(schema) as database:
        first, kept = database.name, contents(database)
        assert sum(len(rows) for rows in kept.values()) > 0, "the migrations make rows, too"
        for table in kept:
            if table not in KEPT_FOR_EVER:
                database.rows(f"DELETE FROM {table}")
        database.rows(write)
        assert contents(database) != kept
    with postgres_databases.lend(schema) as database:
        assert database.name == first
        assert contents(database) == kept
        database.rows(write)
        if schema == "oms":
            assert database.rows("SELECT id FROM outbox") == [(1,)]


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    tables = database.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name: sorted(database.rows(f"SELECT * FROM {name}"), key=repr) for (name,) in tables}


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE jobs ADD COLUMN more text",
        "ALTER TABLE jobs ALTER COLUMN plan TYPE text",
        "DROP INDEX ix_jobs_plan",
        "CREATE TABLE more ()",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA more",
        "ALTER TABLE jobs ADD CHECK (seq < 9)",
        "DROP SCHEMA public CASCADE",
    ],
)
def test_a_changed_schema_is_not_given_out_again(postgres_databases: PostgresDatabases, change: str) -> None:
    with postgres_databases.lend("oms") as database:
        changed = database.name
        database.rows(change)
    with postgres_databases.lend("oms") as database:
        assert database.name != changed
        assert database.count("jobs") == 0


def test_a_trigger_that_was_taken_off_is_on_again(postgres_databases: PostgresDatabases) -> None:
    with postgres_databases.lend("act") as database:
        for (name,) in database.rows("SELECT tgname FROM pg_trigger WHERE tgrelid = 'events'::regclass"):
            database.rows(f"DROP TRIGGER {name} ON events")
    with postgres_databases.lend("act") as database, pytest.raises(psycopg.DatabaseError, match="append"):
        database.rows("UPDATE events SET seq = 1")


def test_a_large_one_is_not_given_out_again(postgres_databases: PostgresDatabases) -> None:
    with postgres_databases.lend("oms") as database:
        large = database.name
        database.rows(f"INSERT INTO sequences SELECT n::text, n FROM generate_series(1, {GROWTH_BYTES // 50}) AS n")
    with postgres_databases.lend("oms") as database:
        assert database.name != large


def test_sessions_left_open_are_ended(postgres_databases: PostgresDatabases) -> None:
    """Else a test's thread that goes on would write into the next test's database."""
    with postgres_databases.lend("oms") as database:
        first = database.name
        left = connect(make_url(database.url))
        left.autocommit = False
        left.execute("LOCK TABLE jobs")
    with postgres_databases.lend("oms") as database:
        assert database.name == first
        assert database.count("jobs") == 0
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")
    left.close()


@postgres_only
def test_nothing_is_left(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run drops what it made, and of other runs what is older than a day."""
    url = make_url(database.url).set(database="postgres")
    now = time.time()
    stale, younger = (f"{PREFIX}{now - STALE_SEC + more:.0f}_0_0" for more in (-60, 60))
    with connect(url) as session:
        try:
            for name in (stale, younger):
                session.execute(f"CREATE DATABASE {name}".encode())
            databases = PostgresDatabases(Server(url))
            with databases.lend("oms"), databases.lend():
                assert len(of_run(session, databases)) == 3
            databases.close()
            assert of_run(session, databases) == []
            names = {name for (name,) in session.execute("SELECT datname FROM pg_database").fetchall()}
            assert younger in names
            assert stale not in names
        finally:
            for name in (stale, younger):
                session.execute(f"DROP DATABASE IF EXISTS {name}".encode())


def of_run(session: psycopg.Connection[tuple[str]], databases: PostgresDatabases) -> list[str]:
    names = session.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [databases.run])
    return [name for (name,) in names.fetchall()]


def test_the_wheels_server() -> None:
    """It starts without a server of this machine, takes databases, and is gone with its data at the end."""
    folder = Path(tempfile.gettempdir()) / f"hms-test-postgres-{os.getpid()}"  # a long path has no room for its socket
    server = start_server(folder)
    assert start_server(folder).url == server.url
    databases = PostgresDatabases(server)
    with databases.lend() as database:
        database.rows("CREATE TABLE more (n int)")
        assert database.count("more") == 0
        assert database.rows("SHOW fsync") == [("off",)]
    databases.close()
    assert not folder.exists()
    with pytest.raises(psycopg.OperationalError):
        connect(server.url)


def test_a_database_that_is_away_is_refused_and_comes_back_with_its_rows(new_database: NewDatabase) -> None:
    database = new_database("oms")
    database.rows("UPDATE sequences SET value = 7")
    with database.away(), pytest.raises((psycopg.OperationalError, sqlite3.OperationalError)):
        database.rows("SELECT * FROM sequences")
    assert database.rows("SELECT DISTINCT value FROM sequences") == [(7,)]
