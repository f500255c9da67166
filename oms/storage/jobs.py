"""Read, lock and make jobs, and keep their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import from_json
from sqlalchemy import bindparam, false, literal_column, select

from hmskit.prepared import Prepared
from oms.domain.task import Job, JobState, Task
from oms.storage.runs import runs_of
from oms.storage.tables import jobs, tasks
from oms.storage.transaction import Transaction, at_places, in_list, in_rows, place_of

_STATE = {state.value: state for state in JobState}

_LOCK = Prepared(
    select(jobs).where(in_list(jobs.c.job_id, bindparam("ids"))).with_for_update(skip_locked=True), ["ids"]
)
_LOCK_OF_TASKS = Prepared(
    select(jobs)
    .where(
        in_rows(
            jobs.c.job_id, select(tasks.c.job_id).where(in_list(tasks.c.task_id, bindparam("ids"))).scalar_subquery()
        )
    )
    .with_for_update(skip_locked=True),
    ["ids"],
)
_KNOWN = Prepared(select(jobs.c.job_id).where(in_list(jobs.c.job_id, bindparam("ids"))), ["ids"])
_BY_REFERENCE = Prepared(select(jobs).where(in_list(jobs.c.reference, bindparam("references"))), ["references"])
_PEEK = Prepared(select(jobs).where(jobs.c.job_id == bindparam("this_job")), ["this_job"])
_GIVEN = select(tasks.c.task_id, tasks.c.job_id, tasks.c.scope, tasks.c.activity, tasks.c.output).where(
    tasks.c.output.is_not(None), tasks.c.superseded == false()
)
_OUTPUTS = Prepared(
    _GIVEN.where(in_list(tasks.c.job_id, bindparam("ids")), tasks.c.scope == literal_column("''")), ["ids"]
)
_OUTPUTS_IN = Prepared(_GIVEN.where(at_places(tasks.c.job_id, tasks.c.scope, bindparam("places"))), ["places"])


def next_number(tx: Transaction, name: str) -> int:
    """Return a number that was never given before, for a new job (``job``) or task (``task``)."""
    return tx.dialect.next_number(tx, name)


def job_of_row(row: Sequence[Any]) -> Job:
    """Make the job that a row of the table ``jobs`` holds."""
    job = Job(*row)  # the columns stand in the fields' order, which a test holds
    job.state = _STATE[job.state]
    return job


def lock_jobs(tx: Transaction, ids: Iterable[int]) -> None:
    """Read jobs into ``tx.jobs`` and lock their rows.

    Unknown ones stay out, and so do those that another transaction has locked: none is waited for, so that no two
    transactions can ever wait for each other.
    """
    missing = [number for number in ids if number not in tx.jobs]
    if missing:
        for row in _LOCK.rows(tx.connection, tx.dialect.list_parameter(missing)):
            tx.job_read(job_of_row(row))


def lock_named_jobs(tx: Transaction, ids: Iterable[int]) -> None:
    """Read and lock jobs as `lock_jobs` does; those that another transaction has locked go into ``tx.busy_jobs``."""
    ids = list(ids)
    lock_jobs(tx, ids)
    missing = [number for number in ids if number not in tx.jobs]
    if missing and tx.dialect.is_shared:
        tx.busy_jobs.update(row[0] for row in _KNOWN.rows(tx.connection, tx.dialect.list_parameter(missing)))


def lock_jobs_of_tasks(tx: Transaction, task_ids: Sequence[int]) -> None:
    """Read and lock the jobs of tasks, as `lock_jobs` does."""
    if any(number not in tx.tasks or tx.tasks[number].job_id not in tx.jobs for number in task_ids):
        for row in _LOCK_OF_TASKS.rows(tx.connection, tx.dialect.list_parameter(list(task_ids))):
            if row[0] not in tx.jobs:
                tx.job_read(job_of_row(row))


def find_jobs(tx: Transaction, references: Sequence[str]) -> dict[tuple[str, str], Job]:
    """Return the jobs of any plan that have one of ``references``, by plan and reference. They are not locked.

    Also those made in this transaction, which may not be written yet.
    """
    new = [job for reference in references for job in tx.new_references.get(reference, ())]
    found = {(job.plan, job.reference): job for job in new}
    for row in _BY_REFERENCE.rows(tx.connection, tx.dialect.list_parameter(list(references))):
        job = tx.jobs.get(row[0]) or job_of_row(row)
        found[job.plan, job.reference] = job
    return found


def peek_job(tx: Transaction, job_id: int) -> Job | None:
    """Return a job as it stands, without locking it; None where it is gone."""
    known = tx.jobs.get(job_id)
    if known is not None:
        return known
    rows = _PEEK.rows(tx.connection, job_id)
    return job_of_row(rows[0]) if rows else None


def add_job(tx: Transaction, job: Job) -> None:
    """Insert ``job`` at the flush."""
    tx.jobs[job.job_id] = tx.new_jobs[job.job_id] = job
    tx.new_references.setdefault(job.reference, []).append(job)
    tx.outputs[job.job_id, ""] = {}


def input_of(tx: Transaction, job: Job) -> Any:  # noqa: ANN401 - JSON
    """Return a job's input; do not change it. It is read once: a transaction may ask for each of many items."""
    if job.job_id not in tx.inputs:
        tx.inputs[job.job_id] = from_json(job.input)
    return tx.inputs[job.job_id]


