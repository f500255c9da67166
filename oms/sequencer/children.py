"""Jobs that are steps of other jobs."""

from __future__ import annotations

from typing import Any

from oms.domain import paths
from oms.domain.digest import canonical_json
from oms.domain.plan import ForEach, Repeat, SubPlan
from oms.domain.run import BlockRun, Failure, JobCannotStart
from oms.domain.task import Job
from oms.sequencer.lanes import plan_of
from oms.sequencer.new_job import new_job
from oms.storage.jobs import find_jobs, peek_job
from oms.storage.plans import in_force_of
from oms.storage.transaction import Transaction

MAX_GENERATIONS = 20
MAX_REFERENCE = 200
MAX_TRIES = 1_000


def new_child(tx: Transaction, parent: Job, block: BlockRun, node: SubPlan, given: dict[str, Any]) -> Job:
    """Make the job of a ``plan`` block, on that plan's version in force.

    Raises:
        JobCannotStart: there is no such plan, it does not take this input, or jobs nest too deep.
    """
    version = in_force_of(tx, [node.plan]).get(node.plan)
    if version is None:
        raise _refused("no_such_plan", node, f"no plan {node.plan!r} is in force")
    schema = tx.plans.get(tx.connection, node.plan, version).input_schema
    faults = () if schema is None else schema.faults(given, called="input")
    if faults:
        raise _refused("input_refused", node, f"plan {node.plan!r} does not take this input: {faults[0].msg}")
    _check_ancestors(tx, parent, node)
    return new_job(
        tx,
        plan=node.plan,
        plan_version=version,
        reference=_reference(tx, parent, block, node),
        input_json=canonical_json(given),
        priority=parent.priority,
        detail={"parent": parent.name},
        parent_job=parent.job_id,
        parent_path=block.path,
    )


def _reference(tx: Transaction, parent: Job, block: BlockRun, node: SubPlan) -> str:
    """Return the parent's reference with the block's id; in an item, or a round, with its number as well.

    A block that runs again, after a restart for instance, gets the first such reference that is free.
    """
    reference = f"{parent.reference}/{node.id or node.plan}"
    plan = plan_of(tx, parent)
    for branch in paths.ancestors(paths.parent_of(block.path)):
        around = paths.block_of(branch)
        if paths.is_undo(around):
            continue
        number = int(branch.rpartition(".")[2])
        kind = paths.block_at(plan, around)
        if isinstance(kind, ForEach):
            reference += f"/{number + 1}"
        elif isinstance(kind, Repeat) and number > 1:
            reference += f"/{number}"
    tried = reference
    for run in range(2, MAX_TRIES):
        if len(tried) > MAX_REFERENCE:
            break
        if (node.plan, tried) not in find_jobs(tx, [tried]):
            return tried
        tried = f"{reference}.{run}"
    raise _refused("no_reference", node, f"there is no free reference like {reference!r} of up to {MAX_REFERENCE}")


def _check_ancestors(tx: Transaction, parent: Job, node: SubPlan) -> None:
    """Return if the job may have a job of that plan: its plan could have been changed since the jobs above it began.

    Raises:
        JobCannotStart: one of them is of that plan already, or they nest too deep.
    """
    above: Job | None = parent
    for _ in range(MAX_GENERATIONS):
        if above is None:
            return
        if above.plan == node.plan:
            raise _refused(
                "plan_calls_itself", node, f"{above.name}, of which this is a step, is a job of {node.plan!r}"
            )
        above = None if above.parent_job is None else peek_job(tx, above.parent_job)
    raise _refused("too_deep", node, f"jobs of jobs nest at most {MAX_GENERATIONS} deep")


def _refused(code: str, node: SubPlan, error: str) -> JobCannotStart:
    return JobCannotStart(Failure(error, {"error_type": code, "plan": node.plan}))
