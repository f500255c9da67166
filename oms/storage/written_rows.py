"""The statements that write the rows of jobs, tasks and events, and how their rows are made of the objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import IntEnum
from operator import attrgetter
from typing import Any

from hmskit.prepared import insert_rows
from hmskit.usual_rows import Usual, insert_usual, update_usual
from oms.domain.task import Job, Task
from oms.storage.tables import jobs, outbox, tasks


class Change(IntEnum):
    """How much of a task changed: no more is written, for every index that a column is in costs a write."""

    WORKER = 1
    STATE = 2
    PLACE = 3


JOB_COLUMNS = tuple(f.name for f in fields(Job))
TASK_COLUMNS = tuple(f.name for f in fields(Task))
_JOB_STATE = (
    "state",
    "position",
    "seq",
    "error",
    "updated_at",
    "finished_at",
    "paused_at",
    "paused_state",
    "ending",
    "restarts",
    "needs_resume",
)
_TASK_STATE = (
    "status",
    "failures",
    "ended_by",
    "worker",
    "lease_expires_at",
    "error",
    "error_type",
    "output_hmac",
    "output",
    "progress",
    "note",
    "stalls_at",
    "stall_from",
    "stalled_at",
    "ended_at",
)
_TASK_PLACE = (
    "lane",
    "ready",
    "priority",
    "lease_sec",
    "available_at",
    "held_available_at",
    "closes_at",
    "batch_max",
    "batch_at",
)
_EVENT = ("stream", "seq", "body", "created_at", "delivered")

# What rows have nearly always: a new job; one that runs; a new task that may be handed out; one that was completed.
_NEW_JOB: Usual = {
    "state": "queued",
    "error": None,
    "finished_at": None,
    "parent_job": None,
    "parent_path": None,
    "paused_at": None,
    "paused_state": None,
    "ending": None,
    "restarts": 0,
    "needs_resume": False,
}
_RUNNING_JOB: Usual = {**{name: value for name, value in _NEW_JOB.items() if name in _JOB_STATE}, "state": "running"}
# SQLite writes an index anew whose column is set, be it to the value that it had.
_INDEXED = ("state", "finished_at")
_STAYING_JOB: Usual = {name: value for name, value in _RUNNING_JOB.items() if name not in _INDEXED}
_NEW_TASK: Usual = {
    "status": "queued",
    "ready": True,
    "attempt": 0,
    "failures": 0,
    **dict.fromkeys(("token", "ended_by", "worker", "lease_expires_at", "error", "error_type", "output_hmac")),
    **dict.fromkeys(("output", "progress", "note", "input", "held_available_at", "closes_at", "batch_max")),
    **dict.fromkeys(("stalls_at", "due_at", "started_at", "ended_at", "stall_from", "stalled_at", "batch_at")),
    "branch": "",
    "scope": "",
    "superseded": False,
}
_COMPLETED_TASK: Usual = {
    "status": "done",
    "failures": 0,
    "ended_by": "done",
    **dict.fromkeys(("lease_expires_at", "error", "error_type", "progress", "note")),
    **dict.fromkeys(("stalls_at", "stall_from", "stalled_at")),
}

INSERT_JOBS = insert_usual(jobs, JOB_COLUMNS, _NEW_JOB)
INSERT_TASKS = insert_usual(tasks, TASK_COLUMNS, _NEW_TASK)
INSERT_EVENTS = insert_rows(outbox, _EVENT)
UPDATE_JOBS = update_usual(jobs, _JOB_STATE, _RUNNING_JOB, key="job_id")
UPDATE_STAYING_JOBS = update_usual(
    jobs, [name for name in _JOB_STATE if name not in _INDEXED], _STAYING_JOB, key="job_id"
)
"""The same for jobs whose state, and when they ended, are as they were."""
UPDATE_TASKS = {
    Change.WORKER: update_usual(tasks, ["worker"], {}, key="task_id"),
    Change.STATE: update_usual(tasks, _TASK_STATE, _COMPLETED_TASK, key="task_id"),
    Change.PLACE: update_usual(tasks, _TASK_STATE + _TASK_PLACE, {}, key="task_id"),
}
job_key = attrgetter("reference", "plan")
job_row = attrgetter(*INSERT_JOBS.columns)
task_row = attrgetter(*INSERT_TASKS.columns)
changed_job_row = attrgetter(*UPDATE_JOBS.columns)
staying_job_row = attrgetter(*UPDATE_STAYING_JOBS.columns)
changed_task_row: dict[Change, Callable[[Task], tuple[Any, ...]]] = {
    change: attrgetter(*statement.columns) for change, statement in UPDATE_TASKS.items()
}
