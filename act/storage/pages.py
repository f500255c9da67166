"""Read the ledger page by page. Functions that take an open transaction of a reader.

A page costs what it shows, whatever the ledger's size: a job is read along its stream, a lane or a status along its
index, and a span of time skips the blocks without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, bindparam, func, select

from act.contract import LANE_PREFIX, STATUSES
from act.domain.entry import Entry
from act.domain.filters import Filters
from act.storage.entries import size_of
from act.storage.tables import BLOCK_EVENTS, blocks, events

Key = tuple[str | None, str]
"""A lane (None: the entries that have none) and a status."""

_CHUNK = 500
_ALWAYS_MS = (-(2**62), 2**62)

_COLUMNS = [events.c[field.name] for field in fields(Entry)]
_BETWEEN = events.c.idx.between(bindparam("first"), bindparam("last"))
_TIMED = (events.c.ts_ms >= bindparam("since")) & (events.c.ts_ms < bindparam("until"))
_COUNT: BindParameter[int] = bindparam("count")

_JOB_PAGE = (
    select(*_COLUMNS)
    .where(events.c.stream == bindparam("job"), events.c.seq > bindparam("after_seq"))
    .order_by(events.c.seq)
    .limit(_COUNT)
)
_SEQ_AT = select(func.max(events.c.seq)).where(events.c.stream == bindparam("job"), events.c.idx <= bindparam("after"))
_HAS_JOB = select(events.c.idx).where(events.c.stream == bindparam("job"), events.c.seq == 1)
_RANGE = select(*_COLUMNS).where(_BETWEEN).order_by(events.c.idx).limit(_COUNT)
_TIMED_RANGE = select(*_COLUMNS).where(_BETWEEN, _TIMED).order_by(events.c.idx).limit(_COUNT)
_BY_INDEX = select(*_COLUMNS).where(events.c.idx.in_(bindparam("indexes", expanding=True))).order_by(events.c.idx)
_NEXT_LANE = select(func.min(events.c.lane)).where(events.c.lane > bindparam("lane"))
_CLOSED = select(func.max(blocks.c.block))
_BLOCKS = (
    select(blocks.c.block)
    .where(
        blocks.c.block.between(bindparam("first"), bindparam("last")),
        blocks.c.max_ts_ms >= bindparam("since"),
        blocks.c.min_ts_ms < bindparam("until"),
    )
    .order_by(blocks.c.block)
)


def has_job(tx: Connection, job: str) -> bool:
    """Tell whether the ledger has an event of the job."""
    # A lane's events are a stream too, and no job.
    return not job.startswith(LANE_PREFIX) and has_stream(tx, job)


def has_stream(tx: Connection, stream: str) -> bool:
    """Tell whether the ledger has an event of the stream."""
    # With a NUL PostgreSQL would not even take the question.
    return "\0" not in stream and tx.execute(_HAS_JOB, {"job": stream}).first() is not None


def seq_at(tx: Connection, job: str, *, after: int) -> int:
    """Return the ``seq`` of the job's last event up to the index ``after``; 0 where it had none by then."""
    seq: int | None = tx.execute(_SEQ_AT, {"job": job, "after": after}).scalar_one()
    return seq or 0


def job_page(tx: Connection, job: str, *, after_seq: int, count: int) -> list[Entry]:
    """Return the job's next ``count`` entries after ``after_seq``, oldest first; fewer at its end."""
    found = tx.execute(_JOB_PAGE, {"job": job, "after_seq": after_seq, "count": count})
    return [Entry(*row) for row in found]


def ledger_page(tx: Connection, filters: Filters, *, after: int, last: int, count: int) -> list[Entry]:
    """Return the first ``count`` entries that the filters admit, oldest first; fewer where there are no more.

    Args:
        tx: a reader's transaction.
        filters: any but ``job``.
        after: the index that they come after; -1 for the first page.
        last: the index that they end with.
        count: how many at most.
    """
    page: list[Entry] = []
    for first_of_run, last_of_run in _runs(tx, filters, after=after, last=last):
        page += _run_page(tx, filters, first_of_run, last_of_run, count - len(page))
        if len(page) == count:
            break
    return page


def latest(tx: Connection, filters: Filters, *, after: int) -> list[Entry]:
    """Return the newest entry of each lane and status that the filters admit, oldest first. Not for one job."""
    last = size_of(tx) - 1
    runs = list(_runs(tx, filters, after=after, last=last))[::-1]
    lanes: Sequence[str | None] = filters.lanes or [*_lanes(tx), None]
    found = [
        newest
        for lane in lanes
        for status in filters.statuses or STATUSES
        if (newest := _newest(tx, filters, (lane, status), runs)) is not None
    ]
    return _entries(tx, sorted(found))


