"""`/start`: one job per plan and reference, however often it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oms.domain.digest import canonical_json
from oms.domain.errors import ConflictError, InvalidInputError, NotFoundError, OmsError
from oms.domain.task import Job, key_of
from oms.sequencer.advance import begin
from oms.sequencer.new_job import new_job
from oms.storage.jobs import find_jobs
from oms.storage.plans import in_force, in_force_of
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Start:
    """Run ``plan`` for ``reference``, a ticket that says nothing about the person.

    ``actor`` is who starts it where nobody asks for it, and ``scheduled_for`` the moment for which its schedule did so.
    """

    plan: str
    reference: str
    input: dict[str, Any]
    priority: int
    trace: str | None = None
    actor: str | None = None
    scheduled_for: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The job of a plan and reference; ``created`` tells whether it is new."""

    job_id: str
    state: str
    plan: str
    plan_version: int
    created: bool


def start(tx: Transaction, wishes: Sequence[Start]) -> list[Started | OmsError]:
    """Make a job for each wish, on the plan's version in force, and queue its first step.

    The same plan and reference again give the same job; with another input, a `ConflictError`.
    """
    versions = in_force_of(tx, (wish.plan for wish in wishes))
    found = find_jobs(tx, sorted({wish.reference for wish in wishes}))
    answers: list[Started | OmsError] = []
    for wish in wishes:
        try:
            answers.append(_start_one(tx, wish, versions, found))
        except OmsError as error:
            answers.append(error)
    return answers


def _start_one(tx: Transaction, wish: Start, versions: dict[str, int], found: dict[tuple[str, str], Job]) -> Started:
    text = canonical_json(wish.input)
    job = found.get((wish.plan, wish.reference)) or _made_here(tx, wish)
    if job is not None:
        key_of(job)  # nobody can tell any more whether it had this input
        if job.input != text:
            raise ConflictError(
                f"{job.name} is the job of plan {wish.plan!r} and this reference, with another input. Use a "
                "reference of its own for another job."
            )
        return _answer(job, created=False)
    if wish.plan not in versions:
        raise NotFoundError(_no_plan(tx, wish.plan))
    tx.trace = wish.trace
    version = versions[wish.plan]
    _check_input(tx, wish, version)
    job = new_job(
        tx,
        plan=wish.plan,
        plan_version=version,
        reference=wish.reference,
        input_json=text,
        priority=wish.priority,
        actor=wish.actor,
        detail=None if wish.scheduled_for is None else {"scheduled_for": wish.scheduled_for},
    )
    begin(tx, job)
    return _answer(job, created=True)


def _made_here(tx: Transaction, wish: Start) -> Job | None:
    """Return the job that was made in this transaction already: for an earlier wish, or as a step of a job."""
    made = tx.new_references.get(wish.reference, ())
    return next((job for job in made if job.plan == wish.plan), None)


def _check_input(tx: Transaction, wish: Start, version: int) -> None:
    schema = tx.plans.get(tx.connection, wish.plan, version).input_schema
    faults = () if schema is None else schema.faults(wish.input, called="input")
    if faults:
        raise InvalidInputError(
            f"The input does not fit the input_schema of plan {wish.plan!r}: {faults[0].msg}.", faults=faults
        )


def _answer(job: Job, *, created: bool) -> Started:
    return Started(job_id=job.name, state=job.state, plan=job.plan, plan_version=job.plan_version, created=created)


def _no_plan(tx: Transaction, name: str) -> str:
    """Say that no plan of that name is in force, and which one may have been meant."""
    known = list(in_force(tx.connection))
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"No plan {name[:80]!r} is in force.{hint} GET /plans lists them; POST /plans/reload reads the folder again."
