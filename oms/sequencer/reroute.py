"""`/reroute`: a manager moves a task to another lane, whoever has it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import InvalidInputError, OmsError
from oms.domain.task import Act, TaskStatus, check_allowed, key_of
from oms.sequencer.advance import check_may_go_on, reopen
from oms.sequencer.events import record_task
from oms.sequencer.ground import Cause
from oms.sequencer.retry import queue_afresh
from oms.sequencer.wishes import lock_wished, wished_task
from oms.storage.plans import compiled_in_force
from oms.storage.tasks import move_task, polled_lanes
from oms.storage.transaction import Transaction

LANE_IS_ALIVE_SEC = 24 * 3600
"""A lane that no plan declares is known for so long after a named worker polled it."""


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
    known = _known_lanes(tx)
    answers: list[Rerouted | OmsError] = []
    for wish in wishes:
        try:
            answers.append(_reroute_one(tx, wish, known))
        except OmsError as error:
            answers.append(error)
    return answers


def _reroute_one(tx: Transaction, wish: Reroute, known: set[str]) -> Rerouted:
    task, job = wished_task(tx, wish.task_id)
    check_allowed(Act.REROUTE, task)
    key_of(job)  # without its data it cannot run again
    was_failed = task.status is TaskStatus.FAILED
    if was_failed:
        check_may_go_on(tx, job, task)
    warning = _warning(wish.new_lane, known)
    if warning is not None and wish.strict:
        raise InvalidInputError(warning)
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
    return Rerouted(task_id=task.name, lane=task.lane, status=task.status, warning=warning)


def _known_lanes(tx: Transaction) -> set[str]:
    declared = {lane.id for plan in compiled_in_force(tx.connection, tx.plans) for lane in plan.lanes}
    return declared | polled_lanes(tx, since_ms=tx.now_ms - LANE_IS_ALIVE_SEC * 1000)


def _warning(lane: str, known: set[str]) -> str | None:
    if lane in known:
        return None
    near = difflib.get_close_matches(lane, sorted(known), 1, cutoff=0)
    hint = f" The nearest known lane is {near[0]!r}." if near else ""
    return f"No plan in force declares the lane {lane!r}, and no named worker has polled it in the last 24 hours.{hint}"
