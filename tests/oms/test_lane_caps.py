"""Caps are exact over all towers: never more run than may, never more are handed out in any window, nothing starves."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from oms.domain.errors import OmsError
from oms.domain.plan_reader import parse_plan
from oms.sequencer.cancel import Cancel, cancel
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.load_plans import LoadPlans, PutPlan, load_plans, put_plans
from oms.sequencer.pause_lane import PauseLane, ResumeLane, pause_lanes, resume_lanes
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.sequencer.writer import Writer
from oms.storage.store import Store, open_store
from oms.storage.tables import hand_outs, lane_turns, tasks
from tests.database import Database, Kind, connect
from tests.databases import Databases, postgres_only
from tests.oms.crew import CrashError, Hand, hands
from tests.oms.support import LIMIT_SEC, SINGLE, Clock, Tower, events, in_loop, until, working

BOUNDED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EXAMPLES = {"sqlite": 40, "postgres": 10}
ONLY = Pull(lane="only", limit=1)
IS_WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
RUNNING = select(func.count()).where(tasks.c.lane == "only", tasks.c.status == "running")


def capped(**caps: Any) -> dict[str, Any]:
    """Return the plan `single` with caps on its lane."""
    return {**SINGLE, "lanes": [{"id": "only", "lease_sec": 60, **caps}]}


def begin(tower: Tower, count: int, *, prefix: str = "T") -> None:
    tower.run(start, *(Start("single", f"{prefix}-{number}", {}, 0) for number in range(count)))


def running_now(connection: Connection) -> int:
    return int(connection.execute(RUNNING).scalar_one())


def handed_out(store: Store) -> list[int]:
    """Return when tasks were handed out, in milliseconds, in order."""
    times = [event["time"] for event in events(store) if event["data"]["status"] == "started"]
    return sorted(round(datetime.fromisoformat(time).timestamp() * 1000) for time in times)


def check_rate(times: list[int], *, most: int, per_sec: int) -> None:
    for earlier, later in zip(times, times[most:], strict=False):
        assert later - earlier > per_sec * 1000, f"{most + 1} hand-outs within {later - earlier} ms"


# What they do.


def test_no_more_run_than_may_and_a_slot_is_free_when_one_ends(tower: Tower) -> None:
    tower.put_plan(capped(max_running=2))
    begin(tower, 5)
    first, second = tower.pull("only", limit=5)
    assert tower.pull("only", limit=5) == []
    tower.complete(first)
    (third,) = tower.pull("only", limit=5)
    tower.release(second)
    tower.fail(third, retryable=False)
    assert len(tower.pull("only", limit=5)) == 2


def test_no_more_are_handed_out_in_any_window_than_may(tower: Tower, clock: Clock) -> None:
    tower.put_plan(capped(rate={"tasks": 2, "per_sec": 10}))
    begin(tower, 6)
    for task in tower.pull("only", limit=1):
        tower.complete(task)
    clock.advance(4)
    assert len(tower.pull("only", limit=5)) == 1
    clock.advance(6)
    assert tower.pull("only", limit=5) == [], "ten seconds to the millisecond may be less than ten seconds"
    clock.advance(0.001)
    assert len(tower.pull("only", limit=5)) == 1
    clock.advance(4)
    assert len(tower.pull("only", limit=5)) == 1
    check_rate(handed_out(tower.store), most=2, per_sec=10)
    clock.advance(60)
    tower.pull("only")
    with tower.store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(hand_outs)).scalar_one() == 1, "the others are gone"


def test_a_clock_that_was_set_back_stops_a_lane_for_no_longer_than_its_rate(tower: Tower, clock: Clock) -> None:
    tower.put_plan(capped(rate={"tasks": 1, "per_sec": 10}))
    begin(tower, 3)
    tower.pull_one("only")
    clock.advance(-3600)
    assert tower.pull("only") == []
    clock.advance(10.001)
    tower.pull_one("only")


def test_a_transaction_whose_clock_is_behind_counts_what_the_one_before_it_did_not_need(
    tower: Tower, clock: Clock
) -> None:
    """It began earlier, and came to the lane later."""
    tower.put_plan(capped(rate={"tasks": 3, "per_sec": 10}))
    begin(tower, 9)
    assert len(tower.pull("only", limit=2)) == 2
    clock.advance(10.5)
    assert len(tower.pull("only", limit=1)) == 1
    clock.advance(-0.6)
    assert tower.pull("only", limit=5) == []
    check_rate(handed_out(tower.store), most=3, per_sec=10)


def test_both_caps_hold_and_the_stricter_of_two_plans(tower: Tower, clock: Clock) -> None:
    tower.put_plan(capped(max_running=3))
    other = {"id": "other", "lanes": [{"id": "only", "max_running": 5, "rate": {"tasks": 2, "per_sec": 10}}]}
    tower.put_plan({**other, "sequence": ["only"]})
    begin(tower, 9)
    assert len(tower.pull("only", limit=9)) == 2
    clock.advance(10.001)
    assert len(tower.pull("only", limit=9)) == 1
    shown = tower.lanes()["only"]
    assert (shown["max_running"], shown["rates"]) == (3, [{"tasks": 2, "per_sec": 10}])


def test_a_cap_goes_with_the_plan_that_has_it(tower: Tower) -> None:

    loaded = LoadPlans([("capped.yaml", parse_plan({**capped(max_running=1), "id": "capped"}))])
    tower.one(load_plans, loaded)
    begin(tower, 3)
    assert len(tower.pull("only", limit=3)) == 1
    tower.one(load_plans, LoadPlans([]))
    assert tower.lanes()["only"]["max_running"] is None
    with tower.store.reading() as connection:
        assert connection.execute(select(lane_turns)).all() == []
    assert len(tower.pull("only", limit=3)) == 2


def test_a_lower_cap_takes_nothing_from_anybody(tower: Tower) -> None:
    begin(tower, 5)
    held = tower.pull("only", limit=3)
    tower.put_plan(capped(max_running=2))
    for task in held:
        assert tower.pull("only") == [] or tower.lanes()["only"]["running"] <= 2
        tower.complete(task)
    assert len(tower.pull("only", limit=5)) == 1, "one of two was taken meanwhile"


def test_a_pause_and_a_cap_know_of_each_other(tower: Tower) -> None:
    tower.put_plan(capped(max_running=1))
    begin(tower, 2)
    tower.one(pause_lanes, PauseLane("only"))
    assert tower.pull("only") == []
    tower.put_plan(capped(max_running=2))
    assert tower.lanes()["only"]["paused"]
    tower.one(resume_lanes, ResumeLane("only"))
    assert len(tower.pull("only", limit=5)) == 2


def test_a_crash_leaks_no_slot_and_no_hand_out(tower: Tower) -> None:
    tower.put_plan(capped(max_running=2, rate={"tasks": 3, "per_sec": 1000}))
    begin(tower, 9)
    for _ in range(5):
        with suppress(CrashError), tower.transaction() as tx:
            assert len(pull(tx, [Pull("only", 9)])[0]) == 2
            tx.flush()
            raise CrashError
    held = tower.pull("only", limit=9)
    assert len(held) == 2
    tower.complete(held[0])
    assert len(tower.pull("only", limit=9)) == 1


def check_whatever_happens(databases: Databases, kind: Kind, data: st.DataObject) -> None:
    most, count, per_sec = (data.draw(st.integers(1, top)) for top in (3, 3, 20))
    with databases.lend(kind, "oms") as database, closing(open_store(database.url, writers=1)) as store:
        tower = Tower(store, Clock())
        tower.put_plan(capped(max_running=most, rate={"tasks": count, "per_sec": per_sec}))
        begin(tower, 12)
        held: list[LeasedTask] = []
        for _ in range(data.draw(st.integers(5, 25))):
            something_happens(tower, held, data)
            assert running_now_of(store) <= most
        check_rate(handed_out(store), most=count, per_sec=per_sec)


def something_happens(tower: Tower, held: list[LeasedTask], data: st.DataObject) -> None:
    """Let a worker pull, or end what it holds, or crash, or time pass; what a worker holds may have been taken back."""
    match data.draw(st.sampled_from(["pull", "pull", "end", "time", "crash", "sweep", "move"])):
        case "pull":
            held += tower.pull("only", limit=data.draw(st.integers(1, 5)))
        case "end" if held:
            task = held.pop(data.draw(st.integers(0, len(held) - 1)))
            ends: list[Callable[[LeasedTask], object]] = [tower.complete, tower.fail, tower.release]
            end = data.draw(st.sampled_from(ends))
            with suppress(OmsError):
                end(task)
        case "time":
            tower.clock.advance(data.draw(st.sampled_from([0.001, 0.5, 1, 7, 31, 61])))
        case "crash":
            with suppress(CrashError), tower.transaction() as tx:
                pull(tx, [Pull("only", 5)])
                raise CrashError
        case "move" if held:
            new_lane = data.draw(st.sampled_from(["only", "extract"]))
            with suppress(OmsError):
                tower.reroute(held[-1].task_id, new_lane)
        case _:
            tower.sweep()


def test_whatever_happens_one_after_the_other_the_caps_hold(databases: Databases, database_kind: Kind) -> None:
    @settings(BOUNDED, max_examples=EXAMPLES[database_kind])
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        check_whatever_happens(databases, database_kind, data)

    check()


# Who waits.


async def by_completing(writer: Writer, clock: Clock, task: LeasedTask) -> None:
    await writer.run(complete, Complete(task.task_id, {}, token=task.token))


async def by_failing(writer: Writer, clock: Clock, task: LeasedTask) -> None:
    await writer.run(fail, Fail(task.task_id, "error", "", token=task.token))


async def by_failing_for_good(writer: Writer, clock: Clock, task: LeasedTask) -> None:
    await writer.run(fail, Fail(task.task_id, "error", "", retryable=False, token=task.token))


async def by_releasing(writer: Writer, clock: Clock, task: LeasedTask) -> None:
    await writer.run(release, Release(task.task_id, task.token))


async def by_moving_it(writer: Writer, clock: Clock, task: LeasedTask) -> None:
    await writer.run(reroute, Reroute(task.task_id, "extract"))


async def by_losing_its_lease(writer: Writer, clock: Clock, task: LeasedTask) -> None:
    clock.advance(61)
    await writer.run_each(sweep, [Sweep()])


async def by_cancelling_its_job(writer: Writer, clock: Clock, task: LeasedTask) -> None:
    await writer.run(cancel, Cancel(task.job_id))


async def by_a_higher_cap(writer: Writer, clock: Clock, task: LeasedTask) -> None:

    await writer.run(put_plans, PutPlan(parse_plan(capped(max_running=2))))


@pytest.mark.parametrize(
    "by",
    [
        by_completing,
        by_failing,
        by_failing_for_good,
        by_releasing,
        by_moving_it,
        by_losing_its_lease,
        by_cancelling_its_job,
        by_a_higher_cap,
    ],
)
@in_loop
async def test_a_free_slot_serves_who_waits_for_it(
    tower: Tower, clock: Clock, by: Callable[[Writer, Clock, LeasedTask], Awaitable[None]]
) -> None:
    tower.put_plan(capped(max_running=1))
    begin(tower, 3)
    async with working(tower) as writer:
        (held,) = await writer.pull(ONLY)
        polls = [asyncio.ensure_future(writer.pull(ONLY, wait_sec=60)) for _ in range(2)]
        await until(lambda: writer.parked == 2, what="both wait")
        await by(writer, clock, held)
        async with asyncio.timeout(LIMIT_SEC):
            await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        assert writer.parked == 1
        served = next(poll for poll in polls if poll.done())
        if by is not by_a_higher_cap:
            (task,) = served.result()
            await by_completing(writer, clock, task)
            async with asyncio.timeout(LIMIT_SEC):
                await asyncio.gather(*polls)


@in_loop
async def test_a_rate_serves_who_waits_when_its_time_has_come(store: Store) -> None:
    """By the real clock: the first second brings two, the next two more, although nothing else happens."""
    tower = Tower(store, Clock())
    tower.put_plan(capped(rate={"tasks": 2, "per_sec": 1}))
    begin(tower, 4)
    writer = Writer(store, on_recorded=lambda: None)
    writer.start()
    try:
        polls = [asyncio.ensure_future(writer.pull(ONLY, wait_sec=60)) for _ in range(4)]
        async with asyncio.timeout(LIMIT_SEC):
            served = await asyncio.gather(*polls)
    finally:
        await writer.stop()
    assert all(len(leased) == 1 for leased in served)
    check_rate(handed_out(store), most=2, per_sec=1)


# Many at once.


@in_loop
async def test_many_who_wait_at_once_never_hold_more_than_may_and_all_is_done(store: Store) -> None:
    tower = Tower(store, Clock())
    tower.put_plan(capped(max_running=3))
    begin(tower, 60)
    holding = most = done = 0

    async def work(writer: Writer, number: int) -> None:
        nonlocal holding, most, done
        while done < 60:
            leased = await writer.pull(Pull("only", 1 + number % 3), wait_sec=0.2)
            holding += len(leased)
            most = max(most, holding)
            for task in leased:
                await asyncio.sleep(0)
                holding -= 1
                done += 1
                await writer.run(complete, Complete(task.task_id, {}, token=task.token))

    async with working(tower) as writer, asyncio.timeout(60):
        await asyncio.gather(*(work(writer, number) for number in range(12)))
    assert most == 3


@pytest.fixture
def busy(oms_database: Database) -> Iterator[Store]:
    """A store that many write to."""
    opened = open_store(oms_database.url, writers=9)
    yield opened
    opened.close()


def work_until_done(store: Store, count: int, watched: list[int], *, most: int | None) -> None:
    """Let eight towers pull and complete ``count`` tasks, some of them crashing; the ninth connection watches."""
    left = count
    lock = threading.Lock()
    ends = threading.Event()

    def work(one: Hand) -> None:
        nonlocal left
        chance = random.Random(one.number)
        while not ends.is_set():
            try:
                with store.begin(one.connection, writer=one.number) as tx:
                    (leased,) = pull(tx, [Pull("only", 1 + one.number % 3)])
                    if most is not None:
                        assert running_now(one.connection) <= most
                    if chance.random() < 0.2:
                        raise CrashError
            except CrashError:
                continue
            if chance.random() < 0.2:
                one.run(release, *(Release(task.task_id, task.token) for task in leased))
                continue
            one.run(complete, *(Complete(task.task_id, {}, token=task.token) for task in leased))
            with lock:
                left -= len(leased)
                if left <= 0:
                    ends.set()

    def watch() -> None:
        while not ends.wait(0.001):
            with store.reading() as connection:
                watched.append(running_now(connection))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        hands(8, store, work)
    finally:
        ends.set()
        watcher.join()


@postgres_only
def test_towers_at_the_same_moment_never_hold_more_than_may_and_all_is_done(busy: Store) -> None:
    tower = Tower(busy, Clock())
    tower.put_plan(capped(max_running=4))
    begin(tower, 120)
    watched: list[int] = []
    work_until_done(busy, 120, watched, most=4)
    assert max(watched) <= 4
    assert running_now_of(busy) == 0
    assert {row["data"]["status"] for row in events(busy)} >= {"done", "released"}


def running_now_of(store: Store) -> int:
    with store.reading() as connection:
        return running_now(connection)


@postgres_only
def test_towers_at_the_same_moment_never_hand_out_faster_than_may_and_all_is_done(busy: Store) -> None:
    tower = Tower(busy, Clock())
    tower.put_plan(capped(rate={"tasks": 15, "per_sec": 1}))
    begin(tower, 40)
    work_until_done(busy, 40, [], most=None)
    times = handed_out(busy)
    assert len(times) >= 40
    check_rate(times, most=15, per_sec=1)


@postgres_only
def test_without_the_lane_s_turn_towers_hold_more_than_may(busy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: two count before either has written."""
    monkeypatch.setattr("oms.sequencer.admission.take_turns", lambda _tx, lanes: set(lanes))
    tower = Tower(busy, Clock())
    tower.put_plan(capped(max_running=1))
    begin(tower, 2)
    gate = threading.Barrier(2, timeout=LIMIT_SEC)

    def work(one: Hand) -> int:
        with one.transaction() as tx:
            (leased,) = pull(tx, [ONLY])
            gate.wait()
        return len(leased)

    assert sum(hands(2, busy, work)) == 2


