"""`/skip`: a manager stands in for a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oms.domain.digest import canonical_json, keyed_digest
from oms.domain.errors import OmsError
from oms.domain.task import Act, TaskStatus, check_allowed, is_repeat, key_of
from oms.sequencer.advance import check_may_go_on, go_on_after, prepare_to_go_on, reopen
from oms.sequencer.complete import check_output
from oms.sequencer.each import each
from oms.sequencer.events import record_task
from oms.sequencer.ground import Cause
from oms.sequencer.wishes import TaskAnswer, answer, lock_wished, wished_task
from oms.storage.jobs import give_output
from oms.storage.tasks import move_task
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Skip:
    """Give a task's output in its worker's stead. ``reason`` and ``actor`` go into the ledger."""

    task_id: str
    output: dict[str, Any]
    reason: str
    actor: str | None = None
    trace: str | None = None


def skip(tx: Transaction, wishes: Sequence[Skip]) -> list[TaskAnswer | OmsError]:
    """Let each task be done with the output given; the same again is the same answer.

    A running task is taken from its worker, whose token is void from then on; of a failed one, the job goes on.
    """
    lock_wished(tx, wishes)
    prepare_to_go_on(tx, tx.tasks.values())
    return each(tx, wishes, _skip_one)


def _skip_one(tx: Transaction, wish: Skip) -> TaskAnswer:
    task, job = wished_task(tx, wish.task_id)
    text = canonical_json(wish.output)
    digest = keyed_digest(key_of(job), text)
    if is_repeat(Act.SKIP, task, None, digest):
        return answer(task, job)
    check_allowed(Act.SKIP, task)
    was_failed = task.status is TaskStatus.FAILED
    if was_failed:
        check_may_go_on(tx, job, task)
    check_output(tx, task, job, wish.output)
    holder = task.worker
    task.ended_by = Act.SKIP
    task.output_hmac = digest
    task.lease_expires_at = None
    task.held_available_at = None
    task.stalls_at = None
    task.ended_at = tx.now_ms
    task.error = task.error_type = None
    give_output(tx, task, text)
    move_task(tx, task, TaskStatus.DONE)
    tx.trace = wish.trace
    detail = {"stood_in": True, "reason": wish.reason, "output_hmac": digest}
    record_task(tx, job, task, "done", worker=holder, actor=wish.actor, detail=detail)
    if was_failed:
        reopen(tx, job, task, Cause("skip", wish.actor, wish.reason))
    go_on_after(tx, job, task)
    return answer(task, job)
