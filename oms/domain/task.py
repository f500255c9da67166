"""Jobs and tasks: what they are, what state they may be in, and the one table of what may happen to a task."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from oms.domain.errors import ConflictError, ErasedError, StaleTokenError


class JobState(StrEnum):
    """Where a job stands. ``queued``: nothing of it was handed out yet."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


NEVER_MS = 253_402_300_799_999
"""The last moment that can be written: no clock wakes a task that is available then."""

FINISHED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})
"""Nothing of such a job is queued or running. A failed one may still run again."""


class TaskStatus(StrEnum):
    """Where a task stands. One that waits (backoff) is ``queued``, with ``available_at`` in the future."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Act(StrEnum):
    """What may happen to a task; where it ends an attempt, also how that attempt ended."""

    START = "started"
    COMPLETE = "done"
    FAIL = "failed"
    EXPIRE = "expired"
    RELEASE = "released"
    REROUTE = "rerouted"
    RETRY = "retried"
    SKIP = "skipped"
    CANCEL = "cancelled"
    HEARTBEAT = "heartbeat"


TRANSITIONS: dict[Act, dict[TaskStatus, frozenset[TaskStatus]]] = {
    Act.START: {TaskStatus.QUEUED: frozenset({TaskStatus.RUNNING})},
    Act.COMPLETE: {TaskStatus.RUNNING: frozenset({TaskStatus.DONE})},
    # The retry policy decides which of the two.
    Act.FAIL: {TaskStatus.RUNNING: frozenset({TaskStatus.QUEUED, TaskStatus.FAILED})},
    Act.EXPIRE: {TaskStatus.RUNNING: frozenset({TaskStatus.QUEUED, TaskStatus.FAILED})},
    Act.RELEASE: {TaskStatus.RUNNING: frozenset({TaskStatus.QUEUED})},
    Act.REROUTE: {
        TaskStatus.QUEUED: frozenset({TaskStatus.QUEUED}),
        TaskStatus.RUNNING: frozenset({TaskStatus.QUEUED}),
        TaskStatus.FAILED: frozenset({TaskStatus.QUEUED}),
    },
    Act.RETRY: {TaskStatus.FAILED: frozenset({TaskStatus.QUEUED})},
    Act.SKIP: {
        TaskStatus.QUEUED: frozenset({TaskStatus.DONE}),
        TaskStatus.RUNNING: frozenset({TaskStatus.DONE}),
        TaskStatus.FAILED: frozenset({TaskStatus.DONE}),
    },
    Act.CANCEL: {
        TaskStatus.QUEUED: frozenset({TaskStatus.CANCELLED}),
        TaskStatus.RUNNING: frozenset({TaskStatus.CANCELLED}),
    },
    Act.HEARTBEAT: {TaskStatus.RUNNING: frozenset({TaskStatus.RUNNING})},
}
"""For each act, from which status to which. What is not here is refused with 409."""


@dataclass(slots=True)
class Job:
    """One run of a plan. Times are milliseconds since the epoch.

    Attributes:
        job_id: the number in ``JOB-<n>``.
        position: index of the plan's step that the job is at; -1 before the first.
        seq: the place of its last event in its stream.
        hmac_key: the key of its digests in the ledger; None once it was destroyed.
        error: why it failed, for the people in the house; the ledger does not hold it.
        finished_at: since when it has been done, failed or cancelled; None while it is not.
        parent_job: number of the job of which it is a step; None for one that was started from outside.
        parent_path: where in that job the step is.
        paused_at: since when it is paused; None while it is not.
        paused_state: what it was before it was paused.
        ending: how it will end once what was done is undone, as JSON; None while nothing is being undone.
        restarts: how often it was set to run again from an earlier activity.
        needs_resume: of a paused job: somebody paused it, so that it goes on only when somebody resumes it.
    """

    job_id: int
    plan: str
    plan_version: int
    reference: str
    state: JobState
    priority: int
    input: str
    position: int
    seq: int
    hmac_key: bytes | None
    error: str | None
    created_at: int
    updated_at: int
    finished_at: int | None = None
    parent_job: int | None = None
    parent_path: str | None = None
    paused_at: int | None = None
    paused_state: str | None = None
    ending: str | None = None
    restarts: int = 0
    needs_resume: bool = False

    @property
    def name(self) -> str:
        """Return the id as people see it."""
        return f"JOB-{self.job_id}"

    @property
    def is_erased(self) -> bool:
        """Whether its key was destroyed, and with it all that it held of the citizen's."""
        return self.hmac_key is None


