"""Read, claim, move and make tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ScalarSelect,
    TextClause,
    bindparam,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)

from hmskit.prepared import Prepared
from oms.domain.task import Act, Task, TaskStatus
from oms.storage.jobs import lock_jobs_of_tasks
from oms.storage.set_aside import Key
from oms.storage.statements import is_open
from oms.storage.tables import CLOSING, LIVE, READY, RUNNING, WAITING, tasks, workers
from oms.storage.transaction import Dialect, Transaction, in_list, in_rows, job_is_free, left_alone
from oms.storage.written_rows import Change

_STATUS = {status.value: status for status in TaskStatus}
_ACT = {act.value: act for act in Act}

_LOAD = Prepared(select(tasks).where(in_list(tasks.c.task_id, bindparam("ids"))), ["ids"])
_DUE = select(tasks.c.task_id).where(WAITING, tasks.c.available_at <= bindparam("now"))
_IS_DUE = Prepared(_DUE.limit(literal_column("1")), ["now"])
_WAKE = Prepared(
    update(tasks)
    # What another transaction holds, it wakes itself, or the next look finds it.
    .where(in_rows(tasks.c.task_id, _DUE.with_for_update(skip_locked=True).scalar_subquery()))
    .values(ready=true())
    .returning(tasks.c.task_id, tasks.c.lane),
    ["now"],
)
_EXPIRED = Prepared(
    select(tasks)
    # What another transaction works on shows a sign of life.
    .where(RUNNING, tasks.c.lease_expires_at <= bindparam("now"), ~left_alone(tasks.c.job_id), job_is_free())
    .order_by(tasks.c.lease_expires_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["now", "without", "limit"],
)


def _first(column: Column[Any], which: TextClause) -> ScalarSelect[Any]:
    """Select the first of a column's values: a step along the index, where a min() would read all of it."""
    in_index = select(column).where(which, column >= literal_column("0"))
    return in_index.order_by(column).limit(literal_column("1")).scalar_subquery()


_NEXT_DUE = Prepared(
    select(
        _first(tasks.c.available_at, WAITING),
        _first(tasks.c.lease_expires_at, RUNNING),
        _first(tasks.c.closes_at, CLOSING),
    ),
    [],
)
_HAS_READY = Prepared(
    select(literal_column("1"))
    .where(tasks.c.lane == bindparam("this_lane"), READY, is_open())
    .limit(literal_column("1")),
    ["this_lane", "now"],
)
_HOLDS = Prepared(
    select(literal_column("1")).where(tasks.c.lane == bindparam("this_lane"), LIVE).limit(literal_column("1")),
    ["this_lane"],
)
_READY_IN = (
    select(tasks.c.lane, tasks.c.task_id)
    .where(READY, in_list(tasks.c.lane, bindparam("lanes")))
    .limit(bindparam("limit"))
    .subquery()
)
_OF_JOB = select(tasks).where(tasks.c.job_id == bindparam("this_job"))
_ALL_OF_JOB = Prepared(_OF_JOB, ["this_job"])
_LIVE_OF_JOB = Prepared(_OF_JOB.where(literal_column("status IN ('queued', 'running')")), ["this_job"])
_DONE_OF_JOB = Prepared(_OF_JOB.where(literal_column("status = 'done'")), ["this_job"])
_FAILED_OF_JOB = Prepared(_OF_JOB.where(literal_column("status = 'failed'")), ["this_job"])
_IN_BRANCH = or_(tasks.c.branch == bindparam("this_branch"), tasks.c.branch.like(bindparam("below")))
_COUNTING = select(tasks.c.task_id).where(tasks.c.job_id == bindparam("this_job"), tasks.c.superseded == false())
_COUNTING_IN_SCOPE = Prepared(
    _COUNTING.where(tasks.c.scope == bindparam("this_scope"), _IN_BRANCH),
    ["this_job", "this_scope", "this_branch", "below"],
)
_COUNTING_BELOW = Prepared(_COUNTING.where(_IN_BRANCH), ["this_job", "this_branch", "below"])
_SUPERSEDE = Prepared(
    update(tasks).where(in_list(tasks.c.task_id, bindparam("ids"))).values(superseded=true()), ["ids"]
)
_COUNT_READY = select(_READY_IN.c.lane, func.count()).group_by(_READY_IN.c.lane)
_POLLED = select(workers.c.lane).where(workers.c.last_seen > bindparam("since")).distinct()


