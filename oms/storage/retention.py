"""Take out what nobody needs any more: finished jobs that ACT has in full, workers and lanes that are gone.

The ledger keeps everything; here a row is kept for as long as somebody may ask OMS for it (docs/retention.md). Each
function looks at a bounded number of rows along an index, so that it costs the same however many there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, delete, exists, func, literal_column, select, tuple_

from hmskit.prepared import Prepared
from oms.domain.task import FINISHED
from oms.storage.tables import (
    LIVE,
    blocks,
    branches,
    jobs,
    lane_counts,
    outbox,
    signals,
    stopped_streams,
    tasks,
    timers,
    workers,
)
from oms.storage.transaction import Transaction, in_list

_FINISHED = Prepared(
    select(jobs.c.finished_at, jobs.c.job_id, jobs.c.state, jobs.c.seq)
    .where(
        jobs.c.finished_at <= bindparam("until"),
        tuple_(jobs.c.finished_at, jobs.c.job_id) > tuple_(bindparam("after_ms"), bindparam("after_job")),
    )
    .order_by(jobs.c.finished_at, jobs.c.job_id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["until", "after_ms", "after_job", "limit"],
)
# Locked, for it is without its job's lock that a stream is sent again.
_EVENTS = Prepared(
    select(outbox.c.stream, outbox.c.delivered).where(in_list(outbox.c.stream, bindparam("streams"))).with_for_update(),
    ["streams"],
)
_STOPPED = Prepared(
    select(stopped_streams.c.stream).where(in_list(stopped_streams.c.stream, bindparam("streams"))), ["streams"]
)
_DELETE_EVENTS = Prepared(delete(outbox).where(in_list(outbox.c.stream, bindparam("streams"))), ["streams"])
_DELETE_TASKS = Prepared(delete(tasks).where(in_list(tasks.c.job_id, bindparam("ids"))), ["ids"])
_DELETE_OF_JOBS = [
    Prepared(delete(table).where(in_list(table.c.job_id, bindparam("ids"))), ["ids"])
    for table in (branches, blocks, signals, timers)
]
_DELETE_JOBS = Prepared(delete(jobs).where(in_list(jobs.c.job_id, bindparam("ids"))), ["ids"])

_UNSEEN = Prepared(
    select(workers.c.lane, workers.c.worker)
    .where(workers.c.last_seen <= bindparam("until"))
    .order_by(workers.c.last_seen)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["until", "limit"],
)
_DELETE_WORKERS = Prepared(
    delete(workers).where(workers.c.lane == bindparam("this_lane"), workers.c.worker == bindparam("this_worker")),
    ["this_lane", "this_worker"],
)

_HOLDS_TASKS = exists(select(literal_column("1")).where(tasks.c.lane == lane_counts.c.lane, LIVE))
_EMPTY_LANES = Prepared(
    select(lane_counts.c.lane)
    .group_by(lane_counts.c.lane)
    .having(func.sum(lane_counts.c.queued) == literal_column("0"))
    .having(func.sum(lane_counts.c.running) == literal_column("0"))
    .having(~_HOLDS_TASKS)
    .limit(bindparam("limit")),
    ["limit"],
)
_LOCK_COUNTS = Prepared(
    select(lane_counts).where(in_list(lane_counts.c.lane, bindparam("lanes"))).with_for_update(skip_locked=True),
    ["lanes"],
)
_HOLDING = Prepared(
    select(lane_counts.c.lane).where(in_list(lane_counts.c.lane, bindparam("lanes")), _HOLDS_TASKS), ["lanes"]
)
_DELETE_COUNTS = Prepared(
    delete(lane_counts).where(lane_counts.c.lane == bindparam("this_lane"), lane_counts.c.shard == bindparam("number")),
    ["this_lane", "number"],
)


class FinishedJob(NamedTuple):
    """A job that is done, failed or cancelled; by its first two fields it has its place among them.

    Attributes:
        finished_at: since when, milliseconds since the epoch.
        job_id: its number.
        state: what it is now. The release before this one runs a job again without clearing ``finished_at``.
        events: how many there are of it.
    """

    finished_at: int
    job_id: int
    state: str
    events: int

    @property
    def is_finished(self) -> bool:
        """Whether it is so still."""
        return self.state in FINISHED


def finished_jobs(tx: Transaction, *, until_ms: int, after: tuple[int, int], limit: int) -> list[FinishedJob]:
    """Return, and lock, up to ``limit`` jobs that have been finished since ``until_ms`` or earlier, the oldest first.

    Those that another transaction holds are left out: it may run them again, or take them out itself.

    Args:
        tx: the open transaction.
        until_ms: milliseconds since the epoch.
        after: ``finished_at`` and ``job_id`` of the job behind which to begin.
        limit: how many.
    """
    return [FinishedJob(*row) for row in _FINISHED.rows(tx.connection, until_ms, *after, limit)]


def undelivered_jobs(tx: Transaction, ids: Sequence[int]) -> set[int]:
    """Return those of ``ids`` of which ACT lacks an event, or whose stream it refuses to go on with.

    The jobs must be locked. Their events are locked here: what is delivered now stays so until the end of ``tx``.
    """
    streams = {f"JOB-{number}": number for number in ids}
    parameter = tx.dialect.list_parameter(list(streams))
    waiting = {stream for stream, delivered in _EVENTS.rows(tx.connection, parameter) if not delivered}
    waiting.update(row[0] for row in _STOPPED.rows(tx.connection, parameter))
    return {streams[stream] for stream in waiting}


def delete_jobs(tx: Transaction, ids: Sequence[int]) -> None:
    """Delete locked, finished jobs with their tasks and events. No live task goes, so that no count changes."""
    numbers = tx.dialect.list_parameter(list(ids))
    _DELETE_EVENTS.many(tx.connection, [(tx.dialect.list_parameter([f"JOB-{number}" for number in ids]),)])
    for statement in (*_DELETE_OF_JOBS, _DELETE_TASKS):
        statement.many(tx.connection, [(numbers,)])
    _DELETE_JOBS.many(tx.connection, [(numbers,)])


def forget_workers(tx: Transaction, *, until_ms: int, limit: int) -> int:
    """Delete up to ``limit`` workers that nobody has seen since ``until_ms``; return how many went."""
    unseen = [tuple(row) for row in _UNSEEN.rows(tx.connection, until_ms, limit)]
    _DELETE_WORKERS.many(tx.connection, unseen)
    return len(unseen)


def forget_lanes(tx: Transaction, *, limit: int) -> int:
    """Delete the counts of up to ``limit`` lanes that hold no task but done ones; return how many lanes went.

    Only rows that are locked go, and only such as add up to nothing: whatever other writers add meanwhile stands in
    rows of its own, so that every sum stays right. And only when, under these locks, the lane still holds no task:
    a lane with one that is not done always has a row, for by these rows the lists of tasks find it.
    """
    empty = [row[0] for row in _EMPTY_LANES.rows(tx.connection, limit)]
    if not empty:
        return 0
    parameter = tx.dialect.list_parameter(empty)
    counts: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for lane, shard, queued, running in _LOCK_COUNTS.rows(tx.connection, parameter):
        counts[lane].append((shard, queued, running))
    holding = {row[0] for row in _HOLDING.rows(tx.connection, parameter)}
    gone = [lane for lane in counts if lane not in holding and _add_up_to_nothing(counts[lane])]
    _DELETE_COUNTS.many(tx.connection, [(lane, shard) for lane in gone for shard, _, _ in counts[lane]])
    return len(gone)


def _add_up_to_nothing(rows: Iterable[tuple[int, int, int]]) -> bool:
    queued, running = 0, 0
    for _, its_queued, its_running in rows:
        queued += its_queued
        running += its_running
    return queued == running == 0
