"""Give a queued task its place in a lane: from when on it may be handed out, until when, and for how long at a time."""

from __future__ import annotations

from oms.domain.calendar import Calendar
from oms.domain.due import due_ms, due_of_seconds, read_due
from oms.domain.plan import Lane, Plan
from oms.domain.stall import StallClock
from oms.domain.task import NEVER_MS, Job, JobState, Task
from oms.sequencer.lanes import calendar_of, declaring_plan, plan_of
from oms.storage.lane_pauses import pauses_of
from oms.storage.transaction import Transaction


def give_place(tx: Transaction, job: Job, task: Task, *, lane: str, earliest_ms: int) -> None:
    """Set when a task may be handed out in ``lane``, at ``earliest_ms`` or later, and its lease; the caller moves it.

    A moment that is over is the place that the task had there before, and that it keeps while the lane is open. The
    time until it stalls begins anew, and the first place sets when the task is due.
    Of a job that is paused, nothing is handed out: the task keeps the time, and waits.
    """
    own = plan_of(tx, job)
    step = own.steps[task.position]
    declared, calendar = _rules(tx, job, lane)
    if declared is None:  # of a lane that nobody knows, the activity's own lane tells how long an attempt may take
        own_lane = own.lane(step.lane)
        assert own_lane is not None
        task.lease_sec = own_lane.lease_sec
    else:
        task.lease_sec = declared.lease_sec
    task.held_available_at = None
    task.stalled_at = None
    _open(tx, task, declared, calendar, earliest_ms)
    _start_clock(tx, task, declared, calendar)
    if task.due_at is None and (step.due_sec is not None or step.due is not None):
        _set_due(tx, own, task)
    if job.state is JobState.PAUSED:
        hold(task)


def move_on(tx: Transaction, job: Job, task: Task) -> None:
    """Let a queued task wait for its lane's next opening: its window has closed, or its batch was full.

    Since when it waits stays as it is.
    """
    declared, calendar = _rules(tx, job, task.lane)
    is_batched = declared is not None and declared.batch_at is not None
    _open(tx, task, declared, calendar, tx.now_ms + 1 if is_batched else task.available_at)


def hold(task: Task) -> None:
    """Keep a queued task from being handed out; the time from which it could be is kept."""
    if task.held_available_at is None:
        task.held_available_at = shown_available_at(task)
        task.available_at = NEVER_MS
        task.batch_at = None
        task.ready = False


def let_go(tx: Transaction, task: Task, *, held_since_ms: int | None) -> None:
    """Let a task that was held be handed out from its time on; what it was held for is no part of its waiting.

    Its lane may have closed meanwhile, or its batch may have come without it: then it waits for the next one.

    Args:
        tx: with the task's job.
        task: queued.
        held_since_ms: since when its job is paused.
    """
    if task.held_available_at is None:
        return
    since_ms = tx.now_ms if held_since_ms is None else held_since_ms
    earliest_ms = task.held_available_at
    task.held_available_at = None
    declared, calendar = _rules(tx, tx.jobs[task.job_id], task.lane)
    if declared is not None and declared.batch_at is not None:
        was_opened = earliest_ms <= since_ms and task.batch_max is None
        earliest_ms = earliest_ms if was_opened else max(earliest_ms, tx.now_ms)
    _open(tx, task, declared, calendar, earliest_ms)
    if task.stalls_at is not None and task.stall_from is not None:
        clock = clock_of(declared, calendar)
        left_ms = clock.left_ms(task.stall_from, task.stalls_at, since_ms, pauses_of(tx, task.lane))
        task.stall_from = max(tx.now_ms, shown_available_at(task))
        task.stalls_at = clock.ends_at_ms(task.stall_from, max(left_ms, 0))


def shown_available_at(task: Task) -> int:
    """Return from when on the task may be handed out, as far as its lane is concerned."""
    if task.held_available_at is not None:
        return task.held_available_at
    return task.available_at if task.batch_at is None else task.batch_at


def clock_of(lane: Lane | None, calendar: Calendar | None) -> StallClock:
    """Return the clock that tells when a task of a lane has been queued for too long."""
    return StallClock(None if lane is None or lane.batch_at is not None else calendar)


def _rules(tx: Transaction, job: Job, lane: str) -> tuple[Lane | None, Calendar | None]:
    plan = declaring_plan(tx, job, lane)
    declared = None if plan is None else plan.lane(lane)
    return declared, None if plan is None or declared is None else calendar_of(plan, declared)


def _open(tx: Transaction, task: Task, lane: Lane | None, calendar: Calendar | None, earliest_ms: int) -> None:
    """Set from when and until when a task may be handed out, at ``earliest_ms`` or later."""
    task.available_at = earliest_ms
    task.closes_at = task.batch_at = task.batch_max = None
    if calendar is None or lane is None:
        pass
    elif lane.batch_at is None:
        opens_ms = calendar.next_opening_ms(max(earliest_ms, tx.now_ms))
        if opens_ms > tx.now_ms:  # where it is open now, a place from before is kept
            task.available_at = opens_ms
        task.closes_at = calendar.closes_at_ms(opens_ms)
    elif earliest_ms >= tx.now_ms:  # what a batch has opened before stays open
        task.available_at = calendar.next_opening_ms(earliest_ms)
        if lane.batch_max is not None:  # then it is let in by `oms.sequencer.open_batches`, and no clock wakes it
            task.batch_at, task.batch_max = task.available_at, lane.batch_max
            task.available_at = NEVER_MS
    task.ready = task.available_at <= tx.now_ms


def _start_clock(tx: Transaction, task: Task, lane: Lane | None, calendar: Calendar | None) -> None:
    if lane is None or lane.stall_after_sec is None:
        task.stalls_at = task.stall_from = None
        return
    task.stall_from = max(tx.now_ms, shown_available_at(task))
    task.stalls_at = clock_of(lane, calendar).ends_at_ms(task.stall_from, lane.stall_after_sec * 1000)


def _set_due(tx: Transaction, plan: Plan, task: Task) -> None:
    step = plan.steps[task.position]
    due = read_due(step.due) if step.due is not None else due_of_seconds(step.due_sec or 0)
    lane = plan.lane(step.lane)
    holidays = None if lane is None else lane.holidays
    task.due_at = due_ms(tx.now_ms, due, timezone=plan.timezone, holidays=holidays)
