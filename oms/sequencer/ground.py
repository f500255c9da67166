"""What the rules of the flow stand on: a job in an open transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from oms.domain import paths
from oms.domain.digest import canonical_json
from oms.domain.flow_start import MORE_TIMER, WAIT_TIMER, value_of
from oms.domain.plan import ForEach, Node, Plan, Step, SubPlan, nodes_below
from oms.domain.run import BlockRun, Branch, Ending, Facts, Failure, RunState
from oms.domain.task import Act, Job, JobState, Task, TaskStatus
from oms.sequencer import ending
from oms.sequencer.children import new_child
from oms.sequencer.events import record_job, record_skipped, record_task
from oms.sequencer.lanes import plan_of
from oms.sequencer.pausing import pause_job
from oms.sequencer.place import give_place
from oms.storage.jobs import forget_outputs, input_of, load_outputs, next_number
from oms.storage.runs import Runs, runs_of
from oms.storage.signals import use_signal
from oms.storage.tasks import add_task, live_tasks, load_tasks, move_task, supersede_branch
from oms.storage.timers import add_timer, clear_timers
from oms.storage.transaction import Transaction

CANCEL_TIMER = "cancel"


@dataclass(frozen=True, slots=True)
class Cause:
    """Who or what changes a job: for the events that follow from it."""

    by: str
    actor: str | None = None
    reason: str | None = None


class JobGround:
    """One job in an open transaction, as `oms.domain.flow` sees it (`oms.domain.run.Ground`)."""

    def __init__(
        self, tx: Transaction, job: Job, cause: Cause | None = None, *, begin: Callable[[Transaction, Job], None]
    ) -> None:
        """Take a locked job.

        Args:
            tx: the open transaction.
            job: the job.
            cause: who or what changes it; None: a worker, whose event tells.
            begin: begins a job that is a step of this one.
        """
        self.now_ms = tx.now_ms
        self._begin = begin
        self._tx = tx
        self._job = job
        self._cause = cause
        self._sequence = Branch(job.job_id, "", "", 0, "", "", RunState.RUNNING, position=job.position)

    @property
    def plan(self) -> Plan:
        """The plan in the job's version."""
        return plan_of(self._tx, self._job)

    @property
    def begun(self) -> int:
        """How many items, rounds and jobs have begun in this transaction."""
        return self._tx.begun

    @begun.setter
    def begun(self, count: int) -> None:
        self._tx.begun = count

    @property
    def _runs(self) -> Runs:
        return runs_of(self._tx)

    # Where the job stands.

    def branch(self, path: str) -> Branch | None:
        """Return a branch; the plan's sequence has its place in the job itself."""
        return self._runs.branch(self._job.job_id, path) if path else self._sequence

    def block(self, path: str) -> BlockRun | None:
        """Return a block that has begun."""
        return None if self.plan.is_flat else self._runs.block(self._job.job_id, path)

    def branches_of(self, block: str, state: RunState | None = None, *, limit: int | None = None) -> list[Branch]:
        """Return a block's own branches in the order of their numbers."""
        return self._runs.branches_of(self._job.job_id, block, state, limit)

    def add(self, row: Branch | BlockRun) -> None:
        """Keep a new branch or block."""
        self._runs.add(row)

    def changed(self, row: Branch | BlockRun) -> None:
        """Keep what was changed."""
        if row is self._sequence:
            self._job.position = self._sequence.position
            self._tx.job_changed(self._job)
        else:
            self._runs.changed(row)

    def remove(self, row: Branch | BlockRun) -> None:
        """Drop a branch or block."""
        self._runs.remove(row)

    def item_begins(self, branch: Branch) -> None:
        """Note that an item begins: nothing was given in it yet, so that nobody needs to look."""
        self._tx.outputs.setdefault((self._job.job_id, branch.path), {})

    # What is known.

    def facts(self, scope: str) -> Facts:
        """Return what is known in an item, or in the job itself."""
        return Facts(
            input=input_of(self._tx, self._job),
            outputs=visible_outputs(self._tx, self._job, scope),
            reference=self._job.reference,
            variables={paths.variable_of(self.plan, item): self._item(item) for item in self._scopes(scope)[1:]},
        )

    def own_outputs(self, scope: str) -> dict[str, Any]:
        """Return the outputs that belong to an item itself, by name."""
        load_outputs(self._tx, [(self._job.job_id, scope)])
        return {name: from_json(output) for name, output in self._tx.outputs[self._job.job_id, scope].items()}

    def output_given(self, block: BlockRun) -> None:
        """Note that a named block has its output."""
        self._runs.changed(block)
        known = self._tx.outputs.get((self._job.job_id, block.scope))
        if known is not None and block.name is not None and block.output is not None:
            known[block.name] = block.output

    def supersede(self, branch: str) -> None:
        """Let the outputs of a branch, and of all in it, count no more.

        What was given in items of a round is asked for again by nobody, but for what is to be undone.
        """
        job_id, scope = self._job.job_id, paths.scope_of(self.plan, branch)
        inside = nodes_below(paths.nodes_of(self.plan, branch))
        everywhere = self.plan.has_undo and any(isinstance(node, ForEach) for node in inside)
        supersede_branch(self._tx, job_id, branch, scope=None if everywhere else scope)
        for row in self._runs.given_in(job_id, branch, scope):
            self._runs.remove(row)
        forget_outputs(self._tx, job_id)

    def _scopes(self, scope: str) -> tuple[str, ...]:
        return paths.scopes_of(self.plan, scope)

    def _item(self, scope: str) -> Any:  # noqa: ANN401 - JSON
        branch = self.branch(scope)
        assert branch is not None, f"the item {scope!r} of {self._job.name} is gone"
        return from_json(branch.item or "null")

    # What is done to the world.

    def skipped(self, branch: Branch, node: Node) -> None:
        """Record that an entry was passed over because its ``when`` was false."""
        record_skipped(self._tx, self._job, branch, node)

    def queue_task(self, branch: Branch, step: Step) -> None:
        """Make the branch's task, and queue it."""
        tx, job = self._tx, self._job
        task = Task(
            task_id=0,
            job_id=job.job_id,
            position=step.number,
            activity=step.activity,
            lane=step.lane,
            status=TaskStatus.QUEUED,
            ready=False,
            attempt=0,
            failures=0,
            token=None,
            ended_by=None,
            worker=None,
            priority=self._priority(step, branch),
            lease_sec=0,
            created_at=tx.now_ms,
            available_at=tx.now_ms,
            lease_expires_at=None,
            error=None,
            error_type=None,
            output_hmac=None,
            output=None,
            progress=None,
            note=None,
            branch=branch.path,
            scope=branch.scope,
            input=self._input(step, branch),
        )
        task.task_id = next_number(tx, "task")
        give_place(tx, job, task, lane=step.lane, earliest_ms=tx.now_ms)
        add_task(tx, task)
        if not branch.is_sequence:
            branch.task_id = task.task_id
            self._runs.changed(branch)
        place = {} if branch.is_sequence else {"branch": branch.path}
        record_task(tx, job, task, "queued", detail={"priority": task.priority, **place})

    def sequence_task(self) -> int | None:
        """Return the task that the plan's sequence itself waits for."""
        of_sequence = [task for task in live_tasks(self._tx, self._job.job_id) if not task.branch]
        return of_sequence[0].task_id if of_sequence else None

    def cancel_task(self, task_id: int, *, by: str) -> None:
        """Take a task back for good, unless it is through."""
        load_tasks(self._tx, [task_id])
        task = self._tx.tasks[task_id]
        if task.status not in (TaskStatus.QUEUED, TaskStatus.RUNNING):
            return
        worker = task.worker
        task.ended_by = Act.CANCEL
        task.lease_expires_at = None
        task.held_available_at = None
        task.stalls_at = None
        task.ended_at = self.now_ms
        move_task(self._tx, task, TaskStatus.CANCELLED)
        actor = None if self._cause is None else self._cause.actor
        record_task(self._tx, self._job, task, "cancelled", worker=worker, actor=actor, detail={"by": by})

    def set_timer(self, block: BlockRun, kind: str, due_ms: int) -> None:
        """Let the job hear of the block at that time."""
        add_timer(self._tx, due_at=due_ms, job_id=self._job.job_id, path=block.path, kind=kind)

    def clear_timers(self, block: BlockRun) -> None:
        """Forget a block's timers. News of a job that is a step stay: they may be of later than what was just heard."""
        clear_timers(self._tx, job_id=self._job.job_id, path=block.path, kinds=[WAIT_TIMER, MORE_TIMER])

    def will_cancel(self, task_ids: list[int]) -> None:
        """Read at once what is going to be asked for."""
        load_tasks(self._tx, task_ids)

    def will_stop(self) -> None:
        """Read at once where the job stands everywhere."""
        if not self.plan.is_flat:
            self._runs.read_all(self._job.job_id)

    def take_signal(self, block: BlockRun) -> str | None:
        """Use the oldest event that came for the block and serves no other; return its data as JSON."""
        assert block.signal is not None
        return use_signal(self._tx, job_id=self._job.job_id, name=block.signal, path=block.path)

    def start_job(self, block: BlockRun, node: SubPlan) -> None:
        """Start the block's job."""
        given = {key: value_of(self, value, block.scope) for key, value in node.input.items()}
        child = new_child(self._tx, self._job, block, node, given)
        block.child_job = child.job_id
        self._runs.changed(block)
        self._begin(self._tx, child)

    def cancel_job(self, job_id: int) -> None:
        """Let a block's job be cancelled: under its own lock, by the sweep."""
        add_timer(self._tx, due_at=self.now_ms, job_id=job_id, path="", kind=CANCEL_TIMER)

    # How it goes on, and ends.

    def begin_undo(self, how: Ending) -> bool:
        """Note how the job will end once what was done is undone; False where there is nothing to undo."""
        return self.plan.has_undo and ending.begin_undo(self._tx, self._job, self.plan, how)

    def next_undo(self, failure: Failure | None) -> tuple[int, str] | None:
        """Return what to undo next, by the activity's number in the plan and the path of its item; None: all is."""
        return ending.next_undo(self._tx, self._job, failure)

    def ending(self) -> Ending:
        """Return how the job will end, which `begin_undo` noted."""
        return ending.noted(self._job)

    def ended(self, how: Ending) -> None:
        """Note that the job has ended."""
        ending.end_job(self._tx, self._job, how)

    def paused(self, failure: Failure) -> None:
        """Note that the job waits for somebody to decide about a task that has failed."""
        pause_job(self._tx, self._job, actor="oms", detail={"by": "failure", **failure.detail}, needs_resume=False)

    def runs_again(self) -> None:
        """Note that the job, which had failed, goes on."""
        job, cause = self._job, self._cause
        if job.state is JobState.FAILED:
            assert cause is not None
            job.state = JobState.RUNNING
            job.error = None
            reason = {"reason": cause.reason} if cause.reason else {}
            record_job(self._tx, job, "restarted", actor=cause.actor, detail={"by": cause.by, **reason})
            ending.tell_parent(self._tx, job)

    def _priority(self, step: Step, branch: Branch) -> int:
        if step.priority is None:
            return self._job.priority
        if isinstance(step.priority, int):
            return step.priority
        priority = value_of(self, step.priority, branch.scope)
        assert isinstance(priority, int)  # an expression of that kind gives nothing else
        return priority

    def _input(self, step: Step, branch: Branch) -> str | None:
        if step.input is None:
            return None
        return canonical_json({key: value_of(self, value, branch.scope) for key, value in step.input.items()})


def visible_outputs(tx: Transaction, job: Job, scope: str) -> dict[str, Any]:
    """Return the outputs that are seen in an item, or in the job itself: those of the items around it, too."""
    scopes = paths.scopes_of(plan_of(tx, job), scope) if scope else ("",)
    load_outputs(tx, [(job.job_id, one) for one in scopes])
    seen: dict[str, Any] = {}
    for one in scopes:
        seen.update((name, from_json(output)) for name, output in tx.outputs[job.job_id, one].items())
    return seen
