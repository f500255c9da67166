"""Where a task stands in its lane, and who was seen there; for whoever only looks."""

from __future__ import annotations

from sqlalchemy import Connection, Select, bindparam, func, literal_column, select, tuple_

from oms.domain.task import Task
from oms.storage.statements import is_open
from oms.storage.tables import READY, tasks, workers

_READY_HERE: Select[int] = select(literal_column("1")).where(tasks.c.lane == bindparam("this_lane"), READY, is_open())
_HIGHER = _READY_HERE.where(tasks.c.priority > bindparam("its_priority")).limit(bindparam("limit"))
_EARLIER = _READY_HERE.where(
    tasks.c.priority == bindparam("its_priority"),
    tuple_(tasks.c.available_at, tasks.c.task_id) < tuple_(bindparam("its_time"), bindparam("its_number")),
).limit(bindparam("limit"))
_TOP = (
    select(tasks.c.priority)
    .where(tasks.c.lane == bindparam("this_lane"), READY)
    .order_by(tasks.c.priority.desc())
    .limit(literal_column("1"))
)
_LAST_SEEN = select(func.max(workers.c.last_seen)).where(workers.c.lane == bindparam("this_lane"))


def count_ahead(connection: Connection, task: Task, *, now_ms: int, limit: int) -> int:
    """Return how many ready tasks come before a ready one in its lane, counting up to ``limit``: a range each."""
    here = {
        "this_lane": task.lane,
        "its_priority": task.priority,
        "its_time": task.available_at,
        "its_number": task.task_id,
        "now": now_ms,
    }
    ahead = 0
    for statement in (_HIGHER, _EARLIER):
        counted = select(func.count()).select_from(statement.subquery())
        ahead += connection.execute(counted, {**here, "limit": limit - ahead}).scalar_one()
    return ahead


def top_priority(connection: Connection, lane: str) -> int | None:
    """Return the highest priority of a lane's ready tasks; None where there are none."""
    return connection.execute(_TOP, {"this_lane": lane}).scalar_one_or_none()


def last_seen_ms(connection: Connection, lane: str) -> int | None:
    """Return when a named worker last polled a lane; None where none has for long."""
    return connection.execute(_LAST_SEEN, {"this_lane": lane}).scalar_one_or_none()
