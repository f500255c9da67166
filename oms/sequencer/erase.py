"""`/jobs/{id}/erase`: destroy what OMS holds of a citizen's in a job, and the key of its digests in the ledger.

The ledger keeps its entries, and every proof of them stays valid: they hold digests under that key, which nobody can
match with a value from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import ConflictError, OmsError
from oms.domain.task import FINISHED, JobState
from oms.sequencer.events import record_job
from oms.sequencer.wishes import JobAnswer, lock_wished_jobs, wished_job
from oms.storage.erasure import destroy_values
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Erase:
    """Erase a job's data. ``reason`` and ``actor`` go into the ledger, and stay there."""

    job_id: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


def erase(tx: Transaction, wishes: Sequence[Erase]) -> list[JobAnswer | OmsError]:
    """Erase each job once. Again, it is the same answer and no further event.

    Only what is finished: a worker who has the task has the data, too, and would give more of it back.
    """
    lock_wished_jobs(tx, wishes)
    answers: list[JobAnswer | OmsError] = []
    for wish in wishes:
        try:
            answers.append(_erase_one(tx, wish))
        except OmsError as error:
            answers.append(error)
    return answers


def _erase_one(tx: Transaction, wish: Erase) -> JobAnswer:
    job = wished_job(tx, wish.job_id)
    if not job.is_erased:
        if job.state not in FINISHED:
            raise not_finished(job.name, job.state)
        destroy_values(tx, job)
        tx.trace = wish.trace
        record_job(tx, job, "erased", actor=wish.actor, detail={"reason": wish.reason} if wish.reason else {})
    return JobAnswer(job_id=job.name, state=job.state)


def not_finished(name: str, state: JobState) -> ConflictError:
    """Return what to raise for a job that cannot be erased yet."""
    return ConflictError(
        f"{name} is {state}: its workers still need the data. Let it end, or cancel it, then erase it."
    )
