"""The shapes of what managers do to jobs, and of where a job stands."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from oms.api.schemas import Answered, Body, JobSummary, Name, Person, Reason, TaskId, TaskView, Ticket


class ControlBody(Body):
    """Why, and who says so; both are kept in the ledger for ever."""

    reason: Reason | None = Field(default=None, description="never personal data")
    actor: Person | None = Field(default=None, description="who asks for it")


class RestartBody(ControlBody):
    """From which activity on."""

    start: Name = Field(alias="from", description="an activity of the job's plan")


class SignalBody(Body):
    """Something happened outside."""

    name: Name = Field(description="the signal's name in the plan's wait")
    data: dict[str, Any] = Field(default={}, description="the wait's output")
    signal_id: Ticket | None = Field(default=None, description="with it, the same event counts once")
    actor: Person | None = None


class SkipBody(Body):
    """What a manager gives in a worker's stead."""

    task_id: TaskId
    output: dict[str, Any] = Field(description="what the activity would have given")
    reason: Reason = Field(description="kept in the ledger for ever: never personal data")
    actor: Person | None = None


class BranchView(Answered):
    """A run of a list of steps that is under way, or has failed."""

    at: str = Field(examples=["2.1"])
    name: str = Field(description="the branch's name in the plan; the number of an item, from 0, or a round, from 1")
    state: str
    step: int = Field(description="the entry of its list that it is at, from 0")
    task_id: str | None
    item: Any = Field(description="of a for_each: the item")


class BlockView(Answered):
    """A block that a job is in."""

    at: str = Field(examples=["2"], description="entry of the sequence, then branch, entry and so on")
    kind: str
    name: str | None
    state: str
    total: int
    begun: int
    done: int
    failed: int
    since: str
    due_at: str | None = Field(description="when a wait's time is up")
    signal: str | None = Field(description="what a wait waits for")
    job_id: str | None = Field(description="the job that a plan block runs")
    branches: list[BranchView]


class JobView(JobSummary):
    """A job with all it has."""

    input: dict[str, Any]
    tasks: list[TaskView]
    outputs: dict[str, Any]
    blocks: list[BlockView] = Field(description="the blocks that it is in, the outer ones first")
