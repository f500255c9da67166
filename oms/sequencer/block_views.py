"""Read models of where a job stands inside its blocks."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection, select

from act.contract import format_time_ms
from oms.domain.run import Branch, RunState
from oms.storage.runs import block_of_row, branch_of_row
from oms.storage.tables import blocks, branches

MAX_BRANCHES_SHOWN = 1_000
_SHOWN = (RunState.RUNNING, RunState.FAILED, RunState.HALTED)


def outputs_of_blocks(connection: Connection, job_id: int) -> dict[str, Any]:
    """Return what the named blocks of the job itself gave, by name."""
    rows = connection.execute(
        select(blocks.c.name, blocks.c.output).where(
            blocks.c.job_id == job_id, blocks.c.scope == "", blocks.c.output.is_not(None)
        )
    )
    return {name: from_json(output) for name, output in rows}


def running_blocks(connection: Connection, job_id: int) -> list[dict[str, Any]]:
    """Return the blocks that a job is in, the outer ones first, each with the branches that run or have failed."""
    of_job = select(branches).where(
        branches.c.job_id == job_id, branches.c.state.in_([state.value for state in _SHOWN])
    )
    inside: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(of_job.order_by(branches.c.block, branches.c.number).limit(MAX_BRANCHES_SHOWN)):
        branch = branch_of_row(row)
        inside.setdefault(branch.block, []).append(_branch_fields(branch))
    rows = connection.execute(
        select(blocks)
        .where(blocks.c.job_id == job_id, blocks.c.state != RunState.DONE.value)
        .order_by(blocks.c.path)
        .limit(MAX_BRANCHES_SHOWN)
    )
    found = []
    for row in rows:
        block = block_of_row(row)
        found.append(
            {
                "at": block.path,
                "kind": block.kind,
                "name": block.name,
                "state": block.state,
                "total": block.total,
                "begun": block.begun,
                "done": block.done,
                "failed": block.failed,
                "since": format_time_ms(block.since),
                "due_at": None if block.due_at is None else format_time_ms(block.due_at),
                "signal": block.signal,
                "job_id": None if block.child_job is None else f"JOB-{block.child_job}",
                "branches": inside.get(block.path, []),
            }
        )
    return found


def _branch_fields(branch: Branch) -> dict[str, Any]:
    return {
        "at": branch.path,
        "name": branch.name,
        "state": branch.state,
        "step": branch.position,
        "task_id": None if branch.task_id is None else f"TASK-{branch.task_id}",
        "item": None if branch.item is None else from_json(branch.item),
    }
