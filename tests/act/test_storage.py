"""The database keeps what it was given, gives it back page by page, and refuses to change it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Select, create_engine, delete, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import TextClause

from act.domain.entry import Entry
from act.domain.filters import Filters
from act.domain.posted import read_posted
from act.ledger import append, start, stream, stream_latest
from act.storage import pages
from act.storage.entries import _EVENT_COLUMNS
from act.storage.store import MIGRATIONS, Store, open_store
from act.storage.tables import BLOCK_EVENTS, SCHEMA_REVISION, events, metadata
from act.writer import Appended
from hmskit.database import CannotOpenError
from hmskit.migrate import schema_revision
from tests.act.support import NOW_MS, array, batches, check_ledger, event, plain_job
from tests.database import Database, Kind
from tests.databases import NewDatabase, postgres_only, sqlite_only


def put(store: Store, raws: Iterable[bytes]) -> None:
    """Append the events, in batches."""
    for batch in batches(list(raws), 500):
        with store.writer.begin() as tx:
            (outcome,) = append(tx, [read_posted(array(batch))], now_us=NOW_MS * 1000)
        assert isinstance(outcome, Appended)


# --- the schema ---------------------------------------------------------------------------------------------------


def test_the_code_needs_the_newest_migration() -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_heads() == [SCHEMA_REVISION]


def test_an_event_fills_every_column() -> None:
    assert sorted(_EVENT_COLUMNS) == sorted(events.c.keys())


def test_migrations_and_tables_are_the_same(new_database: NewDatabase) -> None:
    """Also what SQLAlchemy does not compare: triggers, functions, checks, collations."""
    migrated, direct = new_database(), new_database()
    store = open_store(migrated.url, migrate=True)
    with store.reader.connect() as connection:
        assert schema_revision(connection) == SCHEMA_REVISION
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()
    engine = create_engine(direct.url)
    metadata.create_all(engine)
    engine.dispose()
    schema = definitions(migrated)
    assert schema == definitions(direct)
    assert any("append-only" in text for text in schema)


def definitions(database: Database) -> list[str]:
    """Return the definition of all that the database has, but for Alembic's own."""
    if database.kind == "sqlite":
        statement = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'"
    else:
        statement = """
            SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, collation_name)
            FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
            UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
            UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace AND conrelid <> coalesce(to_regclass('alembic_version'), 0)
            UNION ALL SELECT concat_ws(' ', tgenabled, pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT concat_ws(' ', proname, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        """
    return sorted(" ".join(text.split()) for (text,) in database.rows(statement))


def test_a_migration_may_run_again(blank_url: str) -> None:
    for _ in range(3):
        open_store(blank_url, migrate=True).close()


def test_without_migrating_an_empty_database_is_refused_with_what_to_do(blank_url: str) -> None:
    with pytest.raises(CannotOpenError, match="act migrate"):
        open_store(blank_url, migrate=False)
    open_store(blank_url, migrate=True).close()
    open_store(blank_url, migrate=False).close()


def test_a_schema_of_a_newer_release_is_refused_with_what_to_do(url: str) -> None:
    store = open_store(url, migrate=True)
    with store.writer.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = 'act_9999'"))
    store.close()
    for migrate in (True, False):
        with pytest.raises(CannotOpenError, match=r"act_9999.*newer release"):
            open_store(url, migrate=migrate)


def test_another_programs_database_is_refused(database: Database) -> None:
    database.rows("CREATE TABLE customers (name TEXT)")
    with pytest.raises(CannotOpenError, match="another program"):
        open_store(database.url, migrate=True)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite:///no/such/folder/act.db", "does not exist"),
        ("sqlite:///act.db?mode=ro", "no parameters"),
        ("mysql://u:secret@h/d", "not supported"),
        ("postgresql+asyncpg://u:secret@h/d", "not supported"),
        ("postgresql://u:secret@127.0.0.1:1/d", r"cannot open postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/d"),
        ("postgresql://u@127.0.0.1:1/d?password=secret", "cannot open"),
        ("postgresql://u:top@secret@127.0.0.1/d", "two @"),
        ("postgresql://u:to:p/secret", "cannot be read"),
        ("nonsense", "cannot be read"),
        ("nodialect://x", "cannot be read|not supported"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, says: str) -> None:
    with pytest.raises(CannotOpenError, match=says) as refused:
        open_store(url, migrate=True)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "act.db").write_bytes(b"this is a letter, and no database at all" * 50)
    with pytest.raises(CannotOpenError, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'act.db'}", migrate=True)


