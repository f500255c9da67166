"""The shapes of lanes under control: paused, capped, and moved in bulk; and of why a task does not move."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from oms.api.schemas import Answered, Body, Name, Person, Reason
from oms.sequencer.reroute_many import MAX_MOVED


class WhereBody(Body):
    """Which tasks; every key that is given narrows it, and one at least must be."""

    lane: Name | None = None
    plan: Name | None = None
    status: Literal["queued", "running", "failed"] | None = Field(default=None, description="without it: any of these")
    older_than_sec: float | None = Field(
        default=None, ge=0, le=1e10, allow_inf_nan=False, description="made at least so many seconds ago"
    )
    worker: Person | None = Field(default=None, description="who has it, or had it when it failed")

    @model_validator(mode="after")
    def _narrows(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise PydanticCustomError("empty", "give at least one of lane, plan, status, older_than_sec and worker")
        return self


class RerouteManyBody(Body):
    """Move many tasks to another lane."""

    where: WhereBody
    new_lane: Name
    reason: Reason = Field(description="kept in the ledger for ever: never personal data")
    max: int = Field(default=MAX_MOVED, ge=1, le=MAX_MOVED, description="how many at most")
    dry_run: bool = Field(default=False, description="true: nothing moves; tasks are those that would")
    actor: Person | None = None


class ReroutedManyAnswer(Answered):
    """What moved."""

    matched: int = Field(description="how many tasks are meant and may move, max at most")
    moved: int
    tasks: list[str] = Field(description="those that moved; with dry_run, those that would")
    more: bool = Field(description="there are more: say the same again")
    warning: str | None = Field(default=None, description="only there when nobody may be there to take the tasks")


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
