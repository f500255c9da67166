"""Batches: which lanes have one to open, who waits for it, and how many it holds so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, bindparam, exists, func, insert, literal_column, select, update

from hmskit.prepared import Prepared
from oms.domain.task import Task
from oms.storage.set_aside import Key
from oms.storage.tables import BATCHED, READY, batches, tasks
from oms.storage.tasks import task_of_row
from oms.storage.transaction import Transaction, job_is_free, left_alone

MAX_COUNTED = 1_000_000
"""No batch holds more."""

_IS_THIS = tasks.c.lane == bindparam("this_lane")
_NEWEST_DUE = Prepared(
    select(tasks.c.batch_at)
    .where(BATCHED, _IS_THIS, tasks.c.batch_at <= bindparam("now"))
    .order_by(tasks.c.batch_at.desc())
    .limit(literal_column("1")),
    ["this_lane", "now"],
)


def _lanes() -> Select[tuple[str]]:
    """Select every lane in which a task waits for a batch: one step along the index for each."""
    first = select(tasks.c.lane).where(BATCHED).order_by(tasks.c.lane).limit(literal_column("1"))
    found = select(first.scalar_subquery().label("lane")).cte("lanes", recursive=True)
    following = (
        select(tasks.c.lane)
        .where(BATCHED, tasks.c.lane > found.c.lane)
        .order_by(tasks.c.lane)
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    found = found.union_all(select(following).where(found.c.lane.is_not(None)))
    return select(found.c.lane).where(found.c.lane.is_not(None))


_LANES = Prepared(_lanes(), [])
_LOCK = Prepared(
    select(batches.c.opened_at, batches.c.taken)
    .where(batches.c.lane == bindparam("this_lane"))
    .with_for_update(skip_locked=True),
    ["this_lane"],
)
_KNOWN = exists(select(literal_column("1")).where(batches.c.lane == bindparam("this_lane")))
_ADD = Prepared(
    insert(batches).from_select(
        ["lane", "opened_at", "taken"],
        select(bindparam("new_lane", type_=batches.c.lane.type), literal_column("0"), literal_column("0")).where(
            ~_KNOWN
        ),
    ),
    ["new_lane", "this_lane"],
)
_KEEP = Prepared(
    update(batches)
    .where(batches.c.lane == bindparam("this_lane"))
    .values(opened_at=bindparam("opened"), taken=bindparam("count")),
    ["opened", "count", "this_lane"],
)
_READY = select(literal_column("1")).where(_IS_THIS, READY).limit(bindparam("limit")).subquery()
_COUNT_READY = Prepared(select(func.count()).select_from(_READY), ["this_lane", "limit"])
_WAITING = Prepared(
    select(tasks)
    .where(BATCHED, _IS_THIS, tasks.c.batch_at <= bindparam("opened"), ~left_alone(tasks.c.job_id), job_is_free())
    .order_by(tasks.c.priority.desc(), tasks.c.batch_at, tasks.c.task_id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["this_lane", "opened", "without", "limit"],
)


@dataclass(slots=True)
class Batch:
    """A lane's last batch, whose row this transaction has locked.

    Attributes:
        lane: whose.
        opened_at: its time, milliseconds since the epoch; 0 before the first.
        taken: how many tasks it holds so far.
    """

    lane: str
    opened_at: int
    taken: int


def lanes_with_batches(tx: Transaction) -> list[str]:
    """Return every lane in which a task waits for a batch."""
    tx.flush_tasks()
    return [row[0] for row in _LANES.rows(tx.connection)]


def newest_due_ms(tx: Transaction, lane: str) -> int | None:
    """Return the time of the lane's last batch that has come and for which a task waits still; None where none does."""
    tx.flush_tasks()
    rows = _NEWEST_DUE.rows(tx.connection, lane, tx.now_ms)
    return rows[0][0] if rows else None


def add_batches(tx: Transaction, lanes: Iterable[str]) -> None:
    """Make the rows of lanes that have none yet: when a plan is put in force, for later another may be at it, too."""
    _ADD.many(tx.connection, [(lane, lane) for lane in sorted(set(lanes))])


def lock_batch(tx: Transaction, lane: str) -> Batch | None:
    """Return a lane's last batch and lock it; None where another transaction is at it."""
    rows = _LOCK.rows(tx.connection, lane)
    if not rows:  # another has it, or its row is gone
        add_batches(tx, [lane])
        rows = _LOCK.rows(tx.connection, lane)
    return Batch(lane, *rows[0]) if rows else None


def keep_batch(tx: Transaction, batch: Batch) -> None:
    """Write what became of a locked batch."""
    _KEEP.many(tx.connection, [(batch.opened_at, batch.taken, batch.lane)])


def ready_count(tx: Transaction, lane: str) -> int:
    """Return how many tasks of a lane are ready, counted up to `MAX_COUNTED`."""
    count: int = _COUNT_READY.rows(tx.connection, lane, MAX_COUNTED)[0][0]
    return count


def waiting_tasks(tx: Transaction, batch: Batch, *, limit: int, without: Sequence[Key]) -> Sequence[Task]:
    """Return up to ``limit`` tasks that wait for a batch, in the lane's order, without those of some jobs.

    Those that another transaction works on are left out, too.
    """
    rows = _WAITING.rows(tx.connection, batch.lane, batch.opened_at, tx.dialect.list_parameter(list(without)), limit)
    return [tx.tasks.setdefault(row[0], task_of_row(row)) for row in rows]
