"""Which rules a lane has for a job."""

from __future__ import annotations

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
    own = plan_of(tx, job).lane(name)
    if own is not None:
        return own
    declared = (plan.lane(name) for plan in compiled_in_force(tx.connection, tx.plans))
    return next((lane for lane in declared if lane is not None), None)
