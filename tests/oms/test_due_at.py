"""By when a task should be done, through the stack."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oms.hours import NEW_YORK, at, utc
from tests.oms.support import Clock, Tower

PERMIT: dict[str, Any] = {
    "id": "permit",
    "timezone": NEW_YORK,
    "lanes": [{"id": "review", "holidays": "US", "lease_sec": 60}, "robot"],
    "sequence": [
        {"activity": "check", "lane": "robot", "due_sec": 5_400},
        {"activity": "decide", "lane": "review", "due": "P2DT1H"},
        {"activity": "file", "lane": "robot"},
    ],
    "retry_policy": {"attempts": 3, "backoff_sec": 30},
}


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2025-11-26 16:00"))  # the day before Thanksgiving


@pytest.fixture
def permit(tower: Tower) -> Tower:
    tower.put_plan(PERMIT)
    tower.start("permit")
    return tower


def due_at(tower: Tower, task: str) -> str | None:
    shown: str | None = tower.task(task)["due_at"]
    return shown


def test_a_task_is_due_so_many_seconds_or_business_days_after_it_was_queued_first(permit: Tower, clock: Clock) -> None:
    assert due_at(permit, "TASK-1") == utc(clock() + 5_400_000)
    permit.complete(permit.pull_one("robot"))
    # Friday and Monday are the business days after that Wednesday; its lane has the holidays.
    assert due_at(permit, "TASK-2") == utc(at("2025-12-01 17:00"))
    clock.now_ms = at("2025-11-28 09:00")
    permit.sweep()
    permit.complete(permit.pull_one("review"))
    assert due_at(permit, "TASK-3") is None


def test_it_stays_due_then_whatever_comes_between(permit: Tower, clock: Clock) -> None:
    due = due_at(permit, "TASK-1")
    clock.advance(10)
    permit.fail(permit.pull_one("robot"))
    clock.advance(30)
    permit.release(permit.pull_one("robot"))
    permit.reroute("TASK-1", "review")
    assert due_at(permit, "TASK-1") == due
    assert permit.job("JOB-1")["tasks"][0]["due_at"] == due


def test_a_business_day_over_a_change_of_clocks_ends_at_the_same_time_of_day(tower: Tower, clock: Clock) -> None:
    clock.now_ms = at("2026-03-06 10:00")  # a Friday; the clocks go on on Sunday
    tower.put_plan({**PERMIT, "sequence": [{"activity": "decide", "lane": "review", "due": "P1D"}]})
    tower.start("permit")
    assert due_at(tower, "TASK-1") == utc(at("2026-03-09 10:00"))
