"""How what runs in a job is stopped: for good, or so that it can go on where it stood (`oms.domain.flow_reopen`)."""

from __future__ import annotations

from oms.domain import paths
from oms.domain.run import BlockKind, BlockRun, Branch, Ground, RunState


def stop(ground: Ground, branch: Branch, *, by: str, keep: bool, keep_items: bool = False) -> None:
    """Take back what a branch waits for; keep where it stands, so that it can go on, or drop it.

    Args:
        ground: what the job stands on.
        branch: which.
        by: why, for the ledger.
        keep: so that it can go on.
        keep_items: keep items of ``for_each`` that have begun all the same: what was done in them may have to be
            undone, and that needs the item.
    """
    task_id = ground.sequence_task() if branch.is_sequence else branch.task_id
    block = None
    if task_id is not None:
        ground.cancel_task(task_id, by=by)
    else:
        block = ground.block(paths.entry_path(branch.path, branch.position))
    if block is not None and block.state is not RunState.DONE:
        stop_block(ground, block, by=by, keep=keep, keep_items=keep_items)
        if not keep:
            ground.remove(block)
    if branch.is_sequence:
        return
    if keep:
        branch.state = RunState.HALTED
        ground.changed(branch)
    else:
        branch.state = RunState.DONE  # whoever still holds it must not go on with it
        branch.task_id = None
        drop(ground, branch, keep_items=keep_items)


def stop_block(ground: Ground, block: BlockRun, *, by: str, keep: bool, keep_items: bool = False) -> None:
    """Stop all that runs in a block, and keep it as it is, or drop it; the block's own row is the caller's to drop.

    The arguments are those of `stop`.
    """
    clear_timers(ground, block)
    if block.child_job is not None:
        # Also where it has failed: somebody may have let it run again, and the news are on their way. One that has
        # ended takes no notice.
        ground.cancel_job(block.child_job)
    holds_steps = block.kind not in (BlockKind.WAIT, BlockKind.PLAN)
    branches = ground.branches_of(block.path) if holds_steps else []
    ground.will_cancel([branch.task_id for branch in branches if branch.task_id is not None])
    for branch in branches:
        if branch.state in (RunState.WAITING, RunState.DONE):
            if not keep:
                drop(ground, branch, keep_items=keep_items)
        elif not keep or branch.state is RunState.RUNNING:
            stop(ground, branch, by=by, keep=keep, keep_items=keep_items)
    if keep and block.state is RunState.RUNNING:
        block.state = RunState.HALTED
        ground.changed(block)


def drop(ground: Ground, branch: Branch, *, keep_items: bool) -> None:
    """Drop a branch for good; of an item that has begun, keep what it is, where it may yet be asked for."""
    if keep_items and branch.item is not None and branch.state is RunState.DONE:
        ground.changed(branch)
    else:
        ground.remove(branch)


def clear_timers(ground: Ground, block: BlockRun) -> None:
    """Forget a block's timers, where it may have any."""
    between_rounds = block.kind is BlockKind.REPEAT and block.begun == block.done
    before_its_job = block.kind is BlockKind.PLAN and block.child_job is None
    if block.kind in (BlockKind.WAIT, BlockKind.FOR_EACH) or between_rounds or before_its_job:
        ground.clear_timers(block)
