"""The sweeper: takes back what nobody shows a sign of life for, and wakes what has waited long enough.

It is on by default and safe to run from anywhere, any number of times: everything it does, it does under the
same locks and rules as the workers' own calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from act.contract import format_time_ms
from oms.domain.task import Act
from oms.sequencer.fail import end_attempt
from oms.sequencer.timers import fire_timers
from oms.storage.jobs import lock_jobs
from oms.storage.tasks import expired_tasks, next_due_ms, wake_due
from oms.storage.timers import next_timer_ms
from oms.storage.transaction import Transaction

BATCH = 500
MAX_FIRED = 100
"""Each may begin many tasks."""
SWEEPER = "oms"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Look for what is due now."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found.

    Attributes:
        expired: attempts that were taken back.
        fired: timers that were due in jobs.
        next_due_ms: when something will be due again; None when nothing will.
    """

    expired: int
    fired: int
    next_due_ms: int | None


def sweep(tx: Transaction, wishes: Sequence[Sweep]) -> list[Swept]:
    """Take back up to `BATCH` attempts whose lease has run out, and wake every waiting task that is due."""
    wake_due(tx)
    tx.trace = None
    expired = expired_tasks(tx, limit=BATCH)
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
            actor=SWEEPER,
            detail={"lease_expires_at": lease_ended_at},
        )
    fired = fire_timers(tx, limit=MAX_FIRED)
    tx.flush()
    swept = Swept(expired=len(expired), fired=fired, next_due_ms=_earliest(next_due_ms(tx), next_timer_ms(tx)))
    return [swept] * len(wishes)


def _earliest(*moments: int | None) -> int | None:
    return min((moment for moment in moments if moment is not None), default=None)
