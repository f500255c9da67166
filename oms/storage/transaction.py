"""One open transaction: the rows it has read and locked, and the changes that it will write as one.

The verbs decide on these objects in memory; `Transaction.flush` writes all changes of a batch with one
``executemany`` per table. That is what makes a commit of two hundred requests cost little more than one of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

from sqlalchemy import Column, Connection, FunctionElement, bindparam
from sqlalchemy.types import NullType

from hmskit.prepared import Prepared, in_one_go
from oms.domain.lane_control import LaneControl
from oms.domain.plan import Plan
from oms.domain.stall import Pause
from oms.domain.task import FINISHED, Job, JobState, Task, TaskStatus
from oms.storage.control_rows import write_controls
from oms.storage.plan_cache import PlanCache
from oms.storage.set_aside import SetAside
from oms.storage.written_rows import (
    INSERT_EVENTS,
    INSERT_JOBS,
    INSERT_TASKS,
    UPDATE_JOBS,
    UPDATE_STAYING_JOBS,
    UPDATE_TASKS,
    Change,
    changed_job_row,
    changed_task_row,
    job_key,
    job_row,
    staying_job_row,
    task_row,
)


class in_list(FunctionElement[Any]):  # noqa: N801 - reads as SQL
    """``in_list(column, bindparam("ids"))``: the column is one of a list, however long.

    Each database compiles it its own way, as one parameter: the statement stays prepared. It has no type: as a
    Boolean it would be compared with 1 on SQLite, which then could not use the column's index.
    """

    type = NullType()
    inherit_cache = True
    name = "in_list"


class at_places(FunctionElement[Any]):  # noqa: N801 - reads as SQL
    """``at_places(job_id, path, bindparam("places"))``: the row stands at one of the places of jobs, however many.

    The parameter is a list of `place_of`. Two lists, of jobs and of paths, would be looked up crosswise.
    """

    type = NullType()
    inherit_cache = True
    name = "at_places"


def place_of(job_id: int, path: str) -> str:
    """Return a place in a job as a text, for the list of an `at_places`."""
    return f"{job_id}:{path}"


class in_rows(FunctionElement[Any]):  # noqa: N801 - reads as SQL
    """``in_rows(column, select.scalar_subquery())``: the column is one of the rows that the select gives.

    The select is run once, whatever the planner thinks of it: run again for another row, a claim would claim others.
    """

    type = NullType()
    inherit_cache = True
    name = "in_rows"


class job_is_free(FunctionElement[Any]):  # noqa: N801 - reads as SQL
    """``job_is_free()``, in a select of tasks: no other transaction has locked the task's job; this one has it now.

    Always true on SQLite, where one transaction writes at a time. Elsewhere it is a select of its own for each row, not
    a join: a join's plan would depend on how many jobs there were when it was made.
    """

    type = NullType()
    inherit_cache = True
    name = "job_is_free"


def left_alone(column: Column[Any]) -> in_list:
    """Return the condition that a column is one of the list ``without``: of whose things nothing is done now."""
    return in_list(column, bindparam("without"))


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs by database.

    Attributes:
        is_shared: several transactions may be open at once, of this process and of others.
        now_ms: the clock of a transaction that begins.
        next_number: gives a new job or task its number.
        keep_numbers: writes, at the flush, which numbers were given.
        add_counts: (lane, shard, queued, running): adds to that row of the lanes' counts.
        see_worker: (lane, worker, last_seen): notes that the worker polled the lane then.
        claim: (now, lane, limit, is_admitted, worker): takes up to ``limit`` ready tasks of the lane; gives their rows.
        end_stuck: ends what processes that stand still hold open, and says how many sessions there were.
        list_parameter: makes the parameter of an `in_list` out of a list.
    """

    is_shared: bool
    now_ms: Callable[[Connection], int]
    next_number: Callable[[Transaction, str], int]
    keep_numbers: Callable[[Transaction], None]
    add_counts: Prepared
    see_worker: Prepared
    claim: Prepared
    end_stuck: Callable[[Connection], int]
    list_parameter: Callable[[list[Any]], Any]


