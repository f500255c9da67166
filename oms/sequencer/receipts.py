"""What OMS holds against the ledger: how a job or a lane stands, and ACT's receipt for each of its events.

It shows nothing of the citizen's, so that an auditor can compare the two services without seeing any of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, select

from oms.domain.errors import InvalidInputError, NotFoundError
from oms.sequencer.events import lane_stream
from oms.sequencer.wishes import no_job, number_of
from oms.storage.lane_controls import all_controls
from oms.storage.tables import jobs, outbox, tasks


def receipts_view(connection: Connection, job_id: str, *, limit: int, cursor: str | None) -> dict[str, Any]:
    """Return a job, its tasks and up to ``limit`` of its receipts in the events' order, all of one moment.

    The job is as its event number ``seq`` left it: the first ``seq`` events of its stream add up to this.

    Raises:
        NotFoundError: there is no such job.
        InvalidInputError: the cursor is none of ours.
    """
    after = _after(cursor)
    number = number_of(job_id, "JOB-")
    wanted = select(jobs.c.state, jobs.c.seq).where(jobs.c.job_id == number)
    job = None if number is None else connection.execute(wanted).one_or_none()
    if job is None:
        raise no_job(job_id)
    its_tasks = connection.execute(
        select(tasks.c.task_id, tasks.c.activity, tasks.c.lane, tasks.c.status, tasks.c.attempt)
        .where(tasks.c.job_id == number)
        .order_by(tasks.c.task_id)
    )
    items, next_cursor = _receipts(connection, job_id, after=after, limit=limit)
    return {
        "job_id": job_id,
        "state": job.state,
        "seq": job.seq,
        "tasks": [
            {
                "task_id": f"TASK-{task.task_id}",
                "activity": task.activity,
                "lane": task.lane,
                "status": task.status,
                "attempt": task.attempt,
            }
            for task in its_tasks
        ],
        "items": items,
        "next_cursor": next_cursor,
    }


def lane_streams_view(connection: Connection) -> dict[str, Any]:
    """Return every lane that has events of its own, and how many."""
    return {
        "items": [
            {"lane": lane, "paused": control.paused_at is not None, "seq": control.seq}
            for lane, control in all_controls(connection).items()
            if control.seq
        ]
    }


def lane_receipts_view(connection: Connection, lane: str, *, limit: int, cursor: str | None) -> dict[str, Any]:
    """Return whether a lane is paused, and up to ``limit`` of its receipts in the events' order, all of one moment.

    Its old events have left (docs/retention.md): those that are there begin with any.

    Raises:
        NotFoundError: the lane has no events of its own.
        InvalidInputError: the cursor is none of ours.
    """
    after = _after(cursor)
    control = all_controls(connection).get(lane)
    if control is None or not control.seq:
        raise NotFoundError(f"The lane {lane!r} was never paused; GET /lanes/receipts lists those that were.")
    items, next_cursor = _receipts(connection, lane_stream(lane), after=after, limit=limit)
    return {
        "lane": lane,
        "paused": control.paused_at is not None,
        "seq": control.seq,
        "items": items,
        "next_cursor": next_cursor,
    }


def _after(cursor: str | None) -> int:
    after = 0 if cursor is None else number_of(f"cursor-{cursor}", "cursor-")
    if after is None:
        raise InvalidInputError("cursor: take it from next_cursor of the page before, or leave it out.")
    return after


def _receipts(
    connection: Connection, stream: str, *, after: int, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Return what OMS holds of a stream's next events, and the cursor behind them."""
    events = connection.execute(
        select(outbox.c.seq, outbox.c.body, outbox.c.delivered, outbox.c.ledger_index, outbox.c.leaf_hash)
        .where(outbox.c.stream == stream, outbox.c.seq > after)
        .order_by(outbox.c.seq)
        .limit(limit + 1)
    ).all()
    items = [
        {
            "event_id": f"{stream}.{event.seq}",
            "event_sha256": hashlib.sha256(event.body).hexdigest(),
            "delivered": event.delivered,
            "index": event.ledger_index,
            "leaf_hash": None if event.leaf_hash is None else event.leaf_hash.hex(),
        }
        for event in events[:limit]
    ]
    return items, str(events[limit - 1].seq) if len(events) > limit else None
