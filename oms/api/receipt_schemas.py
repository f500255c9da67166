"""The shapes of what auditors are shown of a job, and of a lane."""

from __future__ import annotations

from pydantic import Field

from oms.api.schemas import Answered, JobStands, Query
from oms.domain.task import TaskStatus


class ReceiptsQuery(Query):
    """Which of a job's receipts."""

    limit: int = Field(default=1000, ge=1, le=10_000, description="how many on a page")
    cursor: str | None = Field(default=None, max_length=40, description="next_cursor of the page before")


class TaskStands(Answered):
    """What the ledger's events must add up to, of a task."""

    task_id: str
    activity: str
    lane: str
    status: TaskStatus
    attempt: int


class ReceiptView(Answered):
    """An event of the job, and where ACT says that the ledger has it."""

    event_id: str = Field(examples=["JOB-123.17"])
    event_sha256: str = Field(description="of the event's bytes as OMS holds them, hex")
    delivered: bool = Field(description="ACT has acknowledged it; false: it waits, or is sent again")
    index: int | None = Field(description="the ledger's index; null before the first acknowledgement")
    leaf_hash: str | None = Field(description="what binds these bytes to that index, hex")


class ReceiptsView(JobStands):
    """A job as auditors see it, all of one moment: how it stands after its last event, and ACT's receipts."""

    seq: int = Field(description="the place of its last event")
    tasks: list[TaskStands]
    items: list[ReceiptView]
    next_cursor: str | None


class LaneStream(Answered):
    """A lane that has events of its own: it was paused once at least."""

    lane: str
    paused: bool
    seq: int = Field(description="the place of its last event")


class LaneStreamsView(Answered):
    """All of them."""

    items: list[LaneStream]


class LaneReceiptsView(LaneStream):
    """A lane as auditors see it, all of one moment; its old events may have left OMS."""

    items: list[ReceiptView]
    next_cursor: str | None
