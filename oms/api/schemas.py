"""The shapes of requests and answers: validated on the way in, published in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from oms.domain.task import JobState, TaskStatus

# Control characters would forge lines in logs, and no database or CloudEvents string takes them all.
_TEXT = r"^[^\x00-\x1f\x7f-\x9f]+$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_TEXT)]
Ticket = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_TEXT)]
Person = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_TEXT)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_TEXT)]
Token = Annotated[str, StringConstraints(min_length=1, max_length=200)]
TaskId = Annotated[str, StringConstraints(min_length=1, max_length=100)]
ErrorType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]


def _without_nul(text: str) -> str:
    """Replace what PostgreSQL keeps in no text: what a traceback holds must not cost a worker its report."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


ErrorMessage = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_without_nul)]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
Trace = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]

MAX_LIST_ITEMS = 1_000
MAX_WAIT_SEC = 60
MAX_PULL = 1_000


class Body(BaseModel):
    """A request's body. JSON says what type a value has, and a key that nobody knows is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StartBody(Body):
    """Run a plan for a reference."""

    plan: Name = Field(description="the plan's id")
    reference: Ticket = Field(description="the ticket of the matter; never personal data")
    input: dict[str, Any] = Field(default={}, description="what the workers get")
    priority: Priority = Field(default=0, description="higher goes first")


class CompleteBody(Body):
    """A task is done."""

    task_id: TaskId
    output: dict[str, Any] = Field(default={}, description="what the activity gave")
    token: Token | None = Field(default=None, description="the boarding pass that came with /pull")
    worker: Person | None = None


class ErrorDetail(Body):
    """What went wrong: ``type`` goes into the ledger, ``message`` stays in OMS."""

    type: ErrorType
    message: ErrorMessage = ""


class FailBody(Body):
    """An attempt failed."""

    task_id: TaskId
    error: ErrorMessage | ErrorDetail = Field(description="a text, or {type, message}")
    retryable: bool = Field(default=True, description="false: no further attempt")
    token: Token | None = None
    worker: Person | None = None


class HeartbeatBody(Body):
    """A sign of life."""

    task_id: TaskId
    token: Token
    progress: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    note: Reason | None = None
    worker: Person | None = None


class ReleaseBody(Body):
    """Give a task back."""

    task_id: TaskId
    token: Token
    reason: Reason | None = None
    worker: Person | None = None


class RerouteBody(Body):
    """Move a task to another lane."""

    task_id: TaskId
    new_lane: Name
    reason: Reason | None = None
    priority: Priority | None = None
    actor: Person | None = None


class RetryBody(Body):
    """Try a failed task again."""

    task_id: TaskId
    reason: Reason | None = None
    actor: Person | None = None


class EraseBody(Body):
    """Destroy what OMS holds of a citizen's in a job."""

    reason: Reason | None = Field(default=None, description="kept in the ledger for ever: never personal data")
    actor: Person | None = Field(default=None, description="who asks for it; kept in the ledger")


