"""One thing that cannot be handled when it is due hinders nothing else, and is tried again later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from oms.domain.errors import UnavailableError
from oms.sequencer import (
    close_windows,
    expire_leases,
    fire_schedules,
    open_batches,
    sweep,
    sweeper,
    tell_stalled,
    timers,
)
from oms.sequencer.pull import Pull
from oms.sequencer.sweeper import sweep_all
from oms.sequencer.swept import Swept
from oms.sequencer.writer import Writer
from oms.storage.set_aside import FIRST_PAUSE_MS, MAX_PAUSE_MS, Due, LeftAlone, SetAside
from oms.storage.store import Store
from tests.oms.hours import NEW_YORK, at, utc
from tests.oms.support import Clock, Site, Tower, events, in_loop, running, until, working

EVENING = "2025-11-21 17:00"  # a Friday
BASE: dict[str, Any] = {"timezone": NEW_YORK, "retry_policy": {"attempts": 2, "backoff_sec": 0}}
PLANS: dict[Due, dict[str, Any]] = {
    Due.LEASE: {"lanes": [{"id": "lease", "lease_sec": 60}], "sequence": ["lease"]},
    Due.WINDOW: {"lanes": [{"id": "window", "open": "Mon-Fri 08:00-17:00"}], "sequence": ["window"]},
    Due.BATCH: {"lanes": [{"id": "batch", "batch": {"at": "17:00", "max": 1}}], "sequence": ["batch"]},
    Due.STALL: {"lanes": [{"id": "stall", "stall_after_sec": 600}], "sequence": ["stall"]},
    Due.TIMER: {"lanes": ["timer"], "sequence": [{"wait": {"for_sec": 60}}, "timer"]},
}
SCHEDULED = {"lanes": ["robot"], "sequence": ["robot"], "schedules": [{"cron": "0 17 * * *", "reference": "{date}"}]}
HANDLES = {
    Due.LEASE: (expire_leases, "end_attempt"),
    Due.WINDOW: (close_windows, "move_on"),
    Due.BATCH: (open_batches, "move_on"),
    Due.STALL: (tell_stalled, "_tell"),
    Due.SCHEDULE: (fire_schedules, "_fire"),
    Due.TIMER: (timers, "_fire"),
}
"""What does what is due of each kind. One of its arguments is the job, or the schedule."""
ALL = {(what, which) for what in Due for which in ("bad", "good")}


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2025-11-21 16:00"))


class Evening:
    """A tower for which two things of each kind are due at once: a bad one, which is due first, and a good one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.tower = Tower(store, clock)
        self.clock = clock
        self.jobs: dict[tuple[Due, str], str] = {}
        for what, plan in PLANS.items():
            self.tower.put_plan({**BASE, **plan, "id": what.value})
            if what is Due.BATCH:
                self.tower.start(what.value, "first")  # the batch is full with it, and the others are to wait on
            for which in ("bad", "good"):
                self.jobs[what, which] = self.tower.start(what.value, which).job_id
        for which in ("bad", "good"):
            self.tower.put_plan({**BASE, **SCHEDULED, "id": which})
        self.tower.pull("lease", 2)
        clock.now_ms = at(EVENING)

    def done(self) -> list[tuple[Due, str]]:
        """Return what was done of what is due, as often as it was."""
        told = [event["data"] for event in events(self.tower.store)]
        found = []
        for (what, which), job_id in self.jobs.items():
            of_job = [data for data in told if data["job_id"] == job_id]
            (task,) = self.tower.job(job_id)["tasks"] or [{}]
            times = {
                Due.LEASE: sum(data["status"] == "expired" for data in of_job),
                Due.STALL: sum(data["status"] == "stalled" for data in of_job),
                Due.TIMER: sum(data["activity"] == "timer" for data in of_job),
                Due.WINDOW: task.get("available_at") == utc(at("2025-11-24 08:00")),
                Due.BATCH: task.get("available_at") == utc(at("2025-11-22 17:00")),
            }
            found += [(what, which)] * times[what]
        started = [data["plan"] for data in told if data["status"] == "queued" and data["task_id"] is None]
        return found + [(Due.SCHEDULE, plan) for plan in started if plan in ("bad", "good")]

    def swept(self) -> set[tuple[Due, str]]:
        """Return what was done, none of it twice."""
        done = self.done()
        assert len(done) == len(set(done))
        return set(done)


