"""Whatever happens in lanes with hours, batches, backups and stall clocks: nothing early, twice or lost."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from oms.domain.errors import StaleTokenError
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.pull import LeasedTask
from oms.storage.store import open_store
from oms.storage.tables import tasks
from tests.database import Kind
from tests.databases import Databases
from tests.oms.fold import check_agrees, check_attempts, check_places, fold
from tests.oms.hours import NEW_YORK, at
from tests.oms.support import Clock, Tower, event_rows

ZONE = ZoneInfo(NEW_YORK)
PLAN: dict[str, Any] = {
    "id": "mixed",
    "timezone": NEW_YORK,
    "lanes": [
        {
            "id": "desk",
            "lease_sec": 7_200,
            "open": "Mon-Fri 08:00-17:00",
            "stall_after_sec": 10_800,
            "on_stall": "reroute",
            "backup": "plant",
        },
        {"id": "plant", "lease_sec": 90_000, "batch": {"at": "03:00, 15:00", "max": 2}, "stall_after_sec": 100_000},
    ],
    "sequence": [{"activity": "check", "lane": "desk"}, {"activity": "print", "lane": "plant"}],
    "retry_policy": {"attempts": 2, "backoff_sec": 1_800},
}
LANES = st.sampled_from(["desk", "plant"])
JOBS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("start"), JOBS),
    st.tuples(st.just("pull"), LANES),
    st.tuples(st.sampled_from(["complete", "fail", "release"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["pause", "resume"]), JOBS),
    st.tuples(st.just("wait"), st.sampled_from([1, 600, 3_600, 12_000, 43_200, 200_000])),
    st.tuples(st.just("sweep"), st.just(0)),
)


class Site:
    """A tower, what its workers hold, and what they may see."""

    def __init__(self, tower: Tower) -> None:
        self.tower = tower
        self.held: list[LeasedTask] = []

    def do(self, what: str, which: Any) -> None:
        tower = self.tower
        match what:
            case "start":
                tower.start("mixed", reference=f"T-{which}")
            case "pull":
                self.pull(which, 1)
            case "wait":
                tower.clock.advance(which)
            case "sweep":
                tower.sweep()
            case "pause":
                tower.run(pause, Pause(f"JOB-{which}"))
            case "resume":
                tower.run(resume, Resume(f"JOB-{which}"))
            case _ if which < len(self.held):
                task = self.held.pop(which)
                with suppress(StaleTokenError):  # its lease ran out
                    getattr(tower, what)(task)

    def pull(self, lane: str, most: int) -> list[LeasedTask]:
        now = datetime.fromtimestamp(self.tower.clock() / 1000, ZONE)
        leased = self.tower.pull(lane, most)
        for task in leased:
            available_at = datetime.fromisoformat(self.tower.task(task.task_id)["available_at"]).astimezone(ZONE)
            assert available_at <= now
            if lane == "desk":
                assert now.weekday() < 5
                assert 8 <= now.hour < 17
            else:
                assert (available_at.hour in (3, 15), available_at.minute) == (True, 0)
        self.held += leased
        return leased

    def finish(self) -> None:
        """Let patient workers and managers come to the end of it."""
        for job in range(1, 5):
            self.tower.run(resume, Resume(f"JOB-{job}"))
        for _ in range(12 * 8):
            self.tower.sweep()
            for lane in ("desk", "plant"):
                self.pull(lane, 9)
            while self.held:
                self.do("complete", 0)
            if not any(lane["queued"] or lane["running"] for lane in self.tower.lanes().values()):
                break
            self.tower.clock.advance(3 * 3_600)

    def check(self) -> None:
        store = self.tower.store
        jobs = fold(row.body for row in event_rows(store))
        check_places(event_rows(store))
        check_attempts(jobs)
        check_agrees(jobs, {name: self.tower.job(name) for name in jobs})
        with store.reading() as connection:
            live = select(tasks.c.lane, tasks.c.status, func.count()).group_by(tasks.c.lane, tasks.c.status)
            there = {(lane, status): count for lane, status, count in connection.execute(live)}
        for lane, shown in self.tower.lanes().items():
            for status in ("queued", "running"):
                assert shown[status] == there.get((lane, status), 0)


EXAMPLES = {"sqlite": 25, "postgres": 10}


def test_nothing_is_early_nothing_twice_and_nothing_lost(databases: Databases, database_kind: Kind) -> None:
    @settings(max_examples=EXAMPLES[database_kind], deadline=None)
    @given(begins=st.sampled_from(["2025-11-21 16:00", "2025-10-31 12:00"]), steps=st.lists(STEPS, max_size=25))
    def run(begins: str, steps: list[tuple[str, Any]]) -> None:
        _run(databases, database_kind, begins, steps)

    run()


def _run(databases: Databases, database_kind: Kind, begins: str, steps: list[tuple[str, Any]]) -> None:
    with databases.lend(database_kind, "oms") as database:
        store = open_store(database.url)
        site = Site(Tower(store, Clock(at(begins))))
        site.tower.put_plan(PLAN)
        for what, which in steps:
            site.do(what, which)
        site.check()
        site.finish()
        site.check()
        states = [site.tower.job(name)["state"] for name in fold(row.body for row in event_rows(store))]
        store.close()
    assert set(states) <= {"done", "failed"}
