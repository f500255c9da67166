"""Tasks that are queued for too long: told once, moved where the plan says so, and what of their waiting counts."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select, update

from oms.sequencer import tell_stalled as stalled_module
from oms.sequencer.lists import TaskFilter, tasks_page
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.start import Start, start
from oms.storage import stalls
from oms.storage.lane_pauses import KEPT_PAUSES, keep_pause, pauses_of
from oms.storage.tables import lane_controls, tasks
from tests.oms.hours import NEW_YORK, at
from tests.oms.support import (
    Clock,
    Site,
    Tower,
    break_next_commit,
    events,
    in_loop,
    running,
    steps_of,
    tidy,
)

DESK: dict[str, Any] = {
    "id": "desk",
    "timezone": NEW_YORK,
    "lanes": [
        {"id": "clerk", "lease_sec": 604_800, "open": "Mon-Fri 08:00-17:00", "stall_after_sec": 7_200},
        {"id": "robot", "stall_after_sec": 600},
        {"id": "urgent", "stall_after_sec": 600, "on_stall": "reroute", "backup": "second"},
        {"id": "second", "stall_after_sec": 900, "on_stall": "reroute", "backup": "third"},
        "third",
        {"id": "vendor", "batch": {"at": "03:00", "max": 2}, "stall_after_sec": 90_000},
    ],
    "sequence": [{"activity": "check", "lane": "robot"}],
    "retry_policy": {"attempts": 2, "backoff_sec": 300},
}


def starting(lane: str) -> dict[str, Any]:
    return {**DESK, "id": lane, "sequence": [{"activity": "check", "lane": lane}]}


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2025-11-21 12:00"))


@pytest.fixture
def desk(tower: Tower) -> Tower:
    for lane in ("clerk", "robot", "urgent", "vendor"):
        tower.put_plan(starting(lane))
    return tower


def stalls_of(tower: Tower, task: str = "TASK-1") -> list[dict[str, Any]]:
    told = [event["data"] for event in events(tower.store) if event["data"]["task_id"] == task]
    return [data["detail"] for data in told if data["status"] == "stalled"]


def pause_lane(tower: Tower, lane: str) -> None:
    with tower.transaction() as tx:
        known = tx.connection.execute(select(lane_controls).where(lane_controls.c.lane == lane)).first()
        if known is None:
            tx.connection.execute(insert(lane_controls), {"lane": lane, "seq": 0})
        tx.connection.execute(update(lane_controls).where(lane_controls.c.lane == lane).values(paused_at=tx.now_ms))


def resume_lane(tower: Tower, lane: str) -> None:
    with tower.transaction() as tx:
        this = lane_controls.c.lane == lane
        paused_at = tx.connection.execute(select(lane_controls.c.paused_at).where(this)).scalar_one()
        keep_pause(tx, lane, paused_at=paused_at)
        tx.connection.execute(update(lane_controls).where(this).values(paused_at=None))


def stalls_after(tower: Tower, sec: float, task: str = "TASK-1") -> bool:
    """Look right before and right at a moment that is so many seconds from now; return whether it stalls just then."""
    tower.clock.advance(sec - 0.001)
    tower.sweep()
    assert stalls_of(tower, task) == []
    tower.clock.advance(0.001)
    tower.sweep()
    return stalls_of(tower, task) != []


def test_a_task_that_nobody_takes_stalls_at_its_last_millisecond_and_is_told_once(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    assert desk.task("TASK-1")["stalled"] is False
    assert stalls_after(desk, 600)
    (event,) = (event for event in events(desk.store) if event["data"]["status"] == "stalled")
    assert (event["type"], event["subject"], event["data"]["actor"]) == ("hms.task.stalled.v1", "TASK-1", "oms")
    assert event["data"]["detail"] == {"lane": "robot", "queued_sec": 600}
    task = desk.task("TASK-1")
    assert (task["stalled"], task["status"], task["lane"]) == (True, "queued", "robot")
    for _ in range(3):
        clock.advance(6_000)
        assert desk.sweep().stalled == 0
    assert len(stalls_of(desk)) == 1


def test_a_stalled_task_that_is_handed_out_is_stalled_no_more_and_may_stall_again(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    clock.advance(600)
    desk.sweep()
    task = desk.pull_one("robot")
    assert desk.task("TASK-1")["stalled"] is False
    with desk.store.reading() as connection:
        row = connection.execute(select(tasks.c.stalls_at, tasks.c.stall_from, tasks.c.stalled_at)).one()
    assert tuple(row) == (None, None, None)
    desk.release(task)
    clock.advance(599)
    desk.sweep()
    assert desk.task("TASK-1")["stalled"] is False
    clock.advance(1)
    desk.sweep()
    assert desk.task("TASK-1")["stalled"] is True
    assert len(stalls_of(desk)) == 2


def test_what_was_handed_out_in_time_does_not_stall(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    clock.advance(599)
    task = desk.pull_one("robot")
    clock.advance(100)
    assert desk.sweep().stalled == 0
    desk.complete(task)
    clock.advance(6_000)
    assert desk.sweep().stalled == 0


def test_a_backoff_is_no_stall(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    desk.fail(desk.pull_one("robot"))
    assert stalls_after(desk, 300 + 600)


def test_only_time_counts_in_which_the_lane_is_open(desk: Tower, clock: Clock) -> None:
    """Queued on Friday at 16:00 with two hours' patience: on Monday at 09:00."""
    clock.now_ms = at("2025-11-21 16:00")
    desk.start("clerk")
    assert stalls_after(desk, (at("2025-11-24 09:00") - clock()) / 1000)
    assert stalls_of(desk) == [{"lane": "clerk", "queued_sec": 7_200}]