@dataclass(slots=True)
class Task:
    """One activity of one job in one lane. Times are milliseconds since the epoch.

    Attributes:
        task_id: the number in ``TASK-<n>``.
        position: the number of the plan's step.
        ready: it may be handed out now; False while it waits for ``available_at``.
        attempt: number of the last hand-out; 0 before the first. Never reused.
        failures: attempts that failed or expired and still count for the retry policy.
        token: the boarding pass of the last attempt.
        ended_by: how the last attempt ended; None while it runs, or before the first.
        lease_sec: how long an attempt may go without a sign of life.
        error: what the last failed attempt said, for the people in the house.
        output_hmac: digest of the output of a done task, of the error of a failed attempt else.
        output: what a done task gave, canonical JSON.
        branch: path of the run of steps that it belongs to; empty for the plan's sequence itself.
        scope: path of the item whose outputs it sees and adds to; empty for those of the job.
        superseded: the job was restarted before it, or a later round took its place: its output counts no more.
        input: what the worker gets instead of the job's input, canonical JSON; None: the job's.
        held_available_at: its true ``available_at`` while its job is paused; None while it is not.
        closes_at: when the window ends in which it may be handed out; None: never.
        batch_max: how many tasks the batch that it waits for holds at most; None: it waits for none with a limit.
        stalls_at: when it will have been queued for too long; None: never.
        due_at: by when it should be done; None: no such time.
        started_at: when its last attempt was handed out.
        ended_at: when its last attempt ended.
        stall_from: since when the time until ``stalls_at`` is counted.
        stalled_at: when it was told to have been queued for too long; None: it is not, or moves again.
        batch_at: the time of the batch with a limit that it waits for; until it is let in, it is never available.
    """

    task_id: int
    job_id: int
    position: int
    activity: str
    lane: str
    status: TaskStatus
    ready: bool
    attempt: int
    failures: int
    token: str | None
    ended_by: Act | None
    worker: str | None
    priority: int
    lease_sec: int
    created_at: int
    available_at: int
    lease_expires_at: int | None
    error: str | None
    error_type: str | None
    output_hmac: str | None
    output: str | None
    progress: float | None
    note: str | None
    branch: str = ""
    scope: str = ""
    superseded: bool = False
    input: str | None = None
    held_available_at: int | None = None
    closes_at: int | None = None
    batch_max: int | None = None
    stalls_at: int | None = None
    due_at: int | None = None
    started_at: int | None = None
    ended_at: int | None = None
    stall_from: int | None = None
    stalled_at: int | None = None
    batch_at: int | None = None

    @property
    def name(self) -> str:
        """Return the id as people see it."""
        return f"TASK-{self.task_id}"


def check_allowed(act: Act, task: Task) -> None:
    """Return if ``act`` may happen to ``task`` now.

    Raises:
        ConflictError: its status forbids it.
    """
    if task.status not in TRANSITIONS[act]:
        allowed = " or ".join(sorted(TRANSITIONS[act]))
        raise ConflictError(f"{task.name} is {task.status}; this needs a task that is {allowed}.")


def key_of(job: Job) -> bytes:
    """Return the key of the job's digests.

    Raises:
        ErasedError: it was destroyed.
    """
    if job.hmac_key is None:
        raise ErasedError(
            f"The data of {job.name} was erased: it cannot run again, and nothing can be compared with it any more. "
            "Start another job with a reference of its own."
        )
    return job.hmac_key


def check_holder(act: Act, task: Task, token: str | None) -> None:
    """Return if whoever shows ``token`` holds the task's running attempt. Without a token, whoever asks does.

    Raises:
        StaleTokenError: the token is of another attempt than the one that runs.
        ConflictError: no attempt runs.
    """
    if token is not None and token != task.token:
        raise StaleTokenError(
            f"The token is of an earlier attempt of {task.name}, or of none: the task was taken back or handed to "
            "another worker. Drop this work and pull again."
        )
    if token is not None and task.status is not TaskStatus.RUNNING:
        how = task.ended_by or task.status
        raise StaleTokenError(f"That attempt of {task.name} has ended ({how}). Drop this work and pull again.")
    check_allowed(act, task)


def is_repeat(act: Act, task: Task, token: str | None, digest: str | None) -> bool:
    """Tell whether this says again what was already done, so that the same answer is due and nothing else.

    The attempt that ended so may say it again (its first answer may have been lost on the way); of a task that
    is through for good, one that shows no token may too.

    Args:
        act: complete, fail or release.
        task: as it is now.
        token: what the sender showed.
        digest: of the output or the error that the sender sent; None where the act has neither.
    """
    if task.status is TaskStatus.RUNNING or task.ended_by is not act or task.output_hmac != digest:
        return False
    if token is None:
        return task.status in (TaskStatus.DONE, TaskStatus.FAILED)
    return token == task.token
