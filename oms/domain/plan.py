"""What a plan is: lanes, and a sequence of steps and blocks with their rules.

Immutable values that nothing here makes of files: ``oms.domain.plan_reader`` makes a plan of a plain document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oms.domain.condition import Condition
    from oms.domain.expression import Expression
    from oms.domain.retry import RetryPolicy
    from oms.domain.schema import OutputSchema

MAX_DEPTH = 20
MAX_ITEMS = 10_000


class LaneKind(StrEnum):
    """Who works in a lane."""

    MACHINE = "machine"
    HUMAN = "human"
    VENDOR = "vendor"


DEFAULT_LEASE_SEC = {LaneKind.MACHINE: 300, LaneKind.HUMAN: 28_800, LaneKind.VENDOR: 604_800}


class OnFailure(StrEnum):
    """What becomes of a job when an activity has failed for good."""

    FAIL = "fail"
    PAUSE = "pause"
    CONTINUE = "continue"


class OnStall(StrEnum):
    """What becomes of a task that was queued for too long."""

    ALERT = "alert"
    REROUTE = "reroute"


class OnTimeout(StrEnum):
    """What becomes of a wait whose signal did not come in time."""

    FAIL = "fail"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``tasks`` hand-outs in any ``per_sec`` seconds."""

    tasks: int
    per_sec: int


@dataclass(frozen=True, slots=True)
class Lane:
    """A pool of workers that pull from one queue.

    Attributes:
        id: its name.
        kind: who works in it.
        title: the citizen's word for it, or None.
        lease_sec: how long an attempt may go without a sign of life.
        max_running: how many of its tasks may run at once; None: any number.
        rate: how fast they are handed out at most.
        open: its opening hours as written; None: always.
        batch_at: the local time of its batches as written; None: no batches.
        batch_max: how many tasks a batch holds at most; None: all that wait.
        holidays: the holiday calendar as written, ``US`` or ``US-CA``; None: none.
        backup: the lane where a task goes by itself when its attempts are used up, or when it stalls.
        stall_after_sec: for how long a task may be queued while the lane is open; None: for ever.
        on_stall: what then.
    """

    id: str
    kind: LaneKind
    title: str | None
    lease_sec: int
    max_running: int | None = None
    rate: Rate | None = None
    open: str | None = None
    batch_at: str | None = None
    batch_max: int | None = None
    holidays: str | None = None
    backup: str | None = None
    stall_after_sec: int | None = None
    on_stall: OnStall = OnStall.ALERT

    @property
    def has_hours(self) -> bool:
        """Whether its tasks may have to wait for an opening."""
        return self.open is not None or self.batch_at is not None or self.holidays is not None


@dataclass(frozen=True, slots=True)
class Step:
    """An activity: one task of a job, or one for each round or item of the blocks that it stands in.

    Attributes:
        activity: the work; unique in the plan.
        lane: the id of the lane that does it.
        when: the step is skipped where this is false; None always applies.
        output_schema: what the activity's output must fit; None takes any.
        retry_policy: the step's own keys over the plan's over the defaults.
        number: its place among the plan's activities, in the file's order (``Plan.steps``).
        input: what the worker gets instead of the job's input, by key; None: the job's input.
        priority: of its tasks; None: the job's.
        due_sec: how long after it is queued it is due; None: no due time, or ``due``.
        due: the same as an ISO 8601 duration as written, whose whole days are business days.
        title: the citizen's word for it, or None.
        on_failure: what becomes of the job when it has failed for good.
        undo: run, latest activity first, when the job fails or is cancelled after it was done.
    """

    activity: str
    lane: str
    when: Condition | None
    output_schema: OutputSchema | None
    retry_policy: RetryPolicy
    number: int = 0
    input: Mapping[str, Expression] | None = None
    priority: Expression | int | None = None
    due_sec: int | None = None
    due: str | None = None
    title: str | None = None
    on_failure: OnFailure = OnFailure.FAIL
    undo: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Parallel:
    """Branches that run at once.

    Attributes:
        when: the block is skipped where this is false.
        branches: each branch's name and its steps.
        wanted: how many branches must be done for the block to be done; the rest is cancelled then.
    """

    when: Condition | None
    branches: tuple[tuple[str, tuple[Node, ...]], ...]
    wanted: int


@dataclass(frozen=True, slots=True)
class ForEach:
    """One run of ``steps`` for each item of a list.

    Attributes:
        when: the block is skipped where this is false.
        id: its name in ``outputs``; None: its output is not kept.
        items: gives the list, at most `MAX_ITEMS` long.
        variable: the name of the item in the expressions of ``steps``.
        steps: what is done for each.
        max_parallel: how many items are worked on at once; None: all.
    """

    when: Condition | None
    id: str | None
    items: Expression
    variable: str
    steps: tuple[Node, ...]
    max_parallel: int | None


@dataclass(frozen=True, slots=True)
class Repeat:
    """``steps`` again until ``until`` holds, at most ``max_rounds`` times."""

    when: Condition | None
    steps: tuple[Node, ...]
    until: Condition
    max_rounds: int


