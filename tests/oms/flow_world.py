"""One job in memory, for the rules of the flow alone: dicts instead of tables, and what can happen to a job.

It notes what the rules did to it, so that two runs can be compared, and checks what must hold after each change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from oms.domain import paths
from oms.domain.errors import ConflictError
from oms.domain.flow import Flow
from oms.domain.flow_reopen import check_may_reopen
from oms.domain.flow_start import CHILD_TIMER, MORE_TIMER, WAIT_TIMER, value_of
from oms.domain.plan import Node, OnFailure, Plan, Step, SubPlan, steps_in
from oms.domain.run import (
    BlockKind,
    BlockRun,
    Branch,
    Ending,
    Facts,
    Failure,
    JobCannotStart,
    RunState,
)
from oms.domain.task import FINISHED, JobState
from tests.oms.random_plans import INPUT
from tests.oms.support import START_MS

CANCEL_TIMER = "cancel"
LIVE = ("queued", "running")


@dataclass(slots=True)
class WorldTask:
    """A task: what the flow may know of it."""

    number: int
    branch: str
    scope: str
    step: Step
    status: str = "queued"
    ended: int = 0
    superseded: bool = False
    output: Any = None


@dataclass(slots=True)
class Child:
    """A job that is a step of this one."""

    number: int
    path: str
    state: JobState = JobState.RUNNING
    is_orphan: bool = False
    """Its parent had dropped it when somebody let it run again."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A timer; one of kind ``cancel`` is the child's whose number is its path."""

    number: int
    due_ms: int
    path: str
    kind: str


