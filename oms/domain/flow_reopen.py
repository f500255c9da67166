"""How a job goes on that had failed: the branch that failed, and all that was stopped because of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from oms.domain import paths
from oms.domain.errors import ConflictError
from oms.domain.flow_start import CHILD_TIMER, wait_on
from oms.domain.run import BlockKind, BlockRun, Branch, Ground, RunState


@dataclass(slots=True)
class Stopped:
    """What was stopped and may go on.

    Attributes:
        branches: go to their next entry.
        waits: may have an event by now.
        lists: blocks in which more items, or the next round, may begin.
    """

    branches: list[Branch] = field(default_factory=list)
    waits: list[BlockRun] = field(default_factory=list)
    lists: list[BlockRun] = field(default_factory=list)


def check_may_reopen(ground: Ground, branch: Branch) -> None:
    """Return if a branch that has failed may go on.

    Raises:
        ConflictError: it, or what it stands in, was stopped because of another failure.
    """
    while not branch.is_sequence:
        block = ground.block(branch.block)
        assert block is not None
        if block.kind is BlockKind.UNDO:
            return  # around it, all is over
        around = ground.branch(paths.parent_of(branch.block))
        assert around is not None
        if RunState.HALTED in (branch.state, block.state):
            raise ConflictError("This was stopped because another part of the job failed; see to that one first.")
        branch = around


def reopen(ground: Ground, branch: Branch, stopped: Stopped) -> Branch:
    """Let a branch that has failed run again, and as much around it as had failed with it.

    Returns:
        The branch up to which that was so: the sequence, where the job had failed.
    """
    while not branch.is_sequence and branch.state is RunState.FAILED:
        block = ground.block(branch.block)
        assert block is not None
        branch.state = RunState.RUNNING
        ground.changed(branch)
        block.failed -= 1
        was_failed, block.state = block.state is RunState.FAILED, RunState.RUNNING
        ground.changed(block)
        if not was_failed:
            break
        for other in ground.branches_of(block.path, RunState.HALTED):
            _revive(ground, other, stopped)
        around = ground.branch(paths.parent_of(block.path))
        assert around is not None
        branch = around
    return branch


def _revive(ground: Ground, branch: Branch, stopped: Stopped) -> None:
    """Let a branch that was stopped go on where it stood. An activity, or another plan's job, begins anew."""
    branch.state = RunState.RUNNING
    ground.changed(branch)
    block = ground.block(paths.entry_path(branch.path, branch.position))
    if branch.task_id is not None:
        branch.position -= 1
        stopped.branches.append(branch)
    elif block is None or block.state is RunState.DONE:
        stopped.branches.append(branch)  # it was about to go on when it was stopped
    elif block.kind is BlockKind.PLAN:
        if block.child_job is not None:
            ground.cancel_job(block.child_job)  # somebody may have let it run again
        ground.remove(block)
        branch.position -= 1
        stopped.branches.append(branch)
    else:
        _revive_block(ground, block, stopped)


def _revive_block(ground: Ground, block: BlockRun, stopped: Stopped) -> None:
    assert block.state is RunState.HALTED, block
    block.state = RunState.RUNNING
    ground.changed(block)
    if block.kind is BlockKind.WAIT:
        wait_on(ground, block)
        if block.signal is not None:
            stopped.waits.append(block)
        return
    for inner in ground.branches_of(block.path, RunState.HALTED):
        _revive(ground, inner, stopped)
    for inner in ground.branches_of(block.path, RunState.FAILED):
        _listen(ground, inner)
    if block.kind in (BlockKind.FOR_EACH, BlockKind.REPEAT):
        stopped.lists.append(block)


def _listen(ground: Ground, branch: Branch) -> None:
    """Hear how the jobs stand that have failed in a branch: while it was stopped, no news of them counted."""
    block = ground.block(paths.entry_path(branch.path, branch.position))
    if block is None or block.state is not RunState.FAILED:
        return
    if block.child_job is not None:
        ground.set_timer(block, CHILD_TIMER, ground.now_ms)
    for inner in ground.branches_of(block.path, RunState.FAILED):
        _listen(ground, inner)
