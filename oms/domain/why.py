"""Why a task does not move: one reason, said in a sentence, and what would change it.

A pure rule over facts; ``oms.sequencer.why`` gathers them, and docs/why.md has an example of each reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from oms.domain.local_time import shown_moment, zone
from oms.domain.plan import LaneKind
from oms.domain.task import JobState, TaskStatus

if TYPE_CHECKING:
    from oms.domain.calendar import Calendar
    from oms.domain.lane_control import LaneControl
    from oms.domain.plan import Lane
    from oms.domain.task import Job, Task

MAX_AHEAD = 1_000
"""How many tasks ahead are counted."""
MAX_PRIORITY = 1_000_000
UNSEEN_AFTER_SEC = {LaneKind.MACHINE: 120, LaneKind.HUMAN: 3_600, LaneKind.VENDOR: 86_400}
"""After how long without a poll a lane counts as one without workers: a clerk may be in a meeting, a vendor calls once
a day."""


class Reason(StrEnum):
    """Why a task does not move."""

    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LEFT_BEHIND = "left_behind"
    HELD_BY_WORKER = "held_by_worker"
    JOB_PAUSED = "job_paused"
    LANE_PAUSED = "lane_paused"
    WAITS_FOR_BATCH = "waits_for_batch"
    LANE_CLOSED = "lane_closed"
    BACKING_OFF = "backing_off"
    CAP_REACHED = "cap_reached"
    RATE_REACHED = "rate_reached"
    NO_WORKER = "no_worker"
    TASKS_AHEAD = "tasks_ahead"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Action:
    """A call that moves the task, or its job.

    Attributes:
        word: what it does.
        method: of HTTP.
        path: with its query.
        body: as JSON; None: without one.
    """

    word: str
    method: str
    path: str
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """The answer. ``until_ms``: when it changes by itself, where a time does that."""

    reason: Reason
    sentence: str
    until_ms: int | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the reason depends on. Times are milliseconds since the epoch.

    Attributes:
        now_ms: the time.
        task: as it is.
        job: its job.
        lane: what its lane is to the job; None where no plan knows it.
        calendar: when the lane hands out work; None: always.
        timezone: of the plan that declares the lane.
        available_at: from when on the task may be handed out, as far as its lane is concerned.
        control: the lane's pause and caps; None where it has none.
        is_full: the lane has as many tasks running as it may.
        opens_at: when the lane's rate lets the next one through; None where it does now.
        ahead: how many ready tasks come before it, counted up to one more than `MAX_AHEAD`.
        top_priority: the highest priority of the lane's ready tasks; None where there are none.
        last_seen_ms: when a named worker last polled the lane; None: not for long.
        is_waited_for: somebody waits for work in the lane at this moment.
        in_the_way: a failed task for which the paused job waits.
        refusal: why a failed task may not be tried again; None where it may.
    """

    now_ms: int
    task: Task
    job: Job
    lane: Lane | None = None
    calendar: Calendar | None = None
    timezone: str = "UTC"
    available_at: int = 0
    control: LaneControl | None = None
    is_full: bool = False
    opens_at: int | None = None
    ahead: int = 0
    top_priority: int | None = None
    last_seen_ms: int | None = None
    is_waited_for: bool = False
    in_the_way: Task | None = None
    refusal: str | None = None


def why(facts: Facts) -> Why:
    """Return the one reason that a task does not move: of several, the one that must go first."""
    match facts.task.status:
        case TaskStatus.DONE:
            return Why(Reason.DONE, f"{facts.task.name} is done.")
        case TaskStatus.CANCELLED:
            return Why(Reason.CANCELLED, f"{facts.task.name} was cancelled: its job ended, or went on without it.")
        case TaskStatus.FAILED:
            return _failed(facts)
        case TaskStatus.RUNNING:
            return _held(facts)
    for rule in _RULES:
        found = rule(facts)
        if found is not None:
            return found
    return _ready(facts)


def _failed(facts: Facts) -> Why:
    task = facts.task
    said = f"{task.name} has failed ({task.error_type or 'error'}) after {task.attempt} of its attempts"
    if facts.refusal is not None:
        return Why(Reason.LEFT_BEHIND, f"{said}. {facts.refusal}")
    retry = Action("try it again", "POST", "/retry", {"task_id": task.name})
    return Why(Reason.FAILED, f"{said}; retry or reroute it, and it gets fresh ones.", action=retry)


def _held(facts: Facts) -> Why:
    task = facts.task
    assert task.lease_expires_at is not None
    left_ms = task.lease_expires_at - facts.now_ms
    until = f"for another {_span(left_ms)}" if left_ms > 0 else "and its lease has run out: it is taken back at once"
    sentence = f"{task.worker or 'A worker'} has it, attempt {task.attempt}, {until}."
    return Why(Reason.HELD_BY_WORKER, sentence, task.lease_expires_at, _reroute(facts, "take it from its worker"))


def _job_paused(facts: Facts) -> Why | None:
    job, failed = facts.job, facts.in_the_way
    if job.state is not JobState.PAUSED:
        return None
    if failed is not None:
        sentence = f"{job.name} is paused until somebody sees to {failed.name} ({failed.activity}), which has failed."
        return Why(
            Reason.JOB_PAUSED,
            sentence,
            action=Action("try the failed task again", "POST", "/retry", {"task_id": failed.name}),
        )
    since = "" if job.paused_at is None else f" for {_span(facts.now_ms - job.paused_at)}"
    resume = Action("resume the job", "POST", f"/jobs/{job.name}/resume", {})
    return Why(Reason.JOB_PAUSED, f"{job.name} has been paused{since}.", action=resume)


