"""Which rules a lane has for a job."""

from __future__ import annotations

from oms.domain.calendar import Calendar, lane_calendar
from oms.domain.plan import Lane, Plan
from oms.domain.task import Job
from oms.storage.plans import compiled_in_force
from oms.storage.transaction import Transaction


def plan_of(tx: Transaction, job: Job) -> Plan:
    """Return the plan in the version that the job started with."""
    return tx.plans.get(tx.connection, job.plan, job.plan_version)


def lane_for(tx: Transaction, job: Job, name: str) -> Lane | None:
    """Return what a lane is to a job: as its own plan declares it, else as the first plan in force that does.

    None where no plan knows it: it is a queue without rules then.
    """
    plan = declaring_plan(tx, job, name)
    return None if plan is None else plan.lane(name)


def declaring_plan(tx: Transaction, job: Job, name: str) -> Plan | None:
    """Return the plan whose word on a lane counts for a job: its own, else the first in force that declares the lane.

    The lane's hours are on the clock of that plan's timezone. None where no plan knows the lane.
    """
    own = plan_of(tx, job)
    if own.lane(name) is not None:
        return own
    if name not in tx.foreign_lanes:
        in_force = compiled_in_force(tx.connection, tx.plans)
        tx.foreign_lanes[name] = next((plan for plan in in_force if plan.lane(name) is not None), None)
    return tx.foreign_lanes[name]


def calendar_of(plan: Plan, lane: Lane) -> Calendar | None:
    """Return when a lane of a plan hands out work; None: always. Each calendar is made once in a process."""
    if not lane.has_hours:
        return None
    return lane_calendar(timezone=plan.timezone, open=lane.open, batch_at=lane.batch_at, holidays=lane.holidays)