def test_that_the_window_closed_in_between_changes_nothing(desk: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-21 16:00")
    desk.start("clerk")
    clock.now_ms = at("2025-11-21 17:00")
    desk.sweep()
    assert stalls_after(desk, (at("2025-11-24 09:00") - clock()) / 1000)


def test_a_task_of_a_batch_stalls_once_it_has_been_passed_over_for_too_long(desk: Tower, clock: Clock) -> None:
    desk.run(start, *(Start("vendor", f"T-{number}", {}, 0) for number in range(7)))
    for day in ("22", "23"):
        clock.now_ms = at(f"2025-11-{day} 03:00")
        desk.sweep()
        assert len(desk.pull("vendor", 9)) == 2
    clock.now_ms = at("2025-11-23 04:00")  # 90,000 seconds are a day and an hour
    assert desk.sweep().stalled == 3
    assert desk.task("TASK-5")["available_at"] == "2025-11-24T08:00:00.000Z"


def test_a_paused_lane_is_not_open(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    clock.advance(400)
    pause_lane(desk, "robot")
    for _ in range(5):
        clock.advance(700)
        assert desk.sweep().stalled == 0
    resume_lane(desk, "robot")
    desk.sweep()
    assert stalls_after(desk, 200)
    assert stalls_of(desk) == [{"lane": "robot", "queued_sec": 600}]


def test_several_pauses_of_a_lane_add_up(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    for _ in range(3):
        clock.advance(100)
        pause_lane(desk, "robot")
        clock.advance(1_000)
        resume_lane(desk, "robot")
    assert stalls_after(desk, 300)


def test_a_lane_that_is_paused_over_night_loses_no_closed_time_twice(desk: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-20 16:00")
    desk.start("clerk")
    clock.now_ms = at("2025-11-20 16:30")
    pause_lane(desk, "clerk")
    clock.now_ms = at("2025-11-21 08:30")
    resume_lane(desk, "clerk")
    assert stalls_after(desk, (at("2025-11-21 10:00") - clock()) / 1000)


def test_a_lane_keeps_its_last_pauses(desk: Tower, clock: Clock) -> None:
    for _ in range(KEPT_PAUSES + 2):
        pause_lane(desk, "robot")
        clock.advance(1)
        resume_lane(desk, "robot")
        clock.advance(1)
    pause_lane(desk, "robot")
    clock.advance(5)
    with desk.transaction() as tx:
        kept = pauses_of(tx, "robot")
    assert len(kept) == KEPT_PAUSES + 1
    assert kept[-1] == (clock() - 5_000, clock())
    assert kept[-2] == (clock() - 7_000, clock() - 6_000)


def test_a_paused_job_s_task_does_not_stall_and_goes_on_with_the_time_it_had_left(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    clock.advance(400)
    desk.one(pause, Pause("JOB-1"))
    clock.advance(6_000)
    assert desk.sweep().stalled == 0
    desk.one(resume, Resume("JOB-1"))
    assert stalls_after(desk, 200)


def test_a_job_and_its_lane_paused_at_once_are_not_counted_twice(desk: Tower, clock: Clock) -> None:
    desk.start("robot")
    clock.advance(100)
    pause_lane(desk, "robot")
    clock.advance(50)
    desk.one(pause, Pause("JOB-1"))
    clock.advance(1_000)
    resume_lane(desk, "robot")
    clock.advance(1_000)
    desk.one(resume, Resume("JOB-1"))
    assert stalls_after(desk, 500)


def test_a_task_of_a_paused_job_has_all_its_time_when_it_goes_on(desk: Tower, clock: Clock) -> None:
    """Queued while the job was paused, after a failed attempt."""
    desk.start("robot")
    task = desk.pull_one("robot")
    desk.one(pause, Pause("JOB-1"))
    clock.advance(100)
    desk.fail(task)
    clock.advance(10_000)
    desk.one(resume, Resume("JOB-1"))
    assert stalls_after(desk, 600)


def test_a_stalled_task_goes_to_the_backup_where_its_lane_says_so_and_on_from_there(desk: Tower, clock: Clock) -> None:
    desk.start("urgent", priority=3)
    clock.advance(600)
    desk.sweep()
    task = desk.task("TASK-1")
    assert (task["lane"], task["status"], task["priority"], task["stalled"]) == ("second", "queued", 3, False)
    stalled, rerouted = (event["data"] for event in events(desk.store)[-2:])
    assert (stalled["status"], stalled["lane"], stalled["detail"]) == (
        "stalled",
        "urgent",
        {"lane": "urgent", "queued_sec": 600},
    )
    assert (rerouted["status"], rerouted["lane"], rerouted["actor"]) == ("rerouted", "second", "oms")
    assert rerouted["detail"] == {"from_lane": "urgent", "to_lane": "second", "reason": "stalled", "priority": 3}
    assert desk.lanes()["urgent"]["queued"] == 0
    assert desk.lanes()["second"]["queued"] == 1
    clock.advance(900)
    desk.sweep()
    assert desk.task("TASK-1")["lane"] == "third"
    clock.advance(10**6)
    assert desk.sweep().stalled == 0
    assert desk.pull_one("third").attempt == 1


def test_a_sweep_looks_at_a_bounded_batch(desk: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalled_module, "BATCH", 4)
    desk.run(start, *(Start("robot", f"T-{number}", {}, 0) for number in range(5)))
    desk.run(start, *(Start("urgent", f"U-{number}", {}, 0) for number in range(3)))
    clock.advance(600)
    swept = [desk.sweep() for _ in range(4)]
    assert [each.stalled for each in swept] == [4, 3, 1, 0]
    assert [each.more for each in swept] == [True, True, False, False]


def test_a_lane_that_is_paused_does_not_hold_up_what_stalls_elsewhere(
    desk: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalled_module, "BATCH", 2)
    desk.run(start, *(Start("robot", f"T-{number}", {}, 0) for number in range(5)))
    desk.run(start, Start("urgent", "U", {}, 0))
    pause_lane(desk, "robot")
    clock.advance(6_000)
    swept = desk.sweep()
    assert (swept.stalled, swept.more) == (1, False)


def test_a_stall_that_fails_or_is_told_to_have_failed_is_told_once(
    desk: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.start("urgent")
    clock.advance(600)
    for after in (False, True):
        break_next_commit(desk.store, monkeypatch, after=after)
        with pytest.raises(Exception, match=r"take it now|fsync|disk"):
            desk.sweep()
        assert desk.task("TASK-1")["lane"] == ("second" if after else "urgent")
    desk.sweep()
    assert len(stalls_of(desk)) == 1


def test_a_foreign_lane_that_has_lost_its_limit_stalls_nobody(desk: Tower, clock: Clock) -> None:
    desk.start("single")
    desk.reroute("TASK-1", "robot")
    for lane in ("clerk", "robot", "urgent", "vendor"):
        desk.put_plan({**starting(lane), "lanes": ["clerk", "robot", "urgent", "vendor"]})
    clock.advance(6_000)
    assert desk.sweep().stalled == 0
    with desk.store.reading() as connection:
        assert connection.execute(select(tasks.c.stalls_at)).scalar_one() is None


def test_a_backlog_of_tasks_that_may_stall_costs_a_sweep_nothing(desk: Tower, clock: Clock) -> None:
    none = desk.store.dialect.list_parameter([])

    def cost() -> int:
        tidy(desk.store)
        with desk.store.connect_writer() as connection, connection.begin():

            def looks() -> None:
                stalls._LANES.rows(connection)
                stalls._STALLED.rows(connection, "robot", clock(), none, 500)

            return steps_of(connection, looks)

    desk.run(start, *(Start("robot", f"T-{number}", {}, 0) for number in range(10)))
    before = cost()
    desk.run(start, *(Start("robot", f"U-{number}", {}, 0) for number in range(2_000)))
    assert cost() <= before * 1.5 + 20


@in_loop
async def test_dashboards_list_what_has_stalled(site: Site) -> None:
    clock = Clock(at("2025-11-21 12:00"))
    async with running(site, clock=clock, plans=[starting("robot"), starting("clerk")]) as oms:
        for number in range(3):
            await oms.post("/start", {"plan": "robot", "reference": f"T-{number}"})
        clock.advance(300)
        await oms.post("/start", {"plan": "robot", "reference": "T-3"})
        await oms.post("/start", {"plan": "clerk", "reference": "T-4"})
        clock.advance(300)
        await oms.sweep()
        page = await oms.get("/tasks", stalled="true", limit=2)
        assert [task["task_id"] for task in page["items"]] == ["TASK-1", "TASK-2"]
        page = await oms.get("/tasks", stalled="true", limit=2, cursor=page["next_cursor"])
        assert [(task["task_id"], task["stalled"]) for task in page["items"]] == [("TASK-3", True)]
        assert (await oms.get("/tasks", stalled="true", lane="clerk"))["items"] == []
        others = await oms.get("/tasks", stalled="false")
        assert [task["task_id"] for task in others["items"]] == ["TASK-4", "TASK-5"]
        assert (await oms.get("/jobs/JOB-1"))["tasks"][0]["stalled"] is True


def test_a_page_of_the_stalled_costs_the_same_however_many_tasks_wait(desk: Tower, clock: Clock) -> None:
    def cost() -> int:
        tidy(desk.store)
        with desk.store.connect_writer() as connection, connection.begin():
            return steps_of(
                connection,
                lambda: tasks_page(connection, TaskFilter(stalled=True), limit=5, cursor=None, now_ms=clock()),
            )

    desk.run(start, *(Start("robot", f"T-{number}", {}, 0) for number in range(10)))
    clock.advance(600)
    desk.sweep()
    before = cost()
    desk.run(start, *(Start("robot", f"U-{number}", {}, 0) for number in range(2_000)))
    assert cost() <= before * 1.5 + 20
