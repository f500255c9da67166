"""Make a job: its row, its key and its first event. What comes next in it is the flow's business."""

from __future__ import annotations

from typing import Any

from oms.domain.digest import keyed_digest
from oms.domain.task import Job, JobState
from oms.sequencer.events import record_job
from oms.storage.jobs import add_job, next_number
from oms.storage.transaction import Transaction

HMAC_KEY_BYTES = 32


def new_job(
    tx: Transaction,
    *,
    plan: str,
    plan_version: int,
    reference: str,
    input_json: str,
    priority: int,
    actor: str | None = None,
    detail: dict[str, Any] | None = None,
    parent_job: int | None = None,
    parent_path: str | None = None,
) -> Job:
    """Make a job that stands before its plan's first step. ``input_json`` is canonical."""
    key = tx.random_bytes(HMAC_KEY_BYTES)
    job = Job(
        job_id=next_number(tx, "job"),
        plan=plan,
        plan_version=plan_version,
        reference=reference,
        state=JobState.QUEUED,
        priority=priority,
        input=input_json,
        position=-1,
        seq=0,
        hmac_key=key,
        error=None,
        created_at=tx.now_ms,
        updated_at=tx.now_ms,
        parent_job=parent_job,
        parent_path=parent_path,
    )
    add_job(tx, job)
    facts = {"priority": priority, "input_hmac": keyed_digest(key, input_json), **(detail or {})}
    record_job(tx, job, "queued", actor=actor, detail=facts)
    return job
