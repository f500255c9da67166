"""Learn what tasks and jobs take, for estimates, without a verb that is slower for it.

A tower notes which tasks it completed, a number each; every few seconds it reads when those were queued, begun and
done, and which jobs were done since, and adds that to small tables. Nothing of this is waited for, and what is lost (a
kill, a flood) is lost: an estimate is out of what is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from oms.domain.calendar import CalendarError
from oms.domain.errors import OmsError, UnavailableError
from oms.domain.eta_history import MAX_JOBS as MAX_OF_A_PLAN
from oms.domain.eta_history import PastJob, Visit, thinned
from oms.domain.eta_lane import LaneNow
from oms.domain.task import TaskStatus
from oms.sequencer.lane_now import lane_rules
from oms.sequencer.wishes import TaskAnswer, number_of
from oms.sequencer.writer import Writer
from oms.storage.experience import (
    Finished,
    Place,
    Samples,
    TimedTask,
    Way,
    add_samples,
    add_ways,
    finished_since,
    forget_experience,
    known_ways,
    timed_tasks,
)
from oms.storage.store import Store
from oms.storage.transaction import Transaction

log = structlog.get_logger(__name__)

LEARN_EVERY_SEC = 5.0
MAX_NOTED = 500
"""So many of the newest completed tasks are looked at each time."""
MAX_FINISHED = 2_000
MAX_JOBS = 100
MAX_EVENTS = 30_000
"""So many finished jobs are seen, and so many of them read, at a time; about so many events are behind these."""
LOOK_BACK_MS = 24 * 3_600_000
"""How far back a tower looks that has just begun."""
OVERLAP_MS = 60_000
"""A job has the time of its transaction's beginning: one that was slow may show up behind others."""
KEEP_MS = 400 * 24 * 3_600_000
"""What nothing was added to for longer is forgotten: a year, so that a season has the one before."""
FORGET_EVERY_ROUNDS = 720


class Completed:
    """The tasks that were completed lately, the newest of them. For the loop's thread."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._answers: deque[Sequence[TaskAnswer | OmsError]] = deque(maxlen=MAX_NOTED)

    def add(self, answers: Sequence[TaskAnswer | OmsError]) -> None:
        """Note what `complete` answered."""
        self._answers.append(answers)

    def take(self) -> list[int]:
        """Return the numbers of up to `MAX_NOTED` of them, the newest first, and note them no more.

        A worker that says it again gets the same answer again: what was taken the last time is left out.
        """
        numbers: dict[int, None] = {}
        while self._answers and len(numbers) < MAX_NOTED:
            for answer in self._answers.pop():
                number = _done_task(answer)
                if number is not None:
                    numbers[number] = None
        self._answers.clear()
        before, self._taken = self._taken, set(numbers)
        return [number for number in numbers if number not in before][:MAX_NOTED]


def _done_task(answer: TaskAnswer | OmsError) -> int | None:
    if not isinstance(answer, TaskAnswer) or answer.status != TaskStatus.DONE:
        return None
    return number_of(answer.task_id, "TASK-")


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is to be added.

    Attributes:
        samples: what tasks took, by plan, activity and lane.
        ways: what finished jobs went through.
        until_ms: when the newest job was done that was seen.
        forget: whatever is too old goes, too.
    """

    samples: dict[Place, Samples] = field(default_factory=dict)
    ways: list[Way] = field(default_factory=list)
    until_ms: int = 0
    forget: bool = False


def learn(tx: Transaction, wishes: Sequence[Lessons]) -> list[None]:
    """Add what was learned; of everything the newest is kept."""
    for wish in wishes:
        add_ways(tx, wish.ways)
        add_samples(tx, wish.samples)
        if wish.forget:
            forget_experience(tx, until_ms=tx.now_ms - KEEP_MS)
    return [None] * len(wishes)


async def learn_for_ever(
    store: Store,
    writer: Writer,
    completed: Completed,
    *,
    now_ms: Callable[[], int],
    interval_sec: float | None = None,
) -> None:
    """Learn every ``interval_sec``, for as long as the service runs.

    Args:
        store: where it is read.
        writer: writes it.
        completed: what the writer completed.
        now_ms: the clock, milliseconds since the epoch.
        interval_sec: how long to rest after each round; None: `LEARN_EVERY_SEC`.
    """
    since_ms = now_ms() - LOOK_BACK_MS
    rounds = 0
    while True:
        await asyncio.sleep(LEARN_EVERY_SEC if interval_sec is None else interval_sec)
        try:
            forget = rounds % FORGET_EVERY_ROUNDS == 0
            since_ms = max(since_ms, await learn_once(store, writer, completed, since_ms=since_ms, forget=forget))
            rounds += 1
        except UnavailableError:
            pass  # the writer says so, and the next round comes
        except Exception:
            # A fault of ours must not end it for good: estimates would grow old silently.
            log.exception("learning_failed")