# --- append only --------------------------------------------------------------------------------------------------


def _row(store: Store, **changes: Any) -> dict[str, Any]:
    with store.reader.begin() as tx:
        return {**dict(tx.execute(select(events).where(events.c.idx == 1)).one()._mapping), **changes}


@pytest.mark.parametrize(
    "attack",
    [
        lambda _: update(events).values(status="done"),
        lambda _: update(events).where(events.c.idx == 0).values(entry=events.c.entry),
        lambda _: delete(events),
        lambda _: delete(events).where(events.c.idx == 4),
        lambda store: insert(events).values(_row(store)),
        lambda store: insert(events).values(_row(store, idx=5)),
        lambda store: insert(events).values(_row(store, idx=6, stream="JOB-2", seq=1)),
        lambda store: insert(events).values(_row(store, idx=None, stream="JOB-2", seq=1)),
        lambda store: insert(events).values(_row(store, idx=-1, stream="JOB-2", seq=1)),
        lambda store: insert(events).values(_row(store, idx=5, stream="JOB-2", seq=0)),
        lambda store: insert(events).values(_row(store, idx=5, stream="JOB-2", seq=1, leaf_hash=b"short")),
    ],
)
def test_the_database_itself_refuses_to_change_or_remove_an_event(store: Store, attack: Callable[[Store], Any]) -> None:
    _check_it_is_refused(store, attack)


@sqlite_only
@pytest.mark.parametrize(
    "attack",
    [
        lambda _: text("UPDATE OR REPLACE events SET idx = 0 WHERE idx = 1"),
        lambda store: insert(events).prefix_with("OR REPLACE").values(_row(store)),
        lambda store: insert(events).prefix_with("OR REPLACE").values(_row(store, idx=5)),
        lambda store: insert(events).prefix_with("OR REPLACE").values(_row(store, stream="JOB-2", seq=1)),
        lambda store: insert(events).prefix_with("OR IGNORE").values(_row(store)),
    ],
)
def test_sqlite_refuses_to_replace_an_event(store: Store, attack: Callable[[Store], Any]) -> None:
    _check_it_is_refused(store, attack)


@postgres_only
@pytest.mark.parametrize(
    "attack",
    [
        "TRUNCATE events",
        "TRUNCATE events, heads CASCADE",
        "DELETE FROM events WHERE false",
        "INSERT INTO events SELECT * FROM events WHERE idx = 1 ON CONFLICT (idx) DO UPDATE SET status = 'x'",
        "INSERT INTO events SELECT * FROM events WHERE idx = 1 ON CONFLICT DO NOTHING",
        "WITH gone AS (DELETE FROM events RETURNING idx) SELECT count(*) FROM gone",
        "SET LOCAL session_replication_role = replica; UPDATE events SET status = 'x'",
        "SET LOCAL session_replication_role = replica; INSERT INTO events SELECT * FROM events",
    ],
)
def test_postgresql_refuses_its_owner_too(store: Store, attack: str) -> None:
    _check_it_is_refused(store, lambda _: text(attack))


def _check_it_is_refused(store: Store, attack: Callable[[Store], Any]) -> None:
    put(store, plain_job("JOB-1"))
    before = check_ledger(store)
    says = r"append-only|CHECK constraint|check constraint|events_place"
    with pytest.raises(DBAPIError, match=says), store.writer.begin() as tx:
        _run(tx, attack(store))
    assert check_ledger(store) == before


def _run(tx: Connection, attack: Any) -> None:
    for statement in [text(part) for part in attack.text.split(";")] if isinstance(attack, TextClause) else [attack]:
        tx.execute(statement)


