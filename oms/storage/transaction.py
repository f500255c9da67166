"""One open transaction: the rows it has read and locked, and the changes that it will write as one.

The verbs decide on these objects in memory; `Transaction.flush` writes all changes of a batch with one
``executemany`` per table. That is what makes a commit of two hundred requests cost little more than one of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, FunctionElement, bindparam, insert, update
from sqlalchemy.types import NullType

from hmskit.prepared import Prepared
from oms.domain.task import Job, Task, TaskStatus
from oms.storage.plan_cache import PlanCache
from oms.storage.tables import jobs, outbox, sequences, tasks


class in_list(FunctionElement[Any]):  # noqa: N801 - reads as SQL
    """``in_list(column, bindparam("ids"))``: the column is one of a list, however long.

    Each database compiles it its own way, as one parameter: the statement stays prepared. It has no type: as a
    Boolean it would be compared with 1 on SQLite, which then could not use the column's index.
    """

    type = NullType()
    inherit_cache = True
    name = "in_list"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs by database.

    Attributes:
        add_counts: (lane, shard, queued, running): adds to that row of the lanes' counts.
        see_worker: (lane, worker, last_seen): notes that the worker polled the lane then.
        claim: (now, lane, limit): takes up to ``limit`` ready tasks of the lane, and gives their rows.
        list_parameter: makes the parameter of an `in_list` out of a list.
    """

    add_counts: Prepared
    see_worker: Prepared
    claim: Prepared
    list_parameter: Callable[[list[Any]], Any]


class Change(IntEnum):
    """How much of a task changed: no more is written, for every index that a column is in costs a write."""

    WORKER = 1
    STATE = 2
    PLACE = 3


JOB_COLUMNS = tuple(f.name for f in fields(Job))
TASK_COLUMNS = tuple(f.name for f in fields(Task))
_JOB_STATE = ("state", "position", "seq", "error", "updated_at")
_TASK_STATE = (
    "status",
    "failures",
    "ended_by",
    "worker",
    "lease_expires_at",
    "error",
    "error_type",
    "output_hmac",
    "output",
    "progress",
    "note",
)
_TASK_PLACE = ("lane", "ready", "priority", "lease_sec", "available_at")
_EVENT = ("stream", "seq", "body", "created_at", "delivered")


def _update(table: Any, columns: Sequence[str], key: str) -> Prepared:  # noqa: ANN401 - SQLAlchemy's Table
    statement = update(table).where(table.c[key] == bindparam("this_row"))
    return Prepared(statement.values({name: bindparam(name) for name in columns}), [*columns, "this_row"])


def _insert(table: Any, columns: Sequence[str]) -> Prepared:  # noqa: ANN401 - SQLAlchemy's Table
    return Prepared(insert(table).values({name: bindparam(name) for name in columns}), columns)


_INSERT_JOBS = _insert(jobs, JOB_COLUMNS)
_INSERT_TASKS = _insert(tasks, TASK_COLUMNS)
_INSERT_EVENTS = _insert(outbox, _EVENT)
_UPDATE_NUMBERS = _update(sequences, ["value"], "name")
_UPDATE_JOBS = _update(jobs, _JOB_STATE, "job_id")
_UPDATE_TASKS = {
    Change.WORKER: _update(tasks, ["worker"], "task_id"),
    Change.STATE: _update(tasks, _TASK_STATE, "task_id"),
    Change.PLACE: _update(tasks, _TASK_STATE + _TASK_PLACE, "task_id"),
}
_job_row = attrgetter(*JOB_COLUMNS)
_task_row = attrgetter(*TASK_COLUMNS)
_changed_job_row = attrgetter(*_JOB_STATE, "job_id")
_changed_task_row: dict[Change, Callable[[Task], tuple[Any, ...]]] = {
    Change.WORKER: attrgetter("worker", "task_id"),
    Change.STATE: attrgetter(*_TASK_STATE, "task_id"),
    Change.PLACE: attrgetter(*_TASK_STATE, *_TASK_PLACE, "task_id"),
}


