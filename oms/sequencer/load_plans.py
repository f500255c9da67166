"""Put plans in force: those of the folder, on start and on reload, and one that comes by HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.plan import Plan
from oms.storage.batches import add_batches
from oms.storage.plans import put_plan, withdraw_missing
from oms.storage.schedules import keep_schedules
from oms.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class LoadPlans:
    """What a plan folder holds: each good plan with its file, and what was refused.

    Attributes:
        plans: each good plan with its file.
        refused_files: files with faults.
        refused_plans: ids that these files still show.
        is_whole: False where the folder could not be read: that a plan is missing then says nothing.
    """

    plans: Sequence[tuple[str, Plan]]
    refused_files: Sequence[str] = ()
    refused_plans: Sequence[str] = ()
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """The version of a plan that is in force now."""

    id: str
    plan_version: int


@dataclass(frozen=True, slots=True)
class LoadedPlans:
    """What is in force now, and which plans are so no more because their files are gone."""

    loaded: list[LoadedVersion]
    withdrawn: list[str]


@dataclass(frozen=True, slots=True)
class PutPlan:
    """A plan that came by HTTP; it stays in force without a file."""

    plan: Plan


def load_plans(tx: Transaction, wishes: Sequence[LoadPlans]) -> list[LoadedPlans]:
    """Put the good plans of a folder in force.

    A refused file leaves its last good version in force; a file that is gone takes its plan out of force. Jobs run
    to their end on the version they started with, whatever happens here.
    """
    answers = []
    for wish in wishes:
        withdrawn = _withdraw(tx, wish) if wish.is_whole else []
        loaded = [_put(tx, plan, file=file) for file, plan in wish.plans]
        answers.append(LoadedPlans(loaded=loaded, withdrawn=withdrawn))
    return answers


def _put(tx: Transaction, plan: Plan, *, file: str | None) -> LoadedVersion:
    version = put_plan(tx, plan, file=file)
    keep_schedules(tx, plan.id, [(each.cron, plan.timezone, each.reference) for each in plan.schedules])
    add_batches(tx, (lane.id for lane in plan.lanes if lane.batch_max is not None))
    return LoadedVersion(id=plan.id, plan_version=version)


def _withdraw(tx: Transaction, wish: LoadPlans) -> list[str]:
    withdrawn = withdraw_missing(
        tx,
        kept_files=wish.refused_files,
        kept_plans=[plan.id for _file, plan in wish.plans] + list(wish.refused_plans),
    )
    for plan in withdrawn:
        keep_schedules(tx, plan, [])
    return withdrawn


def put_plans(tx: Transaction, wishes: Sequence[PutPlan]) -> list[LoadedVersion]:
    """Put each plan in force."""
    return [_put(tx, wish.plan, file=None) for wish in wishes]
