"""What the demo and the replay compare finds a difference, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest

from oms.demo.event_log import Case, LoggedEvent
from oms.demo.ledger import differences
from oms.demo.replay import _Run, _Story
from oms.demo.variants import variants_of
from oms.worker.task import server_time


def a_job() -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Return a job as OMS has it, as ACT folds it, and its rows; all agree."""
    tasks = [
        {"task_id": "TASK-1", "activity": "read", "lane": "ai", "status": "done", "attempt": 1},
        {"task_id": "TASK-2", "activity": "check", "lane": "clerk", "status": "done", "attempt": 2},
    ]
    facts = [("queued", None), ("queued", 0), ("started", 0), ("done", 0), ("queued", 1), ("done", 1), ("done", None)]
    rows = [
        {
            "seq": seq,
            "status": status,
            "task_id": None if number is None else tasks[number]["task_id"],
            "activity": None if number is None else tasks[number]["activity"],
        }
        for seq, (status, number) in enumerate(facts, 1)
    ]
    job = {"job_id": "JOB-1", "state": "done", "tasks": tasks}
    return job, job | {"tasks": [dict(task) for task in tasks]}, rows


def test_what_agrees_has_no_differences() -> None:
    assert differences(*a_job()) == []


def test_a_job_that_the_ledger_lacks() -> None:
    job, _, _ = a_job()
    assert differences(job, None, []) == ["JOB-1: ACT has none of its events"]


@pytest.mark.parametrize(("key", "value"), [("status", "queued"), ("lane", "backup"), ("attempt", 1)])
def test_a_task_that_differs(key: str, value: object) -> None:
    job, fold, rows = a_job()
    fold["tasks"][1][key] = value
    (found,) = differences(job, fold, rows)
    assert "TASK-2" in found


def test_a_task_that_one_side_lacks() -> None:
    job, fold, rows = a_job()
    del fold["tasks"][1]
    (found,) = differences(job, fold, rows)
    assert "TASK-2 is ('clerk', 'done', 2) in OMS and None in the ledger" in found


def test_a_state_that_differs() -> None:
    job, fold, rows = a_job()
    fold["state"] = "running"
    assert differences(job, fold, rows) == ["JOB-1: OMS says done, the ledger running"]


def test_a_missing_event() -> None:
    job, fold, rows = a_job()
    del rows[2]
    (found,) = differences(job, fold, rows)
    assert "not numbered 1 to 6" in found


def test_an_activity_that_is_done_twice_or_never() -> None:
    job, fold, rows = a_job()
    rows[5]["activity"] = "read"
    assert differences(job, fold, rows) == [
        "JOB-1: read is done 2 times in the ledger",
        "JOB-1: check is done 0 times in the ledger",
    ]


class FakeLedger:
    """Tells once what it is given."""

    def __init__(self, *activities: str | None) -> None:
        self._rows: list[dict[str, Any]] = [
            {"id": number, "reference": "c/1", "task_id": None if activity is None else "TASK-1", "activity": activity}
            for number, activity in enumerate(activities)
        ]

    def rows_after(self, row_id: int, _status: str) -> list[dict[str, Any]]:
        return [row for row in self._rows if row["id"] > row_id]


@pytest.mark.parametrize(
    ("told", "differs"),
    [
        (["Read", "Check", "Check (2)", None], False),
        (["Check", "Read", "Check (2)", None], True),
        (["Read", "Check", None], True),
        (["Read", "Check", "Check (2)", "Check (2)", None], True),
        (["Read", "Check", "Check (2)"], True),
        (["Read", "Check", "Check (2)", None, None], True),
        (["Read", "Check", "Other", None], True),
        ([], True),
    ],
)
def test_a_case_whose_story_differs(told: list[str | None], differs: bool) -> None:
    at = server_time(None)
    case = Case("c", tuple(LoggedEvent(name, "g", at) for name in ("Read", "Check", "Check")))
    (variant,) = variants_of([case])
    story = _Story(FakeLedger(*told), after=-1, references={"c/1"})  # type: ignore[arg-type]
    story.read_on()
    assert bool(list(story.differences(_Run(case, variant, "c/1")))) is differs
