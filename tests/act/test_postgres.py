"""What only PostgreSQL has: sessions that end at any moment, locks that others hold, and a planner that guesses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, Executable
from structlog.testing import capture_logs

from act.domain.posted import read_posted
from act.ledger import append
from act.storage import pages
from act.storage.store import open_store
from hmskit.database import CannotOpenError
from tests.act.support import NOW_MS, check_ledger, event, opened, plain_job, run, running, until
from tests.act.test_faults import BEGINS, FIRST, SECOND, failing_commit, failing_statement
from tests.database import Database, Kind
from tests.databases import NewDatabase
from tests.faults.postgres_server import own_server

LOST = psycopg.OperationalError("server closed the connection unexpectedly")
POINTS = {
    "lock": BEGINS["postgresql"],
    "size": "SELECT max",
    "heads": "SELECT heads",
    "kept": "SELECT events",
    "events": "INSERT INTO events",
    "new heads": "INSERT INTO heads",
    "moved heads": "UPDATE heads",
}


@pytest.fixture
def database_kind() -> Kind:
    """All of them are about PostgreSQL."""
    return "postgres"


@pytest.mark.parametrize("persisted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    "error",
    [LOST, errors.AdminShutdown("x"), errors.DeadlockDetected("x"), errors.UniqueViolation("x")],
    ids=["lost", "ended", "deadlock", "unique"],
)
def test_what_is_rolled_back_for_certain_is_run_again_at_once(
    url: str, point: str, persisted: bool, error: psycopg.Error
) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*FIRST)
            with failing_statement(act.store.writer, POINTS[point], persisted=persisted, error=error):
                answer = await act.append(*SECOND)
            assert (answer["accepted"], answer["duplicates"]) == (6, 1)
            assert check_ledger(act.store) == FIRST + SECOND[1:]

    run(scenario())


@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "persisted-anyway"])
@pytest.mark.parametrize("error", [LOST, errors.AdminShutdown("x")], ids=["lost", "ended"])
def test_a_commit_whose_answer_is_lost_is_not_run_again_and_the_repeat_gives_duplicates(
    url: str, persisted: bool, error: psycopg.Error
) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            with failing_commit(act.store.writer, persisted=persisted, error=error):
                answer = await act.post(*FIRST)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "Whether it was appended is not known" in answer.json()["detail"]
            again = await act.append(*FIRST)
            assert (again["accepted"], again["duplicates"]) == ((0, 10) if persisted else (10, 0))
            assert check_ledger(act.store) == FIRST

    run(scenario())


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.DiskFull("x"), "memory or disk"),
        (errors.IoError("x"), "disk answers with errors"),
        (errors.ReadOnlySqlTransaction("x"), "only takes reads"),
        (errors.QueryCanceled("x"), "took too long"),
        (errors.LockNotAvailable("x"), "holds the lock"),
    ],
)
def test_the_answer_says_what_is_wrong(url: str, error: psycopg.Error, says: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            with failing_statement(act.store.writer, "INSERT INTO events", persisted=False, error=error):
                answer = await act.post(*FIRST)
            assert answer.status_code == 503
            assert says in answer.json()["detail"]
            await act.append(*FIRST)

    run(scenario())


def test_a_server_that_is_away_is_a_503_and_no_restart_is_needed_when_it_is_back(tmp_path: Path) -> None:
    """Once stopped in order, once crashed. The log says it once, not at every look."""

    async def scenario(url: str, stop: Callable[[], None], start: Callable[[], None]) -> None:
        async with running(url) as act:
            kept = check_ledger(act.store)
            await asyncio.to_thread(stop)
            for _ in range(2):
                for path in ("/stream", "/jobs/JOB-1", "/readyz"):
                    answer = await act.http.get(path)
                    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
                answer = await act.post(*plain_job(f"JOB-{len(kept)}"))
                assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
                assert "reached" in answer.json()["detail"]
            assert (await act.http.get("/healthz")).status_code == 200
            await asyncio.sleep(0.3)  # several looks fail
            await asyncio.to_thread(start)
            assert (await act.http.get("/readyz")).status_code == 200
            await act.append(*plain_job(f"JOB-{len(kept)}"))
            assert len(check_ledger(act.store)) == len(kept) + 5

    with own_server(tmp_path / "server.log") as server:
        url = server.create("act")
        for how in ("fast", "immediate"):
            with capture_logs() as logs:
                run(scenario(url, lambda how=how: server.stop(how), server.begin))  # type: ignore[misc]
            assert [entry["event"] for entry in logs].count("poll_failed") == 1
        server.stop("fast")
        with pytest.raises(CannotOpenError, match="cannot open postgresql"):
            open_store(url, migrate=True)


def test_a_frozen_tower_holds_the_others_up_for_a_while_and_then_its_session_is_ended(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last statements went out as a pipeline, after which the server has no timer: another tower ends it."""
    frozen = open_store(url, migrate=True)
    monkeypatch.setattr("hmskit.postgres.IDLE_IN_TRANSACTION_MS", 300)
    monkeypatch.setattr("act.ledger.LOOK_AROUND_EVERY_SEC", 0.1)

    async def scenario() -> None:
        async with running(url) as act:
            with frozen.writer.connect() as tx:
                frozen.lock_appends(tx)
                append(tx, [read_posted(event("JOB-1", 1, worker="frozen"))], now_us=1)
                answer = await act.append(event("JOB-1", 1))
                assert answer["results"][0]["index"] == 0
                with pytest.raises(DBAPIError):
                    tx.commit()
            assert check_ledger(act.store) == [event("JOB-1", 1)]

    run(scenario())
    frozen.close()


