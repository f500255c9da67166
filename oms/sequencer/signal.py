"""`/jobs/{id}/signal`: something happened outside that a job waits for, or will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oms.domain.digest import canonical_json, keyed_digest
from oms.domain.errors import ConflictError, InvalidInputError, OmsError
from oms.domain.naming import did_you_mean, listed, quote
from oms.domain.plan import Wait, nodes_in
from oms.domain.task import FINISHED, Job, key_of
from oms.sequencer.advance import flow_of
from oms.sequencer.each import each
from oms.sequencer.events import record_job
from oms.sequencer.lanes import plan_of
from oms.sequencer.wishes import JobAnswer, lock_wished_jobs, wished_job
from oms.storage.runs import runs_of
from oms.storage.signals import KeptSignal, add_signal, known_signal
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Signal:
    """An event for a job's ``wait``. Under one ``signal_id`` it counts once, however often it is sent."""

    job_id: str
    name: str
    data: dict[str, Any]
    signal_id: str | None = None
    actor: str | None = None
    trace: str | None = None


def signal(tx: Transaction, wishes: Sequence[Signal]) -> list[JobAnswer | OmsError]:
    """Let each event serve the wait for it that began first, or keep it until one begins."""
    lock_wished_jobs(tx, wishes)
    return each(tx, wishes, _signal_one)


def _signal_one(tx: Transaction, wish: Signal) -> JobAnswer:
    job = wished_job(tx, wish.job_id)
    kept = KeptSignal(wish.name, canonical_json(wish.data))
    known = None if wish.signal_id is None else known_signal(tx, job_id=job.job_id, signal_id=wish.signal_id)
    if known is not None:
        key_of(job)  # nobody can tell any more whether it had this data
        if known != kept:
            raise ConflictError(f"Under the signal_id {wish.signal_id!r} another event came before; that one stands.")
        return JobAnswer(job_id=job.name, state=job.state)
    if job.state in FINISHED:
        raise ConflictError(f"{job.name} is {job.state}; nothing in it waits for an event any more.")
    _check_name(tx, job, wish.name)
    tx.trace = wish.trace
    add_signal(tx, job_id=job.job_id, signal=kept, signal_id=wish.signal_id)
    detail = {"name": wish.name, "data_hmac": keyed_digest(key_of(job), kept.data)}
    if wish.signal_id is not None:
        detail["signal_id"] = wish.signal_id
    record_job(tx, job, "signalled", actor=wish.actor, detail=detail)
    waiting = runs_of(tx).waiting_for(job.job_id, wish.name)
    if waiting is not None:
        flow_of(tx, job).signal_came(waiting.path)
    return JobAnswer(job_id=job.name, state=job.state)


def _check_name(tx: Transaction, job: Job, name: str) -> None:
    """Return if the job's plan waits for such an event somewhere.

    Raises:
        InvalidInputError: it does not; the event would be kept for nothing, and its sender would never know.
    """
    waits = (node for node in nodes_in(plan_of(tx, job)) if isinstance(node, Wait))
    names = sorted({wait.signal for wait in waits if wait.signal is not None})
    if name not in names:
        near = did_you_mean(name, names) or (f"; it waits for {listed(names)}" if names else "; it waits for none")
        raise InvalidInputError(f"Plan {job.plan!r} waits for no event {quote(name)}{near}.")