def test_also_another_programs_connection_is_refused(database_kind: Kind, new_database: NewDatabase) -> None:
    database = new_database("act")
    store = open_store(database.url, migrate=True)
    put(store, plain_job("JOB-1"))
    other = sqlite3.DatabaseError if database_kind == "sqlite" else psycopg.DatabaseError
    for statement in ("UPDATE events SET status = 'x'", "DELETE FROM events"):
        with pytest.raises(other, match="append-only"):
            database.rows(statement)
    if database_kind == "sqlite":
        with pytest.raises(other, match="append-only"):
            database.rows("REPLACE INTO events SELECT * FROM events")
    store.close()


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(DBAPIError, match=r"readonly|read-only"), store.reader.begin() as tx:
        tx.execute(text("DELETE FROM heads"))


# --- pages --------------------------------------------------------------------------------------------------------

LANES = ["clerk", "printer", None]
STATUSES = ["queued", "started", "done"]


def history(count: int, *, jump_ms: Callable[[int], int]) -> list[bytes]:
    """Return events of several jobs, of all lanes and statuses, with times out of order by ``jump_ms``."""
    seqs: dict[str, int] = {}
    raws = []
    for number in range(count):
        job = f"JOB-{number * 7 % 11}"
        seqs[job] = seqs.get(job, 0) + 1
        lane = LANES[number * 5 % 3]
        raws.append(
            event(
                job, seqs[job], entity="task" if lane else "job", lane=lane, status=STATUSES[number * 3 % 7 % 3],
                time_ms=NOW_MS + number * 1000 + jump_ms(number),
            )
        )  # fmt: skip
    return raws