def load_outputs(tx: Transaction, wanted: Iterable[tuple[int, str]]) -> None:
    """Read the outputs of jobs that are locked, and of items in them, into ``tx.outputs``: by job and scope."""
    missing = {key for key in wanted if key not in tx.outputs}
    if not missing:
        return
    tx.flush_tasks()  # what was given in this transaction counts, too
    tx.outputs.update((key, {}) for key in missing)
    list_of = tx.dialect.list_parameter
    of_jobs = sorted({job_id for job_id, scope in missing if not scope})
    of_items = [place_of(*key) for key in sorted(missing) if key[1]]
    rows = list(_OUTPUTS.rows(tx.connection, list_of(of_jobs))) if of_jobs else []
    if of_items:
        rows += _OUTPUTS_IN.rows(tx.connection, list_of(of_items))
    # By the task's number: of an activity that was done more than once, the newest counts.
    for _task_id, job_id, scope, activity, output in sorted(rows):
        tx.outputs[job_id, scope][activity] = output
    flat = {job_id for job_id in {job_id for job_id, _ in missing} if _is_flat(tx, tx.jobs[job_id])}
    with_blocks = sorted(key for key in missing if key[0] not in flat)
    if with_blocks:
        for job_id, scope, name, output in runs_of(tx).outputs(with_blocks):
            tx.outputs[job_id, scope][name] = output


def give_output(tx: Transaction, task: Task, output: str) -> None:
    """Set what a task gave, as canonical JSON; it is written with the task's change."""
    task.output = output
    known = tx.outputs.get((task.job_id, task.scope))
    if known is not None:
        known[task.activity] = output


def _is_flat(tx: Transaction, job: Job) -> bool:
    return tx.plans.get(tx.connection, job.plan, job.plan_version).is_flat


def forget_outputs(tx: Transaction, job_id: int) -> None:
    """Read a job's outputs anew when they are asked for: which of them count has changed."""
    for key in [key for key in tx.outputs if key[0] == job_id]:
        del tx.outputs[key]


def peek_outputs(tx: Transaction, job: Job) -> dict[str, str]:
    """Return a job's own outputs as they stand, canonical JSON by name; the job need not be locked."""
    tx.flush_tasks()
    list_of = tx.dialect.list_parameter
    rows = sorted(_OUTPUTS.rows(tx.connection, list_of([job.job_id])))
    outputs = {activity: output for _task_id, _job_id, _scope, activity, output in rows}
    if not _is_flat(tx, job):
        outputs.update((name, output) for _, _, name, output in runs_of(tx).outputs([(job.job_id, "")]))
    return outputs