def _lane_paused(facts: Facts) -> Why | None:
    control = facts.control
    if control is None or control.paused_at is None:
        return None
    by = "" if control.paused_by is None else f" by {control.paused_by}"
    reason = "" if control.pause_reason is None else f": {control.pause_reason}"
    sentence = f"The lane {control.lane!r} was paused{by} {_span(facts.now_ms - control.paused_at)} ago{reason}."
    resume = Action("resume the lane", "POST", f"/lanes/{quote(control.lane, safe='')}/resume", {})
    return Why(Reason.LANE_PAUSED, sentence, action=resume)


def _not_yet(facts: Facts) -> Why | None:
    task, lane, calendar = facts.task, facts.lane, facts.calendar
    at_ms = facts.available_at
    if task.closes_at is not None and task.closes_at <= facts.now_ms and calendar is not None:
        at_ms = max(at_ms, calendar.next_opening_ms(facts.now_ms))  # its window is over, and nobody has seen to it yet
    if at_ms <= facts.now_ms:
        return None
    to_backup = _to_backup(facts)
    if lane is not None and calendar is not None and lane.batch_at is not None:
        sentence = f"It waits for the batch of {_moment(facts, at_ms)}: {calendar.text}."
        return Why(Reason.WAITS_FOR_BATCH, sentence, at_ms, to_backup)
    if calendar is not None and not calendar.is_open(at_ms - 1):
        sentence = f"The lane {task.lane!r} is closed until {_moment(facts, at_ms)}: {calendar.text}."
        return Why(Reason.LANE_CLOSED, sentence, at_ms, to_backup)
    failed = f" after {task.failures} failed attempts" if task.failures else ""
    sentence = f"It is tried again in {_span(at_ms - facts.now_ms)}{failed}."
    return Why(Reason.BACKING_OFF, sentence, at_ms, _reroute(facts, "try it now", lane=task.lane))


def _cap_reached(facts: Facts) -> Why | None:
    most = None if facts.control is None else facts.control.caps.max_running
    if most is None or not facts.is_full:
        return None
    sentence = (
        f"The lane {facts.task.lane!r} has {most:,} tasks running, which is all that its plan's max_running admits; "
        "the next is handed out when one of them ends."
    )
    return Why(Reason.CAP_REACHED, sentence, action=_to_backup(facts))


def _rate_reached(facts: Facts) -> Why | None:
    if facts.control is None or facts.opens_at is None or facts.opens_at <= facts.now_ms:
        return None
    rates = " and ".join(f"{most:,} tasks in {per_sec:,} s" for most, per_sec in facts.control.caps.rates)
    sentence = (
        f"The lane {facts.task.lane!r} hands out no more than {rates}; the next one in "
        f"{_span(facts.opens_at - facts.now_ms)}."
    )
    return Why(Reason.RATE_REACHED, sentence, facts.opens_at, _to_backup(facts))


def _no_worker(facts: Facts) -> Why | None:
    kind = LaneKind.MACHINE if facts.lane is None else facts.lane.kind
    seen = facts.last_seen_ms
    if facts.is_waited_for or (seen is not None and facts.now_ms - seen < UNSEEN_AFTER_SEC[kind] * 1000):
        return None
    ago = "in the last two days" if seen is None else f"for {_span(facts.now_ms - seen)}"
    sentence = f"No named worker has polled the lane {facts.task.lane!r} {ago}; it goes to the first that does."
    return Why(Reason.NO_WORKER, sentence, action=_pull(facts))


def _tasks_ahead(facts: Facts) -> Why | None:
    if not facts.ahead:
        return None
    count = f"more than {MAX_AHEAD:,}" if facts.ahead > MAX_AHEAD else f"{facts.ahead:,}"
    are = "task is" if facts.ahead == 1 else "tasks are"
    sentence = f"{count[:1].upper()}{count[1:]} {are} ahead of it in the lane {facts.task.lane!r}."
    top = facts.task.priority if facts.top_priority is None else facts.top_priority
    if top >= MAX_PRIORITY:
        return Why(Reason.TASKS_AHEAD, sentence, action=_pull(facts))
    first = _reroute(facts, "put it first", lane=facts.task.lane, priority=top + 1)
    return Why(Reason.TASKS_AHEAD, sentence, action=first)


def _ready(facts: Facts) -> Why:
    sentence = f"It is the next one in the lane {facts.task.lane!r}: the next worker that polls gets it."
    return Why(Reason.READY, sentence, action=_pull(facts))


_RULES: tuple[Callable[[Facts], Why | None], ...] = (
    _job_paused,
    _lane_paused,
    _not_yet,
    _cap_reached,
    _rate_reached,
    _no_worker,
    _tasks_ahead,
)


def _pull(facts: Facts) -> Action:
    return Action("pull it", "GET", f"/pull?{urlencode({'lane': facts.task.lane})}")


def _reroute(facts: Facts, word: str, *, lane: str | None = None, **more: int) -> Action:
    backup = None if facts.lane is None else facts.lane.backup
    new_lane = lane or backup or facts.task.lane
    return Action(word, "POST", "/reroute", {"task_id": facts.task.name, "new_lane": new_lane, **more})


def _to_backup(facts: Facts) -> Action | None:
    """Return the way round a lane that gives nothing now; None where its plan names no other."""
    if facts.lane is None or facts.lane.backup is None:
        return None
    return _reroute(facts, "move it to the lane's backup")


def _moment(facts: Facts, at_ms: int) -> str:
    return shown_moment(at_ms, zone(facts.timezone))


def _span(ms: int) -> str:
    """Return a time in words, about right."""
    sec = max(1, round(ms / 1000))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if sec >= 2 * length:
            return f"{round(sec / length):,} {unit}s"
    return "1 second" if sec == 1 else f"{sec} seconds"
