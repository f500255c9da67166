"""What is allowed in a plan, and will hurt: warnings for ``oms plan check``, which refuse nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms.domain.naming import did_you_mean, quote
from oms.domain.plan import Choose, ForEach, LaneKind, OnStall, OnTimeout, Repeat, Step, SubPlan, Wait
from oms.domain.plan_faults import PlanFault
from oms.domain.plan_links import calls_of
from oms.domain.plan_walk import inner_steps, walk_nodes, walk_plan
from oms.domain.schedule import DATE, Schedule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from oms.domain.plan import Lane, Node, Plan, PlanSchedule
    from oms.domain.plan_faults import Path

FIRES_LOOKED_AT = 60
_FROM_MS = 1_704_067_200_000
"""2024-01-01: so that a plan is warned of on every day or on none."""


def warnings(plan: Plan) -> list[PlanFault]:
    """Return what will hurt in a plan, in the order of its document."""
    found = [*_of_lanes(plan), *_after_endless(plan.sequence, ("sequence",))]
    for path, node in walk_plan(plan):
        found += _of_node(node, path)
        for below, steps in inner_steps(node):
            found += _after_endless(steps, (*path, *below))
    for number, schedule in enumerate(plan.schedules):
        found += _of_schedule(schedule, plan.timezone, ("schedules", number))
    return found


def missing_plans(plan: Plan, known: Collection[str]) -> list[PlanFault]:
    """Return a warning for each plan that a plan calls and that is none of ``known`` and not itself."""
    found = []
    for name, path in calls_of(plan).items():
        if name not in known:
            near = did_you_mean(name, known)
            message = f"the plan {quote(name)} is not among the files; until it is in force, this step fails{near}"
            found.append(_warning(path, message))
    return found


def _warning(path: Path, message: str, *, on_key: bool = False) -> PlanFault:
    return PlanFault(path, on_key, 0, message)


def _of_lanes(plan: Plan) -> Iterator[PlanFault]:
    used = {step.lane for step in plan.steps} | {lane.backup for lane in plan.lanes}
    for number, (lane, entry) in enumerate(zip(plan.lanes, plan.document["lanes"], strict=True)):
        path: Path = ("lanes", number)
        given = entry if isinstance(entry, dict) else {}
        if lane.id not in used:
            yield _warning(path, f"no step and no backup uses the lane {quote(lane.id)}; only /reroute brings it work")
        if lane.kind is LaneKind.VENDOR:
            yield from _of_vendor(lane, given, path)
        if lane.on_stall is OnStall.REROUTE and lane.stall_after_sec is None:
            message = "on_stall: reroute does nothing without stall_after_sec"
            yield _warning((*path, "on_stall"), message, on_key=True)


def _of_vendor(lane: Lane, entry: dict[str, object], path: Path) -> Iterator[PlanFault]:
    name = quote(lane.id)
    if "lease_sec" not in entry:
        days = lane.lease_sec // 86_400
        yield _warning(
            path, f"the vendor lane {name} has no lease_sec: what a vendor loses is missed after {days} days"
        )
    if lane.stall_after_sec is None:
        yield _warning(path, f"the vendor lane {name} has no stall_after_sec: nobody is told that nothing is fetched")


def _of_node(node: Node, path: Path) -> Iterator[PlanFault]:
    what = "step" if isinstance(node, Step) else "block"
    if node.when is not None and node.when.constant is False:
        yield _warning((*path, "when"), f"this {what} is never done: its when is always false")
    match node:
        case Choose():
            yield from _of_options(node, (*path, "choose"))
        case Repeat():
            yield from _of_repeat(node, path)
        case Wait() if node.on_timeout is OnTimeout.CONTINUE and node.timeout_sec is None:
            message = "on_timeout does nothing without timeout_sec: the signal is waited for for ever"
            yield _warning((*path, "wait", "on_timeout"), message, on_key=True)


def _of_options(choose: Choose, path: Path) -> Iterator[PlanFault]:
    always = None
    for number, option in enumerate(choose.options):
        if always is not None:
            yield _warning((*path, number), f"this option is never taken: option {always + 1} before it always holds")
        elif option.when is not None and option.when.constant is False:
            yield _warning((*path, number, "when"), "this option is never taken: its when is always false")
        elif option.when is not None and option.when.constant is True:
            always = number


def _of_repeat(repeat: Repeat, path: Path) -> Iterator[PlanFault]:
    place = (*path, "until")
    if _is_endless(repeat):
        message = f"this repeat cannot end: until is always false, and after {repeat.max_rounds} rounds the job fails"
        yield _warning(place, message)
    elif repeat.until.constant is None and not repeat.until.reads.intersection(_names_in(repeat.steps)):
        message = "until reads nothing that the steps of this repeat give, so each round decides it as the first one"
        yield _warning(place, message)


def _after_endless(steps: tuple[Node, ...], path: Path) -> Iterator[PlanFault]:
    for number, node in enumerate(steps[:-1]):
        if isinstance(node, Repeat) and _is_endless(node):
            yield _warning(
                (*path, number + 1), f"this is never reached: the repeat before it, step {number + 1}, cannot end"
            )
            return


def _is_endless(repeat: Repeat) -> bool:
    return repeat.until.constant is False and (repeat.when is None or repeat.when.constant is True)


def _names_in(steps: tuple[Node, ...]) -> set[str]:
    names = set()
    for _path, node in walk_nodes(steps, ()):
        if isinstance(node, Step):
            names.add(node.activity)
        elif isinstance(node, ForEach | Wait | SubPlan) and node.id is not None:
            names.add(node.id)
    return names


def _of_schedule(schedule: PlanSchedule, timezone: str, path: Path) -> Iterator[PlanFault]:
    """Warn of fires that start nothing, because there is a job of their reference already."""
    place = (*path, "reference")
    if DATE not in schedule.reference:
        message = f"only the first fire starts a job: without {DATE} each has the same reference, which is the same job"
        yield _warning(place, message)
        return
    fires = Schedule(schedule.cron, timezone)
    days, moment = [], _FROM_MS
    for _ in range(FIRES_LOOKED_AT):
        moment = fires.next_fire_ms(moment)
        days.append(fires.local_date(moment))
    if len(set(days)) < len(days):
        message = f"of the fires of a day only the first starts a job: {DATE} is the same for all of them"
        yield _warning(place, message)