class Flushed(Protocol):
    """Changes that are written with the transaction's own."""

    def flush(self) -> None:
        """Write them."""


_state_of: Callable[[Job], tuple[JobState, int | None]] = attrgetter("state", "finished_at")


@dataclass(slots=True)
class Transaction:
    """An open transaction and its unwritten changes. It stands or falls as one; whoever opened it commits.

    Attributes:
        connection: with the transaction begun.
        dialect: what differs by database.
        plans: the compiled plans.
        set_aside: what this tower could not handle when it was due.
        now_ms: the one clock of this transaction.
        random_bytes: gives that many bytes that nobody can guess.
        random_unit: gives a number from 0 to below 1.
        shard: which row of the lanes' counts this writer adds to.
        trace: W3C ``traceparent`` of the request that is being worked on, for its events.
        jobs: the jobs read or made here, by number.
        tasks: the tasks read or made here, by number.
        outputs: by job number and scope (`Task.scope`) the outputs that were read here or given since, canonical JSON
            by name.
        inputs: the jobs' inputs as they were read from JSON here, by job number.
        runs: the branches and blocks that were read or made here (`oms.storage.runs`).
        begun: how many items, rounds and jobs that are steps have begun (`oms.domain.flow`).
        due_now: something is to be done for a job in the next sweep, which need not wait for its time.
        woken: by lane how many tasks became ready: who waits there may be served in this transaction.
        busy: tasks whose job another transaction works on at this moment.
        busy_jobs: jobs that were asked for by their own number, and that another transaction works on.
        has_found_busy: a verb found what a wish is about in another transaction's hands, and answered `BusyError`.
        claimed: by lane how many tasks were handed out.
        contended: lanes where a claim came back short although tasks are ready: others hold them at this moment.
        foreign_lanes: by lane the plan in force that declares it, for jobs whose own plan does not; looked up here.
        lane_pauses: by lane when it was paused, as far as that was looked up here.
        freed: by lane how many tasks were taken out of workers' hands: where a cap was reached, it is no more.
        held_back: lanes that gave less than was asked for because of a pause or a cap, and when a rate lets more
            through; None where no time ends it.
        let_through: lanes that gave less than was asked for although nothing holds them back.
        controls: what holds lanes back, of those that are locked here.
        has_woken_due: the waiting tasks whose time has come were made ready.
        recorded: how many events were recorded.
        has_erased: values were destroyed: after the commit no copy of them may stay in the database's files.
        last_numbers: the last number given, of each sequence that was used here (SQLite).
        numbers: numbers that were taken and not given yet (PostgreSQL).
        numbers_taken: how many were last taken at once (PostgreSQL).
        new_references: the jobs made here, written or not, by their reference.
        states_read: the state of each job, and when it ended, as the database has them.
    """

    connection: Connection
    dialect: Dialect
    plans: PlanCache
    set_aside: SetAside
    now_ms: int
    random_bytes: Callable[[int], bytes]
    random_unit: Callable[[], float]
    shard: int = 0
    trace: str | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    outputs: dict[tuple[int, str], dict[str, str]] = field(default_factory=dict)
    inputs: dict[int, Any] = field(default_factory=dict)
    runs: Flushed | None = None
    woken: Counter[str] = field(default_factory=Counter)
    busy: set[int] = field(default_factory=set)
    busy_jobs: set[int] = field(default_factory=set)
    has_found_busy: bool = False
    claimed: Counter[str] = field(default_factory=Counter)
    contended: set[str] = field(default_factory=set)
    foreign_lanes: dict[str, Plan | None] = field(default_factory=dict)
    lane_pauses: dict[str, list[Pause]] = field(default_factory=dict)
    freed: Counter[str] = field(default_factory=Counter)
    held_back: dict[str, int | None] = field(default_factory=dict)
    let_through: set[str] = field(default_factory=set)
    controls: dict[str, LaneControl] = field(default_factory=dict)
    has_woken_due: bool = False
    recorded: int = 0
    begun: int = 0
    due_now: bool = False
    has_erased: bool = False
    last_numbers: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    numbers_taken: dict[str, int] = field(default_factory=dict)
    new_jobs: dict[int, Job] = field(default_factory=dict)
    new_references: dict[str, list[Job]] = field(default_factory=dict)
    new_tasks: dict[int, Task] = field(default_factory=dict)
    changed_jobs: dict[int, Job] = field(default_factory=dict)
    states_read: dict[int, tuple[JobState, int | None]] = field(default_factory=dict)
    changed_tasks: dict[int, Change] = field(default_factory=dict)
    new_events: list[tuple[Any, ...]] = field(default_factory=list)
    seen_workers: list[tuple[str, str, int]] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    new_controls: set[str] = field(default_factory=set)
    changed_controls: dict[str, LaneControl] = field(default_factory=dict)

    def job_read(self, job: Job) -> None:
        """Take a job that was read and locked."""
        self.jobs[job.job_id] = job
        self.states_read[job.job_id] = _state_of(job)

    def job_changed(self, job: Job) -> None:
        """Write ``job`` at the flush."""
        job.updated_at = self.now_ms
        job.finished_at = self.now_ms if job.state in FINISHED else None
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
        if self.dialect.is_shared:
            self._insert_jobs()  # a claim there locks a task with its job
        INSERT_TASKS.many(connection, [task_row(task) for task in self.new_tasks.values()])
        self.new_tasks.clear()
        if self.changed_tasks:
            for change, statement in UPDATE_TASKS.items():
                row = changed_task_row[change]
                numbers = [number for number, how in self.changed_tasks.items() if how is change]
                statement.many(connection, [row(self.tasks[number]) for number in numbers])
            self.changed_tasks.clear()

    def flush_controls(self) -> None:
        """Write the lanes' changes so far, for a statement that reads them."""
        if self.changed_controls:
            write_controls(self.connection, self.changed_controls.values(), new=self.new_controls)
            self.changed_controls.clear()

    def flush(self) -> None:
        """Write every change, one statement per table; the end of a transaction.

        Where transactions run side by side, locks on existing jobs and tasks are never waited for. What may be waited
        for comes in one order: keys of new jobs, then of new lane controls, sorted; rows that many share, sorted and
        last. So none waits for one that waits for it.
        """
        with in_one_go(self.connection):
            self._write()
        for written in (
            self.changed_jobs,
            self.states_read,
            self.new_events,
            self.seen_workers,
            self.counts,
        ):
            written.clear()

    def _insert_jobs(self) -> None:
        new_jobs = list(self.new_jobs.values())
        if self.dialect.is_shared:
            new_jobs.sort(key=job_key)
        INSERT_JOBS.many(self.connection, [job_row(job) for job in new_jobs])
        self.new_jobs.clear()

    def _update_jobs(self) -> None:
        stay = [job for number, job in self.changed_jobs.items() if self.states_read.get(number) == _state_of(job)]
        UPDATE_STAYING_JOBS.many(self.connection, [staying_job_row(job) for job in stay])
        if len(stay) < len(self.changed_jobs):
            staying = {job.job_id for job in stay}
            moved = [job for number, job in self.changed_jobs.items() if number not in staying]
            UPDATE_JOBS.many(self.connection, [changed_job_row(job) for job in moved])

    def _write(self) -> None:
        connection = self.connection
        self.flush_tasks()
        self.dialect.keep_numbers(self)
        self._insert_jobs()
        self.flush_controls()
        self._update_jobs()
        if self.runs is not None:
            self.runs.flush()
        INSERT_EVENTS.many(connection, self.new_events)
        self.dialect.see_worker.many(connection, sorted(self.seen_workers))
        self.dialect.add_counts.many(
            connection,
            [
                (lane, self.shard, queued, running)
                for lane, (queued, running) in sorted(self.counts.items())
                if queued or running
            ],
        )
