"""Which lanes are known: a name that nobody has heard of is most often a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from oms.storage.lane_controls import all_controls
from oms.storage.plans import compiled_in_force
from oms.storage.tasks import holds_tasks, polled_lanes
from oms.storage.transaction import Transaction

LANE_IS_ALIVE_SEC = 24 * 3600
"""A lane that no plan declares is known for so long after a named worker polled it."""


def manned_lanes(tx: Transaction) -> set[str]:
    """Return the lanes that a plan in force declares, or that a named worker has polled of late."""
    declared = {lane.id for plan in compiled_in_force(tx.connection, tx.plans) for lane in plan.lanes}
    return declared | polled_lanes(tx, since_ms=tx.now_ms - LANE_IS_ALIVE_SEC * 1000)


def lanes_to_choose_from(tx: Transaction, lane: str) -> set[str]:
    """Return the lanes that may be paused or resumed, ``lane`` among them where it is one.

    Those that are manned, those that ever were paused, and ``lane`` where it holds a task that is not done.
    """
    known = manned_lanes(tx) | all_controls(tx.connection).keys()
    return known | {lane} if lane not in known and holds_tasks(tx, lane) else known


def nearest_lane(lane: str, known: Collection[str]) -> str | None:
    """Return the known lane whose name is most like ``lane``; None where none is known."""
    near = difflib.get_close_matches(lane, sorted(known), 1, cutoff=0)
    return near[0] if near else None
