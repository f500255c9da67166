"""Hold a job's queued tasks, and let them go."""

from __future__ import annotations

from typing import Any

from oms.domain.task import Job, JobState, TaskStatus
from oms.sequencer.events import record_job
from oms.sequencer.place import hold, let_go
from oms.storage.tasks import live_tasks, move_task
from oms.storage.transaction import Transaction


def pause_job(tx: Transaction, job: Job, *, actor: str | None, detail: dict[str, Any], needs_resume: bool) -> None:
    """Let a job hand out nothing until it goes on; what runs may still be completed.

    ``needs_resume``: somebody wants that, who is to resume it. Else a task has failed, and once somebody has seen to it
    the job goes on by itself, unless somebody has paused it, too: before the failure, or after it.
    """
    if job.state is JobState.PAUSED:
        if needs_resume and not job.needs_resume:
            job.needs_resume = True
            record_job(tx, job, "paused", actor=actor, detail=detail)
        return
    job.needs_resume = needs_resume
    job.paused_state, job.state, job.paused_at = job.state.value, JobState.PAUSED, tx.now_ms
    for task in live_tasks(tx, job.job_id):
        if task.status is TaskStatus.QUEUED:
            if task.ready and tx.woken[task.lane]:
                tx.woken[task.lane] -= 1
            hold(task)
            move_task(tx, task, TaskStatus.QUEUED)
    record_job(tx, job, "paused", actor=actor, detail=detail)


def resume_job(tx: Transaction, job: Job, *, actor: str | None, detail: dict[str, Any]) -> None:
    """Let a paused job go on."""
    job.state = JobState(job.paused_state or JobState.RUNNING.value)
    paused_at, job.paused_at, job.paused_state = job.paused_at, None, None
    for task in live_tasks(tx, job.job_id):
        if task.status is TaskStatus.QUEUED and task.held_available_at is not None:
            let_go(tx, task, held_since_ms=paused_at)
            move_task(tx, task, TaskStatus.QUEUED)
        if task.attempt:
            job.state = JobState.RUNNING
    record_job(tx, job, "resumed", actor=actor, detail=detail)
