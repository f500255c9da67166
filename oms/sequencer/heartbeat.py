"""`/heartbeat`: a worker's sign of life. It extends the lease and is no event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from act.contract import format_time_ms
from oms.domain.errors import OmsError
from oms.domain.task import Act, check_holder
from oms.sequencer.wishes import lock_wished, wished_task
from oms.storage.transaction import Transaction
from oms.storage.written_rows import Change


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An attempt is alive. ``progress`` is a share from 0 to 1."""

    task_id: str
    token: str
    progress: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Alive:
    """Until when the lease goes now."""

    lease_expires_at: str


def heartbeat(tx: Transaction, wishes: Sequence[Heartbeat]) -> list[Alive | OmsError]:
    """Extend each lease by its full length from now."""
    lock_wished(tx, wishes)
    answers: list[Alive | OmsError] = []
    for wish in wishes:
        try:
            task, _job = wished_task(tx, wish.task_id)
            check_holder(Act.HEARTBEAT, task, wish.token)
        except OmsError as error:
            answers.append(error)
            continue
        task.lease_expires_at = tx.now_ms + task.lease_sec * 1000
        task.progress = task.progress if wish.progress is None else wish.progress
        task.note = task.note if wish.note is None else wish.note
        tx.task_changed(task, Change.STATE)
        answers.append(Alive(format_time_ms(task.lease_expires_at)))
    return answers
