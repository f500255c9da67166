"""The writer: requests share commits and nothing else; what the disk refuses is refused, and may be asked again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from hmskit import sqlite
from oms.domain.errors import ConflictError, NotFoundError, OmsError, UnavailableError
from oms.sequencer import intake
from oms.sequencer import writer as writer_module
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.pull import LeasedTask, Pull
from oms.sequencer.release import Release, release
from oms.sequencer.start import Start, start
from oms.storage.store import Store, open_store
from oms.storage.transaction import Transaction
from tests.database import Database
from tests.databases import sqlite_only
from tests.oms.support import (
    RENEWAL,
    SINGLE,
    Clock,
    Hold,
    Tower,
    break_next_commit,
    event_rows,
    events,
    in_loop,
    told,
    turns,
    until,
    working,
    writer_engine,
)


def commits_of(store: Store) -> list[None]:
    """Return a list that grows by one with every commit."""
    commits: list[None] = []
    event.listen(writer_engine(store), "commit", lambda _connection: commits.append(None))
    return commits


def begin(reference: str, plan: str = "single", **data: Any) -> Start:
    return Start(plan=plan, reference=reference, input=data, priority=0)


def explode(tx: Transaction, wishes: Sequence[Start]) -> list[Any]:
    """A verb with a mistake in it: it raises after it has changed something."""
    start(tx, wishes)
    tx.flush()
    raise ZeroDivisionError


# Group commit.


@in_loop
async def test_requests_that_come_together_share_a_commit(tower: Tower) -> None:
    commits = commits_of(tower.store)
    async with working(tower) as writer:
        async with Hold(writer):
            asked = [asyncio.ensure_future(writer.run(start, begin(f"T-{number}"))) for number in range(200)]
        started = await asyncio.gather(*asked)
    assert [answer.job_id for answer in started] == [f"JOB-{number}" for number in range(1, 201)]
    assert len(commits) <= 3


@in_loop
async def test_a_commit_takes_so_many_requests_and_no_more(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_COMMANDS", 4)
    commits = commits_of(tower.store)
    async with working(tower) as writer:
        async with Hold(writer):
            asked = [asyncio.ensure_future(writer.run(start, begin(f"T-{number}"))) for number in range(12)]
        await asyncio.gather(*asked)
    assert len(commits) == 1 + 3


@in_loop
async def test_each_request_gets_its_own_answers_in_its_own_order(tower: Tower) -> None:
    tower.put_plan(RENEWAL)
    async with working(tower) as writer:
        async with Hold(writer):
            lists = [
                asyncio.ensure_future(
                    writer.run_each(start, [begin(f"T-{number}"), begin("T-0", "nobody_knows"), begin(f"U-{number}")])
                )
                for number in range(5)
            ]
            pulled = asyncio.ensure_future(writer.pull(Pull(lane="only", limit=1)))
        for first, refused, third in await asyncio.gather(*lists):
            assert isinstance(refused, NotFoundError)
            assert not isinstance(first, OmsError)
            assert not isinstance(third, OmsError)
            assert int(third.job_id.removeprefix("JOB-")) == int(first.job_id.removeprefix("JOB-")) + 1
        assert [task.reference for task in await pulled] == ["T-0"]


@in_loop
async def test_a_refusal_is_an_answer_and_the_rest_of_its_commit_stands(tower: Tower) -> None:
    commits = commits_of(tower.store)
    async with working(tower) as writer:
        async with Hold(writer):
            asked = [
                asyncio.ensure_future(writer.run(start, begin("T-1"))),
                asyncio.ensure_future(writer.run(start, begin("T-1", other=True))),
                asyncio.ensure_future(writer.run(complete, Complete("TASK-99", {}))),
                asyncio.ensure_future(writer.run(start, begin("T-2"))),
            ]
        first, conflict, unknown, last = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(conflict, ConflictError)
    assert isinstance(unknown, NotFoundError)
    assert not isinstance(first, BaseException)
    assert not isinstance(last, BaseException)
    assert len(commits) <= 3
    assert len(event_rows(tower.store)) == 4


@in_loop
async def test_each_event_carries_the_trace_of_its_own_request(tower: Tower) -> None:
    async with working(tower) as writer:
        async with Hold(writer):
            asked = [
                asyncio.ensure_future(writer.run(start, Start("single", f"T-{number}", {}, 0, trace=trace)))
                for number, trace in enumerate(["trace-0", None, "trace-2"])
            ]
        await asyncio.gather(*asked)
        async with Hold(writer):
            pulls = [
                asyncio.ensure_future(writer.pull(Pull(lane="only", limit=1, trace=trace)))
                for trace in (None, "trace-p")
            ]
        await asyncio.gather(*pulls)
    traces = [(event["id"], event.get("traceparent")) for event in events(tower.store)]
    assert [trace for _, trace in traces[:6]] == ["trace-0", "trace-0", None, None, "trace-2", "trace-2"]
    assert traces[6:] == [("JOB-1.3", None), ("JOB-2.3", "trace-p")]


@in_loop
async def test_a_request_that_fails_unexpectedly_fails_alone(tower: Tower) -> None:
    async with working(tower) as writer:
        async with Hold(writer):
            before = asyncio.ensure_future(writer.run(start, begin("T-1")))
            bad = asyncio.ensure_future(writer.run_each(explode, [begin("T-2")]))
            after = asyncio.ensure_future(writer.run(start, begin("T-3")))
            pulled = asyncio.ensure_future(writer.pull(Pull(lane="only", limit=10)))
        with pytest.raises(ZeroDivisionError):
            await bad
        started = [(await request).job_id for request in (before, after)]
        assert [tower.job(job_id)["reference"] for job_id in started] == ["T-1", "T-3"]
        assert [task.reference for task in await pulled] == ["T-1", "T-3"]
        assert (await writer.run(start, begin("T-2"))).created


@in_loop
async def test_everything_that_was_asked_before_the_stop_is_on_disk_after_it(tower: Tower) -> None:
    async with working(tower) as writer:
        asked = [asyncio.ensure_future(writer.run(start, begin(f"T-{number}"))) for number in range(50)]
        await turns()
    assert all(answer.created for answer in await asyncio.gather(*asked))
    assert len(event_rows(tower.store)) == 100


@in_loop
async def test_a_writer_that_has_ended_refuses_instead_of_letting_everybody_wait(tower: Tower) -> None:
    async with working(tower) as writer:
        before = writer.is_alive
    assert (before, writer.is_alive) == (True, False)
    with pytest.raises(UnavailableError):
        await writer.run(start, begin("T-1"))


@in_loop
async def test_too_long_a_queue_refuses_the_next_request(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED_COMMANDS", 5)
    async with working(tower) as writer:
        async with Hold(writer):
            asked = [asyncio.ensure_future(writer.run(start, begin(f"T-{number}"))) for number in range(8)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, UnavailableError)]
        assert len(refused) == 2
        assert (await writer.run(start, begin("T-9"))).created


# A database that does not take it.


@pytest.fixture
def impatient(oms_database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tower]:
    """A store that waits for a lock of another process for a moment only."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)
    store = open_store(oms_database.url)
    tower = Tower(store, clock)
    tower.put_plan(SINGLE)
    yield tower
    store.close()