def _run_page(tx: Connection, filters: Filters, first: int, last: int, count: int) -> list[Entry]:
    """Return the first ``count`` entries in one run of indexes."""
    among = {"first": first, "last": last, "count": count, **_times(filters)}
    if not filters.lanes and not filters.statuses:
        return [Entry(*row) for row in tx.execute(_TIMED_RANGE if filters.is_timed else _RANGE, among)]
    # Each lane and status is one range of an index, in order; the page is the first of all of them together.
    indexes: list[int] = []
    for lane in filters.lanes or (None,):
        for status in filters.statuses or STATUSES:
            statement = _indexes(has_lane=lane is not None, is_timed=filters.is_timed)
            indexes += tx.execute(statement, {**among, "lane": lane, "status": status}).scalars()
    indexes.sort()
    return _entries(tx, indexes[:count])


def _newest(tx: Connection, filters: Filters, key: Key, runs: Sequence[tuple[int, int]]) -> int | None:
    """Return the newest index of a lane and status in the runs, the last of which is first."""
    lane, status = key
    statement = _last_index(has_lane=lane is not None, is_timed=filters.is_timed)
    for first, last in runs:
        found: int | None = tx.execute(
            statement, {"lane": lane, "status": status, "first": first, "last": last, **_times(filters)}
        ).scalar()
        if found is not None:
            return found
    return None


def _entries(tx: Connection, indexes: Sequence[int]) -> list[Entry]:
    """Return the entries at the indexes, which ascend."""
    found: list[Entry] = []
    for at in range(0, len(indexes), _CHUNK):
        found += (Entry(*row) for row in tx.execute(_BY_INDEX, {"indexes": indexes[at : at + _CHUNK]}))
    return found


def _lanes(tx: Connection) -> Iterator[str]:
    """Yield every lane, one step of its index each."""
    lane: str | None = ""
    while (lane := tx.execute(_NEXT_LANE, {"lane": lane}).scalar_one()) is not None:
        yield lane


def _runs(tx: Connection, filters: Filters, *, after: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of indexes (both ends in) past ``after`` that may hold the filters' times, ascending."""
    first = after + 1
    if not filters.is_timed:
        if first <= last:
            yield first, last
        return
    run: tuple[int, int] | None = None
    for block in _blocks(tx, filters, first=first, last=last):
        start, end = max(first, block * BLOCK_EVENTS), min(last, (block + 1) * BLOCK_EVENTS - 1)
        if run is not None and run[1] + 1 == start:
            run = (run[0], end)
            continue
        if run is not None:
            yield run
        run = (start, end)
    if run is not None:
        yield run


def _blocks(tx: Connection, filters: Filters, *, first: int, last: int) -> Iterator[int]:
    """Yield the blocks between two indexes that may hold the filters' times; those not yet full always may."""
    if first > last:
        return
    among = {"first": first // BLOCK_EVENTS, "last": last // BLOCK_EVENTS}
    yield from tx.execute(_BLOCKS, {**among, **_times(filters)}).scalars()
    closed: int | None = tx.execute(_CLOSED).scalar_one()
    open_from = 0 if closed is None else closed + 1
    yield from range(max(among["first"], open_from), among["last"] + 1)


def _times(filters: Filters) -> dict[str, Any]:
    since, until = _ALWAYS_MS
    return {
        "since": since if filters.since_ms is None else filters.since_ms,
        "until": until if filters.until_ms is None else filters.until_ms,
    }


@cache
def _indexes(*, has_lane: bool, is_timed: bool) -> Select[int]:
    """Return the statement for the first indexes of one lane (or of all of them) and status."""
    lane = [events.c.lane == bindparam("lane")] if has_lane else []
    return _of_key(lane, is_timed=is_timed).order_by(events.c.idx).limit(_COUNT)


@cache
def _last_index(*, has_lane: bool, is_timed: bool) -> Select[int]:
    """Return the statement for the last index of one lane (or of no lane) and status."""
    lane = events.c.lane == bindparam("lane") if has_lane else events.c.lane.is_(None)
    # By the lane first: PostgreSQL does not see that an index is in order past a column that IS NULL.
    return _of_key([lane], is_timed=is_timed).order_by(events.c.lane.desc(), events.c.idx.desc()).limit(1)


def _of_key(lane: list[ColumnElement[bool]], *, is_timed: bool) -> Select[int]:
    statement: Select[int] = select(events.c.idx).where(*lane, events.c.status == bindparam("status"), _BETWEEN)
    return statement.where(_TIMED) if is_timed else statement
