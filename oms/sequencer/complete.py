"""`/complete`: take a worker's output and move the job on, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oms.domain.digest import canonical_json, keyed_digest
from oms.domain.errors import ConflictError, InvalidInputError, OmsError
from oms.domain.task import Act, Job, Task, TaskStatus, check_holder, is_repeat, key_of
from oms.sequencer.advance import go_on_after, prepare_to_go_on
from oms.sequencer.events import record_task
from oms.sequencer.lanes import plan_of
from oms.sequencer.wishes import TaskAnswer, answer, lock_wished, wished_task
from oms.storage.jobs import give_output
from oms.storage.tasks import move_task
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Complete:
    """A task is done, with ``output``. Without a token, whichever attempt runs is meant."""

    task_id: str
    output: dict[str, Any]
    token: str | None = None
    worker: str | None = None
    trace: str | None = None


def complete(tx: Transaction, wishes: Sequence[Complete]) -> list[TaskAnswer | OmsError]:
    """Complete each task once, and queue what comes next in its job.

    The same again, by the attempt that completed it or without a token, gets the same answer and does nothing.
    """
    lock_wished(tx, wishes)
    prepare_to_go_on(tx, tx.tasks.values())
    answers: list[TaskAnswer | OmsError] = []
    for wish in wishes:
        try:
            answers.append(_complete_one(tx, wish))
        except OmsError as error:
            answers.append(error)
    return answers


def _complete_one(tx: Transaction, wish: Complete) -> TaskAnswer:
    task, job = wished_task(tx, wish.task_id)
    text = canonical_json(wish.output)
    digest = keyed_digest(key_of(job), text)
    if is_repeat(Act.COMPLETE, task, wish.token, digest):
        return answer(task, job)
    if task.ended_by is Act.COMPLETE and task.status is TaskStatus.DONE and wish.token in (None, task.token):
        raise ConflictError(f"{task.name} is done already, with another output; the first one stands.")
    check_holder(Act.COMPLETE, task, wish.token)
    check_output(tx, task, job, wish.output)
    task.ended_by = Act.COMPLETE
    task.output_hmac = digest
    task.lease_expires_at = None
    task.ended_at = tx.now_ms
    task.error = task.error_type = None
    task.worker = wish.worker or task.worker
    give_output(tx, task, text)
    move_task(tx, task, TaskStatus.DONE)
    tx.trace = wish.trace
    record_task(tx, job, task, "done", worker=task.worker, actor=task.worker, detail={"output_hmac": digest})
    go_on_after(tx, job, task)
    return answer(task, job)


def check_output(tx: Transaction, task: Task, job: Job, output: dict[str, Any]) -> None:
    """Return if the output fits what the plan says about the activity.

    Raises:
        InvalidInputError: it does not; the task stays as it is.
    """
    schema = plan_of(tx, job).steps[task.position].output_schema
    faults = () if schema is None else schema.faults(output)
    if faults:
        raise InvalidInputError(
            f"The output does not fit the output_schema of {task.activity!r}: {faults[0].msg}. {task.name} stays "
            "with you; complete it again with a corrected output.",
            faults=faults,
        )
