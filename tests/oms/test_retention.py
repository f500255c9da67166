"""Retention: what is finished for long and told in full leaves; nothing else does, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import func, insert, make_url, select, update
from structlog.testing import capture_logs

from act.contract import Receipt
from hmskit import migrate
from hmskit.prepared import Prepared
from hmskit.sqlite import writer_engine
from oms.domain.errors import NotFoundError, UnavailableError
from oms.sequencer import purge as purge_module
from oms.sequencer.complete import Complete, complete
from oms.sequencer.deliver import Delivered, ResumeStreams, Rewind, StopStream, deliver, resume, rewind_streams
from oms.sequencer.deliver import stop_streams as stop
from oms.sequencer.fail import Fail, fail
from oms.sequencer.lists import TaskFilter, tasks_page
from oms.sequencer.pull import Pull
from oms.sequencer.purge import (
    WORKER_IS_KEPT_SEC,
    Forget,
    Forgotten,
    Place,
    Purge,
    Purged,
    forget,
    purge,
    purge_for_ever,
    purge_round,
)
from oms.sequencer.retry import Retry, retry
from oms.sequencer.start import Start, start
from oms.storage import retention
from oms.storage.outbox import pending_events
from oms.storage.store import MIGRATIONS, Store, open_store
from oms.storage.tables import jobs, lane_counts, outbox, workers
from oms.storage.transaction import Transaction
from tests.database import Database
from tests.databases import NewDatabase, postgres_only, sqlite_only
from tests.oms.retained import counts_are_lists, faults_of
from tests.oms.support import SINGLE, Clock, Tower, event_rows, in_loop, until, working

KEEP_MS = 1_000


@pytest.fixture
def other(oms_database: Database, clock: Clock) -> Iterator[Tower]:
    """Another tower on the same database, for PostgreSQL."""
    store = open_store(oms_database.url)
    yield Tower(store, clock)
    store.close()


@pytest.fixture
def busy(oms_database: Database, clock: Clock) -> Iterator[Tower]:
    """A tower that writes with several connections at once where its database can."""
    store = open_store(oms_database.url, writers=4)
    tower = Tower(store, clock)
    tower.put_plan(SINGLE)
    yield tower
    store.close()


def finish(tower: Tower, reference: str = "T-1", *, well: bool = True) -> None:
    """Run a job of one task to its end."""
    tower.start("single", reference)
    task = tower.pull_one("only")
    if well:
        tower.complete(task)
    else:
        tower.fail(task, retryable=False)


def hand_over(tower: Tower, *, limit: int = 10_000) -> int:
    """Let ACT have up to ``limit`` events; return how many it got."""
    with tower.store.reading() as connection:
        events = pending_events(connection, limit=limit)
    receipts = [
        Receipt(id=f"{event.stream}.{event.seq}", index=event.id, outcome="appended", leaf_hash="00" * 32)
        for event in events
    ]
    tower.run(deliver, Delivered(list(zip(events, receipts, strict=True))))
    return len(events)


def purge_all(tower: Tower, keep_ms: int = KEEP_MS) -> int:
    """Let leave what may; return how many jobs left."""
    left = 0
    place: Place | None = Place()
    while place is not None:
        (purged,) = tower.run(purge, Purge(keep_ms, after=place))
        left, place = left + purged.jobs, purged.more
    return left


def kept(store: Store) -> list[int]:
    """Return the numbers of the jobs that are kept, after checking that all that is kept fits together."""
    with store.reading() as connection:
        assert faults_of(connection) == []
        return sorted(connection.execute(select(jobs.c.job_id)).scalars())


# Who leaves, and when.


@pytest.mark.parametrize("well", [True, False], ids=["done", "failed"])
def test_a_finished_job_leaves_a_moment_after_its_time_with_all_that_is_its_own(
    tower: Tower, clock: Clock, well: bool
) -> None:
    finish(tower, well=well)
    hand_over(tower)
    clock.advance(0.999)
    assert (purge_all(tower), kept(tower.store)) == (0, [1])
    clock.advance(0.001)
    assert (purge_all(tower), kept(tower.store)) == (1, [])
    assert event_rows(tower.store) == []
    for gone in (lambda: tower.job("JOB-1"), lambda: tower.task("TASK-1"), lambda: tower.retry("TASK-1")):
        with pytest.raises(NotFoundError):
            gone()


def test_the_same_reference_makes_a_new_job_with_a_new_number(tower: Tower, clock: Clock) -> None:
    finish(tower)
    hand_over(tower)
    clock.advance(1)
    purge_all(tower)
    again = tower.start("single", "T-1")
    assert again.created
    assert again.job_id != "JOB-1"
    assert tower.pull_one("only").task_id != "TASK-1"


def test_what_is_not_finished_stays_however_old_it_is(tower: Tower, clock: Clock) -> None:
    tower.start("single", "waits")
    tower.start("renewal", "runs")
    tower.complete(tower.pull_one("extract"))
    tower.pull_one("verify")
    hand_over(tower)
    clock.advance(10_000_000)
    assert (purge_all(tower, keep_ms=0), len(kept(tower.store))) == (0, 2)


@pytest.mark.parametrize("lacking", range(5))
def test_a_job_of_which_act_lacks_one_event_never_leaves(tower: Tower, clock: Clock, lacking: int) -> None:
    finish(tower)
    hand_over(tower)
    with tower.transaction() as tx:
        place = select(outbox.c.id).order_by(outbox.c.id).offset(lacking).limit(1).scalar_subquery()
        assert tx.connection.execute(update(outbox).where(outbox.c.id == place).values(delivered=False)).rowcount == 1
    clock.advance(1_000)
    assert (purge_all(tower), kept(tower.store)) == (0, [1])
    assert hand_over(tower) == 1
    assert (purge_all(tower), kept(tower.store)) == (1, [])


def test_a_job_whose_stream_is_stopped_stays_until_it_goes_on(tower: Tower, clock: Clock) -> None:
    finish(tower)
    hand_over(tower)
    tower.run(stop, StopStream("JOB-1", "JOB-1.5", "fork", "refused"))
    clock.advance(1_000)
    assert (purge_all(tower), kept(tower.store)) == (0, [1])
    tower.run(resume, ResumeStreams())
    assert (purge_all(tower), kept(tower.store)) == (1, [])


def test_a_job_that_runs_again_stays_and_its_time_counts_from_its_last_end(tower: Tower, clock: Clock) -> None:
    finish(tower, well=False)
    clock.advance(1_000)
    tower.retry("TASK-1")
    hand_over(tower)
    clock.advance(1_000)
    assert purge_all(tower) == 0
    tower.complete(tower.pull_one("only"))
    hand_over(tower)
    clock.advance(0.999)
    assert purge_all(tower) == 0
    clock.advance(0.001)
    assert purge_all(tower) == 1


def test_a_running_job_stays_though_the_release_before_left_the_time_of_its_earlier_end(
    tower: Tower, clock: Clock
) -> None:
    finish(tower, well=False)
    tower.retry("TASK-1")
    hand_over(tower)
    with tower.transaction() as tx:
        tx.connection.execute(update(jobs).values(finished_at=1))
    assert purge_all(tower, keep_ms=0) == 0


def test_what_may_not_leave_does_not_stand_in_the_way(tower: Tower, clock: Clock, monkeypatch: Any) -> None:
    monkeypatch.setattr(purge_module, "BATCH_JOBS", 3)
    for number in range(1, 9):
        finish(tower, f"T-{number}")
        clock.advance(0.001 * (number % 2))  # some finished in the same millisecond
        if number < 8:
            tower.run(stop, StopStream(f"JOB-{number}", f"JOB-{number}.5", "fork", "refused"))
    hand_over(tower)
    with tower.transaction() as tx:
        tx.connection.execute(update(outbox).values(delivered=True))
    clock.advance(1_000)
    assert (purge_all(tower), kept(tower.store)) == (1, list(range(1, 8)))


def test_a_rewind_finds_nothing_of_a_job_that_left(tower: Tower, clock: Clock) -> None:
    finish(tower)
    hand_over(tower)
    clock.advance(1)
    purge_all(tower)
    assert tower.run(rewind_streams, Rewind("JOB-1", 1)) == [False]


# Batches.


def test_a_batch_is_small_in_jobs_and_in_events_and_takes_one_job_in_any_case(
    tower: Tower, clock: Clock, monkeypatch: Any
) -> None:
    for number in range(7):
        finish(tower, f"T-{number}")
    hand_over(tower)
    clock.advance(1)

    def batch(place: Place) -> Purged:
        (purged,) = tower.run(purge, Purge(KEEP_MS, after=place))
        return purged

    monkeypatch.setattr(purge_module, "BATCH_JOBS", 3)
    first = batch(Place())
    assert first.more is not None
    assert (first.jobs, first.more.job_id) == (3, 3)
    monkeypatch.setattr(purge_module, "BATCH_EVENTS", 14)  # a job has five
    second = batch(first.more)
    assert second.more is not None
    assert (second.jobs, second.more.job_id) == (2, 5)
    monkeypatch.setattr(purge_module, "BATCH_EVENTS", 1)
    third = batch(second.more)
    assert third.more is not None
    assert (third.jobs, third.more.job_id) == (1, 6)
    assert batch(third.more) == Purged(jobs=1, more=None)
    assert kept(tower.store) == []


def test_two_batches_in_one_transaction_take_each_job_once(tower: Tower, clock: Clock) -> None:
    finish(tower)
    hand_over(tower)
    clock.advance(1)
    assert tower.run(purge, Purge(KEEP_MS), Purge(KEEP_MS)) == [Purged(1, None), Purged(0, None)]


def test_a_job_that_runs_again_in_the_same_transaction_stays(tower: Tower, clock: Clock) -> None:
    finish(tower, well=False)
    hand_over(tower)
    clock.advance(1)
    with tower.transaction() as tx:
        retry(tx, [Retry("TASK-1")])
        assert purge(tx, [Purge(KEEP_MS)]) == [Purged(0, None)]
    assert tower.pull_one("only").attempt == 2
    assert kept(tower.store) == [1]


def test_a_job_that_left_in_the_same_transaction_is_gone_for_the_verbs_after_it(tower: Tower, clock: Clock) -> None:
    finish(tower, well=False)
    hand_over(tower)
    clock.advance(1)
    with tower.transaction() as tx:
        purge(tx, [Purge(KEEP_MS)])
        (refused,) = retry(tx, [Retry("TASK-1")])
        (again,) = start(tx, [Start("single", "T-1", {"other": "input"}, 0)])
    assert isinstance(refused, NotFoundError)
    assert not isinstance(again, Exception)
    assert again.created
    assert len(kept(tower.store)) == 1


def test_a_crash_before_the_commit_leaves_everything(tower: Tower, clock: Clock) -> None:
    finish(tower)
    hand_over(tower)
    clock.advance(1)
    before = event_rows(tower.store)

    def purge_and_die(tx: Transaction, wishes: Sequence[Purge]) -> list[Purged]:
        assert purge(tx, wishes) == [Purged(1, None)]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tower.run(purge_and_die, Purge(KEEP_MS))
    assert kept(tower.store) == [1]
    assert event_rows(tower.store) == before
    assert purge_all(tower) == 1


# Beside others.


@postgres_only
def test_a_job_that_another_call_holds_is_left_out_and_nobody_waits(tower: Tower, other: Tower, clock: Clock) -> None:
    finish(tower, "T-1", well=False)
    finish(tower, "T-2", well=False)
    hand_over(tower)
    clock.advance(1)
    with tower.transaction() as tx:
        retry(tx, [Retry("TASK-1")])
        assert other.run(purge, Purge(KEEP_MS)) == [Purged(1, None)]
    assert kept(tower.store) == [1]
    assert tower.pull_one("only").task_id == "TASK-1"


@postgres_only
def test_two_towers_share_the_work(tower: Tower, other: Tower, clock: Clock) -> None:
    finish(tower)
    hand_over(tower)
    clock.advance(1)
    with tower.transaction() as tx:
        assert purge(tx, [Purge(KEEP_MS)]) == [Purged(1, None)]
        assert other.run(purge, Purge(KEEP_MS)) == [Purged(0, None)]
    assert kept(tower.store) == []


async def run_beside_load(tower: Tower, *, is_told_late: bool) -> tuple[dict[str, int], int]:
    """Work, deliver and purge at once; return by stream the last event that ACT got, and how many jobs left."""
    got: dict[str, int] = {}

    async def tell(writer: Any) -> None:
        with tower.store.reading() as connection:
            events = pending_events(connection, limit=50)
        for event in events:
            assert event.seq == got.get(event.stream, 0) + 1, f"{event.stream}: {event.seq}"
            got[event.stream] = event.seq
        receipts = [Receipt(id="x", index=event.id, outcome="appended", leaf_hash="00" * 32) for event in events]
        await writer.run_each(deliver, [Delivered(list(zip(events, receipts, strict=True)))])

    async def work(writer: Any, name: str) -> None:
        dice = random.Random(name)
        for number in range(25):
            await writer.run(start, Start("single", f"{name}-{number}", {}, 0))
            for task in await writer.pull(Pull(lane="only", limit=2)):
                if dice.random() < 0.3:
                    await writer.run(fail, Fail(task.task_id, "error", "no", retryable=False, token=task.token))
                    await writer.run_each(retry, [Retry(task.task_id)])  # it may have left already
                else:
                    await writer.run(complete, Complete(task.task_id, {}, task.token))

    left = 0
    async with working(tower) as writer:
        workers = asyncio.gather(*(work(writer, f"w{number}") for number in range(4)))
        while not workers.done():
            if not is_told_late:
                await tell(writer)
            left += await purge_round(writer, keep_ms=0)
        await workers
        while True:
            with tower.store.reading() as connection:
                if not pending_events(connection, limit=1):
                    break
            await tell(writer)
        left += await purge_round(writer, keep_ms=0)
    return got, left


def ends_of(store: Store) -> dict[str, int]:
    with store.reading() as connection:
        return {f"JOB-{row.job_id}": row.seq for row in connection.execute(select(jobs.c.job_id, jobs.c.seq))}


@in_loop
async def test_beside_load_nothing_is_lost(busy: Tower) -> None:
    got, left = await run_beside_load(busy, is_told_late=False)
    there = ends_of(busy.store)
    assert left + len(kept(busy.store)) == len(got) == 100
    assert left > 0
    assert {stream: got[stream] for stream in there} == there


@in_loop
async def test_a_purge_that_does_not_ask_what_act_has_loses_events(busy: Tower, monkeypatch: Any) -> None:
    """The negative control of the test above: it must be able to see a loss."""
    monkeypatch.setattr(purge_module, "undelivered_jobs", lambda _tx, _ids: set())
    got, left = await run_beside_load(busy, is_told_late=True)
    assert left > 0
    assert len(got) < 100


# Workers and lanes.


def test_a_worker_is_forgotten_long_after_it_was_seen_for_the_last_time(
    tower: Tower, clock: Clock, monkeypatch: Any
) -> None:
    with tower.transaction() as tx:
        tx.connection.execute(
            insert(workers),
            [{"lane": "only", "worker": f"w-{number}", "last_seen": clock() + number} for number in range(5)],
        )

    def seen() -> list[str]:
        with tower.store.reading() as connection:
            return sorted(connection.execute(select(workers.c.worker)).scalars())

    clock.advance(WORKER_IS_KEPT_SEC - 0.001)
    assert tower.run(forget, Forget()) == [Forgotten(0, 0)]
    clock.advance(0.001)
    assert tower.run(forget, Forget()) == [Forgotten(1, 0)]
    assert seen() == ["w-1", "w-2", "w-3", "w-4"]
    monkeypatch.setattr(purge_module, "FORGET_BATCH", 2)
    clock.advance(1)
    assert tower.run(forget, Forget()) == [Forgotten(2, 0)]
    assert seen() == ["w-3", "w-4"]


def lanes_with_counts(store: Store) -> set[str]:
    with store.reading() as connection:
        return set(connection.execute(select(lane_counts.c.lane)).scalars())


def test_a_lane_is_forgotten_once_it_holds_no_task_but_done_ones(tower: Tower, clock: Clock) -> None:
    tower.start("single")
    for lane in ("here", "there"):
        tower.reroute("TASK-1", lane)
        tower.run(forget, Forget())
        assert lanes_with_counts(tower.store) == {lane}
    tower.fail(tower.pull_one("there"), retryable=False)
    assert tower.run(forget, Forget()) == [Forgotten(0, 0)], "it holds a task that failed"
    tower.retry("TASK-1")
    tower.complete(tower.pull_one("there"))
    assert tower.run(forget, Forget()) == [Forgotten(0, 1)]
    assert lanes_with_counts(tower.store) == set()
    tower.start("single", "T-2")
    with tower.store.reading() as connection:
        assert counts_are_lists(connection)


def test_a_failed_task_is_found_in_the_lists_after_its_lane_was_looked_at(tower: Tower, clock: Clock) -> None:
    finish(tower, well=False)
    tower.run(forget, Forget())
    with tower.store.reading() as connection:
        page = tasks_page(connection, TaskFilter(status="failed"), limit=5, cursor=None, now_ms=clock())
    assert [task["task_id"] for task in page["items"]] == ["TASK-1"]


def test_rows_of_several_writers_go_only_together_and_when_they_add_up_to_nothing(tower: Tower) -> None:
    rows = [("a", 0, 2, 0), ("a", 1, -2, 1), ("a", 2, 0, -1), ("b", 0, 1, 0), ("b", 1, -1, 1), ("c", 0, 0, 0)]
    with tower.transaction() as tx:
        keys = ("lane", "shard", "queued", "running")
        tx.connection.execute(insert(lane_counts), [dict(zip(keys, row, strict=True)) for row in rows])
    assert tower.run(forget, Forget()) == [Forgotten(0, 2)]
    assert lanes_with_counts(tower.store) == {"b"}


@postgres_only
def test_rows_that_another_writer_changes_at_this_moment_stay(tower: Tower, other: Tower) -> None:
    """What is left of a lane then still adds up to what it did: here to nothing, with the others' change on top."""
    finish(tower)
    with tower.transaction() as tx:
        tx.connection.execute(insert(lane_counts), {"lane": "only", "shard": 99, "queued": 1, "running": 0})
        tx.connection.execute(update(lane_counts).where(lane_counts.c.shard != 99).values(queued=-1))
    with tower.transaction() as adder:
        start(adder, [Start("single", "T-2", {}, 0)])
        adder.flush()
        assert other.run(forget, Forget()) == [Forgotten(0, 0)]
    with tower.store.reading() as connection:
        assert counts_are_lists(connection)


