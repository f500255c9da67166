"""What a job's events add up to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from act.contract import STATUSES
from act.domain.entry import Entry
from act.domain.fold import JobFold
from tests.act.support import NOW_MS


def entry(seq: int, entity: str, status: str, **more: Any) -> Entry:
    """Return the entry of a job's event."""
    facts: dict[str, Any] = {
        "idx": seq - 1,
        "received_us": NOW_MS * 1000,
        "stream": "JOB-1",
        "seq": seq,
        "event_id": f"JOB-1.{seq}",
        "ts_ms": NOW_MS + seq,
        "entity": entity,
        "status": status,
        "job_id": "JOB-1",
        "lane": None if entity == "job" else "clerk",
        "plan": "passport_renewal",
        "plan_version": 3,
        "reference": "ticket",
        "task_id": "TASK-1" if entity == "task" else None,
        "activity": None if entity == "job" else "check",
        "attempt": None,
        "worker": None,
        "actor": None,
        "detail": "{}",
        "extra": None,
        **more,
    }
    facts["detail"] = facts["detail"] if isinstance(facts["detail"], str) else to_json(facts["detail"]).decode()
    return Entry(**facts)


def fold(*steps: tuple[str, str] | tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """Fold a job of these events; return its body."""
    state = JobFold("JOB-1")
    state.take(entry(seq, step[0], step[1], **(step[2] if len(step) == 3 else {})) for seq, step in enumerate(steps, 1))
    return state.body()


JOB_QUEUED = ("job", "queued")
TASK_QUEUED = ("task", "queued")
FAILED = ("task", "failed", {"detail": {"final": True}})
CANCELLED = [TASK_QUEUED, ("task", "cancelled"), ("job", "cancelled")]
STARTED = ("task", "started", {"attempt": 1, "worker": "w-1"})


@pytest.mark.parametrize(
    ("steps", "state", "status"),
    [
        ([], "queued", None),
        ([TASK_QUEUED], "queued", "queued"),
        ([TASK_QUEUED, STARTED], "running", "running"),
        ([TASK_QUEUED, STARTED, ("task", "done")], "running", "done"),
        ([TASK_QUEUED, STARTED, ("task", "done"), ("job", "done")], "done", "done"),
        ([TASK_QUEUED, STARTED, ("task", "failed")], "running", "running"),
        ([TASK_QUEUED, STARTED, ("task", "failed"), TASK_QUEUED], "running", "queued"),
        ([TASK_QUEUED, STARTED, FAILED], "running", "failed"),
        ([TASK_QUEUED, STARTED, ("task", "failed", {"detail": {"final": False}})], "running", "running"),
        ([TASK_QUEUED, STARTED, FAILED, ("job", "failed")], "failed", "failed"),
        ([TASK_QUEUED, STARTED, ("task", "expired"), TASK_QUEUED], "running", "queued"),
        ([TASK_QUEUED, STARTED, ("task", "expired", {"detail": {"final": True}})], "running", "failed"),
        ([TASK_QUEUED, STARTED, ("task", "released")], "running", "queued"),
        ([TASK_QUEUED, STARTED, ("task", "rerouted", {"lane": "backup"})], "running", "queued"),
        ([TASK_QUEUED, ("task", "stalled")], "queued", "queued"),
        ([TASK_QUEUED, ("task", "cancelled"), ("job", "cancelled")], "cancelled", "cancelled"),
        ([TASK_QUEUED, ("job", "paused")], "paused", "queued"),
        ([TASK_QUEUED, ("job", "paused"), ("job", "resumed")], "queued", "queued"),
        ([TASK_QUEUED, STARTED, ("job", "paused")], "paused", "running"),
        ([TASK_QUEUED, STARTED, ("job", "paused"), ("task", "done")], "paused", "done"),
        ([TASK_QUEUED, ("job", "paused"), STARTED], "paused", "running"),
        ([TASK_QUEUED, ("job", "paused"), STARTED, ("job", "resumed")], "running", "running"),
        ([TASK_QUEUED, STARTED, ("job", "paused"), ("job", "resumed")], "running", "running"),
        (
            [TASK_QUEUED, STARTED, FAILED, ("job", "failed"), TASK_QUEUED, ("job", "restarted")],
            "running",
            "queued",
        ),
        # What was restarted runs, though nothing of it was ever handed out; also after a pause.
        ([*CANCELLED, TASK_QUEUED, ("job", "restarted")], "running", "queued"),
        ([*CANCELLED, TASK_QUEUED, ("job", "restarted"), ("job", "paused")], "paused", "queued"),
        ([*CANCELLED, TASK_QUEUED, ("job", "restarted"), ("job", "paused"), ("job", "resumed")], "running", "queued"),
        ([("step", "skipped"), TASK_QUEUED], "queued", "queued"),
        ([TASK_QUEUED, STARTED, ("task", "done"), ("job", "done"), ("job", "erased")], "done", "done"),
        ([TASK_QUEUED, ("job", "signalled")], "queued", "queued"),
        ([TASK_QUEUED, ("job", "stalled")], "queued", "queued"),
    ],
)  # fmt: skip
def test_states(steps: list[Any], state: str, status: str | None) -> None:
    body = fold(JOB_QUEUED, *steps)
    assert body["state"] == state
    assert [task["status"] for task in body["tasks"]] == ([] if status is None else [status])


def test_a_task_keeps_what_its_last_events_say() -> None:
    body = fold(
        JOB_QUEUED,
        TASK_QUEUED,
        STARTED,
        ("task", "expired", {"attempt": 1, "worker": "w-1"}),
        ("task", "queued", {"attempt": 1}),
        ("task", "rerouted", {"lane": "backup", "attempt": 1, "actor": "boss"}),
        ("task", "started", {"lane": "backup", "attempt": 2, "worker": "w-2"}),
    )
    assert body == {
        "job_id": "JOB-1",
        "plan": "passport_renewal",
        "plan_version": 3,
        "reference": "ticket",
        "state": "running",
        "seq": 7,
        "first_at": "2025-11-22T14:05:09.124Z",
        "updated_at": "2025-11-22T14:05:09.130Z",
        "tasks": [
            {
                "task_id": "TASK-1",
                "activity": "check",
                "lane": "backup",
                "status": "running",
                "attempt": 2,
                "worker": "w-2",
                "updated_at": "2025-11-22T14:05:09.130Z",
            }
        ],
    }


def test_a_queued_task_is_nobodys() -> None:
    for back in ("released", "rerouted", "queued"):
        (task,) = fold(JOB_QUEUED, TASK_QUEUED, STARTED, ("task", back, {"worker": "w-1"}))["tasks"]
        assert (task["worker"], task["attempt"]) == (None, 1)
    (task,) = fold(JOB_QUEUED, TASK_QUEUED)["tasks"]
    assert (task["worker"], task["attempt"]) == (None, 0)


def test_tasks_come_in_the_order_in_which_they_began() -> None:
    names = ["TASK-9", "TASK-2", "TASK-10"]
    body = fold(JOB_QUEUED, *(("task", "queued", {"task_id": name}) for name in names), STARTED)
    assert [task["task_id"] for task in body["tasks"]] == [*names, "TASK-1"]


STEPS = st.tuples(
    st.sampled_from(["job", "task", "step"]),
    st.sampled_from(STATUSES),
    st.fixed_dictionaries(
        {},
        optional={
            "detail": st.sampled_from([{"final": True}, {"final": False}, {}]),
            "worker": st.sampled_from(["w-1", None]),
            "attempt": st.integers(0, 3) | st.none(),
        },
    ),
)


@given(st.lists(STEPS, min_size=1, max_size=12), st.data())
def test_any_history_gives_a_state_of_the_contract_and_pages_do_not_matter(
    steps: list[tuple[str, str, dict[str, Any]]], data: st.DataObject
) -> None:
    body = fold(*steps)
    assert body["state"] in ("queued", "running", "paused", "done", "failed", "cancelled")
    assert body["seq"] == len(steps)
    for task in body["tasks"]:
        assert task["status"] in ("queued", "running", "done", "failed", "cancelled")
        assert task["worker"] is None or task["status"] != "queued"
    cut = data.draw(st.integers(0, len(steps)))
    entries = [entry(seq, *step[:2], **step[2]) for seq, step in enumerate(steps, 1)]
    paged = JobFold("JOB-1")
    paged.take(entries[:cut])
    paged.take(entries[cut:])
    assert paged.body() == body
