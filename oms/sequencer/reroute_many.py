"""`/reroute` in bulk: find the tasks that a manager means, and move each of them as a single reroute does.

They are found on a reading connection, along indexes, so that the writer's time is spent on what moves alone. Under
their locks each is looked at again: what has changed meanwhile, so that it is not meant any more, stays where it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from sqlalchemy import ColumnElement, Connection, exists, literal_column, select

from oms.domain.errors import InvalidInputError, OmsError
from oms.domain.task import Job, Task, TaskStatus
from oms.sequencer.known_lanes import manned_lanes
from oms.sequencer.lists import lanes_with_tasks, rows_equal, rows_older
from oms.sequencer.reroute import Reroute, check_may_be_moved, move, warning_of
from oms.sequencer.service import Service
from oms.storage.tables import jobs, tasks
from oms.storage.tasks import lock_tasks
from oms.storage.transaction import Transaction

MOVABLE = (TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.FAILED)
MAX_MOVED = 1_000


@dataclass(frozen=True, slots=True)
class Where:
    """Which tasks; None leaves a field open."""

    lane: str | None = None
    plan: str | None = None
    status: TaskStatus | None = None
    older_than_sec: float | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class RerouteMany:
    """Move the tasks that ``where`` means to ``new_lane``.

    Attributes:
        where: which; a task that is queued in the new lane already is not meant.
        new_lane: where to.
        reason: goes into the ledger.
        limit: how many at most.
        is_dry_run: nothing moves: only tell what would.
        actor: who does it.
        strict: only to a lane that is known.
        trace: of the request.
    """

    where: Where
    new_lane: str
    reason: str
    limit: int = MAX_MOVED
    is_dry_run: bool = False
    actor: str | None = None
    strict: bool = False
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class ReroutedMany:
    """What became of it.

    Attributes:
        matched: how many tasks were meant and may move, no more than were to.
        moved: how many did; 0 of a dry run.
        tasks: these; of a dry run those that would.
        more: there may be more of them: others than ``matched``, or such as another call had in its hands.
        warning: where nobody may be there to take them.
    """

    matched: int
    moved: int
    tasks: list[str]
    more: bool
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class _Move:
    """Tasks that were meant when they were found."""

    ids: Sequence[int]
    order: RerouteMany
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class _Moved:
    """How many of them are still meant, those in others' hands too; and which moved, or would."""

    matched: int
    tasks: list[str]
    has_busy: bool
    warning: str | None


async def reroute_many(service: Service, order: RerouteMany) -> ReroutedMany:
    """Move tasks, oldest first. What may not move (its job has gone on without it, say) does not count.

    Raises:
        InvalidInputError: nobody knows the lane, and ``strict`` is set.
        UnavailableError: the database cannot take it now. What has moved stays moved, and is not meant any more.
    """
    done = ReroutedMany(0, 0, [], more=False)
    now_ms = service.now_ms()
    until_ms = None if order.where.older_than_sec is None else now_ms - int(order.where.older_than_sec * 1000)
    after, is_last = 0, False
    while not is_last and done.matched < order.limit:
        left, place = order.limit - done.matched, after
        found = await service.read(
            lambda connection, left=left, place=place: _find(  # type: ignore[misc]
                connection, order, after=place, limit=left + 1, now_ms=now_ms
            )
        )
        is_last = len(found) <= left
        ids = found[:left]
        moved = await service.writer.run(_move_each, _Move(ids, order, until_ms))
        done = replace(
            done,
            matched=done.matched + moved.matched,
            moved=done.moved + (0 if order.is_dry_run else len(moved.tasks)),
            tasks=done.tasks + moved.tasks,
            more=done.more or moved.has_busy,
            warning=moved.warning,
        )
        after = ids[-1] if ids else after
    return replace(done, more=done.more or not is_last)


def _find(connection: Connection, order: RerouteMany, *, after: int, limit: int, now_ms: int) -> list[int]:
    """Return the numbers of the next tasks that are meant, in order. Each lane and status is a range of an index."""
    where = order.where
    page = select(tasks.c.task_id).where(tasks.c.task_id > after, *rows_equal(tasks.c.worker, where.worker))
    page = page.where(*rows_older(connection, tasks, tasks.c.task_id, where.older_than_sec, now_ms))
    if where.plan is not None:
        page = page.where(exists().where(jobs.c.job_id == tasks.c.job_id, jobs.c.plan == where.plan))
    page = page.order_by(tasks.c.task_id).limit(limit)
    found = [connection.execute(page.where(*branch)).scalars().all() for branch in _branches(connection, order)]
    return list(islice(heapq.merge(*found), limit))


def _branches(connection: Connection, order: RerouteMany) -> list[list[ColumnElement[bool]]]:
    where = order.where
    lanes = [where.lane] if where.lane is not None else lanes_with_tasks(connection)
    statuses = [where.status] if where.status is not None else MOVABLE
    return [
        [tasks.c.lane == lane, tasks.c.status == status, literal_column("status <> 'done'")]
        for lane in lanes
        for status in statuses
        if (lane, status) != (order.new_lane, TaskStatus.QUEUED)
    ]


def _move_each(tx: Transaction, wishes: Sequence[_Move]) -> list[_Moved | OmsError]:
    """Move what is still meant; tasks whose job another transaction has are left out, and counted."""
    known = manned_lanes(tx)
    answers: list[_Moved | OmsError] = []
    for wish in wishes:
        order = wish.order
        warning = warning_of(order.new_lane, known)
        if warning is not None and order.strict:
            answers.append(InvalidInputError(warning))
            continue
        lock_tasks(tx, wish.ids)
        found = [tx.tasks[number] for number in wish.ids if number in tx.tasks]
        # All are looked at before the first moves: a dry run looks in the same way.
        meant = [task for task in found if _is_meant(tx, task, tx.jobs[task.job_id], wish)]
        moved = meant if order.is_dry_run else [task for task in meant if _move_one(tx, task, order)]
        busy = sum(number in tx.busy for number in wish.ids)
        answers.append(_Moved(len(meant) + busy, [task.name for task in moved], has_busy=busy > 0, warning=warning))
    return answers


def _is_meant(tx: Transaction, task: Task, job: Job, wish: _Move) -> bool:
    order, where = wish.order, wish.order.where
    fits = (
        where.lane in (None, task.lane)
        and where.plan in (None, job.plan)
        and where.worker in (None, task.worker)
        and where.status in (None, task.status)
        and (wish.until_ms is None or task.created_at <= wish.until_ms)
        and (task.lane, task.status) != (order.new_lane, TaskStatus.QUEUED)
    )
    return fits and _may_be_moved(tx, task, job)


def _move_one(tx: Transaction, task: Task, order: RerouteMany) -> bool:
    job = tx.jobs[task.job_id]
    if not _may_be_moved(tx, task, job):
        return False  # another task of its job has moved, and the job goes on in another way
    move(
        tx,
        task,
        job,
        Reroute(task.name, order.new_lane, reason=order.reason, actor=order.actor, trace=order.trace),
    )
    return True


def _may_be_moved(tx: Transaction, task: Task, job: Job) -> bool:
    try:
        check_may_be_moved(tx, task, job)
    except OmsError:
        return False
    return True
