"""The tables and the statements: what a claim reads, what a number means, and what the schema's two halves say."""

from __future__ import annotations

import asyncio
import sqlite3
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Table, bindparam, delete, insert, select, text, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.schema import CreateIndex

from act.contract import Receipt
from hmskit import prepared
from hmskit.database import CannotOpenError
from hmskit.prepared import Prepared, in_one_go
from oms.domain.errors import UnavailableError
from oms.domain.plan_reader import parse_plan
from oms.domain.task import Job, JobState, Task
from oms.sequencer.complete import Complete, complete
from oms.sequencer.deliver import (
    Delivered,
    ResumeStreams,
    Rewind,
    StopStream,
    deliver,
    resume,
    rewind_streams,
    stop_streams,
)
from oms.sequencer.pull import Pull, pull
from oms.sequencer.start import Start, start
from oms.sequencer.writer import Writer
from oms.storage import outbox as outbox_module
from oms.storage import tasks as tasks_module
from oms.storage.outbox import StoppedStream, backlog, pending_events, stopped
from oms.storage.plan_cache import PlanCache
from oms.storage.plans import PlanVersion
from oms.storage.sqlite import SQLITE
from oms.storage.store import MIGRATIONS, RunAgainError, Store, open_store
from oms.storage.tables import SCHEMA_REVISION, jobs, lane_counts, metadata, outbox, plans, stopped_streams, tasks
from oms.storage.tasks import wake_due
from oms.storage.transaction import Transaction
from tests.database import Database, Kind
from tests.databases import Databases, postgres_only, sqlite_only
from tests.oms.support import RENEWAL, SINGLE, Clock, Tower, event_rows, in_loop, steps_of

# The claim.


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    starts=st.lists(
        st.tuples(st.integers(-3, 3), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_a_claim_takes_the_highest_priority_first_and_then_who_came_first(
    databases: Databases, database_kind: Kind, starts: list[tuple[int, int]], sizes: list[int]
) -> None:
    with databases.lend(database_kind, "oms") as database:
        store = open_store(database.url)
        clock = Clock()
        tower = Tower(store, clock)
        tower.put_plan(SINGLE)
        places = []
        for number, (priority, wait_sec) in enumerate(starts, start=1):
            clock.advance(wait_sec)
            tower.start("single", f"T-{number}", priority=priority)
            places.append((-priority, clock(), number))
        taken = [task for size in sizes for task in tower.pull("only", size)]
        store.close()
    expected = [f"TASK-{number}" for _, _, number in sorted(places)][: sum(sizes)]
    assert [task.task_id for task in taken] == expected


Statement = Callable[[Store], tuple[Prepared, tuple[Any, ...]]]


def _hot(name: str, *values: Any) -> Statement:
    return lambda _store: (getattr(tasks_module, name), values)


def _explained(store: Store, prepared: Prepared, values: tuple[Any, ...]) -> list[str]:
    """Return a line for each node of the plan."""
    with store.connect_writer() as connection:
        compiled = prepared._for(connection.dialect)
        arguments = tuple(compiled.arrange(values))
        if connection.dialect.name == "sqlite":
            return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled.sql}", arguments)]
        return list(connection.exec_driver_sql(f"EXPLAIN {compiled.sql}", arguments).scalars())


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (lambda store: (store.dialect.claim, (1, "only", 5, False, None)), "ix_tasks_ready"),
        (_hot("_WAKE", 1), "ix_tasks_waiting"),
        (_hot("_IS_DUE", 1), "ix_tasks_waiting"),
        (
            lambda store: (tasks_module._EXPIRED, (1, store.dialect.list_parameter([]), 5)),
            "ix_tasks_leases",
        ),
        (lambda store: (tasks_module._LOAD, (store.dialect.list_parameter([1]),)), "by its key"),
        (_hot("_NEXT_DUE"), "ix_tasks_waiting"),
        (lambda _store: (outbox_module._PENDING, (5,)), "ix_outbox_undelivered"),
    ],
    ids=["claim", "wake", "due", "expired", "load", "next due", "pending"],
)
def test_a_hot_statement_reads_along_its_index_and_sorts_nothing(
    tower: Tower, statement: Statement, index: str
) -> None:
    plan = _explained(tower.store, *statement(tower.store))
    key = {"sqlite": "INTEGER PRIMARY KEY", "postgresql": "tasks_pkey"}[tower.store.url.get_backend_name()]
    assert any((key if index == "by its key" else index) in line for line in plan), plan
    assert not any("TEMP B-TREE" in line or "Sort" in line for line in plan), plan
    scans = ("SCAN tasks", "SCAN outbox", "Seq Scan")
    assert not any(scan in line for line in plan for scan in scans if index not in line), plan


