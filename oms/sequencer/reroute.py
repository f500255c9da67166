"""`/reroute`: a manager moves a task to another lane, whoever has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import InvalidInputError, OmsError
from oms.domain.task import Act, Job, Task, TaskStatus, check_allowed, key_of
from oms.sequencer.advance import check_may_go_on, reopen
from oms.sequencer.events import record_task
from oms.sequencer.ground import Cause
from oms.sequencer.known_lanes import manned_lanes, nearest_lane
from oms.sequencer.retry import queue_afresh
from oms.sequencer.wishes import lock_wished, wished_task
from oms.storage.tasks import move_task
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Reroute:
    """Move a task to ``new_lane``. ``strict``: only to a lane that is known."""

    task_id: str
    new_lane: str
    reason: str | None = None
    priority: int | None = None
    actor: str | None = None
    strict: bool = False
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Rerouted:
    """Where the task is now; ``warning`` where nobody may be there to take it."""

    task_id: str
    lane: str
    status: str
    warning: str | None


def reroute(tx: Transaction, wishes: Sequence[Reroute]) -> list[Rerouted | OmsError]:
    """Queue each task at the end of its new lane, at its priority (or a new one).

    A running task is taken from its worker, whose token is void from then on; that does not count for the retry
    policy. A failed one gets fresh attempts, and its job runs again.
    """
    lock_wished(tx, wishes)
    known = manned_lanes(tx)
    answers: list[Rerouted | OmsError] = []
    for wish in wishes:
        try:
            answers.append(_reroute_one(tx, wish, known))
        except OmsError as error:
            answers.append(error)
    return answers


def _reroute_one(tx: Transaction, wish: Reroute, known: set[str]) -> Rerouted:
    task, job = wished_task(tx, wish.task_id)
    check_may_be_moved(tx, task, job)
    warning = warning_of(wish.new_lane, known)
    if warning is not None and wish.strict:
        raise InvalidInputError(warning)
    move(tx, task, job, wish)
    return Rerouted(task_id=task.name, lane=task.lane, status=task.status, warning=warning)


def check_may_be_moved(tx: Transaction, task: Task, job: Job) -> None:
    """Return if a task, which is locked, may go to another lane.

    Raises:
        ConflictError: its status, or where its job stands, forbids it.
        ErasedError: the job's data was erased.
    """
    check_allowed(Act.REROUTE, task)
    key_of(job)  # without its data it cannot run again
    if task.status is TaskStatus.FAILED:
        check_may_go_on(tx, job, task)


def move(tx: Transaction, task: Task, job: Job, wish: Reroute) -> None:
    """Move a task, after `check_may_be_moved`."""
    was_failed = task.status is TaskStatus.FAILED
    from_lane, holder, failures = task.lane, task.worker, task.failures
    queue_afresh(tx, job, task, lane=wish.new_lane)
    if not was_failed:
        task.failures = failures
    task.ended_by = Act.REROUTE
    task.priority = task.priority if wish.priority is None else wish.priority
    move_task(tx, task, TaskStatus.QUEUED, lane=wish.new_lane)
    tx.trace = wish.trace
    record_task(
        tx,
        job,
        task,
        "rerouted",
        worker=holder,
        actor=wish.actor,
        detail={
            "from_lane": from_lane,
            "to_lane": wish.new_lane,
            "reason": wish.reason,
            "priority": task.priority,
        },
    )
    if was_failed:
        reopen(tx, job, task, Cause("reroute", wish.actor, wish.reason))


def warning_of(lane: str, known: set[str]) -> str | None:
    """Return what to say of a lane where nobody may be; None where somebody is."""
    if lane in known:
        return None
    near = nearest_lane(lane, known)
    hint = f" The nearest known lane is {near!r}." if near else ""
    return f"No plan in force declares the lane {lane!r}, and no named worker has polled it in the last 24 hours.{hint}"
