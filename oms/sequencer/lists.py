"""Pages of jobs and tasks. No page costs more for what lies behind it: each is read along an index, by id."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, exists, func, literal_column, null, or_, select

from oms.domain.errors import InvalidInputError
from oms.domain.task import TaskStatus
from oms.sequencer.views import job_fields, task_fields
from oms.sequencer.wishes import number_of
from oms.storage.jobs import job_of_row
from oms.storage.tables import STALLED, jobs, lane_counts, tasks
from oms.storage.tasks import task_of_row

# A page shows no outputs: a thousand of them could be a gigabyte.
_WITHOUT_OUTPUT = [null().label("output") if column.name == "output" else column for column in tasks.c]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; None leaves a field open."""

    plan: str | None = None
    state: str | None = None
    reference: str | None = None
    older_than_sec: float | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks; None leaves a field open."""

    lane: str | None = None
    status: str | None = None
    job: str | None = None
    plan: str | None = None
    reference: str | None = None
    older_than_sec: float | None = None
    stalled: bool | None = None


def jobs_page(
    connection: Connection, wanted: JobFilter, *, limit: int, cursor: str | None, now_ms: int
) -> dict[str, Any]:
    """Return up to ``limit`` jobs, the newest first, and the cursor of the next page (None on the last).

    Raises:
        InvalidInputError: the cursor is none of ours.
    """
    page = select(jobs).order_by(jobs.c.job_id.desc()).limit(limit + 1)
    page = page.where(*rows_equal(jobs.c.plan, wanted.plan), *rows_equal(jobs.c.state, wanted.state))
    page = page.where(*rows_equal(jobs.c.reference, wanted.reference))
    below = None if cursor is None else _cursor_number(cursor)
    page = page.where(*rows_older(connection, jobs, jobs.c.job_id, wanted.older_than_sec, now_ms, below=below))
    rows, next_cursor = _cut(connection.execute(page).all(), limit)
    return {"items": [job_fields(job_of_row(row)) for row in rows], "next_cursor": next_cursor}


def tasks_page(
    connection: Connection, wanted: TaskFilter, *, limit: int, cursor: str | None, now_ms: int
) -> dict[str, Any]:
    """Return up to ``limit`` tasks, the oldest first, and the cursor of the next page (None on the last).

    Raises:
        InvalidInputError: the cursor is none of ours.
    """
    page = select(*_WITHOUT_OUTPUT).order_by(tasks.c.task_id).limit(limit + 1)
    page = page.where(*rows_older(connection, tasks, tasks.c.task_id, wanted.older_than_sec, now_ms))
    if cursor is not None:
        page = page.where(tasks.c.task_id > _cursor_number(cursor))
    if wanted.job is not None:
        page = page.where(tasks.c.job_id == (number_of(wanted.job, "JOB-") or 0))
    if wanted.reference is not None:
        page = page.where(tasks.c.job_id.in_(select(jobs.c.job_id).where(jobs.c.reference == wanted.reference)))
    if wanted.plan is not None:
        page = page.where(exists().where(jobs.c.job_id == tasks.c.job_id, jobs.c.plan == wanted.plan))
    if wanted.stalled is False:
        page = page.where(or_(tasks.c.stalled_at.is_(None), tasks.c.status != TaskStatus.QUEUED))
    branches = [page.where(*branch) for branch in _branches(connection, wanted)]
    merged = heapq.merge(*(connection.execute(branch).all() for branch in branches), key=lambda row: row[0])
    rows, next_cursor = _cut(list(islice(merged, limit + 1)), limit)
    found = [task_of_row(row) for row in rows]
    plan_of = _plans_of(connection, {task.job_id for task in found})
    return {"items": [task_fields(task, plan_of[task.job_id]) for task in found], "next_cursor": next_cursor}


def _branches(connection: Connection, wanted: TaskFilter) -> list[list[ColumnElement[bool]]]:
    """Split a filter into parts that each have an index in the page's order; the parts are merged.

    What is not done is indexed by lane and status; what is done is most of the table, and is read along it.
    """
    if wanted.stalled:
        return [
            [
                literal_column(STALLED.text),
                *rows_equal(tasks.c.lane, wanted.lane),
                *rows_equal(tasks.c.status, wanted.status),
            ]
        ]
    if wanted.job is not None or wanted.reference is not None:
        return [[*rows_equal(tasks.c.lane, wanted.lane), *rows_equal(tasks.c.status, wanted.status)]]
    if wanted.lane is None and wanted.status in (None, TaskStatus.DONE):
        return [rows_equal(tasks.c.status, wanted.status)]
    lanes = [wanted.lane] if wanted.lane is not None else lanes_with_tasks(connection)
    statuses = [wanted.status] if wanted.status is not None else list(TaskStatus)
    return [
        [
            tasks.c.lane == lane,
            tasks.c.status == status,
            # Without a type: a Boolean is compared with 1 on SQLite, which then does not see its partial index.
            *([] if status == TaskStatus.DONE else [literal_column("status <> 'done'")]),
        ]
        for lane in lanes
        for status in statuses
    ]


def lanes_with_tasks(connection: Connection) -> Sequence[str]:
    """Return every lane that holds a task that is not done, and perhaps others."""
    return connection.execute(select(lane_counts.c.lane).distinct()).scalars().all()


def _plans_of(connection: Connection, ids: set[int]) -> dict[int, str]:
    rows = connection.execute(select(jobs.c.job_id, jobs.c.plan).where(jobs.c.job_id.in_(ids)))
    return {row.job_id: row.plan for row in rows}


def rows_equal(column: ColumnElement[Any], value: str | None) -> list[ColumnElement[bool]]:
    """Return the condition for rows that have a value; none where it is left open."""
    return [] if value is None else [column == value]


def rows_older(
    connection: Connection,
    table: Table,
    key: ColumnElement[int],
    older_than_sec: float | None,
    now_ms: int,
    *,
    below: int | None = None,
) -> list[ColumnElement[bool]]:
    """Return the conditions for rows that were made at least so long ago, and whose number is below ``below``.

    Numbers are given in the order of time, so that the newest such row is found by halving; the rows after it
    are then not read at all. One upper bound for both: given two, SQLite seeks to one and reads up to the other.
    """
    if older_than_sec is None:
        return [] if below is None else [key < below]
    until_ms = now_ms - int(older_than_sec * 1000)
    low, high = 0, connection.execute(select(func.max(key))).scalar_one() or 0
    high = high if below is None else min(high, below - 1)
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(
            select(key, table.c.created_at).where(key <= middle).order_by(key.desc()).limit(1)
        ).one_or_none()
        if row is None or row.created_at <= until_ms:
            low = middle
        else:
            high = row[0] - 1
    return [key <= low, table.c.created_at <= until_ms]


def _cut(rows: Sequence[Any], limit: int) -> tuple[Sequence[Any], str | None]:
    """Cut a page that was read with one row more than asked for: it tells whether there is a next one."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], str(rows[limit - 1][0])


def _cursor_number(cursor: str) -> int:
    number = number_of(f"cursor-{cursor}", "cursor-")
    if number is None:
        raise InvalidInputError("cursor: take it from next_cursor of the page before, or leave it out.")
    return number
