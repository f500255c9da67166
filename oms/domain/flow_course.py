"""How a job goes on, fails and ends: its course through its blocks, once something happened (`oms.domain.flow`).

Nothing here calls itself for what comes after: branches that may go on stand in a queue, so that ten thousand items
whose steps are all skipped need no deep stack. Only going down into blocks does, and they nest twenty deep at most.
"""

from __future__ import annotations

from collections import deque

from oms.domain import paths
from oms.domain.condition import ConditionError
from oms.domain.digest import canonical_json
from oms.domain.flow_failures import rounds_used_up, undecided
from oms.domain.flow_start import (
    CHILD_TIMER,
    MORE_TIMER,
    begin_block,
    begin_items,
    begin_round,
    begin_undo,
    holds,
    wait_on,
)
from oms.domain.flow_stop import clear_timers, stop, stop_block
from oms.domain.plan import Block, ForEach, Parallel, Plan, Repeat, Step, SubPlan, Wait
from oms.domain.run import (
    BlockKind,
    BlockRun,
    Branch,
    Ending,
    Failure,
    Ground,
    JobCannotStart,
    RunState,
)
from oms.domain.task import JobState

MAX_ITEMS_BEGUN = 500
"""So many items of ``for_each`` begin in one change at most: everybody else waits for its end."""


