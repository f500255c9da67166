"""Walk jobs through plans with blocks: a tower with the managers' verbs, and words for what is queued."""

from __future__ import annotations

from typing import Any

from oms.sequencer.cancel import Cancel, cancel
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.restart import Restart, restart
from oms.sequencer.signal import Signal, signal
from oms.sequencer.skip import Skip, skip
from oms.sequencer.wishes import JobAnswer, TaskAnswer
from oms.storage.store import Store
from tests.oms.support import Clock, Tower


def plan(*sequence: Any, lanes: Any = ("a", "b", "c"), **keys: Any) -> dict[str, Any]:
    """Return a plan whose activities each have one attempt, unless it says otherwise."""
    base = {"id": "walked", "lanes": list(lanes), "sequence": list(sequence), "retry_policy": {"attempts": 1}}
    return {**base, **keys}


def act(name: str, lane: str = "a", **keys: Any) -> dict[str, Any]:
    """Return an activity of a lane."""
    return {"activity": name, "lane": lane, **keys}


class Walker(Tower):
    """A tower, and one job of a plan at a time."""

    job_id = ""

    def go(self, document: dict[str, Any], data: dict[str, Any] | None = None, reference: str = "T-1") -> str:
        """Put a plan in force and start a job of it."""
        self.put_plan(document)
        self.job_id = self.start(document["id"], reference, data).job_id
        return self.job_id

    def state(self, job_id: str | None = None) -> str:
        return str(self.job(job_id or self.job_id)["state"])

    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = self.job(self.job_id)["outputs"]
        return found

    def tasks(self, job_id: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.job(job_id or self.job_id)["tasks"]
        return found

    def queued(self, job_id: str | None = None) -> list[str]:
        """Return the activities that are queued, in the order of their tasks."""
        return [task["activity"] for task in self.tasks(job_id) if task["status"] == "queued"]

    def live(self, activity: str, job_id: str | None = None) -> dict[str, Any]:
        """Return the task of an activity that is queued or running; the first of several."""
        found = [task for task in self.tasks(job_id) if task["activity"] == activity]
        return next(task for task in found if task["status"] in ("queued", "running"))

    def last(self, activity: str) -> dict[str, Any]:
        """Return the newest task of an activity."""
        return [task for task in self.tasks() if task["activity"] == activity][-1]

    def do(self, activity: str, output: dict[str, Any] | None = None, job_id: str | None = None) -> TaskAnswer:
        """Let a worker do the activity's task."""
        return self.complete(self.take(activity, job_id), output)

    def break_(self, activity: str) -> TaskAnswer:
        """Let a worker fail the activity's task for good."""
        return self.fail(self.take(activity), retryable=False)

    def take(self, activity: str, job_id: str | None = None) -> Any:
        """Hand the activity's task to a worker; what was handed out on the way to it goes back."""
        wanted = self.live(activity, job_id)
        others = []
        while True:
            (task,) = self.pull(wanted["lane"])
            if task.task_id == wanted["task_id"]:
                break
            others.append(task)
        for other in others:
            self.release(other)
        return task

    def cancel(self, job_id: str | None = None) -> JobAnswer:
        return self.one(cancel, Cancel(job_id or self.job_id, actor="boss", reason="no longer wanted"))

    def pause(self) -> JobAnswer:
        return self.one(pause, Pause(self.job_id, actor="boss"))

    def resume(self) -> JobAnswer:
        return self.one(resume, Resume(self.job_id, actor="boss"))

    def skip(self, task_id: str, output: dict[str, Any] | None = None) -> TaskAnswer:
        return self.one(skip, Skip(task_id, output or {}, "seen on paper", actor="boss"))

    def signal(self, name: str, data: dict[str, Any] | None = None, signal_id: str | None = None) -> JobAnswer:
        return self.one(signal, Signal(self.job_id, name, data or {}, signal_id))

    def restart(self, activity: str) -> JobAnswer:
        return self.one(restart, Restart(self.job_id, activity, actor="boss"))

    def later(self, sec: float) -> None:
        """Let time pass, and the sweep look."""
        self.clock.advance(sec)
        self.sweep()

    def settle(self) -> None:
        """Let the sweep do all that is due now."""
        while self.sweep().fired:
            pass


def walker(store: Store, clock: Clock) -> Walker:
    return Walker(store, clock)