@pytest.fixture
def few_per_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that a short history has many."""
    for module in ("act.storage.entries", "act.storage.pages", "tests.act.support"):
        monkeypatch.setattr(f"{module}.BLOCK_EVENTS", 8)


def all_entries(store: Store) -> list[Entry]:
    with store.reader.begin() as tx:
        return stream(tx, Filters(), position=-1, count=100_000).entries


TIMES = st.none() | st.integers(-5, 125).map(lambda second: NOW_MS + second * 1000)
FILTERS = st.builds(
    Filters,
    job=st.none() | st.sampled_from(["JOB-0", "JOB-3", "JOB-10"]),
    lanes=st.lists(st.sampled_from(["clerk", "printer", "nobody"]), max_size=2, unique=True).map(tuple),
    statuses=st.lists(st.sampled_from(STATUSES), max_size=2, unique=True).map(tuple),
    since_ms=TIMES,
    until_ms=TIMES,
)


@pytest.mark.parametrize(
    "jump_ms",
    [
        pytest.param(lambda _: 0, id="in-order"),
        pytest.param(lambda number: -30_000 if number % 9 == 0 else 0, id="stragglers"),
        pytest.param(lambda number: 10**9 if number == 40 else 0, id="one-far-off"),
        pytest.param(lambda number: number * 7919 % 120_000, id="shuffled"),
    ],
)
@pytest.mark.usefixtures("few_per_block")
def test_pages_put_together_are_what_the_filters_admit(store: Store, jump_ms: Callable[[int], int]) -> None:
    put(store, history(119, jump_ms=jump_ms))
    check_ledger(store)
    whole = all_entries(store)
    assert [entry.idx for entry in whole] == list(range(119))

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(FILTERS, st.integers(1, 40), st.integers(-1, 118))
    def check(filters: Filters, count: int, after: int) -> None:
        expected = [entry for entry in whole if filters.admits(entry) and entry.idx > after]
        found: list[Entry] = []
        with store.reader.begin() as tx:
            position, is_last = start(tx, filters, after=after), False
            while not is_last:
                page = stream(tx, filters, position=position, count=count)
                assert len(page.entries) <= count
                found += page.entries
                position, is_last = page.position, page.is_last
            newest = {(entry.lane, entry.status): entry for entry in expected}
            assert stream_latest(tx, filters, after=after) == sorted(newest.values(), key=lambda entry: entry.idx)
        assert found == expected

    check()


@pytest.mark.usefixtures("few_per_block")
def test_every_single_moment_is_found(store: Store) -> None:
    put(store, history(70, jump_ms=lambda number: -20_000 if number % 9 == 0 else 0))
    whole = all_entries(store)
    for moment in {entry.ts_ms for entry in whole}:
        for filters in (
            Filters(since_ms=moment, until_ms=moment + 1),
            Filters(since_ms=moment),
            Filters(until_ms=moment + 1),
        ):
            with store.reader.begin() as tx:
                page = stream(tx, filters, position=-1, count=100)
            assert page.entries == [entry for entry in whole if filters.admits(entry)]


@pytest.mark.usefixtures("few_per_block")
def test_a_page_ends_where_it_is_told_to(store: Store) -> None:
    put(store, history(60, jump_ms=lambda _: 0))
    for filters in (Filters(), Filters(lanes=("clerk",)), Filters(since_ms=NOW_MS), Filters(statuses=("done",))):
        with store.reader.begin() as tx:
            page = stream(tx, filters, position=9, count=1000, last=30)
        assert [entry.idx for entry in page.entries] == [
            entry.idx for entry in all_entries(store) if 9 < entry.idx <= 30 and filters.admits(entry)
        ]
        assert (page.position, page.is_last) == (30, True)


@pytest.mark.usefixtures("few_per_block")
def test_a_span_of_time_reads_only_the_blocks_that_may_hold_it(store: Store) -> None:
    put(store, history(100, jump_ms=lambda number: -(10**9) if number == 50 else 0))

    def runs(since_ms: int | None = None, until_ms: int | None = None) -> list[tuple[int, int]]:
        with store.reader.begin() as tx:
            return list(pages._runs(tx, Filters(since_ms=since_ms, until_ms=until_ms), after=-1, last=99))

    # The last, open block is always looked at.
    assert runs(since_ms=NOW_MS + 20_000, until_ms=NOW_MS + 30_000) == [(16, 31), (48, 55), (96, 99)]
    assert runs(since_ms=NOW_MS + 90_000) == [(88, 99)]
    assert runs(until_ms=NOW_MS) == [(48, 55), (96, 99)]
    assert BLOCK_EVENTS == 1024


def _plan(store: Store, statement: Select[Any]) -> str:
    sql = str(statement.compile(store.reader, compile_kwargs={"render_postcompile": True}))
    with store.reader.begin() as tx:
        rows = tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?")).all()
    return "; ".join(row[3] for row in rows)


@sqlite_only
def test_no_read_scans_the_ledger_or_sorts_it(store: Store) -> None:
    put(store, plain_job("JOB-1"))
    by_key = [
        statement(has_lane=has_lane, is_timed=is_timed)
        for statement in (pages._indexes, pages._last_index)
        for has_lane in (True, False)
        for is_timed in (True, False)
    ]
    expected: list[tuple[Select[Any], str]] = [
        (pages._JOB_PAGE, "(stream=? AND seq>?)"),
        (pages._SEQ_AT, "(stream=?)"),
        (pages._HAS_JOB, "(stream=? AND seq=?)"),
        (pages._RANGE, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (pages._TIMED_RANGE, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (pages._BY_INDEX.params(indexes=[1, 2]), "INTEGER PRIMARY KEY (rowid=?)"),
        (pages._NEXT_LANE, "(lane>?)"),
        (pages._BLOCKS, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        *((statement, "status=? AND idx>? AND idx<?)") for statement in by_key),
    ]
    for statement, how in expected:
        plan = _plan(store, statement)
        assert how in plan, plan
        assert "SCAN" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan


def test_every_table_is_known_to_the_check_above(store: Store) -> None:
    small = {"append_lock", "fanout", "signing", "tree", "alembic_version"}  # a row or two each
    by_key = {"tiles", "checkpoints", "forks"}  # test_proof_storage, test_forks
    assert set(inspect(store.reader).get_table_names()) == {"events", "heads", "blocks", *by_key, *small}
