"""Which plans call which: a job of a plan whose steps lead back to it would never end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms.domain.naming import quote
from oms.domain.plan import SubPlan
from oms.domain.plan_walk import walk_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oms.domain.plan import Plan
    from oms.domain.plan_faults import Path


def calls_of(plan: Plan) -> dict[str, Path]:
    """Return the ids of the plans that a plan has as steps, each with the place in its document that says so first."""
    found: dict[str, Path] = {}
    for path, node in walk_plan(plan):
        if isinstance(node, SubPlan):
            found.setdefault(node.plan, (*path, "plan"))
    return found


def called_plans(plan: Plan) -> set[str]:
    """Return the ids of the plans that a plan has as steps."""
    return set(calls_of(plan))


def plan_cycle(plan: Plan, plans: Mapping[str, Plan]) -> list[str] | None:
    """Return the ids on a way of calls from a plan back to itself, it at both ends; None where there is no such way.

    Args:
        plan: counts instead of the plan of its id in ``plans``.
        plans: the others, by id. One that is called and missing calls nothing.
    """
    before: dict[str, str] = {}
    waiting = [plan]
    while waiting:
        caller = waiting.pop()
        for called in sorted(called_plans(caller)):
            if called == plan.id:
                way = [plan.id, caller.id]
                while way[-1] != plan.id:
                    way.append(before[way[-1]])
                return way[::-1]
            if called not in before and called in plans:
                before[called] = caller.id
                waiting.append(plans[called])
    return None


def refused_for_cycles(new: Sequence[Plan], in_force: Mapping[str, Plan]) -> dict[str, list[str]]:
    """Return which of some new plans may not come into force together, each with the circle that it would close.

    They come one after the other. One that is refused leaves its plan in ``in_force`` as it is, if there is one.

    Args:
        new: one plan of each id.
        in_force: the plans that are in force, among them old versions of the new ones; no circle among them.
    """
    refused: dict[str, list[str]] = {}
    ids = {plan.id for plan in new}
    while True:
        accepted = {name: plan for name, plan in in_force.items() if name not in ids or name in refused}
        circle = None
        for plan in new:
            if plan.id not in refused:
                circle = plan_cycle(plan, accepted)
                if circle is not None:
                    refused[plan.id] = circle
                    break  # its old version stays, and may close a circle with one that was accepted
                accepted[plan.id] = plan
        if circle is None:
            return refused


def shown_cycle(circle: Sequence[str]) -> str:
    """Say why a plan that closes a circle is refused."""
    way = " -> ".join(map(quote, circle))
    return f"the plans call each other in a circle, so that a job would never end: {way}"
