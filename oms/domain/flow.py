"""What comes next in a job: the rules of sequences and blocks.

Pure: they read and change a job through `oms.domain.run.Ground`, and know no clock and no database. The same facts give
the same steps, so that what is replayed after a crash takes the same branch. Whatever happens in a job ends up here:
a task that is done or has failed, a time that is up, an event from outside, another plan's job that ended.
"""

from __future__ import annotations

from typing import Any

from oms.domain import paths
from oms.domain.digest import canonical_json
from oms.domain.errors import ConflictError
from oms.domain.flow_course import Course
from oms.domain.flow_failures import child_failed, no_signal
from oms.domain.flow_stop import check_may_reopen, stop
from oms.domain.plan import OnFailure, OnTimeout, Plan, Step, Wait
from oms.domain.run import (
    Ending,
    Failure,
    Ground,
    RunState,
)
from oms.domain.task import JobState


class Flow:
    """One job on its way through its plan, for one change. Call one of its methods per thing that happened."""

    def __init__(self, plan: Plan, ground: Ground) -> None:
        self._plan = plan
        self._ground = ground
        self._course = Course(plan, ground)

    # What happens to a job.

    def start(self) -> None:
        """Begin the plan's sequence, or go on in it from where the job stands."""
        self._course.go_on(self._course.branch(""))

    def task_done(self, branch: str) -> None:
        """Go on in the branch whose task is done."""
        self._course.go_on(self._course.branch(branch))

    def task_failed(self, branch: str, step: Step, failure: Failure) -> None:
        """Do what the plan says about an activity that has failed for good."""
        if step.on_failure is OnFailure.CONTINUE:
            self._course.go_on(self._course.branch(branch))
        elif step.on_failure is OnFailure.PAUSE:
            self._ground.paused(failure)
        else:
            self._course.fail(self._course.branch(branch), failure)
            self._course.work()

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
            self._course.end_block(block, None)
        else:
            self._course.fail_block(block, no_signal(node))
        self._course.work()

    def signal_came(self, path: str) -> None:
        """Let a wait look for its event."""
        block = self._ground.block(path)
        assert block is not None
        self._course.take_signal(block)
        self._course.work()

    def begin_more(self, path: str) -> None:
        """Begin further items of a ``for_each``: a change begins only so many."""
        block = self._ground.block(path)
        if block is not None and block.state is RunState.RUNNING:
            self._course.begin_items(block)
            self._course.work()

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
            self._course.end_block(block, canonical_json(output))
        elif block.state is RunState.RUNNING and ended is not None:
            self._course.fail_block(block, child_failed(child_job, ended))
        self._course.work()

    def reopen(self, branch: str) -> None:
        """Let a branch that has failed go on, and with it all that was stopped because of it.

        Raises:
            ConflictError: the branch is over, or was stopped because of another failure.
        """
        row = self._ground.branch(branch)
        if row is None:
            raise ConflictError("The block that this task belongs to is over: the job has gone on without it.")
        check_may_reopen(self._ground, row)
        while not row.is_sequence and row.state is RunState.FAILED:
            block = self._ground.block(row.block)
            assert block is not None
            row.state = RunState.RUNNING
            self._ground.changed(row)
            block.failed -= 1
            was_failed, block.state = block.state is RunState.FAILED, RunState.RUNNING
            self._ground.changed(block)
            if not was_failed:
                break
            for other in self._ground.branches_of(block.path, RunState.HALTED):
                self._course.revive(other)
            row = self._course.branch(paths.parent_of(block.path))
        if row.is_sequence:
            self._ground.runs_again()
        self._course.work()

    def cancel(self, ending: Ending) -> None:
        """Stop everything, undo what was done, and end the job as cancelled."""
        stop(self._ground, self._course.branch(""), by="cancel", keep=False, keep_items=self._plan.has_undo)
        self._course.end(ending)
        self._course.work()

    def stop_before(self, position: int) -> None:
        """Stop everything, and stand before an entry of the sequence."""
        sequence = self._course.branch("")
        stop(self._ground, sequence, by="restart", keep=False, keep_items=self._plan.has_undo)
        sequence.position = position - 1
        sequence.task_id = None
        self._ground.changed(sequence)