# Its cost.

STATEMENTS: list[tuple[Callable[[], Prepared], tuple[Any, ...], str]] = [
    (lambda: retention._FINISHED, (10, 0, 0, 100), "ix_jobs_finished"),
    (lambda: retention._EVENTS, (["JOB-1"],), "outbox"),
    (lambda: retention._STOPPED, (["JOB-1"],), "stopped_streams"),
    (lambda: retention._DELETE_EVENTS, (["JOB-1"],), "outbox"),
    (lambda: retention._DELETE_TASKS, ([1],), "ix_tasks_job"),
    (lambda: retention._DELETE_JOBS, ([1],), "jobs"),
    (lambda: retention._UNSEEN, (1, 10), "ix_workers_last_seen"),
    (lambda: retention._EMPTY_LANES, (10,), "ix_tasks_live"),
    (lambda: retention._HOLDING, (["only"],), "ix_tasks_live"),
]


@pytest.mark.parametrize(("statement", "values", "index"), STATEMENTS, ids=range(len(STATEMENTS)))
def test_every_statement_goes_along_an_index(
    tower: Tower, statement: Callable[[], Prepared], values: tuple[Any, ...], index: str
) -> None:
    with tower.transaction() as tx:
        compiled = statement()._for(tx.connection.dialect)
        parameters = compiled.arrange(
            tuple(tx.dialect.list_parameter(value) if isinstance(value, list) else value for value in values)
        )
        is_sqlite = tx.connection.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        plan = "\n".join(
            str(row) for row in tx.connection.exec_driver_sql(f"{explain} {compiled.sql}", parameters).all()
        )
    assert index in plan, plan
    assert "Seq Scan" not in plan, plan
    assert "SCAN jobs" not in plan, plan
    assert "SCAN outbox" not in plan, plan
    assert "SCAN tasks" not in plan, plan
    assert "B-TREE" not in plan, plan


