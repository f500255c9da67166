"""Put plans in force: those of the folder, on start and on reload, and one that comes by HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oms.domain.errors import BusyError, InvalidInputError, OmsError
from oms.domain.plan import Plan
from oms.domain.plan_links import called_plans, refused_for_cycles, shown_cycle
from oms.sequencer.lane_caps import keep_caps
from oms.storage.batches import add_batches
from oms.storage.plans import in_force_of, lock_in_force, missing, put_plan, withdraw
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
class ClosesCycle:
    """A plan that is refused because it and others would call each other in a circle.

    Attributes:
        file: its file.
        id: its id; what was in force of it before still is.
        circle: the ids on the way from it back to it.
    """

    file: str
    id: str
    circle: list[str]


@dataclass(frozen=True, slots=True)
class LoadedPlans:
    """What is in force now, which plans are so no more because their files are gone, and which are refused."""

    loaded: list[LoadedVersion]
    withdrawn: list[str]
    refused: list[ClosesCycle] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PutPlan:
    """A plan that came by HTTP; it stays in force without a file."""

    plan: Plan


def load_plans(tx: Transaction, wishes: Sequence[LoadPlans]) -> list[LoadedPlans | OmsError]:
    """Put the good plans of a folder in force.

    A refused file leaves its last good version in force; a file that is gone takes its plan out of force. Jobs run
    to their end on the version they started with, whatever happens here; lanes get the caps of the plans in force. A
    plan that closes a circle of calls is refused; one that calls a plan which is not there is not, for that one may
    come later.
    """
    lock_in_force(tx)
    answers: list[LoadedPlans | OmsError] = []
    for wish in wishes:
        leaving = _missing(tx, wish) if wish.is_whole else []
        circles = _circles(tx, [plan for _file, plan in wish.plans], leaving=leaving)
        good = [(file, plan) for file, plan in wish.plans if plan.id not in circles]
        if not keep_caps(tx, coming=[plan for _file, plan in good], leaving=leaving):
            answers.append(_busy(tx))
            continue
        _withdraw(tx, leaving)
        loaded = [_put(tx, plan, file=file) for file, plan in good]
        refused = [ClosesCycle(file, plan.id, circles[plan.id]) for file, plan in wish.plans if plan.id in circles]
        answers.append(LoadedPlans(loaded=loaded, withdrawn=leaving, refused=refused))
    return answers


def _put(tx: Transaction, plan: Plan, *, file: str | None) -> LoadedVersion:
    """Put a plan in force, with its schedules; its lanes' batches get their rows."""
    version = put_plan(tx, plan, file=file)
    keep_schedules(tx, plan.id, [(each.cron, plan.timezone, each.reference) for each in plan.schedules])
    add_batches(tx, (lane.id for lane in plan.lanes if lane.batch_max is not None))
    return LoadedVersion(id=plan.id, plan_version=version)


def _circles(tx: Transaction, new: Sequence[Plan], *, leaving: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the circle of each new plan that would close one.

    What is in force is read from the new plans' calls on, without what leaves. A job that all the same calls a plan it
    is itself called by fails at that step.
    """
    known: dict[str, Plan] = {}
    names = {name for plan in new for name in called_plans(plan)}
    while names:
        versions = in_force_of(tx, names - set(leaving))
        found = [tx.plans.get(tx.connection, name, version) for name, version in versions.items()]
        known |= {plan.id: plan for plan in found}
        names = {name for plan in found for name in called_plans(plan)} - known.keys()
    return refused_for_cycles(new, known)


def _withdraw(tx: Transaction, leaving: Sequence[str]) -> None:
    withdraw(tx, leaving)
    for plan in leaving:
        keep_schedules(tx, plan, [])


def _missing(tx: Transaction, wish: LoadPlans) -> list[str]:
    return missing(
        tx,
        kept_files=wish.refused_files,
        kept_plans=[plan.id for _file, plan in wish.plans] + list(wish.refused_plans),
    )


def put_plans(tx: Transaction, wishes: Sequence[PutPlan]) -> list[LoadedVersion | OmsError]:
    """Put each plan in force; one that closes a circle of calls is refused."""
    lock_in_force(tx)
    answers: list[LoadedVersion | OmsError] = []
    for wish in wishes:
        circles = _circles(tx, [wish.plan])
        if circles:
            message = f"The plan {wish.plan.id!r} is refused: {shown_cycle(circles[wish.plan.id])}."
            answers.append(InvalidInputError(message))
        elif keep_caps(tx, coming=[wish.plan], leaving=[]):
            answers.append(_put(tx, wish.plan, file=None))
        else:
            answers.append(_busy(tx))
    return answers


def _busy(tx: Transaction) -> BusyError:
    tx.has_found_busy = True
    return BusyError("Another tower changes a lane of these plans at this moment; try again.")
