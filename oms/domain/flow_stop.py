"""How what runs in a job is stopped: for good, or so that it can go on where it stood."""

from __future__ import annotations

from oms.domain import paths
from oms.domain.errors import ConflictError
from oms.domain.run import BlockRun, Branch, Ground, RunState


def stop(ground: Ground, branch: Branch, *, by: str, keep: bool) -> None:
    """Take back what a branch waits for; keep where it stands, so that it can go on, or drop it."""
    task_id = ground.sequence_task() if branch.is_sequence else branch.task_id
    if task_id is not None:
        ground.cancel_task(task_id, by=by)
    block = ground.block(paths.entry_path(branch.path, branch.position))
    if block is not None and block.state is not RunState.DONE:
        stop_block(ground, block, by=by, keep=keep)
        if not keep:
            ground.remove(block)
    if branch.is_sequence:
        return
    if keep:
        branch.state = RunState.HALTED
        ground.changed(branch)
    else:
        branch.state = RunState.DONE  # whoever still holds it must not go on with it
        ground.remove(branch)


def stop_block(ground: Ground, block: BlockRun, *, by: str, keep: bool, keep_items: bool = False) -> None:
    """Stop all that runs in a block, and keep it as it is, or drop it; the block's own row is the caller's to drop.

    Args:
        ground: what the job stands on.
        block: which.
        by: why, for the ledger.
        keep: so that it can go on.
        keep_items: keep its items where they are done, all the same.
    """
    ground.clear_timers(block)
    if block.child_job is not None and block.state is RunState.RUNNING:
        ground.cancel_job(block.child_job)
    for branch in ground.branches_of(block.path):
        if branch.state in (RunState.WAITING, RunState.DONE):
            if not keep and not keep_items:
                ground.remove(branch)
        elif not keep or branch.state is RunState.RUNNING:
            stop(ground, branch, by=by, keep=keep)
    if keep and block.state is RunState.RUNNING:
        block.state = RunState.HALTED
        ground.changed(block)


def check_may_reopen(ground: Ground, branch: Branch) -> None:
    """Return if a branch that has failed may go on.

    Raises:
        ConflictError: it, or what it stands in, was stopped because of another failure.
    """
    while not branch.is_sequence:
        block = ground.block(branch.block)
        around = ground.branch(paths.parent_of(branch.block))
        assert block is not None
        assert around is not None
        if RunState.HALTED in (branch.state, block.state):
            raise ConflictError("This was stopped because another part of the job failed; see to that one first.")
        branch = around