def task_of_row(row: Sequence[Any]) -> Task:
    """Make the task that a row of the table ``tasks`` holds."""
    task = Task(*row)  # the columns stand in the fields' order, which a test holds
    task.status = _STATUS[task.status]
    task.ended_by = None if task.ended_by is None else _ACT[task.ended_by]
    task.ready = bool(task.ready)
    return task


def lock_tasks(tx: Transaction, ids: Sequence[int]) -> None:
    """Lock the jobs of tasks, then read the tasks into ``tx.tasks``.

    A task is changed only under its job's lock, so that the job's events have one order. Unknown tasks stay out; those
    whose job another transaction has locked go into ``tx.busy`` instead.
    """
    lock_jobs_of_tasks(tx, ids)
    load_tasks(tx, ids)
    for number in ids:
        task = tx.tasks.get(number)
        if task is not None and task.job_id not in tx.jobs:
            del tx.tasks[number]
            tx.busy.add(number)


def load_tasks(tx: Transaction, ids: Iterable[int]) -> None:
    """Read tasks into ``tx.tasks``; unknown ones stay out."""
    missing = [number for number in ids if number not in tx.tasks]
    if missing:
        for row in _LOAD.rows(tx.connection, tx.dialect.list_parameter(missing)):
            tx.tasks[row[0]] = task_of_row(row)


def all_tasks(tx: Transaction, job_id: int) -> list[Task]:
    """Return every task of a locked job."""
    return _of_job(tx, _ALL_OF_JOB, job_id)


def live_tasks(tx: Transaction, job_id: int) -> list[Task]:
    """Return the tasks of a locked job that are queued or running."""
    return _of_job(tx, _LIVE_OF_JOB, job_id)


def done_tasks(tx: Transaction, job_id: int) -> list[Task]:
    """Return the tasks of a locked job that are done."""
    return _of_job(tx, _DONE_OF_JOB, job_id)


def failed_tasks(tx: Transaction, job_id: int) -> list[Task]:
    """Return the tasks of a locked job that have failed for good, also those that it went on without."""
    return _of_job(tx, _FAILED_OF_JOB, job_id)


def supersede_branch(tx: Transaction, job_id: int, branch: str, *, scope: str | None) -> None:
    """Let the tasks of a branch of a locked job, and of all in it, count no more.

    Args:
        tx: the open transaction.
        job_id: the job's number.
        branch: the branch's path.
        scope: of all that is in the branch; None where there may be several: then all that count are looked at.
    """
    tx.flush_tasks()
    below = (branch, f"{branch}/%")  # paths hold neither % nor _
    if scope is None:
        rows = _COUNTING_BELOW.rows(tx.connection, job_id, *below)
    else:
        rows = _COUNTING_IN_SCOPE.rows(tx.connection, job_id, scope, *below)
    supersede_tasks(tx, [row[0] for row in rows])


def supersede_tasks(tx: Transaction, ids: Sequence[int]) -> None:
    """Let tasks of a locked job count no more. It is written at once, and by nothing else: an index has it, too."""
    if ids:
        tx.flush_tasks()
        _SUPERSEDE.many(tx.connection, [(tx.dialect.list_parameter(list(ids)),)])
    for number in ids:
        if number in tx.tasks:
            tx.tasks[number].superseded = True


def _of_job(tx: Transaction, statement: Prepared, *values: object) -> list[Task]:
    tx.flush_tasks()
    # Sorted here: asked for the order, PostgreSQL may walk the whole table in that order instead of the job's rows.
    rows = sorted(statement.rows(tx.connection, *values), key=itemgetter(0))
    return [tx.tasks.setdefault(row[0], task_of_row(row)) for row in rows]


def add_task(tx: Transaction, task: Task) -> None:
    """Insert ``task`` at the flush."""
    tx.tasks[task.task_id] = tx.new_tasks[task.task_id] = task
    tx.count(task.lane, task.status, 1)
    if task.ready:
        tx.woken[task.lane] += 1


def move_task(tx: Transaction, task: Task, status: TaskStatus, *, lane: str | None = None) -> None:
    """Give ``task`` a status (and a lane), and keep the lanes' counts equal to their lists."""
    tx.count(task.lane, task.status, -1)
    if task.status is TaskStatus.QUEUED and task.ready and tx.woken[task.lane]:
        tx.woken[task.lane] -= 1
    elif task.status is TaskStatus.RUNNING:
        tx.freed[task.lane] += 1
    task.status = status
    if lane is not None:
        task.lane = lane
    tx.count(task.lane, task.status, 1)
    if status is TaskStatus.QUEUED and task.ready:
        tx.woken[task.lane] += 1
    tx.task_changed(task, Change.STATE if lane is None and status is not TaskStatus.QUEUED else Change.PLACE)


