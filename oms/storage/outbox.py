"""The transactional outbox: events wait here, written with the change they tell of, until ACT has them.

It is never read with a cursor (design rule 4): what is undelivered is what is not marked as delivered, in the
order of the ids; nothing remembers a position that could skip one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, true, update

from act.contract import Receipt
from hmskit.prepared import Prepared
from oms.storage.tables import UNDELIVERED, outbox, stopped_streams
from oms.storage.transaction import Transaction

_PENDING = Prepared(
    select(outbox.c.id, outbox.c.stream, outbox.c.seq, outbox.c.body)
    .where(UNDELIVERED, outbox.c.stream.not_in(select(stopped_streams.c.stream)))
    .order_by(outbox.c.id)
    .limit(bindparam("limit")),
    ["limit"],
)
_MARK = Prepared(
    update(outbox)
    .where(outbox.c.id == bindparam("this_id"))
    .values(delivered=true(), ledger_index=bindparam("ledger_index"), leaf_hash=bindparam("leaf_hash")),
    ["ledger_index", "leaf_hash", "this_id"],
)
_REWIND = (
    update(outbox)
    .where(outbox.c.stream == bindparam("this_stream"), outbox.c.seq >= bindparam("from_seq"))
    .values(delivered=False)
)
_HAS = select(func.count()).where(outbox.c.stream == bindparam("this_stream"), outbox.c.seq == bindparam("this_seq"))
_BACKLOG = select(func.count(), func.min(outbox.c.id)).where(UNDELIVERED)
_CREATED = select(outbox.c.created_at).where(outbox.c.id == bindparam("this_id"))


class Pending(NamedTuple):
    """An event that ACT does not have yet."""

    id: int
    stream: str
    seq: int
    body: bytes


@dataclass(frozen=True, slots=True)
class StoppedStream:
    """A stream that ACT refuses to go on with, and why."""

    stream: str
    event_id: str
    code: str
    detail: str
    since: int


def add_event(tx: Transaction, *, stream: str, seq: int, body: bytes) -> None:
    """Record an event of a job or a lane; it stands or falls with ``tx``.

    Args:
        tx: the open transaction, which has locked what the stream is of.
        stream: ``JOB-123``, or ``LANE-<lane>``.
        seq: its place there.
        body: its final bytes.
    """
    tx.recorded += 1
    tx.new_events.append((stream, seq, body, tx.now_ms, False))


def pending_events(connection: Connection, *, limit: int) -> list[Pending]:
    """Return the oldest events that ACT does not have, without those of stopped streams."""
    return list(map(Pending._make, _PENDING.rows(connection, limit)))


def backlog(connection: Connection) -> tuple[int, int | None]:
    """Return how many events ACT does not have, and when the oldest of them was recorded."""
    count, first = connection.execute(_BACKLOG).one()
    if first is None:
        return 0, None
    return count, connection.execute(_CREATED, {"this_id": first}).scalar_one_or_none()


def mark_delivered(tx: Transaction, delivered: Sequence[tuple[Pending, Receipt]]) -> None:
    """Keep ACT's receipts; these events are not sent again."""
    _MARK.many(
        tx.connection,
        # A bytearray: Python's SQLite driver asks of bytes first whether they are to be adapted.
        [(receipt.index, bytearray.fromhex(receipt.leaf_hash), event.id) for event, receipt in delivered],
    )


def rewind(tx: Transaction, stream: str, *, from_seq: int) -> bool:
    """Send the stream's events from ``from_seq`` on again; False where that one is no longer kept."""
    kept = tx.connection.execute(_HAS, {"this_stream": stream, "this_seq": from_seq}).scalar_one()
    if not kept:
        return False
    tx.connection.execute(_REWIND, {"this_stream": stream, "from_seq": from_seq})
    return True


def stop_stream(tx: Transaction, *, stream: str, event_id: str, code: str, detail: str) -> None:
    """Send nothing more of ``stream`` until `resume_streams`."""
    tx.connection.execute(delete(stopped_streams).where(stopped_streams.c.stream == stream))
    tx.connection.execute(
        insert(stopped_streams),
        {"stream": stream, "event_id": event_id, "code": code, "detail": detail, "since": tx.now_ms},
    )


def stopped(connection: Connection) -> list[StoppedStream]:
    """Return the stopped streams, the longest stopped first."""
    rows = connection.execute(select(stopped_streams).order_by(stopped_streams.c.since, stopped_streams.c.stream))
    return [StoppedStream(*row) for row in rows]


def resume_streams(tx: Transaction) -> int:
    """Try every stopped stream again; return how many there were."""
    return tx.connection.execute(delete(stopped_streams)).rowcount
