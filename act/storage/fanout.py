"""How far the ledger has been published, and who publishes now. Functions that take an open transaction.

Unlike a relay's cursor on an outbox, a position in the ledger is safe. Indexes have no gap, and who appends holds the
append lock until the commit: whoever sees index n sees all before it, and no smaller one can appear later.

The lease is for efficiency only. It is taken and checked by the database's own clock; a publisher that was stopped in
between and goes on after it has lost the lease sends some events again, and cannot move the position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, bindparam, exists, insert, literal, null, or_, select, update

from act.contract import event_bytes
from act.storage.clock import now_ms
from act.storage.tables import events, fanout

_THIS = fanout.c.name == bindparam("this")
_UNTIL = now_ms() + bindparam("lease_ms", type_=BigInteger)
_POSITION = select(fanout.c.position).where(_THIS)
_BEGIN = insert(fanout).from_select(
    ["name", "position", "lease_until_ms"],
    select(bindparam("this", type_=fanout.c.name.type), literal(0), literal(0)).where(
        ~exists(select(fanout.c.name).where(_THIS))
    ),
)
_CLAIM = (
    update(fanout)
    .where(_THIS, or_(fanout.c.holder == bindparam("me"), fanout.c.lease_until_ms <= now_ms()))
    .values(holder=bindparam("me"), lease_until_ms=_UNTIL)
    .returning(fanout.c.position)
)
_MINE = update(fanout).where(_THIS, fanout.c.holder == bindparam("me"))
_MOVE = _MINE.values(position=bindparam("to"), lease_until_ms=_UNTIL)
_LEAVE = _MINE.values(position=bindparam("to"), holder=null(), lease_until_ms=0)
_PAGE = (
    select(events.c.idx, events.c.event_id, events.c.plan, events.c.lane, events.c.status, events.c.entry)
    .where(events.c.idx >= bindparam("first"))
    .order_by(events.c.idx)
    .limit(bindparam("count", type_=BigInteger))
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event that is to be published.

    Attributes:
        index: its place in the ledger.
        event_id: its id.
        plan: its plan's name, if it has one.
        lane: its lane, if it has one.
        status: its status.
        raw: its bytes as they were posted.
    """

    index: int
    event_id: str
    plan: str | None
    lane: str | None
    status: str
    raw: bytes


def position_of(tx: Connection, *, name: str) -> int:
    """Return the index that is published next; 0 where nothing has been."""
    return tx.execute(_POSITION, {"this": name}).scalar_one_or_none() or 0


def claim(tx: Connection, *, name: str, holder: str, lease_ms: int) -> int | None:
    """Become the publisher, or stay it; return the position, or None while somebody else is.

    Args:
        tx: a writer's transaction.
        name: of the position: each exchange has its own.
        holder: this process, unlike every other one.
        lease_ms: how long the others leave it alone, milliseconds.
    """
    tx.execute(_BEGIN, {"this": name})
    return tx.execute(_CLAIM, {"this": name, "me": holder, "lease_ms": lease_ms}).scalar_one_or_none()


def move(tx: Connection, *, name: str, holder: str, position: int, lease_ms: int) -> bool:
    """Note how far it is published and renew the lease; False where somebody else publishes now."""
    moved = tx.execute(_MOVE, {"this": name, "me": holder, "to": position, "lease_ms": lease_ms})
    return moved.rowcount == 1


def leave(tx: Connection, *, name: str, holder: str, position: int) -> None:
    """Note how far it is published and let another one go on; nothing where somebody else publishes already."""
    tx.execute(_LEAVE, {"this": name, "me": holder, "to": position})


def next_events(tx: Connection, *, position: int, count: int) -> Sequence[Outgoing]:
    """Return the ``count`` events from ``position`` on, or fewer at the ledger's end.

    Raises:
        LookupError: one is missing in between. What is behind a hole is never published: it could not be mended.
    """
    rows = tx.execute(_PAGE, {"first": position, "count": count}).all()
    if rows and rows[-1].idx != position + len(rows) - 1:
        raise LookupError(f"the ledger has a hole at or after index {position}: verify it")
    return [Outgoing(row.idx, row.event_id, row.plan, row.lane, row.status, event_bytes(row.entry)) for row in rows]
