"""What comes next in a job: the rules of sequences and blocks.

Pure: they read and change a job through `oms.domain.run.Ground`, and know no clock and no database. The same facts give
the same steps, so that what is replayed after a crash takes the same branch. Whatever happens in a job ends up here:
a task that is done or has failed, a time that is up, an event from outside, another plan's job that ended.

Nothing here calls itself for what comes after: branches that may go on stand in a queue, so that ten thousand items
whose steps are all skipped need no deep stack. Only going down into blocks does, and they nest twenty deep at most.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from oms.domain import paths
from oms.domain.condition import ConditionError
from oms.domain.digest import canonical_json
from oms.domain.errors import ConflictError
from oms.domain.flow_failures import child_failed, no_signal, rounds_used_up, undecided
from oms.domain.flow_reopen import Stopped, check_may_reopen, reopen
from oms.domain.flow_share import Share
from oms.domain.flow_start import (
    begin_block,
    begin_items,
    begin_round,
    begin_undo,
    holds,
)
from oms.domain.flow_stop import clear_timers, stop, stop_block
from oms.domain.plan import Block, ForEach, OnFailure, OnTimeout, Parallel, Plan, Repeat, Step, SubPlan, Wait
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

MANY = 20
"""Of so many branches that are stopped at once, each one's rows are not looked for one by one."""


