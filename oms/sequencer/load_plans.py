"""Put plans in force: those of the folder, on start and on reload, and one that comes by HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oms.domain.errors import BusyError
from oms.domain.plan import Plan
from oms.domain.plan_faults import PlanError
from oms.sequencer.lane_caps import keep_caps
from oms.storage.plans import in_force, lock_in_force, missing, put_plan, withdraw
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


def load_plans(tx: Transaction, wishes: Sequence[LoadPlans]) -> list[LoadedPlans | BusyError]:
    """Put the good plans of a folder in force.

    A refused file leaves its last good version in force; a file that is gone takes its plan out of force. Jobs run
    to their end on the version they started with, whatever happens here; lanes get the caps of the plans in force.
    """
    lock_in_force(tx)
    answers: list[LoadedPlans | BusyError] = []
    for wish in wishes:
        withdrawn = _missing(tx, wish) if wish.is_whole else []
        if not _keep_caps(tx, [plan for _file, plan in wish.plans], withdrawn):
            answers.append(_busy(tx))
            continue
        withdraw(tx, withdrawn)
        loaded = [LoadedVersion(id=plan.id, plan_version=put_plan(tx, plan, file=file)) for file, plan in wish.plans]
        answers.append(LoadedPlans(loaded=loaded, withdrawn=withdrawn))
    return answers


def _missing(tx: Transaction, wish: LoadPlans) -> list[str]:
    return missing(
        tx,
        kept_files=wish.refused_files,
        kept_plans=[plan.id for _file, plan in wish.plans] + list(wish.refused_plans),
    )


def put_plans(tx: Transaction, wishes: Sequence[PutPlan]) -> list[LoadedVersion | BusyError]:
    """Put each plan in force."""
    lock_in_force(tx)
    answers: list[LoadedVersion | BusyError] = []
    for wish in wishes:
        if _keep_caps(tx, [wish.plan], []):
            answers.append(LoadedVersion(id=wish.plan.id, plan_version=put_plan(tx, wish.plan, file=None)))
        else:
            answers.append(_busy(tx))
    return answers


def _keep_caps(tx: Transaction, coming: Sequence[Plan], leaving: Sequence[str]) -> bool:
    """Give the lanes the caps that they have once these plans have come and left; False where that must wait."""
    replaced = {plan.id for plan in coming}.union(leaving)
    staying = [
        _compiled(tx, plan, version) for plan, version in in_force(tx.connection).items() if plan not in replaced
    ]
    return keep_caps(tx, [*(plan for plan in staying if plan is not None), *coming])


def _compiled(tx: Transaction, plan: str, version: int) -> Plan | None:
    try:
        return tx.plans.get(tx.connection, plan, version)
    except PlanError:
        return None  # another release wrote it; that this one cannot read it must not keep a better one out


def _busy(tx: Transaction) -> BusyError:
    tx.has_found_busy = True
    return BusyError("Another tower changes a lane of these plans at this moment; try again.")
