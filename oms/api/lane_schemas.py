"""The shapes of lanes under control: paused, capped, and moved in bulk; and of why a task does not move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from oms.api.schemas import Answered, Body, Person, Reason


class LaneBody(Body):
    """Pause or resume a lane."""

    reason: Reason | None = Field(default=None, description="kept in the ledger for ever: never personal data")
    actor: Person | None = Field(default=None, description="who does it; kept in the ledger")


class LaneStandsAnswer(Answered):
    """Whether the lane is paused now."""

    lane: str
    paused: bool


class RateView(Answered):
    """At most so many hand-outs, in any so many seconds."""

    tasks: int
    per_sec: int


class WorkerSeen(Answered):
    """A named worker of a lane."""

    worker: str
    last_seen: str


class LaneView(Answered):
    """A lane."""

    lane: str
    kind: Literal["machine", "human", "vendor"]
    queued: int
    running: int
    oldest_queued_sec: float | None
    paused: bool = Field(description="it hands out nothing until it is resumed")
    paused_at: str | None
    paused_by: str | None
    pause_reason: str | None
    max_running: int | None = Field(description="how many of its tasks may run at once; null: any number")
    rates: list[RateView] = Field(description="how fast its tasks are handed out at most; each of them holds")
    workers: list[WorkerSeen]


class LanesView(Answered):
    """All lanes."""

    items: list[LaneView]
