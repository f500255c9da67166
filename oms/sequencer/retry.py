"""`/retry`: a failed task gets fresh attempts, and its job runs again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import OmsError
from oms.domain.task import Act, Job, Task, TaskStatus, check_allowed, key_of
from oms.sequencer.advance import check_may_go_on, reopen
from oms.sequencer.events import record_task
from oms.sequencer.ground import Cause
from oms.sequencer.place import give_place
from oms.sequencer.wishes import TaskAnswer, answer, lock_wished, wished_task
from oms.storage.tasks import move_task
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Retry:
    """Try a failed task again."""

    task_id: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


def retry(tx: Transaction, wishes: Sequence[Retry]) -> list[TaskAnswer | OmsError]:
    """Queue each failed task again, at the end of its lane."""
    lock_wished(tx, wishes)
    answers: list[TaskAnswer | OmsError] = []
    for wish in wishes:
        try:
            task, job = wished_task(tx, wish.task_id)
            check_allowed(Act.RETRY, task)
            key_of(job)  # without its data it cannot run again
            check_may_go_on(tx, job, task)
        except OmsError as error:
            answers.append(error)
            continue
        queue_afresh(tx, job, task, lane=task.lane)
        task.ended_by = Act.RETRY
        move_task(tx, task, TaskStatus.QUEUED)
        tx.trace = wish.trace
        reason = {"reason": wish.reason} if wish.reason else {}
        record_task(
            tx, job, task, "queued", actor=wish.actor, detail={"by": "retry", "priority": task.priority, **reason}
        )
        reopen(tx, job, task, Cause("retry", wish.actor, wish.reason))
        answers.append(answer(task, job))
    return answers


def queue_afresh(tx: Transaction, job: Job, task: Task, *, lane: str) -> None:
    """Put a task at the end of a lane now, with all its attempts before it and nobody holding it."""
    give_place(tx, job, task, lane=lane, earliest_ms=tx.now_ms)
    task.failures = 0
    task.lease_expires_at = None
    task.output_hmac = None
    task.worker = None
    task.progress = task.note = None