def test_a_pull_costs_the_same_with_ten_tasks_waiting_and_with_thousands(tower: Tower) -> None:
    def cost() -> int:
        with tower.transaction() as tx:
            tx.flush()
            return steps_of(
                tx.connection, lambda: tx.dialect.claim.rows(tx.connection, tx.now_ms, "only", 1, False, None)
            )

    tower.run(start, *(Start("single", f"T-{number}", {}, number % 7) for number in range(10)))
    with_ten = cost()
    tower.run(start, *(Start("single", f"U-{number}", {}, number % 7) for number in range(3_000)))
    assert cost() <= with_ten + 20


# Who comes at the same time.


@in_loop
async def test_many_who_pull_at_once_get_every_task_once(store: Store, clock: Clock) -> None:
    tower = Tower(store, clock)
    tower.put_plan(SINGLE)
    tower.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(200)))
    writer = Writer(store, now_ms=clock, on_recorded=lambda: None)
    writer.start()
    taken: list[str] = []

    async def worker() -> None:
        while leased := await writer.pull(Pull(lane="only", limit=3)):
            taken.extend(task.task_id for task in leased)

    await asyncio.gather(*(worker() for _ in range(16)))
    await writer.stop()
    assert sorted(taken) == sorted(f"TASK-{number}" for number in range(1, 201))


@sqlite_only
def test_who_selects_first_and_updates_then_hands_a_task_out_twice(tower: Tower) -> None:
    """The negative control: this is the way that a claim in one statement is there to replace."""
    tower.start("single", "T-1")
    first = sqlite3.connect(str(tower.store.url.database), isolation_level=None)
    second = sqlite3.connect(str(tower.store.url.database), isolation_level=None)
    look = "SELECT task_id FROM tasks WHERE lane = 'only' AND status = 'queued' AND ready ORDER BY task_id LIMIT 1"
    take = "UPDATE tasks SET status = 'running', attempt = attempt + 1 WHERE task_id = ?"
    seen = [connection.execute(look).fetchone()[0] for connection in (first, second)]
    for connection, task_id in zip((first, second), seen, strict=True):
        connection.execute(take, (task_id,))
    first.close()
    second.close()
    assert seen == [1, 1]


@sqlite_only
def test_a_claim_in_one_statement_gives_the_second_connection_nothing(tower: Tower) -> None:
    tower.start("single", "T-1")
    with tower.store.reading() as connection:
        compiled = SQLITE.claim._for(connection.dialect)
    taken = []
    for _ in range(2):
        other = sqlite3.connect(str(tower.store.url.database), isolation_level=None)
        taken.append(other.execute(compiled.sql, compiled.arrange((1, "only", 1, False, None))).fetchall())
        other.close()
    assert [len(rows) for rows in taken] == [1, 0]


# What is written.


