"""Statements that the databases run alike, but for a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    Text,
    bindparam,
    exists,
    literal_column,
    null,
    or_,
    select,
    update,
)

from hmskit.prepared import Prepared
from oms.storage.tables import CONTROLLED, READY, lane_controls, lane_counts, tasks, workers
from oms.storage.transaction import in_rows, job_is_free

Insert = Callable[[Any], Any]
"""A dialect's own ``insert``, which knows ``ON CONFLICT``."""


def add_counts(insert: Insert) -> Prepared:
    """Return the statement that adds to a row of the lanes' counts."""
    names = ["lane", "shard", "queued", "running"]
    added = insert(lane_counts).values({name: bindparam(name) for name in names})
    return Prepared(
        added.on_conflict_do_update(
            index_elements=["lane", "shard"],
            set_={
                "queued": lane_counts.c.queued + added.excluded.queued,
                "running": lane_counts.c.running + added.excluded.running,
            },
        ),
        names,
    )


def see_worker(insert: Insert) -> Prepared:
    """Return the statement that notes when a worker polled a lane."""
    names = ["lane", "worker", "last_seen"]
    seen = insert(workers).values({name: bindparam(name) for name in names})
    return Prepared(
        seen.on_conflict_do_update(index_elements=["lane", "worker"], set_={"last_seen": seen.excluded.last_seen}),
        names,
    )


def is_open() -> ColumnElement[bool]:
    """Return the condition that a task's window, if it has one, is not over at ``now``."""
    return or_(tasks.c.closes_at.is_(None), tasks.c.closes_at > bindparam("now"))


def _due() -> Select[Any]:
    """Select the ready tasks of a lane in the pull's order, without those that other transactions work on.

    None of a lane that is paused or capped, but for who has looked at that. So nobody need look where there is none.
    """
    is_controlled = exists(
        select(literal_column("1")).where(lane_controls.c.lane == bindparam("this_lane"), CONTROLLED)
    )
    is_admitted = or_(bindparam("is_admitted", type_=Boolean()), ~is_controlled)
    return (
        select(tasks.c.task_id)
        .where(tasks.c.lane == bindparam("this_lane"), READY, is_open(), is_admitted, job_is_free())
        .order_by(tasks.c.priority.desc(), tasks.c.available_at, tasks.c.task_id)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True)
    )


def claim(*, random_text: str) -> Prepared:
    """Return the statement that leases ready tasks.

    Args:
        random_text: an expression that gives another one for every row: the attempt's token.
    """
    lease_ms = tasks.c.lease_sec.cast(BigInteger) * literal_column("1000")
    return Prepared(
        update(tasks)
        .where(in_rows(tasks.c.task_id, _due().scalar_subquery()))
        .values(
            status=literal_column("'running'"),
            attempt=tasks.c.attempt + literal_column("1"),
            token=literal_column(random_text),
            ended_by=null(),
            worker=bindparam("worker", type_=Text()),
            progress=null(),
            note=null(),
            stalls_at=null(),
            stall_from=null(),
            stalled_at=null(),
            started_at=bindparam("now", type_=BigInteger()),
            lease_expires_at=bindparam("now", type_=BigInteger()) + lease_ms,
        )
        .returning(*tasks.c),
        ["now", "this_lane", "limit", "is_admitted", "worker"],
    )
