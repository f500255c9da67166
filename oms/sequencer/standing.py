"""At which tasks a job stands: what has failed there, somebody may still do something about."""

from __future__ import annotations

from oms.domain import paths
from oms.domain.plan import OnFailure
from oms.domain.run import RunState
from oms.domain.task import FINISHED, Job, Task
from oms.sequencer.lanes import plan_of
from oms.storage.runs import runs_of
from oms.storage.tasks import failed_tasks
from oms.storage.transaction import Transaction


def stands_at(tx: Transaction, job: Job, task: Task) -> bool:
    """Tell whether the branch of a task waits for that task still, or has stopped at it."""
    if task.branch:
        branch = runs_of(tx).branch(job.job_id, task.branch)
        return branch is not None and branch.task_id == task.task_id
    plan = plan_of(tx, job)
    return job.position < len(plan.sequence) and plan.sequence[job.position] is plan.steps[task.position]


def is_over(job: Job, path: str) -> bool:
    """Tell whether a job has gone on to its end from a place: to undo what was done, or past that."""
    return job.ending is not None and (job.state in FINISHED or not paths.is_in_undo(path))


def in_the_way(tx: Transaction, job: Job) -> list[Task]:
    """Return the tasks that have failed and whose plan says that the job is to wait until somebody sees to them."""
    steps = plan_of(tx, job).steps
    return [
        task
        for task in failed_tasks(tx, job.job_id)
        if steps[task.position].on_failure is OnFailure.PAUSE
        and not task.superseded
        and not is_over(job, task.branch)
        and stands_at(tx, job, task)
        and _runs(tx, job, task)
    ]


def _runs(tx: Transaction, job: Job, task: Task) -> bool:
    """Tell whether a task's branch was not stopped because another part of the job failed."""
    branch = runs_of(tx).branch(job.job_id, task.branch) if task.branch else None
    return branch is None or branch.state is RunState.RUNNING
