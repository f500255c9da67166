"""Tasks that may have been queued for too long."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Integer, Select, bindparam, literal_column, select

from hmskit.prepared import Prepared
from oms.domain.task import Task
from oms.storage.set_aside import Key
from oms.storage.tables import STALLING, tasks
from oms.storage.tasks import task_of_row
from oms.storage.transaction import Transaction, job_is_free, left_alone

_ONE = literal_column("1", Integer())


def _lanes() -> Select[tuple[str, int]]:
    """Select every lane in which a task may stall, and when the first one would: two steps along the index for each."""
    first = select(tasks.c.lane).where(STALLING).order_by(tasks.c.lane).limit(_ONE)
    found = select(first.scalar_subquery().label("lane")).cte("lanes", recursive=True)
    following = select(tasks.c.lane).where(STALLING, tasks.c.lane > found.c.lane).order_by(tasks.c.lane).limit(_ONE)
    found = found.union_all(select(following.scalar_subquery()).where(found.c.lane.is_not(None)))
    earliest = select(tasks.c.stalls_at).where(STALLING, tasks.c.lane == found.c.lane)
    earliest = earliest.order_by(tasks.c.stalls_at).limit(_ONE)
    return select(found.c.lane, earliest.scalar_subquery()).where(found.c.lane.is_not(None))


_LANES = Prepared(_lanes(), [])
_STALLED = Prepared(
    select(tasks)
    .where(
        STALLING,
        tasks.c.lane == bindparam("this_lane"),
        tasks.c.stalls_at <= bindparam("now"),
        ~left_alone(tasks.c.job_id),
        job_is_free(),
    )
    .order_by(tasks.c.stalls_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["this_lane", "now", "without", "limit"],
)


def stalling_lanes(tx: Transaction) -> list[tuple[str, int]]:
    """Return every lane in which a task may stall, with when the first one would if the lane was never paused."""
    tx.flush_tasks()
    return [tuple(row) for row in _LANES.rows(tx.connection)]


def stalled_tasks(tx: Transaction, lane: str, *, limit: int, without: Sequence[Key]) -> Sequence[Task]:
    """Return up to ``limit`` tasks of a lane that have stalled by now if it was never paused, the longest ago first.

    Those of the jobs ``without`` are left out.
    """
    tx.flush_tasks()
    rows = _STALLED.rows(tx.connection, lane, tx.now_ms, tx.dialect.list_parameter(list(without)), limit)
    return [tx.tasks.setdefault(row[0], task_of_row(row)) for row in rows]
