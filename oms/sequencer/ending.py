"""How a job ends: at once, or after what was done in it is undone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from oms.domain import paths
from oms.domain.flow_start import CHILD_TIMER
from oms.domain.plan import Plan
from oms.domain.run import BlockRun, Branch, Ending, Failure, RunState
from oms.domain.task import Job, JobState, Task
from oms.sequencer.events import record_job
from oms.sequencer.lanes import plan_of
from oms.sequencer.pausing import resume_job
from oms.storage.runs import runs_of
from oms.storage.tasks import done_tasks
from oms.storage.timers import add_timer
from oms.storage.transaction import Transaction

MOST_NOT_UNDONE = 50
"""Of so many at most the job's last event tells why: an event is at most 64,000 bytes long."""


def begin_undo(tx: Transaction, job: Job, plan: Plan, how: Ending) -> bool:
    """Note how a job will end, and what is to be undone before, latest first; False where nothing is.

    An activity is undone once for the job, or for its item: as it was done last. A job that was paused goes on with
    that: nothing else of it is left, and nobody would resume what is cancelled. What is to be undone is a waiting row
    each, so that to undo one of ten thousand costs what one of ten does.
    """
    done = undoable(plan, done_tasks(tx, job.job_id))
    done.sort(key=lambda task: (task.ended_at or 0, task.task_id), reverse=True)
    to_undo = {(task.position, task.scope): None for task in done}
    if not to_undo:
        return False
    if job.state is JobState.PAUSED:
        resume_job(tx, job, actor=how.actor, detail={"by": "undo"})
    failure = how.failure or Failure("", {})
    noted: dict[str, Any] = {
        "state": how.state.value,
        "error": failure.error,
        "detail": failure.detail,
        "actor": how.actor,
        "reason": how.reason,
        "failed": 0,
        "not_undone": [],
    }
    _note(tx, job, noted)
    for number, (position, scope) in enumerate(to_undo):
        path = paths.branch_path(paths.UNDO, number)
        name = plan.steps[position].activity
        row = Branch(job.job_id, path, paths.UNDO, number, name, scope, RunState.WAITING, position=position)
        runs_of(tx).add(row)
    return True


def undoable(plan: Plan, done: Iterable[Task]) -> list[Task]:
    """Return those of a job's done tasks that are undone when it does not come to a good end."""
    return [task for task in done if plan.steps[task.position].undo and not task.superseded]


def next_undo(tx: Transaction, job: Job, failure: Failure | None) -> tuple[int, str] | None:
    """Return what to undo next, by the activity's number in the plan and the path of its item; None: all is."""
    if failure is not None:
        assert job.ending is not None
        noted = json.loads(job.ending)
        noted["failed"] += 1
        noted["not_undone"] = [*noted["not_undone"], failure.detail][:MOST_NOT_UNDONE]
        _note(tx, job, noted)
    following = runs_of(tx).first_waiting(job.job_id, paths.UNDO)
    if following is None:
        return None
    runs_of(tx).remove(following)
    return following.position, following.scope


def noted(job: Job) -> Ending:
    """Return how a job will end, or has ended, of which something was undone."""
    assert job.ending is not None
    how = json.loads(job.ending)
    state = JobState(how["state"])
    detail = {**how["detail"], "undone": True}
    if how["not_undone"]:
        detail["not_undone"] = how["not_undone"]
    if how["failed"] > len(how["not_undone"]):
        detail["not_undone_in_all"] = how["failed"]
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
        # A failed job may yet go on where it stands. Of one that is done, named outputs are asked for; and items, if
        # it is restarted, fails, and something is to be undone.
        for row in runs_of(tx).all_of(job.job_id):
            if how.state is JobState.CANCELLED or not _is_kept(row, plan_of(tx, job)):
                runs_of(tx).remove(row)
    if how.state is JobState.CANCELLED and how.reason:
        detail = {**detail, "reason": how.reason}
    record_job(tx, job, how.state.value, actor=how.actor, detail=detail)
    tell_parent(tx, job)


def _is_kept(row: Branch | BlockRun, plan: Plan) -> bool:
    """Tell whether a branch or block of a job that is done may yet be asked for."""
    if isinstance(row, Branch):
        return plan.has_undo and row.item is not None
    return row.output is not None


def tell_parent(tx: Transaction, job: Job) -> None:
    """Let the job of which this one is a step hear how it stands: under its own lock, in the next sweep."""
    if job.parent_job is not None and job.parent_path is not None:
        add_timer(tx, due_at=tx.now_ms, job_id=job.parent_job, path=job.parent_path, kind=CHILD_TIMER)


def _note(tx: Transaction, job: Job, noted: dict[str, Any]) -> None:
    job.ending = json.dumps(noted, separators=(",", ":"))  # in ASCII: PostgreSQL holds no NUL, which an error may have
    tx.job_changed(job)
