"""Take a job on: to its next steps, to its end, or to what it cannot go on without."""

from __future__ import annotations

from collections.abc import Iterable

from oms.domain import paths
from oms.domain.errors import ConflictError
from oms.domain.flow import Flow
from oms.domain.flow_reopen import check_may_reopen
from oms.domain.plan import OnFailure
from oms.domain.run import Failure
from oms.domain.task import FINISHED, Job, JobState, Task
from oms.sequencer.ground import Cause, JobGround
from oms.sequencer.lanes import plan_of
from oms.sequencer.pausing import resume_job
from oms.sequencer.standing import in_the_way, is_over, stands_at
from oms.storage.jobs import load_outputs
from oms.storage.runs import runs_of
from oms.storage.transaction import Transaction


def flow_of(tx: Transaction, job: Job, cause: Cause | None = None) -> Flow:
    """Return the flow of a locked job, for one change. ``cause``: who changes it, where it is not a worker."""
    return Flow(plan_of(tx, job), JobGround(tx, job, cause, begin=begin))


def begin(tx: Transaction, job: Job) -> None:
    """Queue a new job's first steps."""
    flow_of(tx, job).start()


def prepare_to_go_on(tx: Transaction, tasks: Iterable[Task]) -> None:
    """Read, in few statements for all, what the flow of these tasks' jobs will ask for: places, and outputs."""
    scopes: set[tuple[int, str]] = set()
    places: list[tuple[int, str]] = []
    for task in tasks:
        job = tx.jobs.get(task.job_id)
        if job is None:
            continue
        plan = plan_of(tx, job)
        if task.branch or plan.reads_after(job.position):
            scopes.update((job.job_id, scope) for scope in paths.scopes_of(plan, task.scope))
        if task.branch:
            places.append((job.job_id, task.branch))
    load_outputs(tx, scopes)
    if places:
        runs_of(tx).prefetch(places)


def go_on_after(tx: Transaction, job: Job, task: Task) -> None:
    """Go on after a task that is done."""
    flow_of(tx, job).task_done(task.branch)


def give_up(tx: Transaction, job: Job, task: Task) -> None:
    """Do what the plan says about a task that has failed for good."""
    detail = {"error_type": task.error_type, "activity": task.activity, "task_id": task.name}
    step = plan_of(tx, job).steps[task.position]
    flow_of(tx, job).task_failed(task.branch, step, Failure(f"{task.activity}: {task.error}", detail))


def check_may_go_on(tx: Transaction, job: Job, task: Task) -> None:
    """Return if a job still stands at this failed task, and may go on from it.

    Raises:
        ConflictError: it has gone on without it, was cancelled, was stopped for another reason, or undone.
    """
    if is_over(job, task.branch):
        raise ConflictError(
            f"What {job.name} had done was undone when it came to its end; POST /jobs/{job.name}/restart runs it again."
        )
    if task.superseded or job.state in FINISHED - {JobState.FAILED} or not stands_at(tx, job, task):
        raise ConflictError(f"{job.name} has gone on without {task.name}.")
    if task.branch:
        ground = JobGround(tx, job, begin=begin)
        branch = ground.branch(task.branch)
        assert branch is not None
        check_may_reopen(ground, branch)


def reopen(tx: Transaction, job: Job, task: Task, cause: Cause) -> None:
    """Let a job that failed, or waits, because of a task go on; after `check_may_go_on`, and what was done to it."""
    if plan_of(tx, job).steps[task.position].on_failure is not OnFailure.PAUSE:
        flow_of(tx, job, cause).reopen(task.branch)
    elif job.state is JobState.PAUSED and not job.needs_resume and not in_the_way(tx, job):
        resume_job(tx, job, actor=cause.actor, detail={"by": cause.by})