@sqlite_only
@in_loop
async def test_a_database_that_another_process_locks_refuses_and_works_again_after(impatient: Tower) -> None:
    other = sqlite3.connect(str(impatient.store.url.database), isolation_level=None)
    async with working(impatient) as writer:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="another process holds the database's lock"):
            await writer.run(start, begin("T-1"))
        other.execute("ROLLBACK")
        assert (await writer.run(start, begin("T-1"))).created
    other.close()


@sqlite_only
@in_loop
async def test_a_full_disk_refuses_what_does_not_fit_and_works_again_after(tower: Tower) -> None:
    def let_it_grow_by(tx: Transaction, wishes: Sequence[int]) -> list[None]:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count={pages + wishes[0]}")
        return [None]

    async with working(tower) as writer:
        await writer.run_each(let_it_grow_by, [3])
        with pytest.raises(UnavailableError, match="the disk is full"):
            await writer.run(start, begin("T-1", scan="x" * 500_000))
        assert event_rows(tower.store) == []
        await writer.run_each(let_it_grow_by, [10_000])
        assert (await writer.run(start, begin("T-1", scan="x" * 500_000))).job_id == "JOB-1"


@sqlite_only
@in_loop
async def test_a_database_file_that_is_taken_away_refuses_until_it_is_put_back(tower: Tower) -> None:
    # ruff: noqa: ASYNC240 - the files are the test's own
    path = Path(str(tower.store.url.database))
    aside = path.with_name("aside.db")
    async with working(tower) as writer:
        path.rename(aside)
        with pytest.raises(UnavailableError, match="gone or was replaced"):
            await writer.run(start, begin("T-1"))
        assert "gone or was replaced" in str(tower.store.is_ready())
        path.write_bytes(aside.read_bytes())
        with pytest.raises(UnavailableError, match="gone or was replaced"):
            await writer.run(start, begin("T-1"))
        aside.replace(path)
        assert (await writer.run(start, begin("T-1"))).created
        assert tower.store.is_ready() is None


# A commit that fails. Nobody can know whether it did before or after it was on disk, so both are tried.


both_ways = pytest.mark.parametrize("after", [False, True], ids=["not persisted", "persisted"])