class Flow:
    """One job on its way through its plan, for one change. Call one of its methods per thing that happened."""

    def __init__(self, plan: Plan, ground: Ground) -> None:
        self._plan = plan
        self._ground = ground
        self._queue: deque[Branch] = deque()
        self._share = Share(ground)

    # What happens to a job.

    def start(self) -> None:
        """Begin the plan's sequence, or go on in it from where the job stands."""
        self._go_on(self._branch(""))

    def task_done(self, branch: str) -> None:
        """Go on in the branch whose task is done."""
        self._go_on(self._branch(branch))

    def task_failed(self, branch: str, step: Step, failure: Failure) -> None:
        """Do what the plan says about an activity that has failed for good."""
        if step.on_failure is OnFailure.CONTINUE:
            self._go_on(self._branch(branch))
        elif step.on_failure is OnFailure.PAUSE:
            self._ground.paused(failure)
        else:
            self._fail(self._branch(branch), failure)
            self._work()

    def time_is_up(self, path: str) -> None:
        """End a wait whose time has come; nothing happens where it is over, or its time is another by now."""
        block = self._ground.block(path)
        if block is None or block.state is not RunState.RUNNING:
            return
        if block.due_at is None or block.due_at > self._ground.now_ms:
            return
        node = paths.block_at(self._plan, path)
        assert isinstance(node, Wait)
        if node.signal is None or node.on_timeout is OnTimeout.CONTINUE:
            self._end_block(block, None)
        else:
            self._fail_block(block, no_signal(node))
        self._work()

    def signal_came(self, path: str) -> None:
        """Let a wait look for its event."""
        block = self._ground.block(path)
        assert block is not None
        self._take_signal(block)
        self._work()

    def begin_more(self, path: str) -> None:
        """Begin what an earlier transaction left: items of a ``for_each``, a ``repeat``'s round, a ``plan``'s job."""
        block = self._ground.block(path)
        if block is not None and block.state is RunState.RUNNING:
            self._begin_more(block)
            self._work()

    def child_news(self, path: str, child_job: int, *, ended: JobState | None, output: dict[str, Any]) -> None:
        """Take notice of a job that is a step of this one.

        Args:
            path: of its block.
            child_job: its number.
            ended: how it ended; None where it runs (again).
            output: its outputs by name, where it is done.
        """
        block = self._ground.block(path)
        if block is None or block.child_job != child_job or block.state in (RunState.DONE, RunState.HALTED):
            return
        if block.state is RunState.FAILED and ended in (None, JobState.DONE):
            self.reopen(paths.parent_of(path))
            block.state = RunState.RUNNING
            self._ground.changed(block)
        if block.state is RunState.RUNNING and ended is JobState.DONE:
            self._end_block(block, canonical_json(output))
        elif block.state is RunState.RUNNING and ended is not None:
            self._fail_block(block, child_failed(child_job, ended))
        self._work()

    def reopen(self, branch: str) -> None:
        """Let a branch that has failed go on, and with it all that was stopped because of it.

        Raises:
            ConflictError: the branch is over, or was stopped because of another failure.
        """
        row = self._ground.branch(branch)
        if row is None:
            raise ConflictError("The block that this task belongs to is over: the job has gone on without it.")
        check_may_reopen(self._ground, row)
        stopped = Stopped()
        if reopen(self._ground, row, stopped).is_sequence:
            self._ground.runs_again()
        self._queue.extend(stopped.branches)
        for wait in stopped.waits:
            self._take_signal(wait)
        for block in stopped.lists:
            self._begin_more(block)
        self._work()

    def cancel(self, ending: Ending) -> None:
        """Stop everything, undo what was done, and end the job as cancelled."""
        self._ground.will_stop()
        stop(self._ground, self._branch(""), by="cancel", keep=False, keep_items=self._plan.has_undo)
        self._end(ending)
        self._work()

    def stop_before(self, position: int) -> None:
        """Stop everything, and stand before an entry of the sequence."""
        sequence = self._branch("")
        self._ground.will_stop()
        stop(self._ground, sequence, by="restart", keep=False, keep_items=self._plan.has_undo)
        sequence.position = position - 1
        sequence.task_id = None
        self._ground.changed(sequence)

    # Going on.

    def _go_on(self, branch: Branch) -> None:
        self._queue.append(branch)
        self._work()

    def _work(self) -> None:
        while self._queue:
            branch = self._queue.popleft()
            if branch.state is RunState.RUNNING:  # what went before may have stopped it
                try:
                    if branch.item is None or branch.position >= 0 or self._share.take():
                        self._advance(branch)
                    else:
                        self._share.put_back(branch)
                except ConditionError as error:
                    self._fail(branch, undecided(self._plan, branch, error))
                except JobCannotStart as error:
                    self._fail(branch, error.failure)

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
                self._share.noted(block.total)
                self._begin_items(block)
            case Wait(signal=str()):
                return self._take_signal(block, goes_on=False)
            case SubPlan():
                self._start_job(block, node)
        return False

    def _begin_more(self, block: BlockRun) -> None:
        match paths.block_at(self._plan, block.path):
            case ForEach():
                self._begin_items(block)
            case Repeat() if block.begun == block.done:
                self._begin_round(block)
            case SubPlan() as node if block.child_job is None:
                try:
                    self._start_job(block, node)
                except ConditionError as error:
                    around = self._branch(paths.parent_of(block.path))
                    self._fail(around, undecided(self._plan, around, error))
                except JobCannotStart as error:
                    self._fail(self._branch(paths.parent_of(block.path)), error.failure)

    def _begin_items(self, block: BlockRun) -> None:
        node = paths.block_at(self._plan, block.path)
        assert isinstance(node, ForEach)
        begun, wanted = begin_items(self._ground, block, node, most=self._share.left)
        self._queue.extend(begun)
        if len(begun) < wanted:
            self._share.later(block)

    def _begin_round(self, block: BlockRun) -> None:
        if self._share.take():
            self._queue.append(begin_round(self._ground, block))
        else:
            self._share.later(block)

    def _start_job(self, block: BlockRun, node: SubPlan) -> None:
        if not self._share.take():
            self._share.later(block)
            return
        try:
            self._ground.start_job(block, node)
        except (ConditionError, JobCannotStart):
            block.state = RunState.FAILED
            self._ground.changed(block)
            raise

    def _take_signal(self, block: BlockRun, *, goes_on: bool = True) -> bool:
        """End a wait for which an event is there; True where it is over."""
        data = self._ground.take_signal(block)
        if data is not None:
            self._end_block(block, data, goes_on=goes_on)
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
                    self._end_block(block, None)
            case ForEach():
                self._item_done(branch, block)
            case Repeat() as node:
                self._round_done(branch, block, node)
            case _:
                self._end_block(block, None)

    def _item_done(self, branch: Branch, block: BlockRun) -> None:
        if block.name is not None:
            branch.output = canonical_json(self._ground.own_outputs(branch.path))
        self._ground.changed(branch)
        if block.done < block.total:
            self._begin_items(block)
            return
        output = None
        if block.name is not None:
            # What each item gave is JSON already.
            output = f"[{','.join(item.output or '{}' for item in self._ground.branches_of(block.path))}]"
        self._end_block(block, output)

    def _round_done(self, branch: Branch, block: BlockRun, node: Repeat) -> None:
        if branch.number > 1:
            self._ground.supersede(paths.branch_path(block.path, branch.number - 1))
        self._ground.remove(branch)
        try:
            is_good = holds(self._ground, node.until, block.scope)
        except ConditionError as error:
            around = self._branch(paths.parent_of(block.path))
            self._fail_block(block, undecided(self._plan, around, error))
            return
        if is_good:
            self._end_block(block, None)
        elif block.begun >= block.total:
            self._fail_block(block, rounds_used_up(block, node))
        else:
            self._begin_round(block)

    def _end_block(self, block: BlockRun, output: str | None, *, goes_on: bool = True) -> None:
        """Take a block away, its output apart, and let the branch that it stands in go on."""
        if block.kind is not BlockKind.PLAN:  # the job that it ran has ended
            stop_block(self._ground, block, by="join", keep=False, keep_items=self._plan.has_undo)
        if block.name is not None and output is not None:
            block.state, block.output = RunState.DONE, output
            self._ground.output_given(block)
        else:
            self._ground.remove(block)
        if goes_on:
            self._queue.append(self._branch(paths.parent_of(block.path)))

    # Failed.

    def _fail_block(self, block: BlockRun, failure: Failure) -> None:
        block.state = RunState.FAILED
        clear_timers(self._ground, block)
        self._ground.changed(block)
        self._fail(self._branch(paths.parent_of(block.path)), failure)

    def _fail(self, branch: Branch, failure: Failure) -> None:
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
            others = self._ground.branches_of(block.path, RunState.RUNNING)
            self._ground.will_cancel([other.task_id for other in others if other.task_id is not None])
            if len(others) > MANY:
                self._ground.will_stop()
            for other in others:
                stop(self._ground, other, by="failure", keep=True)
            branch = self._branch(paths.parent_of(block.path))
        self._end(Ending(JobState.FAILED, failure))

    def _end(self, ending: Ending) -> None:
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
            self._queue.append(begin_undo(self._ground, self._branch("").job_id, number, scope))

    # What there is.

    def _branch(self, path: str) -> Branch:
        branch = self._ground.branch(path)
        assert branch is not None, f"no branch {path!r}"
        return branch

    def _block(self, path: str) -> BlockRun:
        block = self._ground.block(path)
        assert block is not None, f"no block {path!r}"
        return block