class Query(BaseModel):
    """A request's query. A parameter that nobody knows is a mistake: it must not silently change the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PullQuery(Query):
    """Which lane, and how patient."""

    lane: Name = Field(description="the lane to pull from")
    worker: Person | None = Field(default=None, description="who pulls: shown in /lanes and kept in the ledger")
    wait: float = Field(default=0, ge=0, le=MAX_WAIT_SEC, allow_inf_nan=False, description="seconds to wait for work")
    max: int | None = Field(default=None, ge=1, le=MAX_PULL, description="with it: a list of up to so many tasks")


class _PageQuery(Query):
    older_than_sec: float | None = Field(
        default=None, ge=0, le=1e10, allow_inf_nan=False, description="made at least so many seconds ago"
    )
    limit: int = Field(default=50, ge=1, le=1000, description="how many on a page")
    cursor: str | None = Field(default=None, max_length=40, description="next_cursor of the page before")


class JobsQuery(_PageQuery):
    """Which jobs."""

    plan: Name | None = None
    state: JobState | None = None
    reference: Ticket | None = None


class TasksQuery(_PageQuery):
    """Which tasks."""

    lane: Name | None = None
    status: TaskStatus | None = None
    job: TaskId | None = None
    plan: Name | None = None
    reference: Ticket | None = None


class Answered(BaseModel):
    """The base of all answers."""


class StartedAnswer(Answered):
    """The job of the plan and reference."""

    job_id: str = Field(examples=["JOB-123"])
    state: JobState
    plan: str
    plan_version: int
    created: bool = Field(description="false: the job was there already")


class Payload(Answered):
    """What a worker needs."""

    input: dict[str, Any]
    outputs: dict[str, Any] = Field(description="by activity")


class LeasedTaskAnswer(Answered):
    """A task in the worker's hands."""

    task_id: str = Field(examples=["TASK-55"])
    job_id: str
    plan: str
    activity: str
    lane: str
    reference: str
    attempt: int
    token: str
    priority: int
    payload: Payload
    lease_expires_at: str


class TaskAnswered(Answered):
    """How the task and its job stand."""

    task_id: str
    status: TaskStatus
    job_id: str
    job_state: JobState


class HeartbeatAnswer(Answered):
    """Until when the lease goes now."""

    lease_expires_at: str


class ReroutedAnswer(Answered):
    """Where the task is now."""

    task_id: str
    lane: str
    status: TaskStatus
    warning: str | None = Field(default=None, description="only there when nobody may be there to take the task")


class TaskError(Answered):
    """What the last failed attempt said."""

    type: str
    message: str


class TaskView(Answered):
    """A task."""

    task_id: str
    job_id: str
    plan: str
    activity: str
    branch: str | None = Field(description="where in the plan's blocks it is; null in the sequence itself")
    lane: str
    status: TaskStatus
    attempt: int
    priority: int
    worker: str | None
    created_at: str
    available_at: str
    lease_expires_at: str | None
    error: TaskError | None
    progress: float | None
    note: str | None


class JobSummary(Answered):
    """A job."""

    job_id: str
    plan: str
    plan_version: int
    reference: str
    state: JobState
    priority: int
    error: str | None = Field(description="why it failed")
    erased: bool = Field(description="its data was destroyed: input, outputs and error texts are empty")
    parent: str | None = Field(description="the job of which it is a step")
    created_at: str
    updated_at: str


class JobsPage(Answered):
    """A page of jobs, newest first."""

    items: list[JobSummary]
    next_cursor: str | None


class TasksPage(Answered):
    """A page of tasks, oldest first."""

    items: list[TaskView]
    next_cursor: str | None


class JobStands(Answered):
    """How a job stands."""

    job_id: str = Field(examples=["JOB-123"])
    state: JobState


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
    paused: bool
    workers: list[WorkerSeen]


class LanesView(Answered):
    """All lanes."""

    items: list[LaneView]


class PlanVersionView(Answered):
    """A version of a plan."""

    plan_version: int
    in_force: bool
    digest: str
    created_at: str


class PlanSummary(Answered):
    """A plan; ``plan_version`` is the one in force, null where none is."""

    id: str
    plan_version: int | None
    file: str | None
    versions: list[PlanVersionView]
    schedules: list[dict[str, Any]]


class PlanView(PlanSummary):
    """A plan with its document."""

    document: dict[str, Any]


class PlansView(Answered):
    """All plans."""

    items: list[PlanSummary]


class LoadedPlanAnswer(Answered):
    """The version of a plan that is in force now."""

    id: str
    plan_version: int


class RefusedPlanAnswer(Answered):
    """A fault in a plan file."""

    file: str
    line: int
    column: int
    detail: str


class ReloadedAnswer(Answered):
    """What a reload came to."""

    loaded: list[LoadedPlanAnswer]
    refused: list[RefusedPlanAnswer]
    withdrawn: list[str] = Field(description="plans that are in force no more: their files are gone")