@both_ways
@in_loop
async def test_a_start_whose_commit_failed_gives_its_one_job_when_it_is_repeated(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    async with working(tower) as writer:
        break_next_commit(tower.store, monkeypatch, after=after)
        with pytest.raises(UnavailableError, match="answers with errors"):
            await writer.run(start, begin("T-1"))
        again = await writer.run(start, begin("T-1"))
    assert again.created is not after
    assert told(tower.store, again.job_id) == told(tower.store) == [("job", "queued"), ("task", "queued")]


ENDINGS: dict[str, Callable[[LeasedTask], tuple[Any, Any]]] = {
    "complete": lambda task: (complete, Complete(task.task_id, {"ok": True}, token=task.token)),
    "fail": lambda task: (fail, Fail(task.task_id, "error", "no luck", token=task.token)),
    "fail for good": lambda task: (fail, Fail(task.task_id, "error", "", retryable=False, token=task.token)),
    "release": lambda task: (release, Release(task.task_id, task.token)),
}


@both_ways
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
@in_loop
async def test_an_ending_whose_commit_failed_gets_the_same_answer_when_it_is_repeated(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, ending: Callable[[LeasedTask], tuple[Any, Any]], after: bool
) -> None:
    async with working(tower) as writer:
        for reference in ("T-1", "T-2"):
            await writer.run(start, begin(reference))
        smooth, rough = await writer.pull(Pull(lane="only", limit=2))
        verb, wish = ending(smooth)
        expected = await writer.run(verb, wish)
        verb, wish = ending(rough)
        break_next_commit(tower.store, monkeypatch, after=after)
        with pytest.raises(UnavailableError):
            await writer.run(verb, wish)
        again = await writer.run(verb, wish)
    assert (again.status, again.job_state) == (expected.status, expected.job_state)
    assert told(tower.store, "JOB-2") == told(tower.store, "JOB-1")


@both_ways
@in_loop
async def test_a_pull_whose_commit_failed_leaves_the_task_ready_or_to_its_lease(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    async with working(tower) as writer:
        await writer.run(start, begin("T-1"))
        break_next_commit(tower.store, monkeypatch, after=after)
        with pytest.raises(UnavailableError):
            await writer.pull(Pull(lane="only", limit=1))
        if after:
            assert await writer.pull(Pull(lane="only", limit=1)) == []
            tower.clock.advance(300)
            tower.sweep()
            tower.clock.advance(30)
        (task,) = await writer.pull(Pull(lane="only", limit=1))
    assert task.attempt == (2 if after else 1)


@both_ways
@in_loop
async def test_whoever_waits_goes_on_waiting_at_its_place_when_a_commit_fails(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    async with working(tower) as writer:
        waiting = []
        for number in range(3):
            waiting.append(asyncio.ensure_future(writer.pull(Pull(lane="only", limit=1), wait_sec=60)))
            await until(lambda number=number: writer.parked == number + 1, what="the pull waits")  # type: ignore[misc]
        break_next_commit(tower.store, monkeypatch, after=after)
        with pytest.raises(UnavailableError):
            await writer.run(start, begin("T-1"))
        await until(lambda: writer.parked == 3, what="all three wait again")
        await writer.run(start, begin("T-2"))
        (task,) = await waiting[0]
        assert task.reference == "T-2"
        assert writer.parked == 2
        writer.end_waits()
        assert await asyncio.gather(*waiting[1:]) == [[], []]


# Who polls.


@in_loop
async def test_a_worker_is_seen_again_only_after_a_while_so_that_an_idle_poll_writes_nothing(tower: Tower) -> None:
    async with working(tower) as writer:

        async def seen_after(sec: float) -> str:
            tower.clock.advance(sec)
            await writer.pull(Pull(lane="only", limit=1, worker="w-1"))
            (worker,) = tower.lanes()["only"]["workers"]
            last_seen: str = worker["last_seen"]
            return last_seen

        first = await seen_after(0)
        assert await seen_after(9.9) == first
        assert await seen_after(0.1) > first


@in_loop
async def test_a_worker_is_seen_also_when_the_commit_of_its_first_poll_failed(
    tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tower) as writer:
        break_next_commit(tower.store, monkeypatch, after=False)
        with pytest.raises(UnavailableError):
            await writer.pull(Pull(lane="only", limit=1, worker="w-1"))
        await writer.pull(Pull(lane="only", limit=1, worker="w-1"))
    assert [worker["worker"] for worker in tower.lanes()["only"]["workers"]] == ["w-1"]


@in_loop
async def test_a_worker_is_seen_also_after_the_clock_was_set_back(tower: Tower) -> None:
    async with working(tower) as writer:
        tower.clock.advance(3600 * 24 * 365)
        await writer.pull(Pull(lane="only", limit=1, worker="w-1"))
        tower.clock.advance(-3600 * 24 * 365)
        await writer.pull(Pull(lane="only", limit=1, worker="w-1"))
    (worker,) = tower.lanes()["only"]["workers"]
    assert worker["last_seen"].startswith("2025-")
