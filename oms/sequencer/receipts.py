"""What OMS holds against the ledger: how a job stands, and ACT's receipt for each of its events.

It shows nothing of the citizen's, so that an auditor can compare the two services without seeing any of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, select

from oms.domain.errors import InvalidInputError
from oms.sequencer.wishes import no_job, number_of
from oms.storage.tables import jobs, outbox, tasks


def receipts_view(connection: Connection, job_id: str, *, limit: int, cursor: str | None) -> dict[str, Any]:
    """Return a job, its tasks and up to ``limit`` of its receipts in the events' order, all of one moment.

    The job is as its event number ``seq`` left it: the first ``seq`` events of its stream add up to this.

    Raises:
        NotFoundError: there is no such job.
        InvalidInputError: the cursor is none of ours.
    """
    after = 0 if cursor is None else number_of(f"cursor-{cursor}", "cursor-")
    if after is None:
        raise InvalidInputError("cursor: take it from next_cursor of the page before, or leave it out.")
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
    events = connection.execute(
        select(outbox.c.seq, outbox.c.body, outbox.c.delivered, outbox.c.ledger_index, outbox.c.leaf_hash)
        .where(outbox.c.stream == job_id, outbox.c.seq > after)
        .order_by(outbox.c.seq)
        .limit(limit + 1)
    ).all()
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
        "items": [
            {
                "event_id": f"{job_id}.{event.seq}",
                "event_sha256": hashlib.sha256(event.body).hexdigest(),
                "delivered": event.delivered,
                "index": event.ledger_index,
                "leaf_hash": None if event.leaf_hash is None else event.leaf_hash.hex(),
            }
            for event in events[:limit]
        ],
        "next_cursor": str(events[limit - 1].seq) if len(events) > limit else None,
    }
