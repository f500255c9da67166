"""`/release`: a worker gives a task back unharmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import OmsError
from oms.domain.task import Act, TaskStatus, check_holder, is_repeat
from oms.sequencer.events import record_task
from oms.sequencer.place import give_place
from oms.sequencer.wishes import TaskAnswer, answer, lock_wished, wished_task
from oms.storage.tasks import move_task
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Release:
    """An attempt ends without having worked. ``reason`` goes into the ledger where it is given."""

    task_id: str
    token: str
    reason: str | None = None
    trace: str | None = None


def release(tx: Transaction, wishes: Sequence[Release]) -> list[TaskAnswer | OmsError]:
    """Queue each task again at its old place. It does not count for the retry policy."""
    lock_wished(tx, wishes)
    answers: list[TaskAnswer | OmsError] = []
    for wish in wishes:
        try:
            answers.append(_release_one(tx, wish))
        except OmsError as error:
            answers.append(error)
    return answers


def _release_one(tx: Transaction, wish: Release) -> TaskAnswer:
    task, job = wished_task(tx, wish.task_id)
    if is_repeat(Act.RELEASE, task, wish.token, None):
        return answer(task, job)
    check_holder(Act.RELEASE, task, wish.token)
    task.ended_by = Act.RELEASE
    task.output_hmac = None
    task.lease_expires_at = None
    give_place(tx, job, task, lane=task.lane, earliest_ms=task.available_at)
    tx.trace = wish.trace
    record_task(
        tx,
        job,
        task,
        "released",
        worker=task.worker,
        actor=task.worker,
        detail={"reason": wish.reason} if wish.reason else {},
    )
    task.worker = None
    move_task(tx, task, TaskStatus.QUEUED)
    return answer(task, job)