def test_a_lock_that_is_never_given_back_is_a_503_and_reading_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmskit.postgres.STATEMENT_TIMEOUT_MS", 200)
    holder = open_store(url, migrate=True)

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*FIRST)
            with holder.writer.begin() as tx:
                holder.lock_appends(tx)
                answer = await act.post(*SECOND)
                assert answer.status_code == 503
                assert "lock" in answer.json()["detail"]
                assert len(await act.rows()) == len(FIRST)
            await act.append(*SECOND)

    run(scenario())
    holder.close()


def test_a_session_that_ended_while_nothing_happened_is_not_noticed(new_database: NewDatabase) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, poll_sec=60) as act:
            await act.append(*FIRST)
            await act.rows()
            ended = database.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'act %'"
            )
            assert len(ended) >= 2
            await until(lambda: not database.rows(_OURS), what="the end of the sessions")
            assert len(await act.rows()) == 10
            assert (await act.append(*SECOND))["accepted"] == 6

    run(scenario())


_OURS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'act %'"


def test_durable_before_the_answer(database: Database) -> None:
    """Whatever the database's own default is: a commit that does not wait for the disk can be lost."""
    name = database.rows("SELECT current_database()")[0][0]
    database.rows(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    with opened(database.url) as store, store.writer.connect() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"


def test_a_database_that_cannot_hold_every_name_is_refused(database: Database) -> None:
    name = database.rows("SELECT current_database()")[0][0]
    latin = f"{name}_latin"
    database.rows(f"CREATE DATABASE \"{latin}\" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with pytest.raises(CannotOpenError, match="keeps texts as LATIN1"):
            open_store(database.url.replace(name, latin), migrate=True).close()
    finally:
        database.rows(f'DROP DATABASE "{latin}" WITH (FORCE)')


def test_names_are_ordered_by_their_bytes_whatever_the_servers_language_is(url: str) -> None:
    lanes = ["Z", "a", "B", "é", "z", "-b", "_c", "\U0001f6eb", "\uffff"]

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*(event(f"JOB-{number}", 1, lane=lane) for number, lane in enumerate(lanes)))
            with act.store.reader.begin() as tx:
                assert list(pages._lanes(tx)) == sorted(lanes, key=str.encode)
            assert {row["lane"] for row in await act.rows("view=latest")} == set(lanes)

    run(scenario())


# --- the planner --------------------------------------------------------------------------------------------------

MANY = 20_000
FILL = f"""
    INSERT INTO events (idx, received_us, stream, seq, event_id, ts_ms, entity, status, job_id, lane, detail,
        leaf_hash, entry)
    SELECT n, 0, 'JOB-' || n / 20, n % 20 + 1, 'x', {NOW_MS} + n * 1000::bigint, 'task',
        (ARRAY['queued', 'started'])[n % 2 + 1], 'JOB-' || n / 20,
        CASE WHEN n >= {MANY // 2} THEN 'busy' WHEN n % 3 = 0 THEN NULL ELSE 'once' END,
        repeat('d', 200), decode(repeat('00', 32), 'hex'), decode(repeat('00', 300), 'hex')
    FROM generate_series(0, {MANY} - 1) AS n
"""


class _explain(Executable, ClauseElement):  # noqa: N801 - reads as the statement that it is
    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_explain)
