"""When a job will be done: a read model (``oms.domain.eta`` has the rule, docs/eta.md says how good it is)."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from act.contract import format_time_ms
from oms.domain.calendar import CalendarError
from oms.domain.eta import MIN_JOBS, Phase, Standing, forecast, latest
from oms.domain.eta_history import History
from oms.domain.eta_lane import LaneNow
from oms.domain.eta_words import label, method
from oms.domain.plan import Plan
from oms.domain.task import Job, JobState, Task, TaskStatus
from oms.sequencer.lane_now import lane_rules
from oms.sequencer.place import shown_available_at
from oms.sequencer.views import Eta
from oms.storage.experience import Samples, lane_states, newest_way, samples_mark, samples_of, tasks_ahead, ways_of
from oms.storage.plan_cache import PlanCache
from oms.storage.transaction import Dialect

MAX_PLANS_KEPT = 50
"""Plans of which histories are kept in memory, those that were asked for last."""
MAX_BRANCHES = 5
"""Of so many activities at which a job stands at once, the latest, its end is foretold."""
WORKER_IS_THERE_SEC = 300
"""Who has not polled for so long is not counted as working: what he holds is counted instead."""
WAITING = "Waiting"
"""Where a job stands that waits for a timer, a signal or another job."""


T = TypeVar("T")


class Kept(Generic[T]):
    """Something of each plan that is read anew only when a mark says that it has changed. For threads.

    Args:
        mark: reads the mark of a plan; cheap.
        read: reads the thing itself.
    """

    def __init__(self, mark: Callable[[Connection, str], object], read: Callable[[Connection, str], T]) -> None:
        self._mark = mark
        self._read = read
        self._known: OrderedDict[str, tuple[object, T]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, connection: Connection, plan: str) -> T:
        """Return it as it is now."""
        mark = self._mark(connection, plan)
        with self._lock:
            known = self._known.get(plan)
            if known is not None and known[0] == mark:
                self._known.move_to_end(plan)
                return known[1]
        found = self._read(connection, plan)
        with self._lock:
            self._known[plan] = (mark, found)
            self._known.move_to_end(plan)
            while len(self._known) > MAX_PLANS_KEPT:
                self._known.popitem(last=False)
        return found


def _histories() -> Kept[History]:
    return Kept(newest_way, lambda connection, plan: History(ways_of(connection, plan)))


def _samples() -> Kept[dict[str, Samples]]:
    return Kept(samples_mark, samples_of)


@dataclass(frozen=True, slots=True)
class Estimates:
    """Tell when jobs will be done.

    Attributes:
        dialect: what differs by database.
        plans: the compiled plans.
        histories: what finished jobs of each plan went through.
        samples: what tasks of each plan took lately, by lane.
    """

    dialect: Dialect
    plans: PlanCache
    histories: Kept[History] = field(default_factory=_histories)
    samples: Kept[dict[str, Samples]] = field(default_factory=_samples)

    def at(self, now_ms: int) -> Eta:
        """Return what tells it as of a moment, milliseconds since the epoch."""

        def eta(connection: Connection, job: Job, its_tasks: Sequence[Task]) -> dict[str, Any] | None:
            return self._eta(connection, job, its_tasks, now_ms)

        return eta

    def _eta(self, connection: Connection, job: Job, its_tasks: Sequence[Task], now_ms: int) -> dict[str, Any] | None:
        """Return the answer's ``eta``: None when the job ends or is held, and when too little is known."""
        if job.state not in (JobState.QUEUED, JobState.RUNNING) or job.ending is not None:
            return None
        history = self.histories.of(connection, job.plan)
        if history.jobs < MIN_JOBS:
            return None
        plan = self.plans.get(connection, job.plan, job.plan_version)
        live = _live(its_tasks)
        lanes = self._lanes(connection, plan, {task.lane for task in live}, now_ms)
        if lanes is None:
            return None
        standings = [_standing(connection, task, its_tasks) for task in live] or [_between(job, its_tasks)]
        unit = random.Random(job.job_id).random  # noqa: S311 - the same job is to get the same answer
        try:
            found = latest([forecast(history, one, lanes, now_ms=now_ms, random_unit=unit) for one in standings])
        except CalendarError:
            return None  # a lane on the way does not open within ten years
        if found is None:
            return None
        return {
            "low": format_time_ms(found.low_ms),
            "high": format_time_ms(found.high_ms),
            "label": label(_title(plan, found.standing), found, now_ms=now_ms),
            "method": method(found, lanes.get(found.standing.lane or "")),
            "as_of": format_time_ms(now_ms),
        }

    def _lanes(self, connection: Connection, plan: Plan, here: set[str], now_ms: int) -> dict[str, LaneNow] | None:
        """Return the plan's lanes, and those where the job is, as they are now; None when it stands in a paused one."""
        names = sorted({lane.id for lane in plan.lanes} | here)
        states = lane_states(connection, self.dialect, names, since_ms=now_ms - WORKER_IS_THERE_SEC * 1000)
        if any(states[name].is_paused for name in here):
            return None
        took = self.samples.of(connection, plan.id)
        nothing = Samples([], [])
        return {
            name: replace(
                lane_rules(connection, self.plans, plan, name),
                queued=state.queued,
                running=state.running,
                workers=state.workers,
                wait_ms=took.get(name, nothing).wait_ms,
                work_ms=took.get(name, nothing).work_ms,
            )
            for name, state in states.items()
        }


def _live(its_tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks where the job stands: of each activity the newest, and of these the last few."""
    live = {task.activity: task for task in its_tasks if task.status in (TaskStatus.QUEUED, TaskStatus.RUNNING)}
    return sorted(live.values(), key=lambda task: task.task_id)[-MAX_BRANCHES:]


def _standing(connection: Connection, task: Task, its_tasks: Sequence[Task]) -> Standing:
    rounds = sum(1 for other in its_tasks if other.activity == task.activity and other.task_id <= task.task_id)
    if task.status is TaskStatus.RUNNING:
        since_ms = task.created_at if task.started_at is None else task.started_at
        return Standing(Phase.RUNNING, task.activity, task.lane, since_ms, round=rounds)
    return Standing(
        Phase.QUEUED,
        task.activity,
        task.lane,
        task.created_at,
        round=rounds,
        ahead=tasks_ahead(connection, task),
        not_before_ms=shown_available_at(task),
    )


def _between(job: Job, its_tasks: Sequence[Task]) -> Standing:
    """Return where a job stands of which nothing is queued or running: behind its last activity."""
    ended = [task for task in its_tasks if task.ended_at is not None]
    if not ended:
        return Standing(Phase.BETWEEN, None, None, job.created_at)
    last = max(ended, key=lambda task: (task.ended_at, task.task_id))
    assert last.ended_at is not None
    rounds = sum(1 for other in its_tasks if other.activity == last.activity and other.task_id <= last.task_id)
    return Standing(Phase.BETWEEN, last.activity, None, last.ended_at, round=rounds)


def _title(plan: Plan, standing: Standing) -> str:
    """Return the citizen's word for where a job stands."""
    if standing.phase is Phase.BETWEEN or standing.activity is None:
        return WAITING
    step = plan.step(standing.activity)
    lane = plan.lane(standing.lane or "") or (None if step is None else plan.lane(step.lane))
    titles = (None if step is None else step.title, None if lane is None else lane.title)
    return next((title for title in titles if title), standing.activity)
