"""Where a job stands inside its plan: the blocks that have begun, and the branches that run in them.

This is data that a person can read (`oms.domain.paths`) and that a newer release can, too: a row for each. What is done
leaves, so that going on costs the same in a job of ten tasks and of ten thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from oms.domain.plan import Node, Step, SubPlan
from oms.domain.task import JobState


class RunState(StrEnum):
    """Where a branch or a block stands.

    ``waiting``: an item that has not begun. ``halted``: stopped because another branch failed; it goes on when that
    one does. ``failed``: it cannot go on by itself.
    """

    WAITING = "waiting"
    RUNNING = "running"
    HALTED = "halted"
    FAILED = "failed"
    DONE = "done"


class BlockKind(StrEnum):
    """What a block is; ``undo`` is no word of a plan, but what runs the steps under an activity's ``undo``."""

    PARALLEL = "parallel"
    FOR_EACH = "for_each"
    REPEAT = "repeat"
    CHOOSE = "choose"
    WAIT = "wait"
    PLAN = "plan"
    UNDO = "undo"


@dataclass(slots=True)
class Branch:
    """One run of a list of steps. The plan's sequence is one, too; its path is empty and its block is none.

    Attributes:
        job_id: the job's number.
        path: where it is.
        block: the path of its block.
        number: its place in the block; a round's number.
        name: for people: the branch's name in the plan; else its number.
        scope: path of the item whose outputs it sees and adds to.
        state: where it stands.
        position: the entry of its list that it is at; -1 before the first.
        task_id: the task it waits for, where that entry is an activity.
        item: of a ``for_each``, its item, as JSON.
        output: of a ``for_each``, what the item gave, as JSON, once it is done.
    """

    job_id: int
    path: str
    block: str
    number: int
    name: str
    scope: str
    state: RunState
    position: int = -1
    task_id: int | None = None
    item: str | None = None
    output: str | None = None

    @property
    def is_sequence(self) -> bool:
        """Whether it is the plan's sequence itself."""
        return not self.path


@dataclass(slots=True)
class BlockRun:
    """A block that has begun. Times are milliseconds since the epoch.

    Attributes:
        job_id: the job's number.
        path: where it is.
        scope: path of the item to whose outputs its own belongs.
        kind: what it is.
        name: its name in ``outputs``; None: its output is not kept.
        state: ``running``; ``failed``; ``halted``; ``done``: only its output is left.
        total: how many branches it has; of a ``repeat``, how many rounds it may take.
        wanted: how many of them must be done.
        begun: how many have begun.
        done: how many are done.
        failed: how many have failed.
        since: when it began.
        due_at: when its time is up; None: it has none.
        signal: the name of the event it waits for.
        child_job: number of the job that it runs.
        output: what it gave, as JSON.
    """

    job_id: int
    path: str
    scope: str
    kind: BlockKind
    name: str | None
    state: RunState
    total: int
    wanted: int
    begun: int
    done: int
    failed: int
    since: int
    due_at: int | None = None
    signal: str | None = None
    child_job: int | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a job knows when something is decided.

    Attributes:
        input: the job's input.
        outputs: the outputs that count, by name.
        reference: the citizen's ticket.
        variables: the items that the place is inside of, by their names in the plan.
    """

    input: Mapping[str, Any]
    outputs: Mapping[str, Any]
    reference: str
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job cannot go on.

    Attributes:
        error: for the people in the house; may hold the citizen's data.
        detail: for the ledger: codes and names only.
    """

    error: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ends.

    Attributes:
        state: done, failed or cancelled.
        failure: why it failed.
        actor: who cancelled it.
        reason: why.
    """

    state: JobState
    failure: Failure | None = None
    actor: str | None = None
    reason: str | None = None


class JobCannotStart(Exception):  # noqa: N818 - it fails the block that wanted the job; nobody made a mistake
    """A block's job cannot be started; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


class Ground(Protocol):
    """What the rules stand on: a job's state, and what they may do to the world. Every call is part of one change."""

    now_ms: int
    begun: int
    """How many items, rounds and jobs have begun in this transaction, in all jobs. Counted by whoever begins one."""

    def branch(self, path: str) -> Branch | None:
        """Return a branch; the same object each time."""

    def block(self, path: str) -> BlockRun | None:
        """Return a block that has begun; the same object each time."""

    def branches_of(self, block: str, state: RunState | None = None, *, limit: int | None = None) -> list[Branch]:
        """Return a block's own branches in the order of their numbers, those in one state where it is given."""

    def add(self, row: Branch | BlockRun) -> None:
        """Keep a new branch or block."""

    def changed(self, row: Branch | BlockRun) -> None:
        """Keep what was changed."""

    def remove(self, row: Branch | BlockRun) -> None:
        """Drop a branch or block."""

    def item_begins(self, branch: Branch) -> None:
        """Note that an item begins: nothing was given in it yet."""

    def facts(self, scope: str) -> Facts:
        """Return what is known in an item, or in the job itself."""

    def own_outputs(self, scope: str) -> dict[str, Any]:
        """Return the outputs that belong to an item itself, by name."""

    def output_given(self, block: BlockRun) -> None:
        """Note that a named block has its output."""

    def supersede(self, branch: str) -> None:
        """Let the outputs of a branch, and of all in it, count no more."""

    def skipped(self, branch: Branch, node: Node) -> None:
        """Record that an entry was passed over because its ``when`` was false."""

    def queue_task(self, branch: Branch, step: Step) -> None:
        """Make the branch's task.

        Raises:
            ConditionError: an expression of the step cannot be decided.
        """

    def sequence_task(self) -> int | None:
        """Return the task that the plan's sequence itself waits for."""

    def will_cancel(self, task_ids: list[int]) -> None:
        """Note that `cancel_task` will be called for these."""

    def will_stop(self) -> None:
        """Note that much of the job is about to be stopped: every branch and block of it will be asked for."""

    def cancel_task(self, task_id: int, *, by: str) -> None:
        """Take a task back for good, unless it is through."""

    def set_timer(self, block: BlockRun, kind: str, due_ms: int) -> None:
        """Let the job hear of the block at that time."""

    def clear_timers(self, block: BlockRun) -> None:
        """Forget a block's timers."""

    def take_signal(self, block: BlockRun) -> str | None:
        """Use the oldest event that came for the block and serves no other; return its data as JSON."""

    def start_job(self, block: BlockRun, node: SubPlan) -> None:
        """Start the block's job.

        Raises:
            ConditionError: an expression of its input cannot be decided.
            JobCannotStart: there is no such plan, or it does not take this.
        """

    def cancel_job(self, job_id: int) -> None:
        """Let a block's job be cancelled."""

    def begin_undo(self, ending: Ending) -> bool:
        """Note how the job will end once what was done is undone; False where there is nothing to undo."""

    def next_undo(self, failure: Failure | None) -> tuple[int, str] | None:
        """Return what to undo next, by the activity's number in the plan and the path of its item; None: all is.

        Args:
            failure: why the undoing before could not be done.
        """

    def ended(self, ending: Ending) -> None:
        """Note that the job has ended."""

    def ending(self) -> Ending:
        """Return how the job will end, which `begin_undo` noted."""

    def paused(self, failure: Failure) -> None:
        """Note that the job waits for somebody to decide about a task that has failed."""

    def runs_again(self) -> None:
        """Note that the job, which had failed, goes on."""