@dataclass(frozen=True, slots=True)
class Option:
    """One way of a `Choose`; ``when`` is None for its ``else``."""

    when: Condition | None
    steps: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choose:
    """The first option that holds; none where none does."""

    when: Condition | None
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """A durable timer, or an outside event. Exactly one of ``for_sec``, ``until`` and ``signal`` is set.

    Attributes:
        when: the block is skipped where this is false.
        id: its name in ``outputs``: the signal's data; None: not kept.
        for_sec: how long.
        until: gives the moment, milliseconds since the epoch.
        signal: the name of the event that ends it.
        timeout_sec: how long a signal is waited for; None: for ever.
        on_timeout: what then.
    """

    when: Condition | None
    id: str | None
    for_sec: int | None
    until: Expression | None
    signal: str | None
    timeout_sec: int | None
    on_timeout: OnTimeout


@dataclass(frozen=True, slots=True)
class SubPlan:
    """A job of another plan as a step.

    Attributes:
        when: the block is skipped where this is false.
        id: its name in ``outputs`` and in the job's reference; None: the outputs are not kept.
        plan: the other plan's id.
        input: the job's input, by key.
    """

    when: Condition | None
    id: str | None
    plan: str
    input: Mapping[str, Expression]


Block = Parallel | ForEach | Repeat | Choose | Wait | SubPlan
Node = Step | Block


@dataclass(frozen=True, slots=True)
class PlanSchedule:
    """A job of the plan whenever the clock says so.

    Attributes:
        cron: as written, in the plan's timezone.
        reference: of its jobs; ``{date}`` stands for the fire's local date.
        input: of its jobs.
    """

    cron: str
    reference: str
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan in one version.

    Attributes:
        id: its name in ``/start``.
        lanes: in the order of the file.
        sequence: what a job does, in order.
        steps: every activity of the plan, also those in blocks and in ``undo``, in the order of the file; a step's
            ``number`` is its place here.
        retry_policy: the plan's own, over the defaults.
        document: the plain document it was made from; do not change it.
        timezone: whose clock its calendars follow (IANA).
        title: the citizen's word for it, or None.
        input_schema: what a job's input must fit; None takes any.
        schedules: when jobs start by themselves.
        is_flat: there are only activities, one after the other, and nothing to undo.
        has_undo: something may have to be undone.
    """

    id: str
    lanes: tuple[Lane, ...]
    sequence: tuple[Node, ...]
    steps: tuple[Step, ...]
    retry_policy: RetryPolicy
    document: dict[str, Any] = field(repr=False, hash=False)
    timezone: str = "UTC"
    title: str | None = None
    input_schema: OutputSchema | None = None
    schedules: tuple[PlanSchedule, ...] = ()
    is_flat: bool = field(init=False, repr=False, compare=False)
    has_undo: bool = field(init=False, repr=False, compare=False)
    _lanes: dict[str, Lane] = field(init=False, repr=False, compare=False)
    _places: dict[str, int] = field(init=False, repr=False, compare=False)
    _last_reading: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        conditional = [index for index, node in enumerate(self.sequence) if _reads(node)]
        object.__setattr__(self, "is_flat", all(isinstance(node, Step) and not node.undo for node in self.sequence))
        object.__setattr__(self, "has_undo", any(step.undo for step in self.steps))
        object.__setattr__(self, "_lanes", {lane.id: lane for lane in self.lanes})
        object.__setattr__(self, "_places", {step.activity: index for index, step in enumerate(self.steps)})
        object.__setattr__(self, "_last_reading", max(conditional, default=-1))

    def lane(self, lane_id: str) -> Lane | None:
        """Return a lane by its id."""
        return self._lanes.get(lane_id)

    def step(self, activity: str) -> Step | None:
        """Return a step by its activity."""
        index = self._places.get(activity)
        return None if index is None else self.steps[index]

    def reads_after(self, index: int) -> bool:
        """Tell whether any entry of the sequence past ``index`` may read outputs; if none does, none are loaded."""
        return self._last_reading > index


def _reads(node: Node) -> bool:
    """Tell whether an entry of a sequence has an expression, in itself or in what it holds."""
    if isinstance(node, Step):
        return node.when is not None or node.input is not None or not isinstance(node.priority, int | None)
    return True


def steps_in(nodes: Iterable[Node]) -> Iterator[Step]:
    """Give every activity in a list of steps, also those in blocks, but not what undoes them; in the file's order."""
    for node in nodes:
        if isinstance(node, Step):
            yield node
        else:
            for inner in lists_of(node):
                yield from steps_in(inner)


def nodes_in(plan: Plan) -> Iterator[Node]:
    """Give every entry of a plan, also those in blocks and in ``undo``."""
    return nodes_below(plan.sequence)


def nodes_below(nodes: Iterable[Node]) -> Iterator[Node]:
    """Give every entry of a list of steps, also those in blocks and in ``undo``."""
    waiting: list[Node] = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for inner in (node.undo,) if isinstance(node, Step) else lists_of(node):
            waiting.extend(inner)


def lists_of(block: Block) -> list[tuple[Node, ...]]:
    """Return the lists of steps that a block holds."""
    match block:
        case Parallel():
            return [steps for _, steps in block.branches]
        case ForEach() | Repeat():
            return [block.steps]
        case Choose():
            return [option.steps for option in block.options]
        case _:
            return []


def plan_digest(plan: Plan) -> str:
    """Return the SHA-256 of a plan's content, in hex: the same content is the same version.

    Comments, layout and the order of keys do not count; the order of lanes, steps and branches does.
    """
    orders = [[name for name, _ in node.branches] for node in nodes_in(plan) if isinstance(node, Parallel)]
    # Branches in the order of their names add nothing: versions from when all were kept so stay the same.
    content = [plan.document, orders] if any(order != sorted(order) for order in orders) else plan.document
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