def test_a_change_that_leaves_a_job_s_state_writes_no_index_of_it(
    tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    run = prepared._run

    def look(connection: Connection, sql: str, *rest: Any, **more: Any) -> Any:
        statements.append(sql)
        return run(connection, sql, *rest, **more)

    def is_state_set(change: Callable[[], object]) -> bool:
        statements.clear()
        change()
        (update_jobs,) = (sql for sql in statements if sql.startswith("UPDATE jobs"))
        return "SET state=" in update_jobs

    monkeypatch.setattr(prepared, "_run", look)
    tower.start("renewal", "T-1")
    lanes = ["extract", "verify", "print"]
    found = []
    for number, lane in enumerate(lanes, start=1):
        found.append(is_state_set(lambda lane=lane: tower.pull_one(lane)))  # type: ignore[misc]
        done = Complete(f"TASK-{number}", {})
        found.append(is_state_set(lambda done=done: tower.one(complete, done)))  # type: ignore[misc]
    assert found == [True, False, False, False, False, True], "queued to running, and running to done"
    with tower.store.reading() as connection:
        job = connection.execute(select(jobs.c.state, jobs.c.finished_at, jobs.c.position)).one()
    assert tuple(job) == ("done", tower.clock(), 3)


def test_what_changes_after_a_flush_is_written_as_well(tower: Tower) -> None:
    tower.start("single", "T-1")
    with tower.transaction() as tx:
        pull(tx, [Pull("only", 1)])
        tx.flush()
        job = tx.jobs[1]
        assert job.state is JobState.RUNNING
        job.state = JobState.QUEUED  # as it was read, and not as it was written
        tx.job_changed(job)
    with tower.store.reading() as connection:
        assert connection.execute(select(jobs.c.state)).scalar_one() == "queued"


# Numbers.


def test_a_number_is_never_given_again_also_when_its_rows_are_gone(tower: Tower) -> None:
    for number in range(3):
        tower.start("single", f"T-{number}")
    before = event_rows(tower.store)
    with tower.transaction() as tx:
        for table in (tasks, jobs, outbox):
            tx.connection.execute(delete(table))
    started = tower.start("single", "T-9")
    after = event_rows(tower.store)
    assert started.job_id == "JOB-4"
    assert tower.pull_one("only").task_id == "TASK-4"
    assert min(row.id for row in after) > max(row.id for row in before)


def test_a_table_without_autoincrement_gives_the_ids_of_deleted_rows_again() -> None:
    """The negative control: a reader that remembers the last id would take the new row for one that it has."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, body TEXT)")
    connection.execute("INSERT INTO plain (body) VALUES ('first')")
    connection.execute("DELETE FROM plain")
    connection.execute("INSERT INTO plain (body) VALUES ('second')")
    assert connection.execute("SELECT id FROM plain WHERE id > 1").fetchall() == []
    connection.close()


# The outbox.


def _receipts(tower: Tower) -> Delivered:
    """Return the receipts of everything that is pending."""
    with tower.store.reading() as connection:
        pending = pending_events(connection, limit=100)
    return Delivered([(event, Receipt(f"{event.stream}.{event.seq}", event.id, "appended", "ab")) for event in pending])


def _after(store: Store, cursor: int) -> list[tuple[str, int]]:
    """Read the outbox the naive way: what has a larger id than the last one seen."""
    return [(row.stream, row.seq) for row in event_rows(store) if row.id > cursor]


def _undelivered(store: Store) -> list[tuple[str, int]]:
    with store.reading() as connection:
        return [(event.stream, event.seq) for event in pending_events(connection, limit=100)]


def test_a_cursor_loses_what_a_stopped_stream_still_has_to_send(tower: Tower) -> None:
    tower.start("single", "T-1")
    tower.start("single", "T-2")
    tower.run(stop_streams, StopStream("JOB-1", "JOB-1.1", "fork", "no"))
    assert _undelivered(tower.store) == [("JOB-2", 1), ("JOB-2", 2)]
    tower.run(deliver, _receipts(tower))
    cursor = max(row.id for row in event_rows(tower.store))
    assert tower.run(resume, ResumeStreams()) == [1]
    assert _after(tower.store, cursor) == []
    assert _undelivered(tower.store) == [("JOB-1", 1), ("JOB-1", 2)]


def test_a_cursor_loses_what_has_to_be_sent_again(tower: Tower) -> None:
    tower.start("single", "T-1")
    tower.run(deliver, _receipts(tower))
    cursor = max(row.id for row in event_rows(tower.store))
    assert tower.run(rewind_streams, Rewind("JOB-1", 2)) == [True]
    assert _after(tower.store, cursor) == []
    assert _undelivered(tower.store) == [("JOB-1", 2)]


def test_a_stream_cannot_be_rewound_to_what_is_no_longer_kept(tower: Tower) -> None:
    tower.start("single", "T-1")
    tower.run(deliver, _receipts(tower))
    with tower.transaction() as tx:
        tx.connection.execute(delete(outbox).where(outbox.c.seq == 1))
    assert tower.run(rewind_streams, Rewind("JOB-1", 1)) == [False]
    assert _undelivered(tower.store) == []


def test_the_backlog_is_counted_with_the_age_of_its_oldest_event(tower: Tower, clock: Clock) -> None:
    with tower.store.reading() as connection:
        assert backlog(connection) == (0, None)
    began = clock()
    tower.start("single", "T-1")
    clock.advance(60)
    tower.start("single", "T-2")
    with tower.store.reading() as connection:
        assert backlog(connection) == (4, began)
        assert stopped(connection) == []


# A transaction.

STOPPED = {"stream": "JOB-1", "event_id": "JOB-1.1", "code": "fork", "detail": "", "since": 1}


def test_a_transaction_that_raises_leaves_nothing_behind(tower: Tower) -> None:
    def fail(tx: Transaction, wishes: Sequence[Start]) -> list[None]:
        start(tx, wishes)
        tx.flush()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tower.run(fail, Start("single", "T-1", {}, 0))
    assert event_rows(tower.store) == []
    assert tower.start("single", "T-1").created


def test_a_job_has_one_place_for_each_event(tower: Tower) -> None:
    tower.start("single", "T-1")
    (row, _) = event_rows(tower.store)
    values = {"stream": row.stream, "seq": row.seq, "body": b"{}", "created_at": 1, "delivered": False}
    with pytest.raises((DBAPIError, UnavailableError)), tower.transaction() as tx:
        tx.connection.execute(insert(outbox), values)


def test_a_reading_connection_cannot_write(tower: Tower) -> None:
    with pytest.raises((DBAPIError, UnavailableError)), tower.store.reading() as connection:
        connection.execute(update(jobs).values(priority=1))


def test_the_values_of_a_failed_statement_stay_out_of_its_message(tower: Tower) -> None:
    """They are the citizen's, and the message goes into the log, with those of the errors that it came from."""
    row = {
        "plan": "single", "version": 7, "digest": "x", "document": "P<UTOERIKSSON", "file": None, "in_force": None,
        "created_at": 1,
    }  # fmt: skip
    with pytest.raises(DBAPIError) as caught, tower.transaction() as tx:
        tx.connection.execute(insert(plans), [row])
    assert "plans" in str(caught.value)
    assert "P<UTOERIKSSON" not in "".join(traceback.format_exception(caught.value))


@postgres_only
def test_a_key_that_another_took_is_said_in_words(tower: Tower) -> None:
    """Once it has been tried often enough, it is an answer to a client."""
    tower.start("single", "T-1")
    with pytest.raises(RunAgainError, match="another transaction") as caught, tower.transaction() as tx:
        tx.connection.execute(insert(stopped_streams), [STOPPED, STOPPED])
    assert "None" not in str(caught.value)


def test_the_counts_of_a_lane_are_its_lists(tower: Tower) -> None:
    tower.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(5)))
    tower.pull("only", 2)
    with tower.store.reading() as connection:
        row = connection.execute(select(lane_counts)).one()
        queued = connection.execute(text("SELECT count(*) FROM tasks WHERE status = 'queued'")).scalar_one()
    assert (row.lane, row.queued, row.running) == ("only", queued, 2) == ("only", 3, 2)