class Fault:
    """Lets the handling of a kind's bad thing fail, until it is mended."""

    def __init__(self, what: Due, fails: Callable[[tuple[Any, ...]], None], monkeypatch: pytest.MonkeyPatch) -> None:
        module, name = HANDLES[what]
        handle = getattr(module, name)
        self.is_mended = False
        self.tries = 0

        def odd(*arguments: Any, **more: Any) -> Any:
            if not self.is_mended and any(
                "bad" in (getattr(it, "reference", ""), getattr(it, "plan", "")) for it in arguments
            ):
                self.tries += 1
                fails(arguments)
            return handle(*arguments, **more)

        monkeypatch.setattr(module, name, odd)


def crash(_arguments: tuple[Any, ...]) -> None:
    raise ZeroDivisionError


def leave_what_the_database_refuses(arguments: tuple[Any, ...]) -> None:
    tx, task, job = arguments[:3]
    task.note = object()
    tx.job_changed(job)


def errors_of(logs: Any) -> list[Any]:
    return [log for log in logs if log["log_level"] == "error"]


async def look(writer: Writer, evening: Evening) -> Swept:
    return await sweep_all(writer, evening.tower.store.set_aside)


@pytest.mark.parametrize("what", Due)
def test_one_bad_thing_hinders_no_other(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, what: Due) -> None:
    evening = Evening(store, clock)
    fault = Fault(what, crash, monkeypatch)

    @in_loop
    async def walk() -> None:
        async with working(evening.tower) as writer:
            with capture_logs() as logs:
                await look(writer, evening)
            assert evening.swept() == ALL - {(what, "bad")}
            (entry,) = store.set_aside.entries
            of = "bad" if what is Due.SCHEDULE else evening.jobs[what, "bad"]
            assert (entry.what, entry.of, entry.tries, entry.error) == (what, of, 1, "ZeroDivisionError")
            (told,) = errors_of(logs)
            assert (told["event"], told["what"], told["of"], told["tries"]) == ("set_aside", what, of, 1)
            assert told["exc_info"]

            # Whoever pulls does not stumble over it either.
            (task,) = await writer.pull(Pull("batch", 1))
            assert task.reference == "first"

            tries = fault.tries
            for pause_sec in (10, 20):
                clock.advance(pause_sec - 0.001)
                with capture_logs() as logs:
                    await look(writer, evening)
                    assert fault.tries == tries
                    assert not errors_of(logs)
                    if pause_sec == 20:
                        fault.is_mended = True
                    clock.advance(0.001)
                    await look(writer, evening)
                    assert len(errors_of(logs)) == (pause_sec == 10)
                tries = fault.tries
            assert evening.swept() == ALL
            assert store.set_aside.entries == []
            await look(writer, evening)
            assert evening.swept() == ALL

    walk()


