"""Record what happened: an event into the outbox, in the transaction of the change it tells of.

The event takes its place in its job under the job's lock; the ledger holds facts about the work, never values.
"""

from __future__ import annotations

from typing import Any

from act.contract import Entity, encode_event
from oms.domain.paths import entry_path
from oms.domain.plan import Node, Step
from oms.domain.run import Branch
from oms.domain.task import Job, Task
from oms.storage.outbox import add_event
from oms.storage.transaction import Transaction


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
    _record(
        tx,
        job,
        entity="task",
        subject=task.name,
        task_id=task.name,
        activity=task.activity,
        lane=task.lane,
        attempt=task.attempt,
        status=status,
        worker=worker,
        actor=actor,
        detail=detail,
    )


def record_job(
    tx: Transaction, job: Job, status: str, *, actor: str | None = None, detail: dict[str, Any] | None = None
) -> None:
    """Record that something happened to the job itself."""
    _record(tx, job, entity="job", subject=job.name, status=status, actor=actor, detail=detail)


def record_skipped(tx: Transaction, job: Job, branch: Branch, node: Node) -> None:
    """Record that an entry of a branch was passed over because its ``when`` was false."""
    detail: dict[str, Any] = {"when": None if node.when is None else node.when.source}
    if not (branch.is_sequence and isinstance(node, Step)):
        detail["at"] = entry_path(branch.path, branch.position)
    _record(
        tx,
        job,
        entity="step",
        subject=job.name,
        activity=node.activity if isinstance(node, Step) else getattr(node, "id", None),
        lane=node.lane if isinstance(node, Step) else None,
        status="skipped",
        detail=detail,
    )


def _record(
    tx: Transaction,
    job: Job,
    *,
    entity: Entity,
    subject: str,
    status: str,
    task_id: str | None = None,
    activity: str | None = None,
    lane: str | None = None,
    attempt: int | None = None,
    worker: str | None = None,
    actor: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    job.seq += 1
    tx.job_changed(job)
    body = encode_event(
        stream=job.name,
        seq=job.seq,
        entity=entity,
        subject=subject,
        time_ms=tx.now_ms,
        traceparent=tx.trace,
        data={
            "job_id": job.name,
            "plan": job.plan,
            "plan_version": job.plan_version,
            "reference": job.reference,
            "task_id": task_id,
            "activity": activity,
            "lane": lane,
            "status": status,
            "attempt": attempt,
            "worker": worker,
            "actor": actor,
            "detail": detail or {},
        },
    )
    add_event(tx, job=job, seq=job.seq, body=body)
