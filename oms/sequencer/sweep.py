"""The sweeper: what is due by the clock, done in small bounded batches.

It is on by default and safe to run from anywhere, any number of times: everything it does, it does under the
same locks and rules as the workers' own calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from act.contract import format_time_ms
from oms.domain.task import NEVER_MS, Act
from oms.sequencer.backup import OMS
from oms.sequencer.close_windows import close_windows
from oms.sequencer.fail import end_attempt
from oms.sequencer.fire_schedules import BATCH as FIRES
from oms.sequencer.fire_schedules import Fired, fire_schedules
from oms.sequencer.open_batches import open_batches
from oms.sequencer.tell_stalled import tell_stalled
from oms.sequencer.timers import fire_timers
from oms.storage.jobs import lock_jobs
from oms.storage.schedules import next_fire_ms
from oms.storage.tasks import expired_tasks, next_due_ms, wake_due
from oms.storage.timers import next_timer_ms
from oms.storage.transaction import Transaction

BATCH = 500
MAX_FIRED = 100
"""Each may begin many tasks."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Look for what is due now."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found.

    Attributes:
        expired: attempts that were taken back.
        stalled: tasks that had been queued for too long.
        schedules: those whose time had come.
        fired: timers that were due in jobs.
        more: a batch was full: there may be more to do at once.
        next_due_ms: when something will be due again; None when nothing will.
    """

    expired: int
    stalled: int
    schedules: list[Fired]
    fired: int
    more: bool
    next_due_ms: int | None


def sweep(tx: Transaction, wishes: Sequence[Sweep]) -> list[Swept]:
    """Wake every waiting task that is due, and do the rest of what is due, of each kind up to a batch."""
    wake_due(tx)
    tx.trace = None
    expired = _expire(tx)
    closed_more = close_windows(tx)
    opened_more = open_batches(tx)
    stalled, stalled_more = tell_stalled(tx)
    schedules = fire_schedules(tx)
    fired = fire_timers(tx, limit=MAX_FIRED)
    tx.flush()
    full = expired == BATCH or fired == MAX_FIRED or len(schedules) == FIRES
    swept = Swept(
        expired=expired,
        stalled=stalled,
        schedules=schedules,
        fired=fired,
        more=full or closed_more or opened_more or stalled_more,
        next_due_ms=_next_due_ms(tx),
    )
    return [swept] * len(wishes)


def _expire(tx: Transaction) -> int:
    """Take back up to `BATCH` attempts whose lease has run out; return how many."""
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
            actor=OMS,
            detail={"lease_expires_at": lease_ended_at},
        )
    return len(expired)


def _next_due_ms(tx: Transaction) -> int | None:
    due = (next_due_ms(tx), next_fire_ms(tx), next_timer_ms(tx))
    return min((moment for moment in due if moment is not None and moment < NEVER_MS), default=None)
