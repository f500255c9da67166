"""Tasks whose lane has closed before anybody took them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, select

from hmskit.prepared import Prepared
from oms.domain.task import Task
from oms.storage.set_aside import Key
from oms.storage.tables import CLOSING, tasks
from oms.storage.tasks import task_of_row
from oms.storage.transaction import Transaction, job_is_free, left_alone

_CLOSED = Prepared(
    select(tasks)
    .where(CLOSING, tasks.c.closes_at <= bindparam("now"), ~left_alone(tasks.c.job_id), job_is_free())
    .order_by(tasks.c.closes_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["now", "without", "limit"],
)


def closed_tasks(tx: Transaction, *, limit: int, without: Sequence[Key]) -> list[Task]:
    """Return up to ``limit`` ready tasks whose window is over, without those of some jobs.

    Those that another transaction works on are left out, too.
    """
    tx.flush_tasks()
    rows = _CLOSED.rows(tx.connection, tx.now_ms, tx.dialect.list_parameter(list(without)), limit)
    return [tx.tasks.setdefault(row[0], task_of_row(row)) for row in rows]
