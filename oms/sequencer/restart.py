"""`/jobs/{id}/restart`: run a job again from an activity on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain import paths
from oms.domain.errors import ConflictError, InvalidInputError, OmsError
from oms.domain.naming import did_you_mean, listed, quote
from oms.domain.plan import Plan, steps_in
from oms.domain.task import FINISHED, Job, JobState, key_of
from oms.sequencer.advance import flow_of
from oms.sequencer.each import each
from oms.sequencer.ending import tell_parent, undoable
from oms.sequencer.events import record_job
from oms.sequencer.ground import Cause
from oms.sequencer.lanes import plan_of
from oms.sequencer.wishes import JobAnswer, lock_wished_jobs, wished_job
from oms.storage.jobs import forget_outputs
from oms.storage.runs import runs_of
from oms.storage.tasks import all_tasks, done_tasks, supersede_tasks
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Restart:
    """Run a job again from the activity ``start`` on."""

    job_id: str
    start: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


def restart(tx: Transaction, wishes: Sequence[Restart]) -> list[JobAnswer | OmsError]:
    """Stop what runs in each job, and run it again from an activity on.

    What was given from there on counts no more; the ledger keeps its history. An activity inside a block begins that
    block anew, the outermost one. Only what was cancelled, or is being undone, does not run again.
    """
    lock_wished_jobs(tx, wishes)
    return each(tx, wishes, _restart_one)


def _restart_one(tx: Transaction, wish: Restart) -> JobAnswer:
    job = wished_job(tx, wish.job_id)
    key_of(job)  # without its data it cannot run again
    if job.state is JobState.CANCELLED or (job.ending is not None and job.state not in FINISHED):
        how = "cancelled" if job.state is JobState.CANCELLED else "being undone"
        raise ConflictError(f"{job.name} is {how}; it cannot run again. Start another job with a reference of its own.")
    plan = plan_of(tx, job)
    position = _place_of(plan, wish.start)
    _check_reached(job, plan, position, wish.start)
    _check_not_undone(tx, job, plan, position)
    cause = Cause("restart", wish.actor, wish.reason)
    tx.trace = wish.trace
    flow_of(tx, job, cause).stop_before(position)
    _forget(tx, job, plan, position)
    was_finished = job.state in FINISHED
    job.state = JobState.RUNNING
    job.error = job.ending = job.paused_at = job.paused_state = None
    job.restarts += 1
    reason = {"reason": wish.reason} if wish.reason else {}
    record_job(tx, job, "restarted", actor=wish.actor, detail={"by": "restart", "from": wish.start, **reason})
    if was_finished:
        tell_parent(tx, job)
    flow_of(tx, job, cause).start()
    return JobAnswer(job_id=job.name, state=job.state)


def _place_of(plan: Plan, activity: str) -> int:
    """Return the entry of the sequence that is, or holds, an activity.

    Raises:
        InvalidInputError: none does.
    """
    for position, node in enumerate(plan.sequence):
        if any(step.activity == activity for step in steps_in([node])):
            return position
    names = [step.activity for step in steps_in(plan.sequence)]
    near = did_you_mean(activity, names) or f"; it has {listed(names)}"
    raise InvalidInputError(f"Plan {plan.id!r} has no activity {quote(activity)} to start from{near}.")


def _check_reached(job: Job, plan: Plan, position: int, activity: str) -> None:
    """Return if a job has come to an entry of its sequence: past it, what comes before would never be done.

    Raises:
        ConflictError: it has not.
    """
    if position > job.position:
        reached = listed(step.activity for step in steps_in(plan.sequence[: job.position + 1]))
        may = f"it can run again from {reached}" if reached else "nor to any other"
        raise ConflictError(f"{job.name} has not come to {quote(activity)} yet; {may}.")


def _check_not_undone(tx: Transaction, job: Job, plan: Plan, position: int) -> None:
    """Return if nothing was undone of what a job would go on from, at an entry of the sequence.

    Raises:
        ConflictError: something was: the job would go on as if it had not been, and might undo it once more.
    """
    if job.ending is None:
        return
    kept = {step.number for step in steps_in(plan.sequence[:position])}
    undone = [task.position for task in undoable(plan, done_tasks(tx, job.job_id)) if task.position in kept]
    if undone:
        first = plan.steps[min(undone)].activity
        raise ConflictError(
            f"What {job.name} had done in {quote(first)} was undone when it came to its end; it can run again from "
            f"{quote(first)} on, or from before it."
        )


def _forget(tx: Transaction, job: Job, plan: Plan, position: int) -> None:
    """Let everything that was given from an entry of the sequence on, or to undo something, count no more."""
    kept = {step.number for step in steps_in(plan.sequence[:position])}
    gone = [task.task_id for task in all_tasks(tx, job.job_id) if task.position not in kept]
    supersede_tasks(tx, gone)
    runs = runs_of(tx)
    for row in [] if plan.is_flat else runs.all_of(job.job_id):
        if paths.is_given_up(row.path, position):
            runs.remove(row)
    forget_outputs(tx, job.job_id)
