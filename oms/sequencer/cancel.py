"""`/jobs/{id}/cancel`: stop a job for good, undo what was done, and cancel the jobs that are steps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import ConflictError, OmsError
from oms.domain.run import Ending
from oms.domain.task import FINISHED, Job, JobState
from oms.sequencer import ending
from oms.sequencer.advance import flow_of
from oms.sequencer.each import each
from oms.sequencer.ground import Cause
from oms.sequencer.wishes import JobAnswer, lock_wished_jobs, wished_job
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a job."""

    job_id: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


def cancel(tx: Transaction, wishes: Sequence[Cancel]) -> list[JobAnswer | OmsError]:
    """Cancel each job once; again, it is the same answer. What has ended otherwise is refused.

    Queued tasks go; running ones are taken from their workers, whose tokens are void from then on.
    """
    lock_wished_jobs(tx, wishes)
    return each(tx, wishes, _cancel_one)


def _cancel_one(tx: Transaction, wish: Cancel) -> JobAnswer:
    job = wished_job(tx, wish.job_id)
    tx.trace = wish.trace
    if not _is_cancelled(job):
        if job.state in FINISHED:
            raise ConflictError(f"{job.name} is {job.state}; there is nothing left to cancel.")
        if job.ending is not None:
            raise ConflictError(f"{job.name} has failed, and what it had done is being undone; it ends by itself.")
        cancel_job(tx, job, Cause("cancel", wish.actor, wish.reason))
    return JobAnswer(job_id=job.name, state=job.state)


def cancel_job(tx: Transaction, job: Job, cause: Cause) -> None:
    """Cancel a locked job that has not ended."""
    flow_of(tx, job, cause).cancel(Ending(JobState.CANCELLED, actor=cause.actor, reason=cause.reason))


def _is_cancelled(job: Job) -> bool:
    """Whether a job is cancelled, or will be once what it had done is undone."""
    if job.state in FINISHED or job.ending is None:
        return job.state is JobState.CANCELLED
    return ending.noted(job).state is JobState.CANCELLED