@dataclass(slots=True)
class Transaction:
    """An open transaction and its unwritten changes. It stands or falls as one; whoever opened it commits.

    Attributes:
        connection: with the transaction begun.
        dialect: what differs by database.
        plans: the compiled plans.
        now_ms: the one clock of this transaction.
        random_bytes: gives that many bytes that nobody can guess.
        random_unit: gives a number from 0 to below 1.
        shard: which row of the lanes' counts this writer adds to.
        trace: W3C ``traceparent`` of the request that is being worked on, for its events.
        jobs: the jobs read or made here, by number.
        tasks: the tasks read or made here, by number.
        outputs: by job number the outputs that were read here or given since, canonical JSON by activity.
        woken: by lane how many tasks became ready: who waits there may be served in this transaction.
        has_woken_due: the waiting tasks whose time has come were made ready.
        recorded: how many events were recorded.
        numbers: the last number given, of each sequence that was used here.
    """

    connection: Connection
    dialect: Dialect
    plans: PlanCache
    now_ms: int
    random_bytes: Callable[[int], bytes]
    random_unit: Callable[[], float]
    shard: int = 0
    trace: str | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    outputs: dict[int, dict[str, str]] = field(default_factory=dict)
    woken: Counter[str] = field(default_factory=Counter)
    has_woken_due: bool = False
    recorded: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    new_jobs: dict[int, Job] = field(default_factory=dict)
    new_tasks: dict[int, Task] = field(default_factory=dict)
    changed_jobs: dict[int, Job] = field(default_factory=dict)
    changed_tasks: dict[int, Change] = field(default_factory=dict)
    new_events: list[tuple[Any, ...]] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)

    def job_changed(self, job: Job) -> None:
        """Write ``job`` at the flush."""
        job.updated_at = self.now_ms
        if job.job_id not in self.new_jobs:
            self.changed_jobs[job.job_id] = job

    def task_changed(self, task: Task, how: Change) -> None:
        """Write ``task`` at the flush."""
        number = task.task_id
        if number not in self.new_tasks:
            self.changed_tasks[number] = max(how, self.changed_tasks.get(number, how))

    def count(self, lane: str, status: TaskStatus, by: int) -> None:
        """Add ``by`` to the lane's number of tasks of that status; only the live ones are counted."""
        if status is TaskStatus.QUEUED:
            self.counts.setdefault(lane, [0, 0])[0] += by
        elif status is TaskStatus.RUNNING:
            self.counts.setdefault(lane, [0, 0])[1] += by

    def flush_tasks(self) -> None:
        """Write the tasks' changes so far, for a statement that reads them. The objects stay valid."""
        connection = self.connection
        _INSERT_TASKS.many(connection, [_task_row(task) for task in self.new_tasks.values()])
        self.new_tasks.clear()
        if self.changed_tasks:
            for change, statement in _UPDATE_TASKS.items():
                row = _changed_task_row[change]
                numbers = [number for number, how in self.changed_tasks.items() if how is change]
                statement.many(connection, [row(self.tasks[number]) for number in numbers])
            self.changed_tasks.clear()

    def flush(self) -> None:
        """Write every change, one statement per table; the end of a transaction."""
        connection = self.connection
        self.flush_tasks()
        _UPDATE_NUMBERS.many(connection, [(number, name) for name, number in self.numbers.items()])
        _INSERT_JOBS.many(connection, [_job_row(job) for job in self.new_jobs.values()])
        _UPDATE_JOBS.many(connection, [_changed_job_row(job) for job in self.changed_jobs.values()])
        _INSERT_EVENTS.many(connection, self.new_events)
        self.dialect.add_counts.many(
            connection,
            [
                (lane, self.shard, queued, running)
                for lane, (queued, running) in self.counts.items()
                if queued or running
            ],
        )
        for written in (
            self.numbers,
            self.new_jobs,
            self.changed_jobs,
            self.new_events,
            self.counts,
        ):
            written.clear()
