"""Lanes with opening hours and holidays: what may be handed out when, through the whole stack."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from oms.domain.plan_reader import parse_plan
from oms.sequencer import close_windows as close_module
from oms.sequencer.load_plans import PutPlan, put_plans
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.pull import Pull
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.storage import windows
from oms.storage.tables import tasks
from tests.oms.hours import NEW_YORK, at, utc
from tests.oms.support import (
    Clock,
    Site,
    Tower,
    break_next_commit,
    event_rows,
    in_loop,
    running,
    steps_of,
    tidy,
    until,
    working,
)

OFFICE: dict[str, Any] = {
    "id": "office",
    "timezone": NEW_YORK,
    "lanes": [
        {"id": "clerk", "lease_sec": 604_800, "open": "Mon-Fri 08:00-17:00", "holidays": "US"},
        {"id": "night", "open": "Mon-Sun 22:00-06:00"},
        "robot",
    ],
    "sequence": [{"activity": "check", "lane": "clerk"}],
    "retry_policy": {"attempts": 3, "backoff_sec": 600},
}


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2025-11-21 12:00"))  # a Friday


@pytest.fixture
def office(tower: Tower) -> Tower:
    tower.put_plan(OFFICE)
    return tower


def available_at(tower: Tower, task: str = "TASK-1") -> str:
    shown: str = tower.task(task)["available_at"]
    return shown


def test_a_task_of_an_open_lane_is_ready_at_once(office: Tower, clock: Clock) -> None:
    office.start("office")
    assert available_at(office) == utc(clock())
    assert office.pull_one("clerk").activity == "check"


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2025-11-21 07:59:59", "2025-11-21 08:00"),
        ("2025-11-21 17:00", "2025-11-24 08:00"),  # over the weekend
        ("2025-11-26 17:00", "2025-11-28 08:00"),  # over Thanksgiving
        ("2025-10-31 18:00", "2025-11-03 08:00"),  # the clocks go back on the Sunday
        ("2026-03-06 18:00", "2026-03-09 08:00"),  # and on
    ],
)
def test_a_task_of_a_closed_lane_waits_for_the_next_opening_on_the_clock_of_its_plan(
    office: Tower, clock: Clock, now: str, opens: str
) -> None:
    clock.now_ms = at(now)
    office.start("office")
    assert available_at(office) == utc(at(opens))
    clock.now_ms = at(opens) - 1
    office.sweep()
    assert office.pull("clerk") == []
    clock.advance(0.001)
    assert office.pull_one("clerk").task_id == "TASK-1"


def test_a_window_lasts_from_its_first_millisecond_to_its_last_on_the_days_on_which_clocks_change(
    office: Tower, clock: Clock
) -> None:
    """22:00 to 06:00 is nine hours in the night in which 01:00 comes twice, and seven in that in which 02:00 is not."""
    for night, hours in (("2025-11-01 22:00", 9), ("2026-03-07 22:00", 7), ("2025-11-20 22:00", 8)):
        clock.now_ms = at(night)
        started = office.start("office", reference=night)
        task = office.job(started.job_id)["tasks"][0]["task_id"]
        office.reroute(task, "night")
        clock.now_ms = at(night) + hours * 3_600_000 - 1
        leased = office.pull_one("night")
        office.release(leased)
        clock.advance(0.001)
        assert office.pull("night") == []
        office.sweep()
        assert available_at(office, task) == utc(at(f"{night[:8]}{int(night[8:10]) + 1:02} 22:00"))
        clock.now_ms = at(f"{night[:8]}{int(night[8:10]) + 1:02} 22:00")
        office.complete(office.pull_one("night"))


def test_nothing_is_handed_out_after_the_closing_also_before_the_sweep_has_looked(office: Tower, clock: Clock) -> None:
    office.start("office")
    clock.now_ms = at("2025-11-21 17:00")
    assert office.pull("clerk") == []
    assert office.lanes()["clerk"]["queued"] == 1


def test_what_runs_at_the_closing_may_be_completed(office: Tower, clock: Clock) -> None:
    office.start("office")
    task = office.pull_one("clerk")
    clock.now_ms = at("2025-11-21 18:00")
    office.sweep()
    assert office.complete(task).job_state == "done"


def test_the_sweep_moves_what_is_left_on_to_the_next_opening_and_records_nothing(office: Tower, clock: Clock) -> None:
    office.start("office")
    recorded = len(event_rows(office.store))
    clock.now_ms = at("2025-11-21 17:00")
    assert office.sweep().next_due_ms == at("2025-11-24 08:00")
    assert available_at(office) == utc(at("2025-11-24 08:00"))
    assert office.lanes()["clerk"]["queued"] == 1
    assert len(event_rows(office.store)) == recorded
    clock.now_ms = at("2025-11-24 08:00")
    assert office.pull_one("clerk").attempt == 1


def test_who_waited_over_the_weekend_is_served_before_who_comes_on_monday(office: Tower, clock: Clock) -> None:
    for number in range(3):
        office.start("office", reference=f"friday-{number}")
    clock.now_ms = at("2025-11-21 17:00")
    office.sweep()
    clock.now_ms = at("2025-11-24 08:00")
    office.start("office", reference="monday")
    assert [task.reference for task in office.pull("clerk", 4)] == ["friday-0", "friday-1", "friday-2", "monday"]


def test_a_sweep_after_an_outage_over_the_closing_leaves_the_old_place(office: Tower, clock: Clock) -> None:
    """Nobody swept from Friday noon to Monday morning: what was ready then is ready now, before what came since."""
    office.start("office", reference="friday")
    clock.now_ms = at("2025-11-24 09:00")
    office.start("office", reference="monday")
    office.sweep()
    assert available_at(office) == utc(at("2025-11-21 12:00"))
    assert [task.reference for task in office.pull("clerk", 2)] == ["friday", "monday"]


def test_a_sweep_moves_a_bounded_batch(office: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(close_module, "BATCH", 3)
    office.run(start, *(Start("office", f"T-{number}", {}, 0) for number in range(5)))
    clock.now_ms = at("2025-11-21 17:00")
    swept = [office.sweep().more for _ in range(3)]
    assert swept == [True, False, False]
    assert {task["available_at"] for task in (office.task(f"TASK-{n}") for n in range(1, 6))} == {
        utc(at("2025-11-24 08:00"))
    }


def test_a_failed_attempt_comes_back_when_its_backoff_is_over_and_the_lane_open(office: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-21 16:45")
    office.start("office")
    office.fail(office.pull_one("clerk"))
    assert available_at(office) == utc(at("2025-11-21 16:55"))
    clock.now_ms = at("2025-11-21 16:55")
    office.fail(office.pull_one("clerk"))
    assert available_at(office) == utc(at("2025-11-24 08:00"))


def test_a_release_keeps_its_place_while_the_lane_is_open_and_waits_after_the_closing(
    office: Tower, clock: Clock
) -> None:
    office.start("office", reference="first")
    first = office.pull_one("clerk")
    clock.advance(3600)
    office.start("office", reference="second")
    office.release(first)
    again, second = office.pull("clerk", 2)
    assert (again.reference, available_at(office)) == ("first", utc(at("2025-11-21 12:00")))
    clock.now_ms = at("2025-11-21 17:30")
    office.release(again)
    assert available_at(office) == utc(at("2025-11-24 08:00"))
    clock.now_ms = at("2025-11-25 09:00")  # in another window than that of its place
    office.sweep()
    office.release(second)
    assert available_at(office, second.task_id) == utc(at("2025-11-21 13:00"))
    assert [task.reference for task in office.pull("clerk", 2)] == ["second", "first"]


def test_a_lane_has_the_hours_of_the_plan_that_declares_it(office: Tower, clock: Clock) -> None:
    """A task of a plan without hours is moved to a lane of another plan, in whose timezone it is still open."""
    clock.now_ms = at("2025-11-21 16:00")
    office.start("single")
    office.reroute("TASK-1", "clerk")
    clock.now_ms = at("2025-11-21 17:00")
    assert office.pull("clerk") == []
    office.sweep()
    assert available_at(office) == utc(at("2025-11-24 08:00"))
    office.put_plan({**OFFICE, "lanes": ["clerk", "robot"]})
    clock.now_ms = at("2025-11-22 03:00")
    office.reroute("TASK-1", "clerk")
    assert office.pull_one("clerk").task_id == "TASK-1"


def test_a_plan_that_comes_in_the_same_transaction_is_the_one_that_counts(office: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-22 12:00")
    office.start("single", reference="T-1")
    office.start("single", reference="T-2")
    with office.transaction() as tx:
        reroute(tx, [Reroute("TASK-1", "clerk")])
        put_plans(tx, [PutPlan(parse_plan({**OFFICE, "lanes": ["clerk"]}))])
        reroute(tx, [Reroute("TASK-2", "clerk")])
    assert available_at(office) == utc(at("2025-11-24 08:00"))
    assert [task.task_id for task in office.pull("clerk", 2)] == ["TASK-2"]


def test_a_paused_job_s_task_is_put_into_the_window_that_is_open_when_it_goes_on(office: Tower, clock: Clock) -> None:
    office.start("office")
    for now, expected in (("2025-11-21 20:00", "2025-11-24 08:00"), ("2025-11-24 10:00", "2025-11-24 08:00")):
        office.one(pause, Pause("JOB-1"))
        clock.now_ms = at(now)
        office.sweep()
        assert office.pull("clerk") == []
        office.one(resume, Resume("JOB-1"))
        assert available_at(office) == utc(at(expected))
    assert office.pull_one("clerk").task_id == "TASK-1"


def test_a_close_that_fails_or_is_told_to_have_failed_is_done_once(
    office: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.run(start, *(Start("office", f"T-{number}", {}, 0) for number in range(3)))
    clock.now_ms = at("2025-11-21 17:00")
    for after in (False, True):
        break_next_commit(office.store, monkeypatch, after=after)
        with pytest.raises(Exception, match=r"take it now|fsync|disk"):
            office.sweep()
        expected = at("2025-11-24 08:00") if after else at("2025-11-21 12:00")
        assert available_at(office) == utc(expected)
    office.sweep()
    assert office.lanes()["clerk"]["queued"] == 3


@in_loop
async def test_a_long_poll_is_served_at_the_opening_and_not_before(site: Site) -> None:
    clock = Clock(at("2025-11-24 07:59"))
    async with running(site, clock=clock, plans=[OFFICE], sweep_interval_sec=0.01) as oms:
        await oms.post("/start", {"plan": "office", "reference": "T-1"})
        poll = asyncio.ensure_future(oms.get("/pull", lane="clerk", wait=60))
        await oms.parked(1)
        clock.advance(59.9)
        await oms.sweep()
        assert oms.writer.parked == 1
        clock.advance(0.1)
        assert (await poll)["task_id"] == "TASK-1"


@in_loop
async def test_a_long_poll_of_a_lane_that_has_closed_waits_and_turns_in_no_circle(office: Tower, clock: Clock) -> None:
    office.start("office")
    clock.now_ms = at("2025-11-21 17:00")
    async with working(office) as writer:
        poll = asyncio.ensure_future(writer.pull(Pull(lane="clerk", limit=1), wait_sec=60))
        await until(lambda: writer.parked == 1, what="it waits")
        await writer.run_each(sweep, [Sweep()])
        clock.now_ms = at("2025-11-24 08:00")
        await writer.run_each(sweep, [Sweep()])
        assert [task.task_id for task in await poll] == ["TASK-1"]


@in_loop
async def test_a_long_poll_is_served_when_the_sweep_finds_a_lane_open_again(office: Tower, clock: Clock) -> None:
    """Nobody swept over the weekend; whoever pulled before the sweep waits for it."""
    office.start("office")
    clock.now_ms = at("2025-11-24 09:00")
    async with working(office) as writer:
        poll = asyncio.ensure_future(writer.pull(Pull(lane="clerk", limit=1), wait_sec=60))
        await until(lambda: writer.parked == 1, what="it waits")
        await writer.run_each(sweep, [Sweep()])
        assert [task.task_id for task in await asyncio.wait_for(poll, 10)] == ["TASK-1"]


@pytest.mark.parametrize("statement", ["claim", "close"])
def test_a_lane_with_hours_costs_the_same_with_a_large_backlog(office: Tower, clock: Clock, statement: str) -> None:
    """Waiting for the opening, and ready: neither is stepped over by a pull or a sweep that finds nothing to do."""
    none = office.store.dialect.list_parameter([])

    def cost() -> int:
        tidy(office.store)
        with office.store.connect_writer() as connection, connection.begin():
            if statement == "close":
                return steps_of(connection, lambda: windows._CLOSED.rows(connection, clock(), none, 500))
            claim = office.store.dialect.claim
            return steps_of(connection, lambda: claim.rows(connection, clock(), "clerk", 5, False, None))

    office.run(start, *(Start("office", f"T-{number}", {}, 0) for number in range(10)))
    before = cost()
    office.run(start, *(Start("office", f"U-{number}", {}, 0) for number in range(2_000)))
    with office.store.connect_writer() as connection, connection.begin():
        later = text(f"UPDATE tasks SET ready = false, available_at = {clock() + 60_000} WHERE task_id > 1010")
        connection.execute(later)
    assert cost() <= before * 1.5 + 20


def test_lanes_without_hours_keep_no_window(office: Tower) -> None:
    office.start("single")
    with office.store.reading() as connection:
        row = connection.execute(tasks.select()).one()
    assert (row.closes_at, row.batch_at, row.batch_max, row.stalls_at, row.due_at) == (None,) * 5
