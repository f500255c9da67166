"""Destroy the citizen's data in a job's rows (docs/privacy.md says what that is, and what is left).

What the database's files still hold of it afterwards is the business of `oms.storage.store`: it acts on
``tx.has_erased`` after the commit.
"""

from __future__ import annotations

from sqlalchemy import bindparam, case, update

from oms.domain.digest import canonical_json
from oms.domain.task import Job
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