async def learn_once(store: Store, writer: Writer, completed: Completed, *, since_ms: int, forget: bool = False) -> int:
    """Learn from what was completed, and from the jobs that were done after ``since_ms``; return from when to go on.

    Raises:
        UnavailableError: the database cannot take it now.
    """
    lessons = await asyncio.to_thread(_gather, store, completed.take(), since_ms, forget)
    if lessons.ways or lessons.samples or lessons.forget:
        await writer.run_each(learn, [lessons])
    return lessons.until_ms - OVERLAP_MS


def _gather(store: Store, task_ids: Sequence[int], since_ms: int, forget: bool) -> Lessons:
    """Read what there is to learn."""
    with store.reading() as connection:
        finished = finished_since(connection, since_ms, limit=MAX_FINISHED)
        known = known_ways(connection, store.dialect, [job.job_id for job in finished])
        new = _some_of_each_plan([job for job in finished if job.job_id not in known])
        lanes: dict[tuple[str, int, str], LaneNow] = {}

        def lane_of(task: TimedTask) -> LaneNow:
            key = (task.plan, task.plan_version, task.lane)
            if key not in lanes:
                plan = store.plans.get(connection, task.plan, task.plan_version)
                lanes[key] = lane_rules(connection, store.plans, plan, task.lane)
            return lanes[key]

        by_job: dict[int, list[TimedTask]] = {job.job_id: [] for job in new}
        for task in timed_tasks(connection, store.dialect, job_ids=list(by_job)):
            by_job[task.job_id].append(task)
        ways = [way for job in new if (way := _way(job, by_job[job.job_id], lane_of)) is not None]
        done = timed_tasks(connection, store.dialect, task_ids=task_ids)
        samples = _samples(done, lane_of)
    return Lessons(samples, ways, until_ms=max((job.finished_at for job in finished), default=0), forget=forget)


def _some_of_each_plan(found: Sequence[Finished]) -> list[Finished]:
    """Return the jobs that are read now: the newest of each plan, then the next: none that floods leaves others out."""
    counts: Counter[str] = Counter()
    turns: list[tuple[int, Finished]] = []
    for job in found:
        counts[job.plan] += 1
        turns.append((counts[job.plan], job))
    turns = [(turn, job) for turn, job in turns if turn <= MAX_OF_A_PLAN]
    some: list[Finished] = []
    events = 0
    for _, job in sorted(turns, key=lambda one: one[0])[:MAX_JOBS]:
        events += job.events
        if some and events > MAX_EVENTS:
            break
        some.append(job)
    return some


def _way(job: Finished, its_tasks: Iterable[TimedTask], lane_of: Callable[[TimedTask], LaneNow]) -> Way | None:
    """Return what a job went through; None where an older release did a part of it, which kept no times."""
    visits = []
    for task in its_tasks:
        if task.ended_at is None:
            return None
        wait_ms, work_ms = _times(task, task.ended_at, lane_of(task))
        queued_ms, ended_ms = task.created_at - job.created_at, task.ended_at - job.created_at
        visits.append(Visit(task.activity, task.lane, queued_ms, max(queued_ms, ended_ms), wait_ms, work_ms))
    visits.sort(key=lambda visit: visit.ended_ms)
    length_ms = max([job.finished_at - job.created_at, *(visit.ended_ms for visit in visits)])
    return Way(job.job_id, job.plan, PastJob(job.finished_at, length_ms, thinned(tuple(visits))))


def _samples(done: Iterable[TimedTask], lane_of: Callable[[TimedTask], LaneNow]) -> dict[Place, Samples]:
    samples: dict[Place, Samples] = {}
    for task in sorted(done, key=lambda task: (task.ended_at or 0, task.task_id)):
        if task.ended_at is not None and task.started_at is not None:
            wait_ms, work_ms = _times(task, task.ended_at, lane_of(task))
            known = samples.setdefault((task.plan, task.activity, task.lane), Samples([], []))
            known.wait_ms.append(wait_ms)
            known.work_ms.append(work_ms)
    return samples


def _times(task: TimedTask, ended_at: int, lane: LaneNow) -> tuple[int, int]:
    """Return for how long a task waited and was worked on, as its lane counts it.

    One that no worker ever had (a manager stood in for one) only waited.
    """
    started_at = ended_at if task.started_at is None else task.started_at
    try:
        return lane.waited_ms(task.created_at, started_at), lane.worked_ms(started_at, ended_at)
    except CalendarError:  # it does not open within ten years, and was worked on before it closed for good
        return max(0, started_at - task.created_at), max(0, ended_at - started_at)
