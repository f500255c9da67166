"""Destroy the citizen's data in a job's rows (docs/privacy.md says what that is, and what is left).

What the database's files still hold of it afterwards is the business of `oms.storage.store`: it acts on
``tx.has_erased`` after the commit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, case, literal_column, select, update

from oms.domain.digest import canonical_json
from oms.domain.task import Job, JobState
from oms.storage.jobs import forget_outputs
from oms.storage.runs import runs_of
from oms.storage.tables import blocks, branches, jobs, signals, tasks
from oms.storage.transaction import Transaction

NO_INPUT = canonical_json({})

_ERASE_JOB = (
    update(jobs)
    .where(jobs.c.job_id == bindparam("this_job"))
    .values(hmac_key=None, input=NO_INPUT, error=None, ending=None)
)
_ERASE_TASKS = (
    update(tasks)
    .where(tasks.c.job_id == bindparam("this_job"))
    .values(
        output=None,
        output_hmac=None,
        # That an attempt failed, and its code, are facts of the ledger; the message is the citizen's or the worker's.
        error=case((tasks.c.error.is_not(None), "")),
        note=None,
        input=None,
    )
)
_ERASE_BRANCHES = update(branches).where(branches.c.job_id == bindparam("this_job")).values(item=None, output=None)
_ERASE_BLOCKS = update(blocks).where(blocks.c.job_id == bindparam("this_job")).values(output=None)
_ERASE_SIGNALS = update(signals).where(signals.c.job_id == bindparam("this_job")).values(data=NO_INPUT)
_ERASED = (_ERASE_JOB, _ERASE_TASKS, _ERASE_BRANCHES, _ERASE_BLOCKS, _ERASE_SIGNALS)


_ROOT = select(jobs.c.job_id, literal_column("0").label("depth")).where(jobs.c.job_id == bindparam("this_job"))
_FAMILY = _ROOT.cte("family", recursive=True)
_FAMILY = _FAMILY.union_all(
    select(jobs.c.job_id, _FAMILY.c.depth + literal_column("1")).where(jobs.c.parent_job == _FAMILY.c.job_id)
)
_RELATIVES = (
    select(jobs.c.job_id, jobs.c.state, jobs.c.hmac_key.is_(None))
    .join(_FAMILY, _FAMILY.c.job_id == jobs.c.job_id)
    .order_by(_FAMILY.c.depth.desc(), jobs.c.job_id)
)


@dataclass(frozen=True, slots=True)
class Relative:
    """A job, or one below it, as it stands when it is looked at."""

    job_id: int
    state: JobState
    is_erased: bool

    @property
    def name(self) -> str:
        """Return the id as people see it."""
        return f"JOB-{self.job_id}"


def family_of(connection: Connection, job_id: int) -> list[Relative]:
    """Return a job, the jobs that are its steps, and theirs, the deepest first; nothing where there is no such job."""
    rows = connection.execute(_RELATIVES, {"this_job": job_id})
    return [Relative(number, JobState(state), bool(is_erased)) for number, state, is_erased in rows]


def destroy_values(tx: Transaction, job: Job) -> None:
    """Destroy a locked, finished job's key and values, in its row and those of its tasks.

    Also in the objects of this transaction: the flush would write them again.
    """
    job.hmac_key = None
    job.input = NO_INPUT
    tx.inputs.pop(job.job_id, None)
    job.error = job.ending = None
    for task in tx.tasks.values():
        if task.job_id == job.job_id:
            task.output = task.output_hmac = task.note = task.input = None
            task.error = None if task.error is None else ""
    forget_outputs(tx, job.job_id)
    runs_of(tx).forget(job.job_id)
    for statement in _ERASED:
        tx.connection.execute(statement, {"this_job": job.job_id})
    tx.has_erased = True
