"""An event as a row of a table: what CSV and Parquet have as columns."""

from __future__ import annotations

from act.export.rows import Row

Value = int | str | bytes | None

COLUMNS = (
    "index",
    "received_us",
    "ts_ms",
    "event_id",
    "type",
    "stream",
    "seq",
    "job_id",
    "plan",
    "plan_version",
    "reference",
    "task_id",
    "activity",
    "lane",
    "status",
    "attempt",
    "worker",
    "actor",
    "detail",
    "extra",
    "leaf_hash",
)


def values_of(row: Row) -> tuple[Value, ...]:
    """Return the row's values, in the order of `COLUMNS`."""
    facts = row.facts
    return (
        facts.idx,
        facts.received_us,
        facts.ts_ms,
        facts.event_id,
        row.type,
        facts.stream,
        facts.seq,
        facts.job_id,
        facts.plan,
        facts.plan_version,
        facts.reference,
        facts.task_id,
        facts.activity,
        facts.lane,
        facts.status,
        facts.attempt,
        facts.worker,
        facts.actor,
        facts.detail,
        facts.extra,
        row.leaf_hash,
    )
