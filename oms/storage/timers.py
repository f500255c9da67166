"""Durable timers: what is to be done for a job, and when.

A timer is taken in the transaction that does what it is for, under the job's lock: so that happens once, over any
number of towers, and not at all where the transaction falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select

from hmskit.prepared import Prepared, insert_rows
from oms.storage.set_aside import Key
from oms.storage.tables import timers
from oms.storage.transaction import Transaction, in_list, in_rows, left_alone

_ADD = insert_rows(timers, ["due_at", "job_id", "path", "kind"])
_DUE = Prepared(
    select(timers.c.id, timers.c.job_id, timers.c.path, timers.c.kind)
    .where(timers.c.due_at <= bindparam("now"), ~left_alone(timers.c.job_id))
    .order_by(timers.c.due_at, timers.c.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["now", "without", "limit"],
)
_TAKE = Prepared(delete(timers).where(in_list(timers.c.id, bindparam("ids"))), ["ids"])
_OF_PLACE = select(timers.c.id).where(
    timers.c.job_id == bindparam("this_job"),
    timers.c.path == bindparam("this_path"),
    in_list(timers.c.kind, bindparam("kinds")),
)
_CLEAR = Prepared(
    # One that a sweep looks at goes off for nothing: to wait here for the sweep's end, it might wait for this one's.
    delete(timers).where(in_rows(timers.c.id, _OF_PLACE.with_for_update(skip_locked=True).scalar_subquery())),
    ["this_job", "this_path", "kinds"],
)
_NEXT = Prepared(select(timers.c.due_at).order_by(timers.c.due_at).limit(bindparam("limit")), ["limit"])


@dataclass(frozen=True, slots=True)
class Timer:
    """Something to do for a job: ``kind`` says what, ``path`` where in it."""

    id: int
    job_id: int
    path: str
    kind: str


def add_timer(tx: Transaction, *, due_at: int, job_id: int, path: str, kind: str) -> None:
    """Set a timer, milliseconds since the epoch."""
    _ADD.many(tx.connection, [(due_at, job_id, path, kind)])
    tx.due_now = tx.due_now or due_at <= tx.now_ms


def due_timers(tx: Transaction, *, limit: int, without: Sequence[Key]) -> list[Timer]:
    """Return up to ``limit`` timers whose time has come, the longest ago first, without those of some jobs.

    Those that others look at are left out, too.
    """
    rows = _DUE.rows(tx.connection, tx.now_ms, tx.dialect.list_parameter(list(without)), limit)
    return [Timer(*row) for row in rows]


def take_timers(tx: Transaction, taken: Sequence[Timer]) -> None:
    """Delete timers: what they are for is done in this transaction."""
    _TAKE.many(tx.connection, [(tx.dialect.list_parameter([timer.id for timer in taken]),)] if taken else [])


def clear_timers(tx: Transaction, *, job_id: int, path: str, kinds: Sequence[str]) -> None:
    """Delete the timers of these kinds at a place in a job, but for those that others look at at this moment."""
    _CLEAR.many(tx.connection, [(job_id, path, tx.dialect.list_parameter(list(kinds)))])


def next_timer_ms(tx: Transaction) -> int | None:
    """Return when the next timer is due; None where there is none."""
    rows = _NEXT.rows(tx.connection, 1)
    return rows[0][0] if rows else None
