"""The events that were refused because other bytes have their place. Functions that take an open transaction.

Each is kept once, with its bytes: a producer that keeps trying adds nothing. They are no entries, and in no tree: what
two histories of one job say differently is for somebody to look into, and both sides of it must be there for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select

from act.domain.errors import ForkError
from act.storage.tables import forks

MAX_FORKS = 10_000
"""Past so many none is kept any more: they are counted and logged still, and whoever posts them fills no disk."""

_COUNT = select(func.coalesce(func.max(forks.c.number) + 1, 0))
_HAS = select(forks.c.number).where(
    forks.c.stream == bindparam("of_stream"),
    forks.c.seq == bindparam("of_seq"),
    forks.c.sha256 == bindparam("of_sha256"),
)
_AFTER = select(forks).where(forks.c.number > bindparam("after")).order_by(forks.c.number).limit(bindparam("count"))
_NEWEST = select(forks).order_by(forks.c.number.desc()).limit(bindparam("count"))


@dataclass(frozen=True, slots=True)
class Fork:
    """An event that was refused.

    Attributes:
        number: from 0 up, in the order in which they came.
        stream: whose place it claims.
        seq: which place.
        idx: the entry that has the place; None where both stood in one batch, of which nothing was taken.
        refused_us: when, by ACT's clock, microseconds since the epoch.
        event: its bytes.
    """

    number: int
    stream: str
    seq: int
    idx: int | None
    refused_us: int
    event: bytes

    @property
    def event_id(self) -> str:
        """The event's id: stream and place."""
        return f"{self.stream}.{self.seq}"

    @property
    def sha256(self) -> bytes:
        """The digest of its bytes."""
        return hashlib.sha256(self.event).digest()


def add_fork(tx: Connection, refused: ForkError, *, now_us: int) -> None:
    """Keep an event that is refused, unless it is kept already, or `MAX_FORKS` are.

    Args:
        tx: a writer's, with the append lock.
        refused: the refusal.
        now_us: ACT's clock, microseconds since the epoch.
    """
    number, sha256 = count_forks(tx), hashlib.sha256(refused.event).digest()
    place = {"of_stream": refused.stream, "of_seq": refused.seq, "of_sha256": sha256}
    if number >= MAX_FORKS or tx.execute(_HAS, place).first() is not None:
        return
    row = {
        "number": number,
        "stream": refused.stream,
        "seq": refused.seq,
        "idx": refused.ledger_index,
        "refused_us": now_us,
        "sha256": sha256,
        "event": refused.event,
    }
    tx.execute(insert(forks), [row])


def count_forks(tx: Connection) -> int:
    """Return how many are kept."""
    return int(tx.execute(_COUNT).scalar_one())


def forks_after(tx: Connection, number: int, *, count: int) -> Sequence[Fork]:
    """Return those that come after the one of this number (-1: from the first), at most ``count``."""
    return [_fork(row) for row in tx.execute(_AFTER, {"after": number, "count": count}).mappings()]


def newest_forks(tx: Connection, count: int) -> Sequence[Fork]:
    """Return the newest, newest first."""
    return [_fork(row) for row in tx.execute(_NEWEST, {"count": count}).mappings()]


def _fork(row: RowMapping) -> Fork:
    return Fork(row["number"], row["stream"], row["seq"], row["idx"], row["refused_us"], bytes(row["event"]))