def _compile_explain(element: _explain, compiler: SQLCompiler, **named: Any) -> str:
    return "EXPLAIN (ANALYZE, FORMAT JSON) " + compiler.process(element.statement, **named)


def test_no_read_walks_through_the_ledger(new_database: NewDatabase) -> None:
    """Also where a lane is common in the whole ledger and gone from the part that is asked for."""
    database = new_database("act")
    database.rows(FILL)
    database.rows("VACUUM ANALYZE events")
    late = {"first": MANY // 2, "last": MANY, "since": NOW_MS, "until": NOW_MS + MANY * 1000}
    known: dict[str, Any] = {"job": "JOB-7", "after_seq": 3, "after": MANY, "count": 100, "lane": "once", **late}
    by_key = [
        statement(has_lane=has_lane, is_timed=is_timed)
        for statement in (pages._indexes, pages._last_index)
        for has_lane in (True, False)
        for is_timed in (True, False)
    ]
    statements: list[Select[Any]] = [
        pages._JOB_PAGE,
        pages._SEQ_AT,
        pages._HAS_JOB,
        pages._RANGE,
        pages._TIMED_RANGE,
        pages._BY_INDEX.params(indexes=list(range(0, MANY, 1000))),
        pages._NEXT_LANE,
        *by_key,
    ]
    with opened(database.url) as store:
        for plans in ("force_custom_plan", "force_generic_plan"):
            for statement in statements:
                needed = statement.compile().params.keys()
                values = {"status": "queued", **{name: known[name] for name in needed if name in known}}
                with store.reader.begin() as tx:
                    tx.execute(text(f"SET LOCAL plan_cache_mode = {plans}"))
                    (plan,) = tx.execute(_explain(statement), values).scalar_one()
                assert _rows_touched(plan["Plan"]) <= 200, (plans, plan)


def _rows_touched(node: dict[str, Any]) -> float:
    """Return how many rows the scans below a node of a plan have looked at."""
    own: float = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) if "Scan" in node["Node Type"] else 0
    loops: int = node["Actual Loops"]
    return own * loops + sum(_rows_touched(child) for child in node.get("Plans", ()))


def test_appends_go_along_the_indexes_whatever_the_statistics_say(new_database: NewDatabase) -> None:
    """Their plans are made once, on an empty ledger, and must be right when it is large."""
    database = new_database("act")

    async def scenario() -> None:
        # Statistics are written when a session ends: those that made the database ready count, too.
        await until(lambda: not database.rows(_OTHERS), what="the end of the sessions before")
        before = database.rows(_SCANS)
        async with running(database.url, poll_sec=60) as act:
            first = event("JOB-A", 1)
            for number in range(8):  # then the driver has prepared them
                await act.append(event("JOB-A", 1 + number), event(f"JOB-B{number}", 1), first)
            with act.store.writer.begin() as tx:
                act.store.lock_appends(tx)
                tx.execute(text(FILL.replace("SELECT n,", "SELECT n + 16,")))
            for number in range(8):
                await act.append(event("JOB-A", 9 + number), event(f"JOB-C{number}", 1), first)
        await until(lambda: not database.rows(_OTHERS), what="the end of the sessions")
        assert database.rows(_SCANS) == before

    run(scenario())


_OTHERS = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)
_SCANS = """
    SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ('events', 'heads', 'blocks', 'append_lock')
    ORDER BY relname
"""
