"""What must be true of the rows that OMS keeps, whatever has left."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, func, select

from oms.domain.task import FINISHED, JobState
from oms.storage.tables import jobs, lane_counts, outbox, tasks


def faults_of(connection: Connection) -> list[str]:
    """Return what does not fit together: rows without their job, holes in a stream, counts that are not their lists."""
    faults = []
    kept = {row.job_id: row for row in connection.execute(select(jobs))}
    for row in kept.values():
        expected = row.updated_at if JobState(row.state) in FINISHED else None
        if row.finished_at != expected:
            faults.append(f"JOB-{row.job_id} is {row.state}, and finished at {row.finished_at}, not {expected}")
    with_tasks = set(connection.execute(select(tasks.c.job_id)).scalars())
    faults += [f"a task of JOB-{number}, which is gone" for number in with_tasks - kept.keys()]
    places: dict[str, list[int]] = {}
    for stream, seq in connection.execute(select(outbox.c.stream, outbox.c.seq).order_by(outbox.c.id)):
        places.setdefault(stream, []).append(seq)
    expected_places = {f"JOB-{row.job_id}": list(range(1, row.seq + 1)) for row in kept.values()}
    if places != expected_places:
        faults.append(f"events {places}, not {expected_places}")
    if not counts_are_lists(connection):
        faults.append("the lanes' counts are not their lists")
    return faults


def counts_are_lists(connection: Connection) -> bool:
    """Tell whether what is counted of each lane is what it holds."""
    counted: Counter[tuple[str, str]] = Counter()
    for row in connection.execute(select(lane_counts)):
        counted[row.lane, "queued"] += row.queued
        counted[row.lane, "running"] += row.running
    listed = {
        (row.lane, row.status): row.number
        for row in connection.execute(
            select(tasks.c.lane, tasks.c.status, func.count().label("number"))
            .where(tasks.c.status.in_(("queued", "running")))
            .group_by(tasks.c.lane, tasks.c.status)
        )
    }
    return {key: count for key, count in counted.items() if count} == listed
