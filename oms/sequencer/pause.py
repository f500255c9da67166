"""`/jobs/{id}/pause` and `/resume`: a paused job hands out nothing; what runs may still be completed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import ConflictError, OmsError
from oms.domain.task import FINISHED, Job, JobState
from oms.sequencer.each import each
from oms.sequencer.pausing import pause_job, resume_job
from oms.sequencer.standing import in_the_way
from oms.sequencer.wishes import JobAnswer, lock_wished_jobs, wished_job
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause a job."""

    job_id: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a paused job go on."""

    job_id: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


def pause(tx: Transaction, wishes: Sequence[Pause]) -> list[JobAnswer | OmsError]:
    """Pause each job; one that is paused already stays so, and waits for `resume` even if a failure had paused it."""
    lock_wished_jobs(tx, wishes)
    return each(tx, wishes, _pause_one)


def resume(tx: Transaction, wishes: Sequence[Resume]) -> list[JobAnswer | OmsError]:
    """Let each paused job go on; one that is not paused does anyway."""
    lock_wished_jobs(tx, wishes)
    return each(tx, wishes, _resume_one)


def _pause_one(tx: Transaction, wish: Pause) -> JobAnswer:
    job = _unfinished(tx, wish.job_id)
    tx.trace = wish.trace
    detail = {"reason": wish.reason} if wish.reason else {}
    pause_job(tx, job, actor=wish.actor, detail=detail, needs_resume=True)
    return JobAnswer(job_id=job.name, state=job.state)


def _resume_one(tx: Transaction, wish: Resume) -> JobAnswer:
    job = _unfinished(tx, wish.job_id)
    tx.trace = wish.trace
    if job.state is JobState.PAUSED:
        failed = in_the_way(tx, job)
        if failed:
            then = "then resume it" if job.needs_resume else "and it goes on"
            raise ConflictError(
                f"{failed[0].name} ({failed[0].activity}) has failed and stands in the way of {job.name}: POST /retry, "
                f"/reroute or /skip it, {then}."
            )
        resume_job(tx, job, actor=wish.actor, detail={"reason": wish.reason} if wish.reason else {})
    return JobAnswer(job_id=job.name, state=job.state)


def _unfinished(tx: Transaction, job_id: str) -> Job:
    job = wished_job(tx, job_id)
    if job.state in FINISHED:
        raise ConflictError(f"{job.name} is {job.state}; only what has not ended can be paused and resumed.")
    return job
