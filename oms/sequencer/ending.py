"""How a job ends: at once, or after what was done in it is undone."""

from __future__ import annotations

import json
from typing import Any

from oms.domain.plan import Plan
from oms.domain.run import Branch, Ending, Failure
from oms.domain.task import Job, JobState
from oms.sequencer.events import record_job
from oms.sequencer.lanes import plan_of
from oms.storage.runs import runs_of
from oms.storage.tasks import done_tasks
from oms.storage.timers import add_timer
from oms.storage.transaction import Transaction

CHILD_TIMER = "child"


def begin_undo(tx: Transaction, job: Job, plan: Plan, how: Ending) -> bool:
    """Note how a job will end, and what is to be undone before, latest first; False where nothing is.

    An activity is undone once for the job, or for its item: as it was done last.
    """
    to_undo = {
        (task.position, task.scope): None
        for task in sorted(
            done_tasks(tx, job.job_id), key=lambda task: (task.ended_at or 0, task.task_id), reverse=True
        )
        if plan.steps[task.position].undo and not task.superseded
    }
    if not to_undo:
        return False
    failure = how.failure or Failure("", {})
    noted = {
        "state": how.state.value,
        "error": failure.error,
        "detail": failure.detail,
        "actor": how.actor,
        "reason": how.reason,
        "left": list(to_undo),
        "not_undone": [],
    }
    _note(tx, job, noted)
    return True


def next_undo(tx: Transaction, job: Job, failure: Failure | None) -> tuple[int, str] | None:
    """Return what to undo next, by the activity's number in the plan and the path of its item; None: all is."""
    assert job.ending is not None
    noted = json.loads(job.ending)
    if failure is not None:
        noted["not_undone"].append(failure.detail)
    following = noted["left"].pop(0) if noted["left"] else None
    _note(tx, job, noted)
    return None if following is None else (following[0], following[1])


def noted(job: Job) -> Ending:
    """Return how a job will end, or has ended, of which something was undone."""
    assert job.ending is not None
    how = json.loads(job.ending)
    state = JobState(how["state"])
    detail = {**how["detail"], "undone": True}
    if how["not_undone"]:
        detail["not_undone"] = how["not_undone"]
    return Ending(state, Failure(how["error"], detail), how["actor"], how["reason"])


def end_job(tx: Transaction, job: Job, how: Ending) -> None:
    """End a job: record it, drop what nobody needs any more, and tell the job of which it is a step."""
    job.state = how.state
    job.paused_at = job.paused_state = None
    detail: dict[str, Any] = {} if how.failure is None else how.failure.detail
    if how.state is JobState.FAILED:
        error = "" if how.failure is None else how.failure.error
        job.error = error.replace("\0", "\N{REPLACEMENT CHARACTER}")  # it may quote a plan; PostgreSQL holds no NUL
    elif not plan_of(tx, job).is_flat:
        # A failed job may yet go on where it stands; of one that is done, only named outputs are asked for.
        for row in runs_of(tx).below(job.job_id, ""):
            if isinstance(row, Branch) or how.state is JobState.CANCELLED or row.output is None:
                runs_of(tx).remove(row)
    if how.state is JobState.CANCELLED and how.reason:
        detail = {**detail, "reason": how.reason}
    record_job(tx, job, how.state.value, actor=how.actor, detail=detail)
    tell_parent(tx, job)


def tell_parent(tx: Transaction, job: Job) -> None:
    """Let the job of which this one is a step hear how it stands: under its own lock, in the next sweep."""
    if job.parent_job is not None and job.parent_path is not None:
        add_timer(tx, due_at=tx.now_ms, job_id=job.parent_job, path=job.parent_path, kind=CHILD_TIMER)


def _note(tx: Transaction, job: Job, noted: dict[str, Any]) -> None:
    job.ending = json.dumps(noted, ensure_ascii=False, separators=(",", ":")).replace("\\u0000", "")
    tx.job_changed(job)