@in_loop
async def test_what_only_the_database_refuses_is_found_too(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    evening = Evening(store, clock)
    Fault(Due.LEASE, leave_what_the_database_refuses, monkeypatch)
    async with working(evening.tower) as writer:
        await look(writer, evening)
    assert evening.swept() == ALL - {(Due.LEASE, "bad")}
    assert [entry.of for entry in store.set_aside.entries] == [evening.jobs[Due.LEASE, "bad"]]


@in_loop
async def test_a_job_whose_timer_is_left_alone_has_its_leases(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = Tower(store, clock)
    lane = {"id": "work", "lease_sec": 60}
    parallel = {"parallel": {"x": ["work"], "y": [{"wait": {"for_sec": 60}}]}}
    tower.put_plan({"id": "both", "lanes": [lane], "sequence": [parallel]})
    tower.start("both", "bad")
    tower.pull("work")
    Fault(Due.TIMER, crash, monkeypatch)
    clock.advance(60)
    async with working(tower) as writer:
        swept = await sweep_all(writer, store.set_aside)
    assert (swept.expired, swept.fired) == (1, 0)
    assert [entry.what for entry in store.set_aside.entries] == [Due.TIMER]


@in_loop
async def test_while_nothing_fails_all_is_one_transaction(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    evening = Evening(store, clock)
    monkeypatch.setattr(sweeper, "sweep_one", lambda *_: pytest.fail("one by one"))
    async with working(evening.tower) as writer:
        await look(writer, evening)
    assert evening.swept() == ALL


@in_loop
async def test_a_fault_of_nothing_in_particular_is_raised(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due is done all the same."""
    evening = Evening(store, clock)
    monkeypatch.setattr(sweep, "wake_due", crash)
    async with working(evening.tower) as writer:
        with pytest.raises(ZeroDivisionError):
            await look(writer, evening)
    assert evening.swept() == ALL
    assert store.set_aside.entries == []


@in_loop
async def test_a_database_that_goes_away_is_nobodys_fault(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    evening = Evening(store, clock)

    def be_gone(_arguments: tuple[Any, ...]) -> None:
        raise UnavailableError("the disk is full")

    Fault(Due.TIMER, be_gone, monkeypatch)
    async with working(evening.tower) as writer:
        with pytest.raises(UnavailableError):
            await look(writer, evening)
    assert evening.swept() == set()
    assert store.set_aside.entries == []


@in_loop
async def test_many_bad_things_are_all_set_aside_and_a_bounded_number_at_a_time(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "MAX_ONE_BY_ONE", 3)
    tower = Tower(store, clock)
    tower.put_plan({**BASE, **PLANS[Due.TIMER], "id": "bad"})
    for number in range(5):
        tower.start("bad", f"T-{number}")
    clock.advance(60)
    fault = Fault(Due.TIMER, crash, monkeypatch)
    async with working(tower) as writer:
        await sweep_all(writer, store.set_aside)
        assert len(store.set_aside.entries) == 3
        await sweep_all(writer, store.set_aside)
        assert len(store.set_aside.entries) == 5
        fault.is_mended = True
        clock.advance(60)
        assert (await sweep_all(writer, store.set_aside)).fired == 5
    assert store.set_aside.entries == []


@in_loop
async def test_an_operator_sees_it(site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    Fault(Due.TIMER, crash, monkeypatch)
    plan = {**BASE, **PLANS[Due.TIMER], "id": "timed"}
    async with running(site, clock=clock, plans=[plan], sweep_interval_sec=0.01) as oms:
        assert (await oms.get("/readyz"))["set_aside"] == {"count": 0, "items": []}
        await oms.post("/start", {"plan": "timed", "reference": "bad"})
        clock.advance(60)
        await until(lambda: oms.store.set_aside.entries, what="it is set aside")
        report = await oms.get("/readyz")
    assert report["ready"]
    (item,) = report["set_aside"].pop("items")
    assert report["set_aside"] == {"count": 1}
    assert item == {
        "what": "timer",
        "of": "JOB-1",
        "tries": 1,
        "error": "ZeroDivisionError",
        "since": utc(clock()),
        "again_at": utc(clock() + FIRST_PAUSE_MS),
    }


def test_pauses_double_up_to_a_limit() -> None:
    set_aside, now_ms, pauses = SetAside(), 0, []
    for _ in range(40):
        entry = set_aside.add(Due.TIMER, 7, ValueError(), now_ms)
        assert set_aside.keys(Due.TIMER, entry.again_at - 1) == [7]
        assert set_aside.keys(Due.LEASE, now_ms) == set_aside.keys(Due.TIMER, entry.again_at) == []
        pauses.append(entry.again_at - now_ms)
        now_ms = entry.again_at
    assert pauses[:4] == [FIRST_PAUSE_MS * 2**n for n in range(4)]
    assert (max(pauses), pauses[-1]) == (MAX_PAUSE_MS, MAX_PAUSE_MS)


def test_what_was_set_aside_again_in_the_meantime_is_not_dropped() -> None:
    set_aside = SetAside()
    first: LeftAlone = set_aside.add(Due.TIMER, 7, ValueError(), 0)
    second = set_aside.add(Due.TIMER, 7, ValueError(), first.again_at)
    set_aside.drop([first])
    assert set_aside.entries == [second]


@in_loop
async def test_what_is_mended_is_forgotten_also_while_something_else_fails(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    evening = Evening(store, clock)
    timer = Fault(Due.TIMER, crash, monkeypatch)
    async with working(evening.tower) as writer:
        await look(writer, evening)
        assert [entry.what for entry in store.set_aside.entries] == [Due.TIMER]
        timer.is_mended = True
        clock.now_ms = at("2025-11-22 17:00")
        Fault(Due.SCHEDULE, crash, monkeypatch)
        await look(writer, evening)
    assert [entry.what for entry in store.set_aside.entries] == [Due.SCHEDULE]
    assert (Due.TIMER, "bad") in evening.done()