# The compiled plans.


def test_a_plan_is_compiled_once_for_each_version(tower: Tower) -> None:
    changed = tower.put_plan({**SINGLE, "retry_policy": {"attempts": 7}})
    with tower.store.reading() as connection:
        cache = PlanCache()
        first, second = (cache.get(connection, "single", version) for version in (1, 2))
        assert cache.get(connection, "single", 1) is first
        with pytest.raises(LookupError, match="no version 3"):
            cache.get(connection, "single", 3)
    assert (changed.plan_version, second.retry_policy.attempts, first.retry_policy.attempts) == (2, 7, 3)


def test_the_cache_of_plans_forgets_the_one_that_was_compiled_first(
    tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oms.storage.plan_cache.MAX_COMPILED_PLANS", 2)
    cache = PlanCache()
    with tower.store.reading() as connection:
        dropped, kept = cache.get(connection, "renewal", 1), cache.get(connection, "single", 1)
        cache.get(connection, "checked", 1)
        assert cache.get(connection, "single", 1) is kept
        again = cache.get(connection, "renewal", 1)
    assert again is not dropped
    assert again == dropped == parse_plan(RENEWAL)


# The schema.


def test_the_migrations_make_the_tables_that_the_code_expects(store: Store) -> None:
    with store.connect_writer() as connection, warnings.catch_warnings():
        # Alembic cannot read an index on an expression back; the next test compares that one too.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection", SAWarning)
        warnings.filterwarnings("ignore", "autogenerate skipping", UserWarning)
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert [change for change in found if "ix_tasks_ready" not in str(change)] == []


@sqlite_only
def test_the_migrations_write_the_very_indexes_that_the_tables_declare(store: Store) -> None:
    statements = {
        index.name: str(CreateIndex(index).compile(dialect=sqlite.dialect()))
        for table in metadata.sorted_tables
        for index in table.indexes
    }
    with store.reading() as connection:
        rows = connection.execute(
            text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        ).all()
    made: dict[str, str] = {row.name: row.sql for row in rows}
    assert {name: " ".join(sql.split()) for name, sql in made.items()} == {
        name: " ".join(sql.split()) for name, sql in statements.items()
    }


def test_the_release_names_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA_REVISION


@pytest.mark.parametrize(
    ("table", "kind"),
    [(jobs, Job), (tasks, Task), (plans, PlanVersion), (stopped_streams, StoppedStream)],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
def test_a_row_has_the_fields_of_its_dataclass_in_their_order(table: Table, kind: type[Any]) -> None:
    assert [column.name for column in table.columns] == [field.name for field in fields(kind)]


# Opening it, and closing it.


@postgres_only
def test_a_connection_that_comes_back_after_the_close_is_closed(oms_database: Database) -> None:
    """Of a request that was cancelled, the read goes on in its thread for a moment."""
    store = open_store(oms_database.url)
    with store.reading() as connection:
        driver = connection.connection.driver_connection
        store.close()
    assert isinstance(driver, psycopg.Connection)
    assert driver.closed


def test_a_database_that_a_newer_release_wrote_is_refused(oms_database: Database) -> None:
    store = open_store(oms_database.url)
    with store.connect_writer() as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert store.is_ready() is not None
    store.close()
    with pytest.raises(CannotOpenError, match="newer than this release"):
        open_store(oms_database.url)


def test_a_database_is_not_migrated_where_that_is_not_allowed(database: Database) -> None:
    with pytest.raises(CannotOpenError, match="oms migrate"):
        open_store(database.url, may_migrate=False)
    open_store(database.url).close()
    store = open_store(database.url, may_migrate=False)
    assert store.is_ready() is None
    store.close()


@sqlite_only
def test_a_second_one_on_the_same_file_is_refused_and_may_come_once_the_first_has_gone(oms_database: Database) -> None:
    first = open_store(oms_database.url)
    with pytest.raises(CannotOpenError, match=r"another process uses .*pid \d+"):
        open_store(oms_database.url)
    first.close()
    open_store(oms_database.url).close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://localhost/oms", "not supported"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////nowhere/at/all/oms.db", "does not exist"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_with_what_to_do(url: str, message: str) -> None:
    with pytest.raises(CannotOpenError, match=message):
        open_store(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "oms.db").write_text("this is a letter, and no database at all\n" * 100)
    with pytest.raises(CannotOpenError, match=r"cannot use .*oms\.db"):
        open_store(f"sqlite:///{tmp_path / 'oms.db'}")


@postgres_only
def test_a_session_that_ends_within_a_pipeline_is_dropped_without_a_word(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end(cursor: psycopg.Cursor[Any], _sql: str, _rows: Sequence[Any]) -> None:
        cursor.connection.pgconn.enter_pipeline_mode()  # what the driver does, and cannot leave when the session ends
        cursor.connection.pgconn.send_query_params(b"SELECT 1", None)
        raise psycopg.OperationalError("cannot exit pipeline mode while busy")

    tower.put_plan(SINGLE)
    tower.start("single")
    task = tower.pull_one("only")

    def look() -> None:
        with tower.transaction() as tx:
            complete(tx, [Complete(task.task_id, {}, task.token)])
            wake_due(tx)  # writes what was changed before it looks, outside of the pipeline at the end

    for verb in (lambda: tower.start("single", "T-2"), look):
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Cursor, "executemany", end)
            with pytest.raises(RunAgainError):
                verb()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert tower.complete(task).status == "done"


@postgres_only
def test_a_session_that_is_lost_within_a_pipeline_is_told_as_lost(
    tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(cursor: psycopg.Cursor[Any], _sql: str, _rows: Sequence[Any]) -> None:
        cursor.connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    tower.put_plan(SINGLE)
    with monkeypatch.context() as patch, tower.store.connect_writer() as connection:
        patch.setattr(psycopg.Cursor, "executemany", lose)
        with pytest.raises(DBAPIError), connection.begin(), in_one_go(connection):
            _ROWS.many(connection, [("x", 1)])
    assert tower.start("single").job_id == "JOB-1"


_ROWS = Prepared(
    update(lane_counts).where(lane_counts.c.lane == bindparam("its")).values(queued=bindparam("n")), ["its", "n"]
)
