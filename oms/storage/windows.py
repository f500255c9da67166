"""Tasks whose lane has closed before anybody took them."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from hmskit.prepared import Prepared
from oms.domain.task import Task
from oms.storage.tables import CLOSING, tasks
from oms.storage.tasks import task_of_row
from oms.storage.transaction import Transaction, job_is_free

_CLOSED = Prepared(
    select(tasks)
    .where(CLOSING, tasks.c.closes_at <= bindparam("now"), job_is_free())
    .order_by(tasks.c.closes_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["now", "limit"],
)


def closed_tasks(tx: Transaction, *, limit: int) -> list[Task]:
    """Return up to ``limit`` ready tasks whose window is over, those that another transaction works on left out."""
    tx.flush_tasks()
    rows = _CLOSED.rows(tx.connection, tx.now_ms, limit)
    return [tx.tasks.setdefault(row[0], task_of_row(row)) for row in rows]