# For ever.


@in_loop
async def test_rounds_come_again_and_outlive_faults(tower: Tower, clock: Clock, monkeypatch: Any) -> None:
    finish(tower)
    hand_over(tower)
    clock.advance(3_600)
    faults: list[Exception] = [ZeroDivisionError()]
    calls: list[Exception] = []

    def odd_forget(tx: Any, wishes: Any) -> Any:
        calls.extend(faults)
        if faults:
            raise faults[0]
        return forget(tx, wishes)

    monkeypatch.setattr(purge_module, "forget", odd_forget)
    async with working(tower) as writer:
        with capture_logs() as logs:
            task = asyncio.ensure_future(purge_for_ever(writer, retention_days=1 / 24, interval_sec=0.01))
            await until(lambda: any(log["event"] == "purge_failed" for log in logs), what="it says so")
            faults[:] = [UnavailableError("the disk is full")]
            await until(lambda: calls and isinstance(calls[-1], UnavailableError), what="it meets it")
            assert kept(tower.store) == [1]
            faults.clear()
            await until(lambda: any(log["event"] == "jobs_left" for log in logs), what="it goes on")
        assert kept(tower.store) == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_loop
async def test_zero_days_keep_jobs_for_ever_and_workers_not(tower: Tower, clock: Clock) -> None:
    finish(tower)
    hand_over(tower)
    tower.pull("only", worker="w-1")
    with tower.transaction() as tx:
        tx.connection.execute(insert(workers), {"lane": "only", "worker": "w-1", "last_seen": clock()})
    clock.advance(10_000_000)

    def is_forgotten() -> bool:
        with tower.store.reading() as connection:
            return connection.execute(select(func.count()).select_from(workers)).scalar_one() == 0

    async with working(tower) as writer:
        task = asyncio.ensure_future(purge_for_ever(writer, retention_days=0, interval_sec=0.001))
        await until(is_forgotten, what="the worker is forgotten")
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert kept(tower.store) == [1]


# The schema before.


@sqlite_only
def test_jobs_that_were_finished_before_the_update_get_their_time(new_database: NewDatabase, clock: Clock) -> None:
    database = new_database()
    engine = writer_engine(make_url(database.url))
    migrate.upgrade(engine, MIGRATIONS, to="0001")
    engine.dispose()
    columns = "job_id, plan, plan_version, reference, state, priority, input, position, seq, created_at, updated_at"
    for number, state in enumerate(("queued", "running", "done", "failed", "cancelled"), 1):
        database.rows(
            f"INSERT INTO jobs ({columns}) VALUES ({number}, 'p', 1, 'T-{number}', '{state}', 0, '{{}}', 0, 1, 5, 7)"
        )
    open_store(database.url).close()
    found = database.rows("SELECT job_id, finished_at FROM jobs ORDER BY job_id")
    assert found == [(1, None), (2, None), (3, 7), (4, 7), (5, 7)]
