"""Record what happened: an event into the outbox, in the transaction of the change it tells of.

The event takes its place in its job's stream, or its lane's, under the lock of that; the ledger holds facts about the
work, never values.
"""

from __future__ import annotations

from typing import Any

from act.contract import LANE_PREFIX, Entity, encode_event
from oms.domain.lane_control import LaneControl
from oms.domain.paths import entry_path
from oms.domain.plan import Node, Step
from oms.domain.run import Branch
from oms.domain.task import Job, Task
from oms.sequencer.task_events import encode_task_event
from oms.storage.lane_controls import control_changed
from oms.storage.outbox import add_event
from oms.storage.transaction import Transaction

_OF_NO_TASK: dict[str, Any] = {"task_id": None, "activity": None, "lane": None}


def record_task(
    tx: Transaction,
    job: Job,
    task: Task,
    status: str,
    *,
    worker: str | None = None,
    actor: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Record that something happened to a task; ``lane`` and ``attempt`` are the task's own now."""
    job.seq += 1
    tx.job_changed(job)
    body = encode_task_event(
        job,
        task,
        status,
        time_ms=tx.now_ms,
        worker=worker,
        actor=actor,
        detail=detail or {},
        traceparent=tx.trace,
    )
    add_event(tx, stream=job.name, seq=job.seq, body=body)


def record_job(
    tx: Transaction, job: Job, status: str, *, actor: str | None = None, detail: dict[str, Any] | None = None
) -> None:
    """Record that something happened to the job itself."""
    told = {**_OF_NO_TASK, "status": status, "attempt": None, "worker": None, "actor": actor, "detail": detail or {}}
    _record(tx, job, "job", job.name, told)


def record_skipped(tx: Transaction, job: Job, branch: Branch, node: Node) -> None:
    """Record that an entry of a branch was passed over because its ``when`` was false."""
    detail: dict[str, Any] = {"when": None if node.when is None else node.when.source}
    if not (branch.is_sequence and isinstance(node, Step)):
        detail["at"] = entry_path(branch.path, branch.position)
    told = {
        "task_id": None,
        "activity": node.activity if isinstance(node, Step) else getattr(node, "id", None),
        "lane": node.lane if isinstance(node, Step) else None,
        "status": "skipped",
        "attempt": None,
        "worker": None,
        "actor": None,
        "detail": detail,
    }
    _record(tx, job, "step", job.name, told)


def record_lane(
    tx: Transaction,
    control: LaneControl,
    status: str,
    *,
    actor: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Record that something happened to a lane, in the stream of its own; ``control`` is locked."""
    control.seq += 1
    control_changed(tx, control)
    stream = lane_stream(control.lane)
    body = encode_event(
        stream=stream,
        seq=control.seq,
        entity="lane",
        subject=stream,
        time_ms=tx.now_ms,
        traceparent=tx.trace,
        data={
            **dict.fromkeys(("job_id", "plan", "plan_version", "reference", "task_id", "activity")),
            "lane": control.lane,
            "status": status,
            "attempt": None,
            "worker": None,
            "actor": actor,
            "detail": detail or {},
        },
    )
    add_event(tx, stream=stream, seq=control.seq, body=body)


def lane_stream(lane: str) -> str:
    """Return the name of a lane's stream."""
    return f"{LANE_PREFIX}{lane}"


def _record(tx: Transaction, job: Job, entity: Entity, subject: str, told: dict[str, Any]) -> None:
    """Give an event its place in the job's stream. ``told``: the event's data but for what says which job it is of."""
    job.seq += 1
    tx.job_changed(job)
    stream = job.name
    body = encode_event(
        stream=stream,
        seq=job.seq,
        entity=entity,
        subject=subject,
        time_ms=tx.now_ms,
        traceparent=tx.trace,
        data={
            "job_id": stream,
            "plan": job.plan,
            "plan_version": job.plan_version,
            "reference": job.reference,
            **told,
        },
    )
    add_event(tx, stream=stream, seq=job.seq, body=body)
