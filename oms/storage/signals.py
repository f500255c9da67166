"""Keep what came for jobs from outside, until a wait has use for it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, null, select, update

from hmskit.prepared import Prepared, insert_rows
from oms.storage.tables import signals
from oms.storage.transaction import Transaction

_ADD = insert_rows(signals, ["job_id", "name", "signal_id", "data", "created_at"])
_KNOWN = Prepared(
    select(signals.c.name, signals.c.data).where(
        signals.c.job_id == bindparam("this_job"), signals.c.signal_id == bindparam("this_signal")
    ),
    ["this_job", "this_signal"],
)
_UNUSED = Prepared(
    select(signals.c.id, signals.c.data)
    .where(
        signals.c.job_id == bindparam("this_job"),
        signals.c.name == bindparam("this_name"),
        signals.c.used_by == null(),
    )
    .order_by(signals.c.id)
    .limit(bindparam("limit")),
    ["this_job", "this_name", "limit"],
)
_USE = Prepared(
    update(signals).where(signals.c.id == bindparam("this_id")).values(used_by=bindparam("path")), ["path", "this_id"]
)


@dataclass(frozen=True, slots=True)
class KeptSignal:
    """An event from outside: its name, and its data as canonical JSON."""

    name: str
    data: str


def add_signal(tx: Transaction, *, job_id: int, signal: KeptSignal, signal_id: str | None) -> None:
    """Keep an event for a locked job."""
    _ADD.many(tx.connection, [(job_id, signal.name, signal_id, signal.data, tx.now_ms)])


def known_signal(tx: Transaction, *, job_id: int, signal_id: str) -> KeptSignal | None:
    """Return the event that came under an id before."""
    rows = _KNOWN.rows(tx.connection, job_id, signal_id)
    return KeptSignal(*rows[0]) if rows else None


def use_signal(tx: Transaction, *, job_id: int, name: str, path: str) -> str | None:
    """Let the oldest event of a name that nothing has used serve the wait at ``path``; return its data."""
    rows = _UNUSED.rows(tx.connection, job_id, name, 1)
    if not rows:
        return None
    number, data = rows[0]
    _USE.many(tx.connection, [(path, number)])
    return str(data)
