"""Why a job cannot go on, in the words of its people and of its ledger."""

from __future__ import annotations

from typing import Any

from oms.domain import paths
from oms.domain.condition import ConditionError
from oms.domain.plan import Plan, Repeat, Step, Wait
from oms.domain.run import BlockRun, Branch, Failure
from oms.domain.task import JobState


def undecided(plan: Plan, branch: Branch, error: ConditionError) -> Failure:
    """Say that an expression of the entry at which a branch stands cannot be decided."""
    nodes = paths.nodes_of(plan, branch.path)
    node = nodes[branch.position] if 0 <= branch.position < len(nodes) else None
    where = node.activity if isinstance(node, Step) else paths.entry_path(branch.path, branch.position)
    place = {"activity" if isinstance(node, Step) else "at": where}
    if node is not None and node.when is not None and node.when.source == error.source:
        detail: dict[str, Any] = {"error_type": "undecided_condition", **place, "when": error.source}
        return Failure(f"{where}: when: {error.source}: {error.message}", {**detail, "reason": error.code})
    detail = {"error_type": "undecided_expression", **place, "expression": error.source, "reason": error.code}
    return Failure(f"{where}: {error.source}: {error.message}", detail)


def no_signal(node: Wait) -> Failure:
    """Say that an event did not come in time."""
    detail = {"error_type": "signal_timeout", "signal": node.signal}
    return Failure(f"no {node.signal!r} came within {node.timeout_sec} s", detail)


def rounds_used_up(block: BlockRun, node: Repeat) -> Failure:
    """Say that a ``repeat`` did not come to its end."""
    detail = {"error_type": "rounds_used_up", "until": node.until.source, "rounds": block.begun}
    return Failure(f"after {block.begun} rounds still not: {node.until.source}", detail)


def child_failed(child_job: int, ended: JobState) -> Failure:
    """Say that a job that is a step did not come to a good end."""
    detail = {"error_type": "plan_failed", "job": f"JOB-{child_job}", "state": ended.value}
    return Failure(f"JOB-{child_job}, a step of this job, is {ended.value}", detail)
