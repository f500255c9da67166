"""`/fail`, and a lease that ran out: an attempt is over, and the retry policy decides what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from act.contract import format_time_ms
from oms.domain.digest import canonical_json, keyed_digest
from oms.domain.errors import OmsError
from oms.domain.retry import retry_at_ms
from oms.domain.task import Act, Job, Task, TaskStatus, check_holder, is_repeat, key_of
from oms.sequencer.advance import give_up
from oms.sequencer.events import record_task
from oms.sequencer.lanes import plan_of
from oms.sequencer.place import give_place, shown_available_at
from oms.sequencer.wishes import TaskAnswer, answer, lock_wished, wished_task
from oms.storage.tasks import move_task
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Fail:
    """An attempt failed. ``error_type`` is a short code for the ledger; ``message`` stays in OMS."""

    task_id: str
    error_type: str
    message: str
    retryable: bool = True
    token: str | None = None
    worker: str | None = None
    trace: str | None = None


def fail(tx: Transaction, wishes: Sequence[Fail]) -> list[TaskAnswer | OmsError]:
    """End each attempt as failed. The task is queued again, later, or has failed for good, and its job with it."""
    lock_wished(tx, wishes)
    answers: list[TaskAnswer | OmsError] = []
    for wish in wishes:
        try:
            answers.append(_fail_one(tx, wish))
        except OmsError as error:
            answers.append(error)
    return answers


def _fail_one(tx: Transaction, wish: Fail) -> TaskAnswer:
    task, job = wished_task(tx, wish.task_id)
    digest = keyed_digest(key_of(job), canonical_json([wish.error_type, wish.message]))
    if is_repeat(Act.FAIL, task, wish.token, digest):
        return answer(task, job)
    check_holder(Act.FAIL, task, wish.token)
    task.worker = wish.worker or task.worker
    task.error = wish.message
    task.error_type = wish.error_type
    task.output_hmac = digest
    tx.trace = wish.trace
    end_attempt(
        tx,
        task,
        job,
        Act.FAIL,
        retryable=wish.retryable,
        actor=task.worker,
        detail={"error_type": wish.error_type, "error_hmac": digest},
    )
    return answer(task, job)


def end_attempt(
    tx: Transaction,
    task: Task,
    job: Job,
    how: Act,
    *,
    retryable: bool,
    actor: str | None,
    detail: dict[str, Any],
) -> None:
    """Count a failed or expired attempt; queue the task again with backoff, or fail it and its job.

    Records the attempt's one event (``detail.final`` true where it was the last), then what follows from it.
    """
    task.failures += 1
    task.ended_at = tx.now_ms
    task.ended_by = how
    task.lease_expires_at = None
    policy = plan_of(tx, job).steps[task.position].retry_policy
    again_at = (
        retry_at_ms(policy, failures=task.failures, now_ms=tx.now_ms, random_unit=tx.random_unit())
        if retryable
        else None
    )
    final = again_at is None
    record_task(tx, job, task, how.value, worker=task.worker, actor=actor, detail={**detail, "final": final})
    if again_at is None:
        move_task(tx, task, TaskStatus.FAILED)
        give_up(tx, job, task)
        return
    task.worker = None  # nobody has it now
    give_place(tx, job, task, lane=task.lane, earliest_ms=again_at)
    move_task(tx, task, TaskStatus.QUEUED)
    available_at = format_time_ms(shown_available_at(task))
    record_task(tx, job, task, "queued", detail={"available_at": available_at, "priority": task.priority})
