"""How lanes are to an estimate: their rules, out of a plan."""

from __future__ import annotations

from sqlalchemy import Connection

from oms.domain.calendar import lane_calendar
from oms.domain.eta_lane import LaneNow
from oms.domain.plan import Lane, Plan
from oms.storage.plan_cache import PlanCache
from oms.storage.plans import compiled_in_force


def lane_rules(connection: Connection, cache: PlanCache, plan: Plan, name: str) -> LaneNow:
    """Return a lane's rules for a job of ``plan``: as that declares it, else as the first plan in force that does."""
    own = plan.lane(name)
    if own is not None:
        return _rules(plan, own)
    for other in compiled_in_force(connection, cache):
        declared = other.lane(name)
        if declared is not None:
            return _rules(other, declared)
    return LaneNow()


def _rules(plan: Plan, lane: Lane) -> LaneNow:
    hours = None
    if lane.has_hours:
        hours = lane_calendar(timezone=plan.timezone, open=lane.open, batch_at=lane.batch_at, holidays=lane.holidays)
    return LaneNow(
        kind=lane.kind,
        hours=hours,
        is_batched=lane.batch_at is not None,
        batch_max=lane.batch_max,
        max_running=lane.max_running,
        rate=lane.rate,
    )
