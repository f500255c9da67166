"""The ground of a trial: a temporary database, the verbs on it, and a clock that goes only when it is told to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select

from oms.domain.errors import OmsError
from oms.domain.plan import Plan
from oms.domain.plan_reader import parse_plan
from oms.domain.task import FINISHED, Job, Task, TaskStatus
from oms.sequencer.load_plans import PutPlan, put_plans
from oms.sequencer.sweep import Sweep, sweep
from oms.storage.jobs import job_of_row
from oms.storage.store import Store, open_store
from oms.storage.tables import jobs, tasks
from oms.storage.tasks import task_of_row
from oms.storage.transaction import Transaction

W = TypeVar("W")
R = TypeVar("R")
MAX_SWEEPS = 1_000
"""So often the sweep looks in one moment at most; each time it does all that is due, or a batch of it."""


@dataclass(slots=True)
class Site:
    """OMS without HTTP and without threads: each call is one transaction.

    Attributes:
        store: the database.
        now_ms: what its clock shows, milliseconds since the epoch.
        opens_ms: when a lane whose rate held work back from the last verb hands out more; None: none did.
    """

    store: Store
    now_ms: int
    opens_ms: int | None = None

    def run(self, verb: Callable[[Transaction, Sequence[W]], Sequence[R]], *wishes: W) -> list[R]:
        """Run a verb on a batch of wishes; return the answers and refusals."""
        with self.store.connect_writer() as connection, self.store.begin(connection, now_ms=self.now_ms) as tx:
            tx.random_unit = lambda: 0.0  # a trial is the same each time: jitter takes nothing off
            answers = list(verb(tx, wishes))
            self.opens_ms = min((at for at in tx.held_back.values() if at is not None), default=None)
        return answers

    def one(self, verb: Callable[[Transaction, Sequence[W]], Sequence[R | OmsError]], wish: W) -> R:
        """Run a verb on one wish.

        Raises:
            OmsError: it is refused.
        """
        (answer,) = self.run(verb, wish)
        if isinstance(answer, OmsError):
            raise answer
        return answer

    def put(self, plan: Plan) -> None:
        """Put a plan in force, without its schedules: a trial has one job, and those it starts.

        Raises:
            OmsError: it calls itself by way of others.
        """
        document = {key: value for key, value in plan.document.items() if key != "schedules"}
        self.one(put_plans, PutPlan(parse_plan(document)))

    def settle(self) -> int | None:
        """Do all that is due now; return when something will be due again, None where nothing will."""
        for _ in range(MAX_SWEEPS):
            due_ms = self.run(sweep, Sweep())[0].next_due_ms
            if due_ms is None or due_ms > self.now_ms:
                return min((moment for moment in (due_ms, *self._looked_for()) if moment is not None), default=None)
        raise AssertionError("what is due now never ends")

    def _looked_for(self) -> list[int | None]:
        """Return when what the sweep looks for by itself, each second, will be there: a batch, a stalled task."""
        columns = (tasks.c.batch_at, tasks.c.stalls_at)
        firsts = [
            select(func.min(column)).where(column > self.now_ms, tasks.c.status == TaskStatus.QUEUED.value)
            for column in columns
        ]
        with self.reading() as connection:
            return [connection.execute(first).scalar() for first in firsts]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that reads."""
        with self.store.reading() as connection:
            yield connection

    def task(self, task_id: str) -> Task:
        """Return a task as it is now."""
        number = int(task_id.removeprefix("TASK-"))
        with self.reading() as connection:
            return task_of_row(connection.execute(select(tasks).where(tasks.c.task_id == number)).one())

    def tasks(self) -> list[Task]:
        """Return all tasks in the order in which they were made."""
        with self.reading() as connection:
            return [task_of_row(row) for row in connection.execute(select(tasks).order_by(tasks.c.task_id))]

    def jobs(self) -> list[Job]:
        """Return all jobs, the one that is tried first."""
        with self.reading() as connection:
            return [job_of_row(row) for row in connection.execute(select(jobs).order_by(jobs.c.job_id))]

    def live_jobs(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in self.jobs() if job.state not in FINISHED]

    def plan_of(self, job: Job | Any) -> Plan:  # noqa: ANN401 - whatever has a plan and its version
        """Return a job's plan."""
        with self.reading() as connection:
            return self.store.plans.get(connection, job.plan, job.plan_version)


@contextmanager
def temporary_site(start_ms: int) -> Iterator[Site]:
    """Make a site whose database is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="oms-try-") as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'try.db'}")
        try:
            yield Site(store, start_ms)
        finally:
            store.close()
