"""Long polls: who waits is served in turn as soon as work is ready, and leaves nothing behind when it goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event
from starlette.types import Message, Scope

from oms.sequencer import writer as writer_module
from oms.sequencer.command import Command
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.retry import Retry, retry
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.sequencer.waiting import Parked, Waiting
from oms.sequencer.writer import Writer
from tests.oms.support import (
    Clock,
    Hold,
    Running,
    Site,
    Tower,
    events,
    in_loop,
    running,
    told,
    turns,
    until,
    working,
    writer_engine,
)

ONLY = Pull(lane="only", limit=1)


def wait_for(writer: Writer, wish: Pull = ONLY, *, sec: float = 60) -> asyncio.Task[list[LeasedTask]]:
    """Begin a long poll."""
    return asyncio.ensure_future(writer.pull(wish, wait_sec=sec))


async def waiting(writer: Writer, *wishes: Pull) -> list[asyncio.Task[list[LeasedTask]]]:
    """Begin long polls, one after the other; return when all of them wait."""
    polls = []
    for wish in wishes:
        before = writer.parked
        polls.append(wait_for(writer, wish))
        await until(lambda before=before: writer.parked == before + 1, what="the pull waits")  # type: ignore[misc]
    return polls


async def begin(writer: Writer, *references: str, plan: str = "single") -> None:
    await writer.run_each(start, [Start(plan, reference, {}, 0) for reference in references])


# What wakes.


async def by_start(writer: Writer, _clock: Clock) -> Callable[[], Awaitable[Any]]:
    return lambda: begin(writer, "T-1")


async def by_release(writer: Writer, _clock: Clock) -> Callable[[], Awaitable[Any]]:
    await begin(writer, "T-1")
    (task,) = await writer.pull(ONLY)
    return lambda: writer.run(release, Release(task.task_id, task.token))


async def by_reroute_of_a_queued_task(writer: Writer, _clock: Clock) -> Callable[[], Awaitable[Any]]:
    await begin(writer, "T-1", plan="renewal")
    return lambda: writer.run(reroute, Reroute("TASK-1", "only"))


async def by_reroute_of_a_running_task(writer: Writer, _clock: Clock) -> Callable[[], Awaitable[Any]]:
    await begin(writer, "T-1", plan="renewal")
    await writer.pull(Pull(lane="extract", limit=1))
    return lambda: writer.run(reroute, Reroute("TASK-1", "only"))


async def by_reroute_of_a_failed_task(writer: Writer, _clock: Clock) -> Callable[[], Awaitable[Any]]:
    await begin(writer, "T-1", plan="renewal")
    (task,) = await writer.pull(Pull(lane="extract", limit=1))
    await writer.run(fail, Fail(task.task_id, "error", "", retryable=False))
    return lambda: writer.run(reroute, Reroute("TASK-1", "only"))


async def by_retry(writer: Writer, _clock: Clock) -> Callable[[], Awaitable[Any]]:
    await begin(writer, "T-1")
    (task,) = await writer.pull(ONLY)
    await writer.run(fail, Fail(task.task_id, "error", "", retryable=False))
    return lambda: writer.run(retry, Retry("TASK-1"))


async def by_the_end_of_a_backoff(writer: Writer, clock: Clock) -> Callable[[], Awaitable[Any]]:
    await begin(writer, "T-1")
    (task,) = await writer.pull(ONLY)
    await writer.run(fail, Fail(task.task_id, "error", ""))

    async def wait() -> None:
        clock.advance(29.999)
        await writer.run(sweep, Sweep())
        assert writer.parked == 1
        clock.advance(0.001)
        await writer.run(sweep, Sweep())

    return wait


async def by_an_expired_lease(writer: Writer, clock: Clock) -> Callable[[], Awaitable[Any]]:
    await begin(writer, "T-1")
    await writer.pull(ONLY)

    async def wait() -> None:
        clock.advance(300)
        await writer.run(sweep, Sweep())
        assert writer.parked == 1
        clock.advance(30)
        await writer.run(sweep, Sweep())

    return wait


@pytest.mark.parametrize(
    "prepare",
    [
        by_start,
        by_release,
        by_reroute_of_a_queued_task,
        by_reroute_of_a_running_task,
        by_reroute_of_a_failed_task,
        by_retry,
        by_the_end_of_a_backoff,
        by_an_expired_lease,
    ],
)
@in_loop
async def test_a_waiting_pull_is_served_in_the_moment_in_which_work_becomes_ready(
    tower: Tower, prepare: Callable[[Writer, Clock], Awaitable[Callable[[], Awaitable[Any]]]]
) -> None:
    async with working(tower) as writer:
        make_ready = await prepare(writer, tower.clock)
        (poll,) = await waiting(writer, ONLY)
        await make_ready()
        async with asyncio.timeout(5):
            (task,) = await poll
        assert task.lane == "only"
        assert writer.parked == 0


@in_loop
async def test_the_next_step_of_a_job_wakes_who_waits_in_its_lane(tower: Tower) -> None:
    async with working(tower) as writer:
        (poll,) = await waiting(writer, Pull(lane="verify", limit=1))
        await begin(writer, "T-1", plan="renewal")
        (task,) = await writer.pull(Pull(lane="extract", limit=1))
        assert writer.parked == 1
        await writer.run(complete, Complete(task.task_id, {}))
        ((task,),) = await asyncio.gather(poll)
        assert task.activity == "verify"


@in_loop
async def test_a_pull_does_not_wait_for_what_is_there_already(tower: Tower) -> None:
    async with working(tower) as writer:
        await begin(writer, "T-1")
        assert len(await writer.pull(ONLY, wait_sec=60)) == 1


@in_loop
async def test_work_in_another_lane_wakes_nobody_here(tower: Tower) -> None:
    async with working(tower) as writer:
        (poll,) = await waiting(writer, ONLY)
        await begin(writer, "T-1", plan="renewal")
        assert writer.parked == 1
        assert not poll.done()


# In turn.


@in_loop
async def test_who_came_first_is_served_first(tower: Tower) -> None:
    async with working(tower) as writer:
        first, second, third = await waiting(writer, ONLY, ONLY, ONLY)
        await begin(writer, "T-1", "T-2")
        assert [(await poll)[0].reference for poll in (first, second)] == ["T-1", "T-2"]
        (fourth,) = await waiting(writer, ONLY)
        await begin(writer, "T-3")
        assert [task.reference for task in await third] == ["T-3"]
        assert not fourth.done()


@in_loop
async def test_who_waits_is_served_before_who_comes_in_the_same_moment(tower: Tower) -> None:
    async with working(tower) as writer:
        (old,) = await waiting(writer, ONLY)
        async with Hold(writer):
            new = wait_for(writer, sec=60)
            asked = asyncio.ensure_future(begin(writer, "T-1"))
        await asked
        assert [task.reference for task in await old] == ["T-1"]
        await until(lambda: writer.parked == 1, what="the newcomer waits")
        assert not new.done()


@in_loop
async def test_who_wants_many_gets_what_there_is_and_leaves_the_others_waiting(tower: Tower) -> None:
    async with working(tower) as writer:
        many, one = await waiting(writer, Pull(lane="only", limit=5), ONLY)
        await begin(writer, "T-1", "T-2", "T-3")
        assert [task.reference for task in await many] == ["T-1", "T-2", "T-3"]
        assert writer.parked == 1
        await begin(writer, "T-4")
        assert [task.reference for task in await one] == ["T-4"]


@in_loop
async def test_only_as_many_are_woken_as_there_is_work_for() -> None:
    waits = Waiting()
    future = asyncio.get_running_loop().create_future()
    commands = [Command(pull, [Pull(lane="only", limit=limit)], future, may_wait=True) for limit in (2, 1, 1, 5)]
    assert all(waits.park(command, since=0) is Parked.WAITS for command in commands)
    assert waits.take({"other": 5}) == []
    assert waits.take({"only": 3}) == commands[:2]
    assert waits.take({"only": 1}) == commands[2:3]
    assert len(waits) == 1
    assert waits.take({"only": 1}) == commands[3:]
    assert (len(waits), waits.take({"only": 9})) == (0, [])


@in_loop
async def test_who_was_woken_for_nothing_keeps_its_place(tower: Tower) -> None:
    """A task that becomes ready and leaves the lane in the same transaction wakes the first, who then waits on."""
    async with working(tower) as writer:
        first, second = await waiting(writer, ONLY, ONLY)
        async with Hold(writer):
            asked = [
                asyncio.ensure_future(begin(writer, "T-1")),
                asyncio.ensure_future(writer.run(reroute, Reroute("TASK-1", "elsewhere"))),
            ]
        await asyncio.gather(*asked)
        await until(lambda: writer.parked == 2, what="both wait again")
        await begin(writer, "T-2")
        assert [task.reference for task in await first] == ["T-2"]
        assert not second.done()


# Without end.


@in_loop
async def test_no_wake_up_is_lost_between_the_look_and_the_wait(tower: Tower) -> None:
    async with working(tower) as writer, asyncio.timeout(30):
        for number in range(300):
            poll = wait_for(writer)
            for _ in range(number % 5):
                await asyncio.sleep(0)
            await begin(writer, f"T-{number}")
            assert [task.reference for task in await poll] == [f"T-{number}"]


@in_loop
async def test_everybody_is_served_when_many_wait_and_many_come(tower: Tower) -> None:
    async with working(tower) as writer, asyncio.timeout(30):
        polls = [wait_for(writer, Pull(lane="only", limit=1 + number % 3)) for number in range(60)]
        for number in range(180):
            await begin(writer, f"T-{number}")
        leased = [task.task_id for poll in await asyncio.gather(*polls) for task in poll]
        while rest := await writer.pull(Pull(lane="only", limit=100)):
            leased += [task.task_id for task in rest]
        assert sorted(leased) == sorted(f"TASK-{number}" for number in range(1, 181))


# The end of a wait.


@in_loop
async def test_a_wait_ends_with_nothing_when_its_time_is_up(tower: Tower) -> None:
    async with working(tower) as writer:
        assert await writer.pull(ONLY, wait_sec=0.02) == []
        assert writer.parked == 0
        await begin(writer, "T-1")
        assert told(tower.store, "JOB-1") == [("job", "queued"), ("task", "queued")]


@in_loop
async def test_a_wait_whose_time_is_up_while_the_writer_is_busy_does_not_begin(
    tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tower) as writer:
        async with Hold(writer):
            end_wait = writer._end_wait
            over: list[Any] = []

            def end_and_tell(command: Any) -> None:
                end_wait(command)
                over.append(command)

            monkeypatch.setattr(writer, "_end_wait", end_and_tell)
            poll = wait_for(writer, sec=0.001)
            await until(lambda: over, what="its time is up")
        assert await poll == []
        assert writer.parked == 0


@in_loop
async def test_a_client_that_goes_while_it_waits_is_forgotten(tower: Tower) -> None:
    async with working(tower) as writer:
        gone, stays = await waiting(writer, ONLY, ONLY)
        gone.cancel()
        await until(lambda: writer.parked == 1, what="the wait is over")
        await begin(writer, "T-1")
        assert [task.reference for task in await stays] == ["T-1"]
        assert told(tower.store) == [("job", "queued"), ("task", "queued"), ("task", "started")]


@pytest.mark.parametrize("is_told", [False, True], ids=["before it is told", "after it is told and before it wakes up"])
@in_loop
async def test_a_client_that_goes_in_the_moment_in_which_it_is_served_leaves_the_task_to_the_next(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    async with working(tower) as writer:
        (poll,) = await waiting(writer, ONLY)
        tell = writer._told

        def tell_and_go(*told: Any) -> None:
            monkeypatch.undo()
            if is_told:
                tell(*told)
            poll.cancel()
            if not is_told:
                tell(*told)

        monkeypatch.setattr(writer, "_told", tell_and_go)
        await begin(writer, "T-1")
        with pytest.raises(asyncio.CancelledError):
            await poll
        async with asyncio.timeout(5):
            (task,) = await writer.pull(ONLY, wait_sec=60)
        assert (task.reference, task.attempt) == ("T-1", 2)
    released = next(event for event in events(tower.store) if event["data"]["status"] == "released")
    assert released["data"]["detail"] == {"reason": "the worker's connection was gone"}


@in_loop
async def test_a_stop_answers_everybody_with_nothing_and_lets_nobody_wait_any_more(tower: Tower) -> None:
    async with working(tower) as writer:
        polls = await waiting(writer, ONLY, ONLY, Pull(lane="verify", limit=3))
        writer.end_waits()
        assert await asyncio.gather(*polls) == [[], [], []]
        assert await writer.pull(ONLY, wait_sec=60) == []
        assert writer.parked == 0
        await begin(writer, "T-1")
        assert len(await writer.pull(ONLY, wait_sec=60)) == 1


# Many.


@in_loop
async def test_a_thousand_waiting_pulls_cost_nothing(tower: Tower) -> None:
    begun: list[None] = []
    event.listen(writer_engine(tower.store), "begin", lambda _connection: begun.append(None))
    async with working(tower) as writer:
        await begin(writer, "warm-up", plan="renewal")

        async def cost(reference: str) -> int:
            begun.clear()
            await begin(writer, reference, plan="renewal")
            return len(begun)

        alone = await cost("T-1")
        threads = threading.active_count()
        polls = [wait_for(writer, Pull(lane=f"lane-{number % 50}", limit=1)) for number in range(1_000)]
        await until(lambda: writer.parked == 1_000, what="all wait")
        assert await cost("T-2") == alone
        assert threading.active_count() == threads
        writer.end_waits()
        assert await asyncio.gather(*polls) == [[]] * 1_000


# Over HTTP.


@in_loop
async def test_a_waiting_request_is_answered_with_the_task(site: Site) -> None:
    async with running(site) as oms:
        poll = asyncio.ensure_future(oms.get("/pull", lane="only", wait=60))
        await oms.parked(1)
        await oms.post("/start", {"plan": "single", "reference": "T-1"})
        assert (await poll)["reference"] == "T-1"


@in_loop
async def test_a_wait_that_ends_without_work_is_answered_null_or_an_empty_list(site: Site) -> None:
    async with running(site) as oms:
        assert await oms.get("/pull", lane="only", wait=0.01) is None
        assert await oms.get("/pull", lane="only", wait=0.01, max=3) == []


@in_loop
async def test_a_full_queue_is_answered_503_and_when_to_come_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(site) as oms:
        monkeypatch.setattr(writer_module, "MAX_QUEUED_COMMANDS", -1)
        answer = await oms.http.get("/pull", params={"lane": "only"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        monkeypatch.undo()
        assert await oms.get("/pull", lane="only") is None


class Connection:
    """A client's connection as the server shows it to the application, which a test can cut."""

    def __init__(self, oms: Running, query: str) -> None:
        self.is_cut = asyncio.Event()
        self.sent: list[Message] = []
        self._asked = False
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/pull",
            "raw_path": b"/pull",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"oms")],
            "client": ("127.0.0.1", 1),
            "server": ("oms", 80),
        }
        self.request = asyncio.ensure_future(oms.app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.is_cut.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


@in_loop
async def test_a_connection_that_is_cut_while_it_waits_leaves_the_task_to_the_next(site: Site) -> None:
    async with running(site) as oms:
        connection = Connection(oms, "lane=only&wait=60")
        await oms.parked(1)
        connection.is_cut.set()
        await connection.request
        assert oms.writer.parked == 0
        await oms.post("/start", {"plan": "single", "reference": "T-1"})
        assert (await oms.get("/pull", lane="only"))["attempt"] == 1


@in_loop
async def test_a_connection_that_is_cut_in_the_moment_in_which_it_is_served_leaves_the_task_to_the_next(
    site: Site,
) -> None:
    async with running(site) as oms:
        for number in range(20):
            connection = Connection(oms, "lane=only&wait=60")
            await oms.parked(1)
            asked = asyncio.ensure_future(oms.post("/start", {"plan": "single", "reference": f"T-{number}"}))
            await turns(number)
            connection.is_cut.set()
            await asyncio.gather(connection.request, asked)
            status = connection.sent[0]["status"] if connection.sent else None
            leased = connection.sent[1]["body"] != b"null" if connection.sent else False
            assert status in (None, 200)
            if not leased:
                async with asyncio.timeout(5):
                    task = await oms.get("/pull", lane="only", wait=5)
                assert task["reference"] == f"T-{number}"
