"""Add a job's events up to its state: what the ledger alone says about the job and its tasks.

Pure, and the only reading of the events' meaning in ACT. It must agree with OMS's own tables once OMS's events have
all arrived; between the events of one transaction it may be a step behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from act.contract import format_time_ms
from act.domain.entry import Entry

_JOB_STATES = {
    "queued": "queued",
    "restarted": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "paused": "paused",
}
"""What a job's own event makes of its state. The statuses that are not here leave it, and ``resumed`` sees below."""

_TASK_STATUSES = {
    "queued": "queued",
    "started": "running",
    "done": "done",
    "released": "queued",
    "rerouted": "queued",
    "cancelled": "cancelled",
}
"""What a task's event makes of its status. ``failed`` and ``expired`` are final or not; the others leave it."""


@dataclass(slots=True)
class _Task:
    task_id: str
    activity: str | None
    lane: str | None
    status: str = "queued"
    attempt: int = 0
    worker: str | None = None
    updated_ms: int = 0


@dataclass(slots=True)
class JobFold:
    """The state that the events taken so far add up to. Take a job's events in the order of their ``seq``."""

    job_id: str
    plan: str | None = None
    plan_version: int | None = None
    reference: str | None = None
    state: str = "queued"
    seq: int = 0
    first_ms: int | None = None
    updated_ms: int = 0
    _was_started: bool = False
    _tasks: dict[str, _Task] = field(default_factory=dict)

    def take(self, entries: Iterable[Entry]) -> None:
        """Add the job's next events."""
        for entry in entries:
            self.seq = entry.seq
            self.updated_ms = entry.ts_ms
            if self.first_ms is None:
                self.first_ms = entry.ts_ms
                self.plan, self.plan_version, self.reference = entry.plan, entry.plan_version, entry.reference
            if entry.entity == "job":
                self._take_job(entry)
            elif entry.entity == "task" and entry.task_id is not None:
                self._take_task(entry, entry.task_id)

    def _take_job(self, entry: Entry) -> None:
        if entry.status == "resumed":
            # `queued` means that nothing was handed out yet, nor the job restarted; a pause does not change that.
            self.state = "running" if self._was_started else "queued"
        else:
            self.state = _JOB_STATES.get(entry.status, self.state)
            self._was_started = self._was_started or entry.status == "restarted"

    def _take_task(self, entry: Entry, task_id: str) -> None:
        task = self._tasks.get(task_id)
        if task is None:
            task = self._tasks[task_id] = _Task(task_id, entry.activity, entry.lane)
        task.updated_ms = entry.ts_ms
        task.lane = entry.lane
        if entry.attempt is not None:
            task.attempt = entry.attempt
        if entry.status in ("failed", "expired"):
            # One that is not final leaves the task as it was: the `queued` that follows puts it back into its lane.
            if from_json(entry.detail).get("final") is True:
                task.status = "failed"
        else:
            task.status = _TASK_STATUSES.get(entry.status, task.status)
        if task.status == "queued":
            task.worker = None
        elif entry.worker is not None:
            task.worker = entry.worker
        if entry.status == "started":
            self._was_started = True
            if self.state == "queued":
                self.state = "running"

    def body(self) -> dict[str, Any]:
        """Return the state as ``GET /jobs/{job_id}`` shows it; the tasks in the order in which they came."""
        return {
            "job_id": self.job_id,
            "plan": self.plan,
            "plan_version": self.plan_version,
            "reference": self.reference,
            "state": self.state,
            "seq": self.seq,
            "first_at": format_time_ms(self.first_ms or 0),
            "updated_at": format_time_ms(self.updated_ms),
            "tasks": [
                {
                    "task_id": task.task_id,
                    "activity": task.activity,
                    "lane": task.lane,
                    "status": task.status,
                    "attempt": task.attempt,
                    "worker": task.worker,
                    "updated_at": format_time_ms(task.updated_ms),
                }
                for task in self._tasks.values()
            ],
        }
