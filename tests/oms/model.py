"""What OMS must do, written down a second time and as plainly as possible: dictionaries, and no database.

It is what the state machine compares the service with. It knows the three plans below by heart instead of reading
them, so that a fault in the plan's rules shows too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

RENEWAL: dict[str, Any] = {
    "id": "renewal",
    "lanes": [{"id": "a", "lease_sec": 60}, {"id": "b", "lease_sec": 300}, {"id": "c", "lease_sec": 1000}],
    "sequence": ["a", "b", "c"],
    "retry_policy": {"attempts": 2, "backoff_sec": 30},
}
CHECKED: dict[str, Any] = {
    "id": "checked",
    "lanes": [{"id": "a", "lease_sec": 60}, {"id": "b", "lease_sec": 300}, {"id": "c", "lease_sec": 1000}],
    "sequence": [
        {
            "activity": "extract",
            "lane": "a",
            "output_schema": {"type": "object", "required": ["score"], "properties": {"score": {"type": "number"}}},
        },
        {"activity": "check", "lane": "b", "when": "outputs.extract.score < 5"},
        {"activity": "print", "lane": "c", "retry_policy": {"attempts": 1}},
    ],
    "retry_policy": {"attempts": 3, "backoff_sec": 10, "backoff_factor": 2},
}
FRAIL: dict[str, Any] = {
    "id": "frail",
    "lanes": [{"id": "a", "lease_sec": 60}, {"id": "b", "lease_sec": 300}],
    "sequence": ["a", {"activity": "again", "lane": "a", "when": "input.go"}, "b"],
    "retry_policy": {"attempts": 2, "backoff_sec": 0},
}
PLANS = (RENEWAL, CHECKED, FRAIL)
LANES = ("a", "b", "c")
LEASE_SEC = {"a": 60, "b": 300, "c": 1000}


@dataclass(frozen=True)
class Rule:
    """A step: its activity, lane, how often it is tried, and its waits."""

    activity: str
    lane: str
    attempts: int
    backoff_sec: float
    factor: float = 1


RULES = {
    "renewal": [Rule("a", "a", 2, 30), Rule("b", "b", 2, 30), Rule("c", "c", 2, 30)],
    "checked": [Rule("extract", "a", 3, 10, 2), Rule("check", "b", 3, 10, 2), Rule("print", "c", 1, 10, 2)],
    "frail": [Rule("a", "a", 2, 0), Rule("again", "a", 2, 0), Rule("b", "b", 2, 0)],
}

UNDECIDED = object()


@dataclass(frozen=True)
class Refused:
    """A wish that must be refused with that HTTP status."""

    status: int


@dataclass
class ModelTask:
    """A task."""

    number: int
    job: ModelJob
    step: int
    lane: str
    priority: int
    available_at: int
    lease_sec: int
    status: str = "queued"
    attempt: int = 0
    failures: int = 0
    tokens: list[str] = field(default_factory=list)
    lease_expires_at: int | None = None
    worker: str | None = None
    last_end: tuple[str, Any] | None = None
    error: dict[str, str] | None = None
    created_at: int = 0

    @property
    def name(self) -> str:
        return f"TASK-{self.number}"

    @property
    def rule(self) -> Rule:
        return RULES[self.job.plan][self.step]

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands in its lane."""
        return (-self.priority, self.available_at, self.number)


@dataclass
class ModelJob:
    """A job."""

    number: int
    plan: str
    reference: str
    input: dict[str, Any]
    priority: int
    created_at: int
    state: str = "queued"
    step: int = -1
    outputs: dict[str, Any] = field(default_factory=dict)
    tasks: list[ModelTask] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"JOB-{self.number}"


