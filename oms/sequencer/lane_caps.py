"""Keep the lanes' caps as the plans in force have them."""

from __future__ import annotations

from collections.abc import Iterable

from oms.domain.lane_control import NO_CAPS, caps_of
from oms.domain.plan import Plan
from oms.sequencer.pause_lane import wake_lane
from oms.storage.lane_controls import all_controls, control_changed, forget_hand_outs, keep_turns, lock_controls
from oms.storage.transaction import Transaction


def keep_caps(tx: Transaction, plans: Iterable[Plan]) -> bool:
    """Give the lanes the caps of these plans, which are all that will be in force, and take away all others.

    Who waits in a lane whose caps change looks again. What is in workers' hands stays there: a lane with more running
    than it now may have hands out nothing until enough of it has ended.

    Returns:
        False where another transaction has one of the lanes in its hands: nothing was done then.
    """
    wanted = caps_of(plans)
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
