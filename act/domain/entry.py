"""One entry of the ledger as readers see it: the facts in its columns, and the row that ``/stream`` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from act.contract import format_time_ms


@dataclass(frozen=True, slots=True)
class Entry:
    """The facts of one event, and where it is in the ledger.

    Attributes:
        idx: the ledger's index, from 0 without a gap.
        received_us: ACT's clock when it took the event, microseconds since the epoch.
        ts_ms: the event's own time, milliseconds since the epoch.
        entity: what changed: job, task, step or lane.
        detail: JSON text of an object.
        extra: JSON text of the fields of ``data`` that this version does not know; None where there are none.
    """

    idx: int
    received_us: int
    stream: str
    seq: int
    event_id: str
    ts_ms: int
    entity: str
    status: str
    job_id: str | None
    lane: str | None
    plan: str | None
    plan_version: int | None
    reference: str | None
    task_id: str | None
    activity: str | None
    attempt: int | None
    worker: str | None
    actor: str | None
    detail: str
    extra: str | None


def row_of(entry: Entry) -> dict[str, Any]:
    """Return the entry's row, its keys in the order in which people read them."""
    row: dict[str, Any] = {
        "id": entry.idx,
        "status": entry.status,
        "lane": entry.lane,
        "ts": format_time_ms(entry.ts_ms),
        "job_id": entry.job_id,
        "seq": entry.seq,
        "plan": entry.plan,
        "plan_version": entry.plan_version,
        "reference": entry.reference,
        "task_id": entry.task_id,
        "activity": entry.activity,
        "attempt": entry.attempt,
        "worker": entry.worker,
        "actor": entry.actor,
        "detail": from_json(entry.detail),
        "type": f"hms.{entry.entity}.{entry.status}.v1",
        "event_id": entry.event_id,
        "received_at": format_time_ms(entry.received_us // 1000),
    }
    if entry.extra is not None:
        for name, value in from_json(entry.extra).items():
            row.setdefault(name, value)  # a newer field never hides one of the row's own
    return row


def row_json(entry: Entry) -> bytes:
    """Return the entry's row as JSON."""
    return to_json(row_of(entry))