def claim_tasks(
    tx: Transaction, *, lane: str, limit: int, is_admitted: bool = False, worker: str | None = None
) -> list[Task]:
    """Lease up to ``limit`` ready tasks of ``lane``, in the order in which they are due.

    One statement, so that concurrent callers never get the same task: PostgreSQL skips rows that another claim
    has locked, and SQLite (which ignores that clause) admits one writer at a time. The attempt is counted and
    its token made here; together they fence off a worker whose lease has run out. Records no event.

    Args:
        tx: the open transaction.
        lane: its name. Of one that is paused or capped, nothing is leased.
        limit: how many at most.
        is_admitted: the lane's pause and caps were looked at, and ``limit`` is within them.
        worker: who gets them all; None: the caller says so of each.
    """
    tx.flush_tasks()
    rows = tx.dialect.claim.rows(tx.connection, tx.now_ms, lane, limit, is_admitted, worker)
    claimed = [task_of_row(row) for row in rows]
    # RETURNING promises no order.
    claimed.sort(key=lambda task: (-task.priority, task.available_at, task.task_id))
    for task in claimed:
        tx.tasks[task.task_id] = task
    tx.claimed[lane] += len(claimed)
    tx.count(lane, TaskStatus.QUEUED, -len(claimed))
    tx.count(lane, TaskStatus.RUNNING, len(claimed))
    return claimed


def note_contended(tx: Transaction, lane: str) -> None:
    """Note a lane whose claim came back short, where tasks are ready all the same.

    Others hold them at this moment, and may yet let go of them: that nothing was found there does not mean that nothing
    is there.
    """
    if tx.dialect.is_shared and _HAS_READY.rows(tx.connection, lane, tx.now_ms):
        tx.contended.add(lane)


def wake_due(tx: Transaction) -> None:
    """Make every waiting task whose time has come ready to be handed out; once per transaction, which has one time."""
    if tx.has_woken_due:
        return
    tx.has_woken_due = True
    tx.flush_tasks()
    if not _IS_DUE.rows(tx.connection, tx.now_ms):  # nearly always, and an update that finds nothing costs three times
        return
    for task_id, lane in _WAKE.rows(tx.connection, tx.now_ms):
        tx.woken[lane] += 1
        if task_id in tx.tasks:
            tx.tasks[task_id].ready = True


def expired_tasks(tx: Transaction, *, limit: int, without: Sequence[Key]) -> list[Task]:
    """Return up to ``limit`` running tasks whose lease has run out, the longest ago first.

    Those of the jobs ``without`` are left out.
    """
    tx.flush_tasks()
    rows = _EXPIRED.rows(tx.connection, tx.now_ms, tx.dialect.list_parameter(list(without)), limit)
    return [tx.tasks.setdefault(row[0], task_of_row(row)) for row in rows]


def next_due_ms(tx: Transaction) -> int | None:
    """Return when the next lease runs out, waiting task is due or window closes; None when nothing will."""
    (due,) = _NEXT_DUE.rows(tx.connection)
    return min((moment for moment in due if moment is not None), default=None)


def see_workers(tx: Transaction, seen: Iterable[tuple[str, str]]) -> None:
    """Note that each (lane, worker) polled now; it is written at the flush."""
    tx.seen_workers += [(lane, worker, tx.now_ms) for lane, worker in seen]


def polled_lanes(tx: Transaction, *, since_ms: int) -> set[str]:
    """Return the lanes that a named worker has polled since then."""
    return set(tx.connection.execute(_POLLED, {"since": since_ms}).scalars())


def holds_tasks(tx: Transaction, lane: str) -> bool:
    """Tell whether a lane has a task that is not done."""
    tx.flush_tasks()
    return bool(_HOLDS.rows(tx.connection, lane))


def ready_tasks(connection: Connection, dialect: Dialect, lanes: Sequence[str], *, limit: int) -> dict[str, int]:
    """Return how many tasks are ready in each of ``lanes`` that has any, counting up to ``limit`` in all."""
    rows = connection.execute(_COUNT_READY, {"lanes": dialect.list_parameter(list(lanes)), "limit": limit})
    return dict(map(tuple, rows))
