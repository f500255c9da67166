"""`/why` names one reason for whatever state a task is in, and doing what it says moves the task, to its very end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from oms.domain.errors import NotFoundError
from oms.domain.why import MAX_AHEAD, Reason
from oms.sequencer.cancel import Cancel, cancel
from oms.sequencer.erase import Erase, erase
from oms.sequencer.pause import Pause, pause
from oms.sequencer.pause_lane import PauseLane, pause_lanes
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.sequencer.why import why_view
from oms.storage.tables import jobs, lane_controls, tasks
from oms.storage.tasks import see_workers
from tests.database import Database, Kind
from tests.databases import Databases
from tests.oms.api_client import Client, serving
from tests.oms.support import Clock, Site, Tower, steps_of, tidy

BOUNDED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EXAMPLES = {"sqlite": 4, "postgres": 1}
WORKS: dict[str, Any] = {
    "id": "works",
    "timezone": "Europe/Berlin",
    "lanes": [
        {"id": "robot", "lease_sec": 60, "max_running": 1, "backup": "spare/2"},
        {"id": "slow", "rate": {"tasks": 1, "per_sec": 10}},
        {"id": "desk", "kind": "human", "open": "Mon-Fri 08:00-17:00"},
        {"id": "plant", "kind": "vendor", "batch": {"at": "03:00", "max": 1}},
        "spare/2",
    ],
    "sequence": [
        "robot",
        {"activity": "check", "lane": "robot", "on_failure": "pause"},
        {"parallel": {"a": [{"activity": "a", "lane": "slow"}], "b": ["desk"]}},
        {"activity": "optional", "lane": "spare/2", "on_failure": "continue"},
        "plant",
    ],
    "retry_policy": {"attempts": 2, "backoff_sec": 30},
}
"""Lanes with a cap, a rate, hours, batches; a step whose failure pauses the job, and one whose failure is no matter."""
LANES = ["robot", "slow", "desk", "plant", "spare/2"]


@pytest.fixture
def works(tower: Tower) -> Tower:
    tower.put_plan(WORKS)
    return tower


def why(tower: Tower, task_id: str = "TASK-1", *waited_for: str) -> dict[str, Any]:
    with tower.store.reading() as connection:
        return why_view(connection, tower.store, task_id, now_ms=tower.clock(), waited_for=waited_for)


def poll(tower: Tower, lane: str) -> None:
    """Let a named worker poll a lane, as the writer notes it."""
    with tower.transaction() as tx:
        see_workers(tx, [(lane, "w-1")])


# Each reason.


def test_the_next_in_line(works: Tower) -> None:
    works.start("works")
    poll(works, "robot")
    assert why(works) == {
        "task_id": "TASK-1",
        "reason": "ready",
        "sentence": "It is the next one in the lane 'robot': the next worker that polls gets it.",
        "action": {"word": "pull it", "method": "GET", "path": "/pull?lane=robot", "body": None},
    }


def test_tasks_ahead_and_how_to_be_first(works: Tower) -> None:
    works.run(start, *(Start("works", f"T-{number}", {}, number % 2) for number in range(5)))
    poll(works, "robot")
    answer = why(works, "TASK-5")
    assert (answer["reason"], answer["sentence"]) == ("tasks_ahead", "4 tasks are ahead of it in the lane 'robot'.")
    assert answer["action"]["body"] == {"task_id": "TASK-5", "new_lane": "robot", "priority": 2}
    works.one(reroute, Reroute(**answer["action"]["body"]))
    assert why(works, "TASK-5")["reason"] == "ready"
    assert why(works, "TASK-2")["sentence"] == "1 task is ahead of it in the lane 'robot'."


def test_more_than_a_thousand_ahead_are_not_counted(works: Tower) -> None:
    works.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(MAX_AHEAD + 2)))
    poll(works, "only")
    assert why(works, f"TASK-{MAX_AHEAD + 1}")["sentence"].startswith("1,000 tasks")
    assert why(works, f"TASK-{MAX_AHEAD + 2}")["sentence"].startswith("More than 1,000 tasks")


def test_nobody_polls(works: Tower, clock: Clock) -> None:
    works.start("single")
    assert why(works)["reason"] == "no_worker"
    assert "in the last two days" in why(works)["sentence"]
    poll(works, "only")
    clock.advance(119)
    assert why(works)["reason"] == "ready"
    clock.advance(1)
    assert why(works)["sentence"] == (
        "No named worker has polled the lane 'only' for 2 minutes; it goes to the first that does."
    )
    assert why(works)["action"]["path"] == "/pull?lane=only"
    assert why(works, "TASK-1", "only")["reason"] == "ready", "somebody without a name waits there"


def test_a_clerk_may_be_away_for_longer_than_a_machine(works: Tower, clock: Clock) -> None:
    works.start("renewal")
    works.complete(works.pull_one("extract"))
    poll(works, "verify")
    clock.advance(3_599)
    assert why(works, "TASK-2")["reason"] == "ready"
    clock.advance(1)
    assert why(works, "TASK-2")["reason"] == "no_worker"


def test_a_worker_has_it(works: Tower, clock: Clock) -> None:
    works.start("works")
    works.pull("robot", worker="w-1")
    clock.advance(20)
    assert why(works) == {
        "task_id": "TASK-1",
        "reason": "held_by_worker",
        "sentence": "w-1 has it, attempt 1, for another 40 seconds.",
        "until": "2025-11-22T14:06:09.123Z",
        "action": {
            "word": "take it from its worker",
            "method": "POST",
            "path": "/reroute",
            "body": {"task_id": "TASK-1", "new_lane": "spare/2"},
        },
    }
    clock.advance(60)
    assert "has run out" in why(works)["sentence"]


def test_it_backs_off(works: Tower) -> None:
    works.start("works")
    works.fail(works.pull_one("robot"))
    assert why(works) == {
        "task_id": "TASK-1",
        "reason": "backing_off",
        "sentence": "It is tried again in 30 seconds after 1 failed attempts.",
        "until": "2025-11-22T14:05:39.123Z",
        "action": {
            "word": "try it now",
            "method": "POST",
            "path": "/reroute",
            "body": {"task_id": "TASK-1", "new_lane": "robot"},
        },
    }


def test_its_job_is_paused(works: Tower, clock: Clock) -> None:
    works.start("works")
    works.one(pause, Pause("JOB-1"))
    works.one(pause_lanes, PauseLane("robot"))
    clock.advance(7200)
    answer = why(works)
    assert (answer["reason"], answer["sentence"]) == ("job_paused", "JOB-1 has been paused for 2 hours.")
    assert answer["action"]["path"] == "/jobs/JOB-1/resume"


def test_its_job_waits_for_another_task_of_it(works: Tower) -> None:
    plan = {
        "id": "sides",
        "lanes": ["only", "extract"],
        "sequence": [{"parallel": {"a": [{"activity": "a", "lane": "only", "on_failure": "pause"}], "b": ["extract"]}}],
    }
    works.put_plan(plan)
    works.start("sides")
    works.fail(works.pull_one("only"), retryable=False)
    answer = why(works, "TASK-2")
    assert answer["reason"] == "job_paused"
    assert answer["sentence"] == "JOB-1 is paused until somebody sees to TASK-1 (a), which has failed."
    assert answer["action"]["body"] == {"task_id": "TASK-1"}


def test_its_lane_is_paused(works: Tower, clock: Clock) -> None:
    works.start("works")
    works.reroute("TASK-1", "spare/2")
    works.one(pause_lanes, PauseLane("spare/2", reason="no paper", actor="boss"))
    clock.advance(200)
    answer = why(works)
    assert answer["reason"] == "lane_paused"
    assert answer["sentence"] == "The lane 'spare/2' was paused by boss 3 minutes ago: no paper."
    assert answer["action"]["path"] == "/lanes/spare%2F2/resume"


def test_its_lane_is_closed(works: Tower) -> None:
    works.start("works")
    works.reroute("TASK-1", "desk")
    assert why(works) == {
        "task_id": "TASK-1",
        "reason": "lane_closed",
        "sentence": "The lane 'desk' is closed until Mon 2025-11-24 08:00: Mon-Fri 08:00-17:00 (Europe/Berlin).",
        "until": "2025-11-24T07:00:00.000Z",
    }


def test_its_window_is_over_and_the_sweeper_has_not_come_yet(works: Tower, clock: Clock) -> None:
    clock.advance(2 * 86_400)
    works.start("works")
    works.reroute("TASK-1", "desk")
    poll(works, "desk")
    assert why(works)["reason"] == "ready"
    clock.advance(4 * 3_600)
    assert (why(works)["reason"], why(works)["until"]) == ("lane_closed", "2025-11-25T07:00:00.000Z")


def test_it_waits_for_its_batch(works: Tower) -> None:
    works.start("works")
    works.reroute("TASK-1", "plant")
    answer = why(works)
    assert (answer["reason"], answer["until"]) == ("waits_for_batch", "2025-11-23T02:00:00.000Z")
    assert "the batch of Sun 2025-11-23 03:00" in answer["sentence"]


def test_its_lane_has_as_many_running_as_it_may(works: Tower) -> None:
    works.run(start, *(Start("works", f"T-{number}", {}, 0) for number in range(2)))
    works.pull("robot", worker="w-1")
    answer = why(works, "TASK-2")
    assert answer["reason"] == "cap_reached"
    assert "has 1 tasks running" in answer["sentence"]
    assert answer["action"]["body"] == {"task_id": "TASK-2", "new_lane": "spare/2"}


def test_its_lane_hands_out_no_faster(works: Tower, clock: Clock) -> None:
    works.run(start, *(Start("works", f"T-{number}", {}, 0) for number in range(2)))
    works.reroute("TASK-1", "slow")
    works.reroute("TASK-2", "slow")
    works.pull("slow")
    clock.advance(4)
    answer = why(works, "TASK-2")
    assert (answer["reason"], answer["until"]) == ("rate_reached", "2025-11-22T14:05:19.124Z")
    assert answer["sentence"] == "The lane 'slow' hands out no more than 1 tasks in 10 s; the next one in 6 seconds."
    clock.advance(6.001)
    assert why(works, "TASK-2")["reason"] == "no_worker"


def test_it_has_failed(works: Tower) -> None:
    works.start("single")
    works.fail(works.pull_one("only"), retryable=False)
    answer = why(works)
    assert answer["reason"] == "failed"
    assert answer["sentence"].startswith("TASK-1 has failed (error)")
    assert answer["action"]["path"] == "/retry"
    works.one(erase, Erase("JOB-1"))
    answer = why(works)
    assert answer["reason"] == "left_behind"
    assert "erased" in answer["sentence"]
    assert "action" not in answer


def test_its_job_has_gone_on_without_it(works: Tower) -> None:
    plan = {"id": "lax", "lanes": ["only"], "sequence": [{"activity": "a", "lane": "only", "on_failure": "continue"}]}
    works.put_plan({**plan, "sequence": [*plan["sequence"], "only"]})
    works.start("lax")
    works.fail(works.pull_one("only"), retryable=False)
    answer = why(works)
    assert answer["reason"] == "left_behind"
    assert "gone on without" in answer["sentence"]


def test_it_is_over(works: Tower) -> None:
    works.start("single", "T-1")
    works.start("single", "T-2")
    works.complete(works.pull_one("only"))
    works.one(cancel, Cancel("JOB-2"))
    assert (why(works)["reason"], why(works, "TASK-2")["reason"]) == ("done", "cancelled")


@pytest.mark.parametrize("task_id", ["TASK-9", "TASK-x", "9", "TASK-0", "\0"])
def test_there_is_no_such_task(works: Tower, task_id: str) -> None:
    with pytest.raises(NotFoundError):
        why(works, task_id)


# Whatever has happened.

steps = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(["works", "works", "single"])),
    st.tuples(st.just("pull"), st.sampled_from(LANES)),
    st.tuples(st.sampled_from(["complete", "fail", "give up", "pause job"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["pause lane", "move"]), st.sampled_from(LANES)),
    st.tuples(st.just("time"), st.sampled_from([0.5, 11, 61, 3_600, 50_000])),
)


FAILURES = [
    ("move", "spare/2"),
    ("pull", "spare/2"),
    ("give up", 0),
    ("pull", "robot"),
    ("fail", 0),
    ("pull", "robot"),
]
MET = {
    *("backing_off", "failed", "held_by_worker", "job_paused", "lane_closed", "lane_paused"),
    *("no_worker", "rate_reached", "ready", "waits_for_batch"),
}
"""What the examples that are always tried meet, in the midst of it and on the way to the end."""


@dataclass
class Office:
    """The application, driven as the advice says."""

    oms: Client
    database: Database
    is_manned: bool
    seen: set[str]

    def be_there(self) -> None:
        """Let a named worker have polled every lane just now, where there are any."""
        if self.is_manned:
            self.database.rows("DELETE FROM workers")
            for lane in LANES:
                self.database.rows(f"INSERT INTO workers VALUES ('{lane}', 'w-1', {self.oms.clock()})")

    def why(self, task_id: str) -> dict[str, Any]:
        self.be_there()
        answer: dict[str, Any] = self.oms.get(f"/tasks/{task_id}/why")
        assert answer["sentence"].endswith(".")
        self.seen.add(answer["reason"])
        return answer

    def sweep(self) -> None:
        portal, writer = self.oms.http.portal, self.oms.http.app.state.service.writer  # type: ignore[attr-defined]
        assert portal is not None
        portal.call(writer.run_each, sweep, [Sweep()])

    def tasks(self, **query: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.oms.get("/tasks", limit=1000, **query)["items"]
        return items

    def happens(self, number: int, what: str, which: Any) -> None:
        oms = self.oms
        running = self.tasks(status="running")
        match what:
            case "start":
                oms.start(f"T-{number}", which)
            case "pull":
                oms.get("/pull", lane=which, worker="w-1")
            case "pause lane":
                oms.http.post("/lanes/spare%2F2/pause" if which == "spare/2" else f"/lanes/{which}/pause")
            case "move":
                for task in self.tasks(status="queued")[:1]:
                    oms.post("/reroute", {"task_id": task["task_id"], "new_lane": which})
            case "time":
                oms.clock.advance(which)
                self.sweep()
            case "pause job":
                oms.http.post(f"/jobs/JOB-{which}/pause")
            case _ if running:
                name = {"task_id": running[which % len(running)]["task_id"]}
                body = name if what == "complete" else {**name, "error": "x", "retryable": what == "fail"}
                oms.post("/complete" if what == "complete" else "/fail", body)

    def follow(self, task_id: str) -> str:
        """Do what is said until the task is through, and work on whatever is handed out; return the last reason."""
        for _ in range(150):
            answer = self.why(task_id)
            if answer["reason"] in (Reason.DONE, Reason.CANCELLED, Reason.LEFT_BEHIND):
                return str(answer["reason"])
            before = self.state()
            self.do(answer)
            assert self.state() != before or self.why(task_id) != answer, answer
            # What is handed out is done, so that advice which gives others their turn comes to an end.
            if answer["reason"] in (Reason.READY, Reason.NO_WORKER, Reason.TASKS_AHEAD):
                for task in self.tasks(status="running"):
                    self.oms.post("/complete", {"task_id": task["task_id"]})
        raise AssertionError(f"the advice leads nowhere: {answer}")

    def follow_all(self) -> None:
        """Do what is said of each task in turn, also of those that come up meanwhile."""
        over: set[str] = set()
        while left := [task["task_id"] for task in self.tasks() if task["task_id"] not in over]:
            self.follow(left[0])
            over.add(left[0])

    def do(self, answer: dict[str, Any]) -> None:
        action = answer.get("action")
        if action is not None:
            done = self.oms.http.request(action["method"], action["path"], json=action["body"])
            assert done.status_code == 200, (answer, done.text)
        elif "until" in answer:
            self.oms.clock.now_ms = max(self.oms.clock.now_ms, until_ms(answer))
            self.sweep()
        else:
            assert answer["reason"] == Reason.CAP_REACHED, f"nothing is said of what to do: {answer}"
            self.oms.post("/complete", {"task_id": self.tasks(status="running")[0]["task_id"]})

    def state(self) -> Any:
        with self.oms.store.reading() as connection:
            return [connection.execute(select(table)).all() for table in (tasks, jobs, lane_controls)]


def until_ms(answer: dict[str, Any]) -> int:

    return round(datetime.fromisoformat(answer["until"]).timestamp() * 1000)


def test_doing_what_it_says_brings_every_task_to_its_end(
    databases: Databases, database_kind: Kind, tmp_path: Path
) -> None:
    seen: set[str] = set()

    @settings(BOUNDED, max_examples=EXAMPLES[database_kind])
    @given(script=st.lists(steps, min_size=3, max_size=25), count=st.integers(1, 4), is_manned=st.booleans())
    @example(script=FAILURES, count=3, is_manned=True)
    @example(script=[("move", "spare/2"), ("pause lane", "spare/2"), ("pause job", 1)], count=1, is_manned=False)
    def check(script: list[tuple[str, Any]], count: int, *, is_manned: bool) -> None:
        with databases.lend(database_kind, "oms") as database, serving(Site(tmp_path, database)) as oms:
            oms.post("/plans", WORKS)
            office = Office(oms, database, is_manned, seen)
            for number in range(count):
                oms.start(f"J-{number}", "works")
            for number, (what, which) in enumerate(script):
                office.happens(number, what, which)
            for task in office.tasks():
                office.why(task["task_id"])
            office.follow_all()

    check()
    assert seen >= MET


def test_every_reason_has_its_example_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "why.md").read_text()
    assert re.findall(r"^### `(\w+)`$", page, re.MULTILINE)
    assert set(re.findall(r"^### `(\w+)`$", page, re.MULTILINE)) == set(Reason)


# Over HTTP, and what it costs.


@pytest.fixture
def oms(site: Site) -> Iterator[Client]:
    with serving(site) as client:
        yield client


def test_over_http(oms: Client) -> None:
    oms.start("T-1", "single")
    oms.get("/pull", lane="only", worker="w-1", max=1)
    assert oms.get("/tasks/TASK-1/why")["reason"] == "held_by_worker"
    answer = oms.http.get("/tasks/TASK-9/why")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_it_costs_the_same_however_many_are_ahead(works: Tower) -> None:
    def cost(task_id: str) -> int:
        with works.store.reading() as connection:
            return steps_of(connection, lambda: why_view(connection, works.store, task_id, now_ms=works.clock()))

    works.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(1_100)))
    tidy(works.store)
    few = cost("TASK-1100")
    works.run(start, *(Start("single", f"U-{number}", {}, 9) for number in range(1_500)))
    tidy(works.store)
    assert cost("TASK-1100") <= few * 1.1 + 50