@postgres_only
def test_a_lane_s_turn_is_not_waited_for(busy: Store) -> None:
    tower = Tower(busy, Clock())
    tower.put_plan(capped(max_running=1))
    begin(tower, 2)
    with busy.connect_writer() as one, busy.connect_writer() as other, busy.begin(one) as tx:
        assert len(pull(tx, [ONLY])[0]) == 1
        with busy.begin(other) as second:
            assert pull(second, [ONLY]) == [[]]
            assert second.contended == {"only"}, "it is to look again"
        assert tower.one(pause_lanes, PauseLane("only")).paused, "a pause does not wait for it either"


@postgres_only
def test_plans_that_are_put_in_force_at_once_leave_the_strictest_caps(busy: Store) -> None:

    def put(one: Hand) -> None:
        for round_ in range(6):
            plan = {**capped(max_running=1 + (one.number + round_) % 5), "id": f"p{one.number}"}
            one.run(put_plans, PutPlan(parse_plan(plan)))

    hands(6, busy, put)
    expected = min(1 + (number + 5) % 5 for number in range(6))
    assert Tower(busy, Clock()).lanes()["only"]["max_running"] == expected


@postgres_only
def test_a_cap_that_one_takes_away_while_another_brings_it_stays(busy: Store) -> None:
    """To the second nothing seems to change: it must know what the first is about."""
    tower = Tower(busy, Clock())
    tower.put_plan({**capped(max_running=5), "id": "first"})
    second = threading.Thread(target=tower.put_plan, args=({**capped(max_running=5), "id": "second"},))
    with tower.transaction() as tx:
        put_plans(tx, [PutPlan(parse_plan({**capped(), "id": "first"}))])
        second.start()
        with connect(busy.url) as session:
            while second.is_alive() and not session.execute(IS_WAITING).fetchall():
                pass
    second.join()
    assert tower.lanes()["only"]["max_running"] == 5