class Course:
    """The way of one job, for one change: a queue of the branches that may go on."""

    def __init__(self, plan: Plan, ground: Ground) -> None:
        self._plan = plan
        self._ground = ground
        self._queue: deque[Branch] = deque()
        self._items_left = MAX_ITEMS_BEGUN
        self._to_go_on_with: set[str] = set()

    # Going on.

    def go_on(self, branch: Branch) -> None:
        """Let a branch go on, and all that may because of it."""
        self._queue.append(branch)
        self.work()

    def work(self) -> None:
        """Go on with every branch in the queue."""
        while self._queue:
            branch = self._queue.popleft()
            if branch.state is RunState.RUNNING:  # what went before may have stopped it
                try:
                    self._advance(branch)
                except ConditionError as error:
                    self.fail(branch, undecided(self._plan, branch, error))
                except JobCannotStart as error:
                    self.fail(branch, error.failure)

    def _advance(self, branch: Branch) -> None:
        """Go to the branch's next entry that applies and takes time, or to its end."""
        nodes = paths.nodes_of(self._plan, branch.path)
        branch.task_id = None
        while branch.position + 1 < len(nodes):
            branch.position += 1
            self._ground.changed(branch)
            node = nodes[branch.position]
            if not holds(self._ground, node.when, branch.scope):
                self._ground.skipped(branch, node)
            elif isinstance(node, Step):
                self._ground.queue_task(branch, node)
                return
            elif not self._begin(branch, node):
                return
        branch.position = len(nodes)
        self._ground.changed(branch)
        self._branch_done(branch)

    def _begin(self, branch: Branch, node: Block) -> bool:
        """Begin a block; True where it is over at once."""
        begun = begin_block(self._ground, branch, node)
        if begun is None:
            return True
        block, branches = begun
        self._queue.extend(branches)
        match node:
            case ForEach():
                self.begin_items(block)
            case Wait(signal=str()):
                return self.take_signal(block, goes_on=False)
            case SubPlan():
                self._start_job(block, node)
        return False

    def begin_items(self, block: BlockRun) -> None:
        """Begin as many further items of a ``for_each`` as may run, and as this change may begin."""
        node = paths.block_at(self._plan, block.path)
        assert isinstance(node, ForEach)
        begun, wanted = begin_items(self._ground, block, node, most=self._items_left)
        self._items_left -= len(begun)
        self._queue.extend(begun)
        if len(begun) < wanted and block.path not in self._to_go_on_with:
            self._to_go_on_with.add(block.path)
            self._ground.set_timer(block, MORE_TIMER, self._ground.now_ms)

    def _start_job(self, block: BlockRun, node: SubPlan) -> None:
        try:
            self._ground.start_job(block, node)
        except (ConditionError, JobCannotStart):
            block.state = RunState.FAILED
            self._ground.changed(block)
            raise

    def take_signal(self, block: BlockRun, *, goes_on: bool = True) -> bool:
        """End a wait for which an event is there; True where it is over."""
        data = self._ground.take_signal(block)
        if data is not None:
            self.end_block(block, data, goes_on=goes_on)
        return data is not None

    # Done.

    def _branch_done(self, branch: Branch) -> None:
        if branch.is_sequence:
            self._ground.ended(Ending(JobState.DONE))
            return
        block = self._block(branch.block)
        branch.state = RunState.DONE
        block.done += 1
        self._ground.changed(block)
        if block.kind is BlockKind.UNDO:
            self._ground.remove(branch)
            self._ground.remove(block)
            self._undo_next(None)
            return
        match paths.block_at(self._plan, block.path):
            case Parallel():
                self._ground.remove(branch)
                if block.done >= block.wanted:
                    self.end_block(block, None)
            case ForEach():
                self._item_done(branch, block)
            case Repeat() as node:
                self._round_done(branch, block, node)
            case _:
                self.end_block(block, None)

    def _item_done(self, branch: Branch, block: BlockRun) -> None:
        if block.name is not None:
            branch.output = canonical_json(self._ground.own_outputs(branch.path))
        self._ground.changed(branch)
        if block.done < block.total:
            self.begin_items(block)
            return
        output = None
        if block.name is not None:
            # What each item gave is JSON already.
            output = f"[{','.join(item.output or '{}' for item in self._ground.branches_of(block.path))}]"
        self.end_block(block, output)

    def _round_done(self, branch: Branch, block: BlockRun, node: Repeat) -> None:
        if branch.number > 1:
            self._ground.supersede(paths.branch_path(block.path, branch.number - 1))
        self._ground.remove(branch)
        try:
            is_good = holds(self._ground, node.until, block.scope)
        except ConditionError as error:
            around = self.branch(paths.parent_of(block.path))
            self.fail_block(block, undecided(self._plan, around, error))
            return
        if is_good:
            self.end_block(block, None)
        elif block.begun >= block.total:
            self.fail_block(block, rounds_used_up(block, node))
        else:
            self._queue.append(begin_round(self._ground, block))

    def end_block(self, block: BlockRun, output: str | None, *, goes_on: bool = True) -> None:
        """Take a block away, its output apart, and let the branch that it stands in go on."""
        if block.kind is not BlockKind.PLAN:  # the job that it ran has ended
            stop_block(self._ground, block, by="join", keep=False, keep_items=self._plan.has_undo)
        if block.name is not None and output is not None:
            block.state, block.output = RunState.DONE, output
            self._ground.output_given(block)
        else:
            self._ground.remove(block)
        if goes_on:
            self._queue.append(self.branch(paths.parent_of(block.path)))

    # Failed.

    def fail_block(self, block: BlockRun, failure: Failure) -> None:
        """Let a block fail, and the branch that it stands in."""
        block.state = RunState.FAILED
        clear_timers(self._ground, block)
        self._ground.changed(block)
        self.fail(self.branch(paths.parent_of(block.path)), failure)

    def fail(self, branch: Branch, failure: Failure) -> None:
        """Let a branch fail, and as much around it as cannot go on without it."""
        while not branch.is_sequence:
            branch.state = RunState.FAILED
            self._ground.changed(branch)
            block = self._block(branch.block)
            block.failed += 1
            self._ground.changed(block)
            if block.kind is BlockKind.UNDO:
                stop_block(self._ground, block, by="failure", keep=False, keep_items=False)
                self._ground.remove(block)
                self._undo_next(failure)
                return
            if block.kind is BlockKind.PARALLEL and block.total - block.failed >= block.wanted:
                return  # the others can still do it
            block.state = RunState.FAILED
            clear_timers(self._ground, block)
            for other in self._ground.branches_of(block.path, RunState.RUNNING):
                stop(self._ground, other, by="failure", keep=True)
            branch = self.branch(paths.parent_of(block.path))
        self.end(Ending(JobState.FAILED, failure))

    def end(self, ending: Ending) -> None:
        """End the job; where something is to be undone, after that."""
        if self._ground.begin_undo(ending):
            self._undo_next(None)
        else:
            self._ground.ended(ending)

    def _undo_next(self, failure: Failure | None) -> None:
        following = self._ground.next_undo(failure)
        if following is None:
            self._ground.ended(self._ground.ending())
        else:
            number, scope = following
            self._queue.append(begin_undo(self._ground, self.branch("").job_id, number, scope))

    # Stopping, and going on after it.

    def revive(self, branch: Branch) -> None:
        """Let a branch that was stopped go on where it stood. An activity, or another plan's job, begins anew."""
        branch.state = RunState.RUNNING
        self._ground.changed(branch)
        block = self._ground.block(paths.entry_path(branch.path, branch.position))
        if branch.task_id is not None or (block is not None and block.kind is BlockKind.PLAN and not _is_over(block)):
            if block is not None:
                if block.child_job is not None:
                    self._ground.cancel_job(block.child_job)  # somebody may have let it run again
                self._ground.remove(block)
            branch.position -= 1
            self._queue.append(branch)
        elif _is_over(block):
            self._queue.append(branch)  # it was about to go on when it was stopped
        else:
            assert block is not None
            self._revive_block(block)

    def _revive_block(self, block: BlockRun) -> None:
        assert block.state is RunState.HALTED, block
        block.state = RunState.RUNNING
        self._ground.changed(block)
        if block.kind is BlockKind.WAIT:
            wait_on(self._ground, block)
            if block.signal is not None:
                self.take_signal(block)
            return
        for inner in self._ground.branches_of(block.path, RunState.HALTED):
            self.revive(inner)
        for inner in self._ground.branches_of(block.path, RunState.FAILED):
            self._listen(inner)
        if block.kind is BlockKind.FOR_EACH:
            self.begin_items(block)

    def _listen(self, branch: Branch) -> None:
        """Hear how the jobs stand that have failed in a branch: while it was stopped, no news of them counted."""
        block = self._ground.block(paths.entry_path(branch.path, branch.position))
        if block is None or block.state is not RunState.FAILED:
            return
        if block.child_job is not None:
            self._ground.set_timer(block, CHILD_TIMER, self._ground.now_ms)
        for inner in self._ground.branches_of(block.path, RunState.FAILED):
            self._listen(inner)

    # What there is.

    def branch(self, path: str) -> Branch:
        """Return a branch that is there."""
        branch = self._ground.branch(path)
        assert branch is not None, f"no branch {path!r}"
        return branch

    def _block(self, path: str) -> BlockRun:
        block = self._ground.block(path)
        assert block is not None, f"no block {path!r}"
        return block


def _is_over(block: BlockRun | None) -> bool:
    """Tell whether a block is done: of one without a name, nothing is left then."""
    return block is None or block.state is RunState.DONE