class World:
    """A job, what runs in it, and its `oms.domain.run.Ground`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now_ms = START_MS
        self.state = JobState.RUNNING
        self.how: Ending | None = None
        self.to_undo: list[tuple[int, str]] = []
        self.begun = 0
        self.undone: Counter[tuple[int, str]] = Counter()
        self.tasks: dict[int, WorldTask] = {}
        self.branches: dict[str, Branch] = {}
        self.blocks: dict[str, BlockRun] = {}
        self.alarms: dict[int, Alarm] = {}
        self.signals: list[list[str]] = []
        self.children: dict[int, Child] = {}
        self.calls: list[tuple[Any, ...]] = []
        self._numbers = 0
        self._sequence = Branch(1, "", "", 0, "", "", RunState.RUNNING)

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    # What the rules ask for (`oms.domain.run.Ground`).

    def branch(self, path: str) -> Branch | None:
        return self.branches.get(path) if path else self._sequence

    def block(self, path: str) -> BlockRun | None:
        return self.blocks.get(path)

    def branches_of(self, block: str, state: RunState | None = None, *, limit: int | None = None) -> list[Branch]:
        found = [one for one in self.branches.values() if one.block == block and state in (None, one.state)]
        return sorted(found, key=lambda one: one.number)[:limit]

    def facts(self, scope: str) -> Facts:
        scopes = paths.scopes_of(self.plan, scope)
        outputs = {name: value for one in scopes for name, value in self.own_outputs(one).items()}
        items = {paths.variable_of(self.plan, one): self.branches[one].item for one in scopes[1:]}
        return Facts(input=INPUT, outputs=outputs, reference="T-1", variables=items)

    def own_outputs(self, scope: str) -> dict[str, Any]:
        done = [one for one in self.tasks.values() if one.scope == scope and one.status == "done"]
        outputs = {one.step.activity: one.output for one in done if not one.superseded}
        named = [one for one in self.blocks.values() if one.scope == scope and one.output is not None]
        return outputs | {str(one.name): one.output for one in named}

    def ending(self) -> Ending:
        assert self.how is not None
        return self.how

    def sequence_task(self) -> int | None:
        return next((one.number for one in self.tasks.values() if not one.branch and one.status in LIVE), None)

    # What the rules do.

    def _note(self, *call: Any) -> None:
        self.calls.append(call)

    def add(self, row: Branch | BlockRun) -> None:
        place = self._place(row)
        assert row.path not in place, f"{row.path} is there already"
        self._note("add", replace(row))
        place[row.path] = row

    def changed(self, row: Branch | BlockRun) -> None:
        self._note("changed", replace(row))
        assert row is self._sequence or row.path not in self._place(row) or self._place(row)[row.path] is row

    def remove(self, row: Branch | BlockRun) -> None:
        self._note("remove", row.path)
        assert self._place(row).pop(row.path) is row

    def _place(self, row: Branch | BlockRun) -> dict[str, Any]:
        return self.branches if isinstance(row, Branch) else self.blocks

    def output_given(self, block: BlockRun) -> None:
        self._note("output", block.path, block.output)

    def supersede(self, branch: str) -> None:
        self._note("supersede", branch)
        for task in self.tasks.values():
            if task.branch == branch or task.branch.startswith(f"{branch}/"):
                task.superseded = True
        scope = paths.scope_of(self.plan, branch)
        for block in list(self.blocks.values()):
            if block.path.startswith(f"{branch}/") and block.scope == scope and block.output is not None:
                del self.blocks[block.path]

    def skipped(self, branch: Branch, node: Node) -> None:
        self._note("skipped", branch.path, branch.position, node.when)

    def queue_task(self, branch: Branch, step: Step) -> None:
        for value in (step.input or {}).values():
            value_of(self, value, branch.scope)
        number = self._next()
        self._note("queue", branch.path, step.activity)
        self.tasks[number] = WorldTask(number, branch.path, branch.scope, step)
        if branch.path:
            branch.task_id = number

    def item_begins(self, branch: Branch) -> None:
        assert not self.own_outputs(branch.path), f"something was given in {branch.path} already"

    def will_cancel(self, task_ids: list[int]) -> None:
        assert all(number in self.tasks for number in task_ids)

    def will_stop(self) -> None:
        self._note("will stop")

    def cancel_task(self, task_id: int, *, by: str) -> None:
        if self.tasks[task_id].status in LIVE:
            self._note("cancel", task_id, by)
            self.tasks[task_id].status = "cancelled"

    def set_timer(self, block: BlockRun, kind: str, due_ms: int) -> None:
        self._note("timer", block.path, kind, due_ms)
        number = self._next()
        self.alarms[number] = Alarm(number, due_ms, block.path, kind)

    def clear_timers(self, block: BlockRun) -> None:
        gone = [one for one in self.alarms.values() if one.path == block.path and one.kind in (WAIT_TIMER, MORE_TIMER)]
        for alarm in gone:
            del self.alarms[alarm.number]

    def take_signal(self, block: BlockRun) -> str | None:
        for signal in self.signals:
            if signal == [block.signal]:
                signal.append(block.path)
                return "{}"
        return None

    def start_job(self, block: BlockRun, node: SubPlan) -> None:
        if node.plan != "child":
            raise JobCannotStart(Failure("no such plan", {}))
        block.child_job = self._next()
        self.children[block.child_job] = Child(block.child_job, block.path)
        self._note("start", block.path)

    def cancel_job(self, job_id: int) -> None:
        number = self._next()
        self.alarms[number] = Alarm(number, self.now_ms, str(job_id), CANCEL_TIMER)

    def begin_undo(self, ending: Ending) -> bool:
        done = [one for one in self.tasks.values() if one.status == "done" and one.step.undo and not one.superseded]
        done.sort(key=lambda one: one.ended, reverse=True)
        self.to_undo = list(dict.fromkeys((one.step.number, one.scope) for one in done))
        if not self.to_undo:
            return False
        self.how = ending
        self.state = JobState.RUNNING
        return True

    def next_undo(self, failure: Failure | None) -> tuple[int, str] | None:
        del failure
        if not self.to_undo:
            return None
        self.undone[self.to_undo[0]] += 1
        return self.to_undo.pop(0)

    def ended(self, ending: Ending) -> None:
        self._note("ended", ending.state)
        assert self.state not in FINISHED
        self.state = ending.state
        if ending.state is not JobState.FAILED:
            keep_items = ending.state is JobState.DONE and self.plan.has_undo
            self.branches = {path: one for path, one in self.branches.items() if keep_items and one.item is not None}
            is_done = ending.state is JobState.DONE
            self.blocks = {path: one for path, one in self.blocks.items() if is_done and one.output is not None}

    def paused(self, failure: Failure) -> None:
        del failure
        self._note("paused")
        self.state = JobState.PAUSED

    def runs_again(self) -> None:
        if self.state is JobState.FAILED:
            self._note("runs again")
            self.state = JobState.RUNNING

    # What happens to the job.

    @property
    def flow(self) -> Flow:
        self.begun = 0
        return Flow(self.plan, self)

    def start(self) -> None:
        self.flow.start()

    def complete(self, number: int, output: dict[str, Any]) -> None:
        task = self.tasks[number]
        was_failed = task.status == "failed"
        if was_failed:
            self._check_may_go_on(task)
        task.status, task.output, task.ended = "done", output, self._next()
        if was_failed:
            self._reopen(task)
        self.flow.task_done(task.branch)

    def fail(self, number: int) -> None:
        task = self.tasks[number]
        task.status = "failed"
        self.flow.task_failed(task.branch, task.step, Failure("no luck", {}))

    def retry(self, number: int) -> None:
        task = self.tasks[number]
        self._check_may_go_on(task)
        task.status = "queued"
        self._reopen(task)

    def cancel(self) -> None:
        self.flow.cancel(Ending(JobState.CANCELLED))

    def restart(self, position: int) -> None:
        self.flow.stop_before(position)
        kept = {step.number for step in steps_in(self.plan.sequence[:position])}
        for task in self.tasks.values():
            task.superseded = task.superseded or task.step.number not in kept
        for place in (self.branches, self.blocks):
            for path in [path for path in place if paths.is_given_up(path, position)]:
                del place[path]
        self.state, self.how, self.to_undo = JobState.RUNNING, None, []
        self.undone.clear()
        self.flow.start()

    def signal(self, name: str) -> None:
        self.signals.append([name])
        waiting = [one for one in self.blocks.values() if one.signal == name and one.state is RunState.RUNNING]
        if waiting:
            self.flow.signal_came(min(waiting, key=lambda one: (one.since, one.path)).path)

    def ring(self, number: int) -> None:
        alarm = self.alarms.pop(number)
        self.now_ms = max(self.now_ms, alarm.due_ms)
        handlers: dict[str, Callable[[], None]] = {
            WAIT_TIMER: lambda: self.flow.time_is_up(alarm.path),
            MORE_TIMER: lambda: self.flow.begin_more(alarm.path),
            CHILD_TIMER: lambda: self._hear(alarm.path),
            CANCEL_TIMER: lambda: self.child_becomes(int(alarm.path), JobState.CANCELLED),
        }
        handlers[alarm.kind]()

    def child_becomes(self, number: int, state: JobState) -> None:
        """Let a child end; or run again, where it has failed."""
        child = self.children[number]
        if child.state is JobState.RUNNING or (child.state is JobState.FAILED and state is JobState.RUNNING):
            block = self.blocks.get(child.path)
            child.is_orphan = state is JobState.RUNNING and (block is None or block.child_job != number)
            child.state = state
            alarm = Alarm(self._next(), self.now_ms, child.path, CHILD_TIMER)
            self.alarms[alarm.number] = alarm

    def _hear(self, path: str) -> None:
        block = self.blocks.get(path)
        if block is None or block.child_job is None or not self._may_hear(path):
            return
        child = self.children[block.child_job]
        ended = child.state if child.state in FINISHED else None
        try:
            self.flow.child_news(path, child.number, ended=ended, output={})
        except ConflictError:
            return

    def _may_hear(self, path: str) -> bool:
        return self.how is None or (self.state not in FINISHED and paths.is_in_undo(path))

    def _check_may_go_on(self, task: WorldTask) -> None:
        branch = self.branch(task.branch)
        if self.how is not None and not (self.state not in FINISHED and paths.is_in_undo(task.branch)):
            raise ConflictError("undone")
        if task.superseded or self.state in (JobState.DONE, JobState.CANCELLED) or not self.stands_at(task):
            raise ConflictError("gone on")
        assert branch is not None
        check_may_reopen(self, branch)

    def stands_at(self, task: WorldTask) -> bool:
        branch = self.branch(task.branch)
        if branch is None:
            return False
        if branch.is_sequence:
            sequence = self.plan.sequence
            return branch.position < len(sequence) and sequence[branch.position] is task.step
        return branch.task_id == task.number

    def _reopen(self, task: WorldTask) -> None:
        if task.step.on_failure is not OnFailure.PAUSE:
            self.flow.reopen(task.branch)
        elif self.state is JobState.PAUSED and not self.stuck():
            self.state = JobState.RUNNING

    def stuck(self) -> list[WorldTask]:
        """Return the tasks that a paused job waits for somebody to see to."""
        return [
            one
            for one in self.tasks.values()
            if one.status == "failed"
            and one.step.on_failure is OnFailure.PAUSE
            and not one.superseded
            and (self.how is None or paths.is_in_undo(one.branch))
            and self.stands_at(one)
            and getattr(self.branch(one.branch), "state", None) is RunState.RUNNING
        ]

    # What must hold.

    def check(self) -> None:
        """Check all that must be true between two changes.

        Raises:
            AssertionError: something is not.
        """
        self._check_tasks()
        for block in self.blocks.values():
            self._check_counts(block)
        for branch in self.branches.values():
            if branch.state is RunState.HALTED:
                assert self.blocks[branch.block].state in (RunState.FAILED, RunState.HALTED), branch
        if self.state in FINISHED:
            live = [one for one in self.tasks.values() if one.status in LIVE]
            assert not live, f"a job that is {self.state} has {live}"
            assert not [one for one in self.alarms.values() if one.kind in (WAIT_TIMER, MORE_TIMER)], self.alarms
            self._check_children()
        elif self.how is not None:
            undoing = [one for one in self.blocks.values() if one.kind is BlockKind.UNDO]
            assert len(undoing) == 1, undoing
            assert self._is_alive(self.branches[f"{undoing[0].path}.0"])
        else:
            assert self._is_alive(self._sequence), "nothing will move the job any more"

    def _check_tasks(self) -> None:
        done: Counter[tuple[str, int]] = Counter()
        for task in self.tasks.values():
            if task.status in LIVE:
                branch = self.branch(task.branch)
                assert branch is not None, f"{task} has no branch"
                assert branch.state is RunState.RUNNING, f"{task} is in {branch}"
                assert self.stands_at(task), f"{task}, and {branch} waits for another"
            if task.status in (*LIVE, "done") and not task.superseded:
                done[task.branch, task.step.number] += 1
        twice = [place for place, count in done.items() if count > 1]
        assert not twice, f"made twice: {twice}"

    def _check_children(self) -> None:
        """Check that no child of a job that has ended runs, but one of which there is something to be done."""
        cancelling = {one.path for one in self.alarms.values() if one.kind == CANCEL_TIMER}
        news = {one.path for one in self.alarms.values() if one.kind == CHILD_TIMER}
        for child in self.children.values():
            if child.state is JobState.RUNNING and not child.is_orphan and str(child.number) not in cancelling:
                assert self.state is JobState.FAILED, f"{child} runs, and its parent is {self.state}"
                # It is heard now, or once what else has failed is seen to.
                stopped = self.blocks[child.path].state in (RunState.FAILED, RunState.HALTED)
                assert child.path in news or stopped, child

    def _check_counts(self, block: BlockRun) -> None:
        inside = Counter(one.state for one in self.branches_of(block.path))
        begun = inside[RunState.RUNNING] + inside[RunState.HALTED] + inside[RunState.FAILED]
        match block.kind:
            case _ if block.state is RunState.DONE:
                assert block.name is not None, block
            case BlockKind.PARALLEL:
                assert (block.failed, block.done) == (inside[RunState.FAILED], block.total - begun), block
                assert block.done < block.wanted, block
            case BlockKind.FOR_EACH:
                assert block.total == sum(inside.values()), block
                assert block.begun == block.total - inside[RunState.WAITING], block
                assert (block.failed, block.done) == (inside[RunState.FAILED], inside[RunState.DONE]), block
            case BlockKind.REPEAT:
                rounds = [one.number for one in self.branches_of(block.path)]
                assert block.begun <= block.total, block
                between = block.state is RunState.FAILED or block.begun == block.done
                assert rounds == [block.begun] or (between and not rounds), (block, rounds)
            case BlockKind.CHOOSE | BlockKind.UNDO:
                assert begun == 1, block
        if block.state is RunState.HALTED:
            assert not inside[RunState.RUNNING], block

    def _is_alive(self, branch: Branch) -> bool:
        """Whether something that runs, or that somebody will answer, is going to move a branch on."""
        if branch.state is not RunState.RUNNING:
            return False
        here = [one for one in self.tasks.values() if one.branch == branch.path and self.stands_at(one)]
        if any(one.status in LIVE or one in self.stuck() for one in here if not one.superseded):
            return True
        block = self.blocks.get(paths.entry_path(branch.path, branch.position))
        if block is None or block.state is not RunState.RUNNING:
            return False
        alarms = {one.kind for one in self.alarms.values() if one.path == block.path}
        match block.kind:
            case BlockKind.WAIT:
                return block.signal is not None or WAIT_TIMER in alarms
            case BlockKind.PLAN:
                child = None if block.child_job is None else self.children[block.child_job]
                awaited = MORE_TIMER if child is None else CHILD_TIMER
                return awaited in alarms or (child is not None and child.state is JobState.RUNNING)
            case _:
                running = self.branches_of(block.path, RunState.RUNNING)
                assert all(self._is_alive(one) for one in running), f"{block}: {running}"
                return bool(running) or MORE_TIMER in alarms
