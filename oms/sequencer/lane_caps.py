"""Keep the lanes' caps as the plans in force have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oms.domain.lane_control import NO_CAPS, caps_of
from oms.domain.plan import Plan
from oms.domain.plan_faults import PlanError
from oms.sequencer.pause_lane import wake_lane
from oms.storage.lane_controls import all_controls, control_changed, forget_hand_outs, keep_turns, lock_controls
from oms.storage.plans import in_force
from oms.storage.transaction import Transaction


def keep_caps(tx: Transaction, *, coming: Iterable[Plan], leaving: Iterable[str]) -> bool:
    """Give the lanes the caps of the plans that will be in force, and take away all others.

    Who waits in a lane whose caps change looks again. What is in workers' hands stays there: a lane with more running
    than it now may have hands out nothing until enough of it has ended.

    Args:
        tx: the open transaction, which has locked the plans in force (`lock_in_force`).
        coming: plans that are about to be put in force.
        leaving: ids of those that are about to be taken out of it.

    Returns:
        False where another transaction has one of the lanes in its hands: nothing was done then.
    """
    wanted = caps_of(_in_force_then(tx, list(coming), set(leaving)))
    found = {lane: control.caps for lane, control in all_controls(tx.connection).items() if control.caps}
    changed = sorted(lane for lane in wanted.keys() | found.keys() if wanted.get(lane) != found.get(lane))
    controls = lock_controls(tx, changed)
    if controls is None:
        return False
    for lane, control in controls.items():
        control.caps = wanted.get(lane, NO_CAPS)
        control_changed(tx, control)
        wake_lane(tx, lane)
        if not control.caps.rates:
            forget_hand_outs(tx, lane)
    if changed:
        keep_turns(tx, set(wanted))
    return True


def _in_force_then(tx: Transaction, coming: Sequence[Plan], leaving: set[str]) -> list[Plan]:
    replaced = leaving.union(plan.id for plan in coming)
    staying = [
        _compiled(tx, plan, version) for plan, version in in_force(tx.connection).items() if plan not in replaced
    ]
    return [*(plan for plan in staying if plan is not None), *coming]


def _compiled(tx: Transaction, plan: str, version: int) -> Plan | None:
    try:
        return tx.plans.get(tx.connection, plan, version)
    except PlanError:
        return None  # another release wrote it; that this one cannot read it must not keep a better one out
