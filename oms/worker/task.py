"""A task in a worker's hands."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self

DATE_RESOLUTION_SEC = 1.0
"""A ``Date`` header names whole seconds, cut off: the server's clock may be so much ahead of it."""
LEAST_LEASE_SEC = 0.3


@dataclass(eq=False, slots=True)
class Task:
    """One attempt of one activity, as ``GET /pull`` handed it out.

    Attributes:
        task_id: ``TASK-55``.
        job_id: ``JOB-123``.
        plan: the plan's id.
        activity: what is to be done.
        lane: where it was queued.
        reference: the job's ticket.
        attempt: which hand-out this is, from 1.
        token: the boarding pass of this attempt.
        priority: higher goes first.
        input: the job's input.
        outputs: what the earlier activities gave, by activity.
        lease_expires_at: RFC 3339, by the server's clock.
        lease_sec: how long the lease lasts from the answer that gave it on, about.
        progress: set it in a handler, 0 to 1: the next heartbeat tells OMS.
        note: set it in a handler, a short sentence: the next heartbeat tells OMS. No personal data.
    """

    task_id: str
    job_id: str
    plan: str
    activity: str
    lane: str
    reference: str
    attempt: int
    token: str
    priority: int
    input: dict[str, Any]
    outputs: dict[str, Any]
    lease_expires_at: str
    lease_sec: float
    progress: float | None = None
    note: str | None = None
    _lost: threading.Event = field(default_factory=threading.Event, repr=False)

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], *, server_now: datetime) -> Self:
        """Return the task that an answer of ``GET /pull`` holds.

        Args:
            answer: as it came.
            server_now: from `server_time`.
        """
        payload = answer["payload"]
        return cls(
            task_id=answer["task_id"],
            job_id=answer["job_id"],
            plan=answer["plan"],
            activity=answer["activity"],
            lane=answer["lane"],
            reference=answer["reference"],
            attempt=answer["attempt"],
            token=answer["token"],
            priority=answer["priority"],
            input=payload["input"],
            outputs=payload["outputs"],
            lease_expires_at=answer["lease_expires_at"],
            lease_sec=lease_sec(answer["lease_expires_at"], server_now),
        )

    @property
    def lost(self) -> bool:
        """Whether the attempt is no longer this worker's: it was rerouted, or its lease ran out.

        A long handler looks at it now and then and returns early; what it returns then is dropped.
        """
        return self._lost.is_set()

    def lose(self) -> None:
        """Mark the attempt as no longer this worker's."""
        self._lost.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake up when the task is lost; return whether it is."""
        return self._lost.wait(seconds)


def server_time(date_header: str | None) -> datetime:
    """Return the server's time at its answer, by its ``Date`` header; without one, the time of the answer here.

    The local clock may be wrong by hours, and then every lease would look over, or endless.
    """
    if date_header is not None:
        try:
            told = parsedate_to_datetime(date_header)
        except ValueError:
            pass
        else:
            return (told if told.tzinfo else told.replace(tzinfo=UTC)) + timedelta(seconds=DATE_RESOLUTION_SEC)
    return datetime.fromtimestamp(time.time(), UTC)


def lease_sec(expires_at: str, server_now: datetime) -> float:
    """Return how long a lease lasts from now on, seconds; at least `LEAST_LEASE_SEC`."""
    left = datetime.fromisoformat(expires_at) - server_now
    return max(left.total_seconds(), LEAST_LEASE_SEC)