class Model:
    """OMS, as its contract says."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.jobs: list[ModelJob] = []
        self.tasks: list[ModelTask] = []
        self.seen_lanes: set[str] = set()

    def start(self, plan: str, reference: str, data: dict[str, Any], priority: int) -> dict[str, Any] | Refused:
        if plan not in RULES:
            return Refused(404)
        job = next((job for job in self.jobs if (job.plan, job.reference) == (plan, reference)), None)
        created = job is None
        if job is None:
            job = ModelJob(len(self.jobs) + 1, plan, reference, data, priority, self.now_ms)
            self.jobs.append(job)
            self._go_on(job)
        elif job.input != data:
            return Refused(409)
        return {"job_id": job.name, "state": job.state, "plan": plan, "plan_version": 1, "created": created}

    def pull(self, lane: str, limit: int, worker: str | None, *, is_noted: bool) -> list[dict[str, Any]]:
        """Return what must be handed out, all but the tokens, which `handed_out` notes."""
        if worker is not None and is_noted:
            self.seen_lanes.add(lane)
        ready = [task for task in self.tasks if self._is_ready(task, lane)]
        leased = []
        for task in sorted(ready, key=lambda task: task.place)[:limit]:
            task.status, task.worker, task.last_end = "running", worker, None
            task.attempt += 1
            task.lease_expires_at = self.now_ms + task.lease_sec * 1000
            if task.job.state == "queued":
                task.job.state = "running"
            leased.append(
                {
                    "task_id": task.name,
                    "job_id": task.job.name,
                    "plan": task.job.plan,
                    "activity": task.rule.activity,
                    "lane": lane,
                    "reference": task.job.reference,
                    "attempt": task.attempt,
                    "priority": task.priority,
                    "payload": {"input": task.job.input, "outputs": dict(task.job.outputs)},
                    "lease_expires_at": rfc3339(task.lease_expires_at),
                }
            )
        return leased

    def handed_out(self, task_id: str, token: str) -> None:
        """Note the token of a task that was handed out, which only the service can make."""
        assert all(token not in task.tokens for task in self.tasks), "a token comes twice"
        self.tasks[int(task_id.removeprefix("TASK-")) - 1].tokens.append(token)

    def complete(self, task_id: str, output: dict[str, Any], token: str | None) -> dict[str, Any] | Refused:
        task = self._task(task_id)
        if task is None:
            return Refused(404)
        if task.status == "done" and token in (None, task.tokens[-1]) and task.last_end == ("done", output):
            return self._answer(task)
        if not self._holds(task, token):
            return Refused(409)
        if task.rule.activity == "extract" and not isinstance(output.get("score"), int):
            return Refused(422)
        task.status, task.last_end, task.lease_expires_at, task.error = "done", ("done", output), None, None
        task.job.outputs[task.rule.activity] = output
        self._go_on(task.job)
        return self._answer(task)

    def fail(
        self, task_id: str, error: str | dict[str, str], token: str | None, *, retryable: bool
    ) -> dict[str, Any] | Refused:
        task = self._task(task_id)
        if task is None:
            return Refused(404)
        said = {"type": "error", "message": error} if isinstance(error, str) else error
        if task.status != "running" and task.last_end == ("failed", said):
            may_repeat = task.status == "failed" if token is None else token == task.tokens[-1]
            if may_repeat:
                return self._answer(task)
        if not self._holds(task, token):
            return Refused(409)
        task.error = said
        self._end(task, ("failed", said), retryable=retryable)
        return self._answer(task)

    def heartbeat(self, task_id: str, token: str) -> dict[str, Any] | Refused:
        task = self._task(task_id)
        if task is None:
            return Refused(404)
        if not self._holds(task, token):
            return Refused(409)
        task.lease_expires_at = self.now_ms + task.lease_sec * 1000
        return {"lease_expires_at": rfc3339(task.lease_expires_at)}

    def release(self, task_id: str, token: str) -> dict[str, Any] | Refused:
        task = self._task(task_id)
        if task is None:
            return Refused(404)
        if task.status == "queued" and task.tokens and token == task.tokens[-1] and task.last_end == ("released", None):
            return self._answer(task)
        if not self._holds(task, token):
            return Refused(409)
        task.status, task.last_end, task.lease_expires_at, task.worker = "queued", ("released", None), None, None
        return self._answer(task)

    def reroute(self, task_id: str, new_lane: str, priority: int | None) -> dict[str, Any] | Refused:
        task = self._task(task_id)
        if task is None:
            return Refused(404)
        if task.status == "done":
            return Refused(409)
        if task.status == "failed":
            task.failures = 0
        self._queue_at_end(task)
        task.lane = new_lane
        task.lease_sec = LEASE_SEC.get(new_lane, LEASE_SEC[task.rule.lane])
        task.priority = task.priority if priority is None else priority
        answer = {"task_id": task.name, "lane": new_lane, "status": "queued"}
        is_known = new_lane in LANES or new_lane in self.seen_lanes
        return answer if is_known else {**answer, "warning": True}

    def retry(self, task_id: str) -> dict[str, Any] | Refused:
        task = self._task(task_id)
        if task is None:
            return Refused(404)
        if task.status != "failed":
            return Refused(409)
        task.failures = 0
        self._queue_at_end(task)
        return self._answer(task)

    def sweep(self) -> None:
        for task in self.tasks:
            if task.status == "running" and task.lease_expires_at is not None and task.lease_expires_at <= self.now_ms:
                until = rfc3339(task.lease_expires_at)
                who = task.worker or "its worker"
                task.error = {"type": "lease_expired", "message": f"no sign of life from {who} until {until}"}
                self._end(task, ("expired", None), retryable=True)

    def views(self) -> dict[str, dict[str, Any]]:
        """Return each job as ``GET /jobs/{job_id}`` must show it, as far as this knows."""
        return {
            job.name: {
                "job_id": job.name,
                "plan": job.plan,
                "plan_version": 1,
                "reference": job.reference,
                "state": job.state,
                "priority": job.priority,
                "created_at": rfc3339(job.created_at),
                "input": job.input,
                "outputs": job.outputs,
                "tasks": [self._task_view(task) for task in job.tasks],
            }
            for job in self.jobs
        }

    def lanes(self) -> dict[str, tuple[int, int, float | None]]:
        """Return, of each lane that is shown, what is queued, what runs, and how long the oldest has been due."""
        shown = {}
        for lane in {*LANES, *(task.lane for task in self.tasks if task.status in ("queued", "running"))}:
            queued = [task for task in self.tasks if (task.lane, task.status) == (lane, "queued")]
            running = [task for task in self.tasks if (task.lane, task.status) == (lane, "running")]
            since = min((task.available_at for task in queued), default=None)
            oldest = None if since is None else max(0.0, (self.now_ms - since) / 1000)
            shown[lane] = (len(queued), len(running), oldest)
        return shown

    def _task_view(self, task: ModelTask) -> dict[str, Any]:
        expires = task.lease_expires_at
        return {
            "task_id": task.name,
            "job_id": task.job.name,
            "plan": task.job.plan,
            "activity": task.rule.activity,
            "lane": task.lane,
            "status": task.status,
            "attempt": task.attempt,
            "priority": task.priority,
            "worker": task.worker,
            "created_at": rfc3339(task.created_at),
            "available_at": rfc3339(task.available_at),
            "lease_expires_at": None if expires is None else rfc3339(expires),
            "error": task.error,
        }

    def _task(self, task_id: str) -> ModelTask | None:
        return next((task for task in self.tasks if task.name == task_id), None)

    def _is_ready(self, task: ModelTask, lane: str) -> bool:
        return (task.lane, task.status) == (lane, "queued") and task.available_at <= self.now_ms

    def _holds(self, task: ModelTask, token: str | None) -> bool:
        return task.status == "running" and token in (None, task.tokens[-1])

    def _answer(self, task: ModelTask) -> dict[str, Any]:
        return {"task_id": task.name, "status": task.status, "job_id": task.job.name, "job_state": task.job.state}

    def _queue_at_end(self, task: ModelTask) -> None:
        task.status, task.worker, task.lease_expires_at, task.last_end = "queued", None, None, None
        task.available_at = self.now_ms
        if task.job.state == "failed":
            task.job.state = "running"

    def _end(self, task: ModelTask, how: tuple[str, Any], *, retryable: bool) -> None:
        task.failures += 1
        task.last_end, task.lease_expires_at = how, None
        rule = task.rule
        if retryable and task.failures < rule.attempts:
            task.status, task.worker = "queued", None
            task.available_at = self.now_ms + round(1000 * rule.backoff_sec * rule.factor ** (task.failures - 1))
        else:
            task.status = task.job.state = "failed"

    def _go_on(self, job: ModelJob) -> None:
        job.step += 1
        while job.step < len(RULES[job.plan]):
            applies = self._applies(job)
            if applies is UNDECIDED:
                job.state = "failed"
                return
            if applies:
                rule = RULES[job.plan][job.step]
                lease_sec = LEASE_SEC[rule.lane]
                task = ModelTask(len(self.tasks) + 1, job, job.step, rule.lane, job.priority, self.now_ms, lease_sec)
                task.created_at = self.now_ms
                self.tasks.append(task)
                job.tasks.append(task)
                return
            job.step += 1
        job.state = "done"

    def _applies(self, job: ModelJob) -> object:
        if (job.plan, job.step) == ("checked", 1):
            return job.outputs["extract"]["score"] < 5
        if (job.plan, job.step) == ("frail", 1):
            go = job.input.get("go")
            return go if isinstance(go, bool) else UNDECIDED
        return True


def rfc3339(ms: int) -> str:
    """Write a time as the contract asks."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"
