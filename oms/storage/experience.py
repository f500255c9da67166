"""What jobs and tasks took, for estimates: the ways of finished jobs, and how long tasks waited and were worked on.

Small tables with a bound: so many ways of each plan, so many samples of each activity in a lane. Nothing here is of a
citizen, and nothing must arrive: what is lost makes an estimate a little older.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, select, text, update

from oms.domain.eta_history import MAX_JOBS, PastJob, Visit
from oms.domain.task import JobState, Task, TaskStatus
from oms.storage.tables import (
    BATCHED,
    READY,
    WAITING,
    durations,
    jobs,
    lane_controls,
    lane_counts,
    tasks,
    ways,
    workers,
)
from oms.storage.transaction import Dialect, Transaction, in_list

MAX_SAMPLES = 200
"""So many of the newest durations are kept of an activity in a lane."""
MAX_TRIMMED = 500
MAX_AHEAD = 10_000
"""Further tasks ahead are not counted."""

Place = tuple[str, str, str]
"""A plan, an activity and a lane."""


class Finished(NamedTuple):
    """A job that is done. Times are milliseconds since the epoch; ``events``: how many there are of it."""

    job_id: int
    plan: str
    plan_version: int
    created_at: int
    finished_at: int
    events: int


class TimedTask(NamedTuple):
    """A task that is done, and when. ``started_at`` and ``ended_at`` are None where an older release did it."""

    task_id: int
    job_id: int
    plan: str
    plan_version: int
    activity: str
    lane: str
    created_at: int
    started_at: int | None
    ended_at: int | None


class Way(NamedTuple):
    """What a finished job went through."""

    job_id: int
    plan: str
    job: PastJob


class Samples(NamedTuple):
    """What the last tasks of an activity took in a lane, in milliseconds, the newest last."""

    wait_ms: list[int]
    work_ms: list[int]


_FINISHED = (
    select(jobs.c.job_id, jobs.c.plan, jobs.c.plan_version, jobs.c.created_at, jobs.c.finished_at, jobs.c.seq)
    .where(jobs.c.finished_at > bindparam("since"), jobs.c.state == JobState.DONE.value)
    .order_by(jobs.c.finished_at.desc(), jobs.c.job_id.desc())
    .limit(bindparam("limit"))
)
_KNOWN = select(ways.c.job_id).where(in_list(ways.c.job_id, bindparam("ids")))
_TIMED = select(
    tasks.c.task_id,
    tasks.c.job_id,
    jobs.c.plan,
    jobs.c.plan_version,
    tasks.c.activity,
    tasks.c.lane,
    tasks.c.created_at,
    tasks.c.started_at,
    tasks.c.ended_at,
).join(jobs, jobs.c.job_id == tasks.c.job_id)
_OF_JOBS = _TIMED.where(in_list(tasks.c.job_id, bindparam("ids")), tasks.c.status == TaskStatus.DONE.value)
_BY_NUMBER = _TIMED.where(in_list(tasks.c.task_id, bindparam("ids")), tasks.c.status == TaskStatus.DONE.value)
# Both databases know these words; SQLAlchemy's own insert does not.
_ADD_WAY = text(
    "INSERT INTO ways (job_id, plan, finished_at, way) VALUES (:job_id, :plan, :finished_at, :way)"
    " ON CONFLICT (job_id) DO NOTHING"
)
_TOO_MANY = (
    select(ways.c.job_id)
    .where(ways.c.plan == bindparam("this_plan"))
    .order_by(ways.c.finished_at.desc(), ways.c.job_id.desc())
    .limit(MAX_TRIMMED)
    .offset(MAX_JOBS)
    .with_for_update(skip_locked=True)
)
_TRIM = delete(ways).where(ways.c.job_id.in_(_TOO_MANY))
_THIS_PLACE = (
    durations.c.plan == bindparam("this_plan"),
    durations.c.activity == bindparam("this_activity"),
    durations.c.lane == bindparam("this_lane"),
)
# Another tower that adds is not waited for: verbs share this transaction, and samples are not worth their time.
_LOCK_SAMPLES = select(durations).where(*_THIS_PLACE).with_for_update(skip_locked=True)
_HAS_SAMPLES = select(durations.c.samples).where(*_THIS_PLACE)
_ADD_SAMPLES = text(
    "INSERT INTO durations (plan, activity, lane, wait_ms, work_ms, samples, updated_at)"
    " VALUES (:this_plan, :this_activity, :this_lane, :wait_ms, :work_ms, :samples, :updated_at)"
    " ON CONFLICT (plan, activity, lane) DO NOTHING"
)
_UPDATE_SAMPLES = update(durations).where(*_THIS_PLACE)
_NEWEST = (
    select(ways.c.finished_at, ways.c.job_id)
    .where(ways.c.plan == bindparam("this_plan"))
    .order_by(ways.c.finished_at.desc(), ways.c.job_id.desc())
    .limit(bindparam("limit"))
)
_WAYS = (
    select(ways.c.finished_at, ways.c.way)
    .where(ways.c.plan == bindparam("this_plan"))
    .order_by(ways.c.finished_at.desc(), ways.c.job_id.desc())
    .limit(MAX_JOBS)
)
_SAMPLES = select(durations).where(durations.c.plan == bindparam("this_plan"))
_SAMPLES_MARK = select(func.max(durations.c.updated_at), func.sum(durations.c.samples)).where(
    durations.c.plan == bindparam("this_plan")
)
_COUNTS = (
    select(lane_counts.c.lane, func.sum(lane_counts.c.queued), func.sum(lane_counts.c.running))
    .where(in_list(lane_counts.c.lane, bindparam("lanes")))
    .group_by(lane_counts.c.lane)
)
_SEEN = (
    select(workers.c.lane, func.count())
    .where(in_list(workers.c.lane, bindparam("lanes")), workers.c.last_seen > bindparam("since"))
    .group_by(workers.c.lane)
)
_PAUSED = select(lane_controls.c.lane).where(
    in_list(lane_controls.c.lane, bindparam("lanes")), lane_controls.c.paused_at.is_not(None)
)


def finished_since(connection: Connection, since_ms: int, *, limit: int) -> list[Finished]:
    """Return the ``limit`` newest jobs that were done after ``since_ms``, the newest first."""
    return [Finished(*row) for row in connection.execute(_FINISHED, {"since": since_ms, "limit": limit})]


def known_ways(connection: Connection, dialect: Dialect, ids: Sequence[int]) -> set[int]:
    """Return those of the jobs whose way is kept."""
    return set(connection.execute(_KNOWN, {"ids": dialect.list_parameter(list(ids))}).scalars())


def timed_tasks(
    connection: Connection, dialect: Dialect, *, job_ids: Sequence[int] = (), task_ids: Sequence[int] = ()
) -> list[TimedTask]:
    """Return the tasks that are done of jobs, and those that are among ``task_ids``."""
    found: list[TimedTask] = []
    for statement, ids in ((_OF_JOBS, job_ids), (_BY_NUMBER, task_ids)):
        if ids:
            rows = connection.execute(statement, {"ids": dialect.list_parameter(list(ids))})
            found += [TimedTask(*row) for row in rows]
    return found


def add_ways(tx: Transaction, found: Iterable[Way]) -> None:
    """Keep what finished jobs went through; of each plan the newest. Those that are known stay as they are."""
    rows: list[dict[str, Any]] = [
        {"job_id": way.job_id, "plan": way.plan, "finished_at": way.job.finished_at_ms, "way": _written(way.job)}
        for way in found
    ]
    if not rows:
        return
    # In one order, so that towers that add the same never wait for each other in a ring.
    tx.connection.execute(_ADD_WAY, sorted(rows, key=itemgetter("job_id")))
    for plan in sorted({row["plan"] for row in rows}):
        tx.connection.execute(_TRIM, {"this_plan": plan})


def add_samples(tx: Transaction, found: Mapping[Place, Samples]) -> None:
    """Add what tasks took to what is kept of their activities in their lanes; the newest of it stay.

    What goes where another transaction is adding at this moment, is lost.
    """
    for place in sorted(found):
        new = found[place]
        this = dict(zip(("this_plan", "this_activity", "this_lane"), place, strict=True))
        row = tx.connection.execute(_LOCK_SAMPLES, this).one_or_none()
        if row is None and tx.connection.execute(_HAS_SAMPLES, this).first() is not None:
            continue
        wait_ms, work_ms = (json.loads(row.wait_ms), json.loads(row.work_ms)) if row is not None else ([], [])
        values = {
            "wait_ms": json.dumps([*wait_ms, *new.wait_ms][-MAX_SAMPLES:]),
            "work_ms": json.dumps([*work_ms, *new.work_ms][-MAX_SAMPLES:]),
            "samples": (0 if row is None else row.samples) + len(new.wait_ms),
            "updated_at": tx.now_ms,
        }
        if row is None:
            tx.connection.execute(_ADD_SAMPLES, {**this, **values})
        else:
            tx.connection.execute(_UPDATE_SAMPLES.values(values), this)


def forget_experience(tx: Transaction, *, until_ms: int) -> int:
    """Delete what was last added before ``until_ms``; return how many rows went."""
    return sum(
        tx.connection.execute(delete(table).where(column <= until_ms)).rowcount
        for table, column in ((ways, ways.c.finished_at), (durations, durations.c.updated_at))
    )


def newest_way(connection: Connection, plan: str) -> tuple[int, int] | None:
    """Return when the newest kept job of a plan was done, and its number: a mark that changes when one is added."""
    row = connection.execute(_NEWEST, {"this_plan": plan, "limit": 1}).one_or_none()
    return None if row is None else (row.finished_at, row.job_id)


def ways_of(connection: Connection, plan: str) -> list[PastJob]:
    """Return what the finished jobs of a plan went through, the newest first."""
    return [_read(row.finished_at, row.way) for row in connection.execute(_WAYS, {"this_plan": plan})]


def samples_mark(connection: Connection, plan: str) -> tuple[int, int]:
    """Return a mark that changes when samples of a plan are added."""
    row = connection.execute(_SAMPLES_MARK, {"this_plan": plan}).one()
    return (row[0] or 0, row[1] or 0)


def samples_of(connection: Connection, plan: str) -> dict[str, Samples]:
    """Return by lane what the last tasks of a plan took."""
    found: dict[str, Samples] = {}
    for row in connection.execute(_SAMPLES, {"this_plan": plan}):
        samples = found.setdefault(row.lane, Samples([], []))
        samples.wait_ms.extend(json.loads(row.wait_ms))
        samples.work_ms.extend(json.loads(row.work_ms))
    return found


class LaneState(NamedTuple):
    """How many tasks of a lane are queued and running, how many workers were seen, and whether it is paused."""

    queued: int
    running: int
    workers: int
    is_paused: bool


def lane_states(
    connection: Connection, dialect: Dialect, lanes: Sequence[str], *, since_ms: int
) -> dict[str, LaneState]:
    """Return how each of ``lanes`` stands; workers count that polled after ``since_ms``."""
    these = {"lanes": dialect.list_parameter(list(lanes))}
    counts = {lane: (int(queued), int(running)) for lane, queued, running in connection.execute(_COUNTS, these)}
    seen: dict[str, int] = dict(map(tuple, connection.execute(_SEEN, {**these, "since": since_ms})))
    paused = set(connection.execute(_PAUSED, these).scalars())
    return {
        lane: LaneState(*counts.get(lane, (0, 0)), workers=seen.get(lane, 0), is_paused=lane in paused)
        for lane in lanes
    }


def tasks_ahead(connection: Connection, task: Task) -> int:
    """Return how many queued tasks of its lane are handed out before a queued task; at most `MAX_AHEAD`.

    Each part is one range of an index, in its order.
    """
    lane = tasks.c.lane == task.lane
    before, same = tasks.c.available_at < task.available_at, tasks.c.available_at == task.available_at
    if task.ready:
        ours = tasks.c.priority == task.priority
        parts = [
            (lane, READY, tasks.c.priority > task.priority),
            (lane, READY, ours, before),
            (lane, READY, ours, same, tasks.c.task_id < task.task_id),
        ]
    elif task.batch_at is not None:  # in the order in which the batch lets in
        ours, batch = tasks.c.priority == task.priority, tasks.c.batch_at
        parts = [
            (lane, BATCHED, tasks.c.priority > task.priority),
            (lane, BATCHED, ours, batch < task.batch_at),
            (lane, BATCHED, ours, batch == task.batch_at, tasks.c.task_id < task.task_id),
        ]
    else:
        parts = [(lane, WAITING, same, tasks.c.task_id < task.task_id)]
    ahead = 0
    for part in parts:
        some = select(tasks.c.task_id).where(*part).limit(MAX_AHEAD).subquery()
        ahead += int(connection.execute(select(func.count()).select_from(some)).scalar_one())
    return min(ahead, MAX_AHEAD)


def _written(job: PastJob) -> str:
    visits: list[Sequence[Any]] = [
        (visit.activity, visit.lane, visit.queued_ms, visit.ended_ms, visit.wait_ms, visit.work_ms)
        for visit in job.visits
    ]
    return json.dumps({"length_ms": job.length_ms, "visits": visits}, ensure_ascii=False, separators=(",", ":"))


def _read(finished_at_ms: int, way: str) -> PastJob:
    found = json.loads(way)
    return PastJob(finished_at_ms, found["length_ms"], tuple(Visit(*visit) for visit in found["visits"]))
