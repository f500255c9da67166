"""Attempts that have shown no sign of life for longer than their lease."""

from __future__ import annotations

from act.contract import format_time_ms
from oms.domain.task import Act
from oms.sequencer.backup import OMS
from oms.sequencer.fail import end_attempt
from oms.sequencer.swept import Portion, Swept
from oms.storage.jobs import lock_jobs
from oms.storage.tasks import expired_tasks
from oms.storage.transaction import Transaction

BATCH = 500


def expire_leases(tx: Transaction, portion: Portion) -> Swept:
    """Take back up to `BATCH` attempts whose lease has run out."""
    limit = portion.at_most(BATCH)
    expired = expired_tasks(tx, limit=limit, without=portion.without)
    portion.taken += [task.job_id for task in expired]
    lock_jobs(tx, sorted({task.job_id for task in expired}))
    for task in expired:
        assert task.lease_expires_at is not None
        lease_ended_at = format_time_ms(task.lease_expires_at)
        task.error = f"no sign of life from {task.worker or 'its worker'} until {lease_ended_at}"
        task.error_type = "lease_expired"
        task.output_hmac = None
        end_attempt(
            tx,
            task,
            tx.jobs[task.job_id],
            Act.EXPIRE,
            retryable=True,
            actor=OMS,
            detail={"lease_expires_at": lease_ended_at},
        )
    return Swept(expired=len(expired), more=len(expired) == limit)
