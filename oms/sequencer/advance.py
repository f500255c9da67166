"""Take a job on: to its next step, to its end, or to the condition that cannot be decided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json

from oms.domain.plan import Step
from oms.domain.progress import Facts, Undecided, advance
from oms.domain.task import Job, JobState, Task, TaskStatus
from oms.sequencer.events import record_job, record_skipped, record_task
from oms.sequencer.lanes import plan_of
from oms.sequencer.place import give_place
from oms.storage.jobs import load_outputs, next_number
from oms.storage.tasks import add_task
from oms.storage.transaction import Transaction


def prepare_to_go_on(tx: Transaction, jobs: Iterable[Job]) -> None:
    """Read, in one statement, the outputs that the conditions ahead of ``jobs`` may name."""
    load_outputs(tx, [job.job_id for job in jobs if plan_of(tx, job).reads_after(job.position)])


def go_on(tx: Transaction, job: Job) -> None:
    """Queue the first step past the job's position that applies, or end the job.

    Skipped steps are recorded. A condition that cannot be decided fails the job, with an event that says which
    expression and why; what it could not decide on stays in OMS, for it may be the citizen's.
    """
    plan = plan_of(tx, job)
    facts = Facts(input={}, outputs={}, reference=job.reference)
    if plan.reads_after(job.position):
        load_outputs(tx, [job.job_id])
        facts = Facts(
            input=from_json(job.input),
            outputs={activity: from_json(output) for activity, output in tx.outputs[job.job_id].items()},
            reference=job.reference,
        )
    try:
        ahead = advance(plan, after=job.position, facts=facts)
    except Undecided as undecided:
        for step in undecided.skipped:
            record_skipped(tx, job, step)
        job.position = undecided.index
        fail_job(
            tx,
            job,
            error=f"{undecided.step.activity}: when: {undecided.cause.source}: {undecided.cause.message}",
            detail={
                "error_type": "undecided_condition",
                "activity": undecided.step.activity,
                "when": undecided.cause.source,
                "reason": undecided.cause.code,
            },
        )
        return
    for step in ahead.skipped:
        record_skipped(tx, job, step)
    job.position = ahead.index
    if ahead.step is None:
        job.state = JobState.DONE
        record_job(tx, job, "done")
    else:
        _queue_step(tx, job, ahead.step)


def _queue_step(tx: Transaction, job: Job, step: Step) -> None:
    task = Task(
        task_id=next_number(tx, "task"),
        job_id=job.job_id,
        position=job.position,
        activity=step.activity,
        lane=step.lane,
        status=TaskStatus.QUEUED,
        ready=False,
        attempt=0,
        failures=0,
        token=None,
        ended_by=None,
        worker=None,
        priority=job.priority,
        lease_sec=0,
        created_at=tx.now_ms,
        available_at=tx.now_ms,
        lease_expires_at=None,
        error=None,
        error_type=None,
        output_hmac=None,
        output=None,
        progress=None,
        note=None,
    )
    give_place(tx, job, task, lane=step.lane, earliest_ms=tx.now_ms)
    add_task(tx, task)
    record_task(tx, job, task, "queued", detail={"priority": task.priority})


def fail_job(tx: Transaction, job: Job, *, error: str, detail: dict[str, Any]) -> None:
    """End the job as failed. ``error`` stays in OMS; ``detail`` goes into the ledger."""
    job.state = JobState.FAILED
    job.error = error.replace("\0", "\N{REPLACEMENT CHARACTER}")  # it may quote a plan, and PostgreSQL holds no NUL
    record_job(tx, job, "failed", detail=detail)


def run_again(tx: Transaction, job: Job, *, by: str, actor: str | None, reason: str | None) -> None:
    """Set a failed job running again, after its failed task was queued again."""
    if job.state is not JobState.FAILED:
        return
    job.state = JobState.RUNNING
    job.error = None
    record_job(tx, job, "restarted", actor=actor, detail={"by": by, **({"reason": reason} if reason else {})})
