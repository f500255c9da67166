"""What all verbs on one task share: how a task is named, found and answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from oms.domain.errors import NotFoundError, UnavailableError
from oms.domain.task import Job, Task
from oms.storage.jobs import lock_named_jobs
from oms.storage.tasks import lock_tasks
from oms.storage.transaction import Transaction

_MAX_DIGITS = 18  # what a signed 64-bit column holds for sure


class AboutTask(Protocol):
    """A wish about one task, named as people name it: ``TASK-55``."""

    @property
    def task_id(self) -> str:
        """The task's name."""


class AboutJob(Protocol):
    """A wish about one job, named as people name it: ``JOB-7``."""

    @property
    def job_id(self) -> str:
        """The job's name."""


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """How a task and its job stand after a verb."""

    task_id: str
    status: str
    job_id: str
    job_state: str


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """How a job stands after a verb on the job itself."""

    job_id: str
    state: str


def number_of(name: str, prefix: str) -> int | None:
    """Return the number in a name such as ``TASK-55``; None where the name cannot be one."""
    digits = name.removeprefix(prefix)
    if digits == name or not (digits.isascii() and digits.isdecimal()) or len(digits) > _MAX_DIGITS:
        return None
    return int(digits) if digits[0] != "0" else None


def is_about_task(wish: object) -> TypeGuard[AboutTask]:
    """Whether a wish names a task."""
    return hasattr(wish, "task_id")


def is_about_job(wish: object) -> TypeGuard[AboutJob]:
    """Whether a wish names a job."""
    return hasattr(wish, "job_id")


def lock_wished(tx: Transaction, wishes: Sequence[AboutTask]) -> None:
    """Lock and read, in two statements, all the tasks that ``wishes`` are about, and their jobs."""
    numbers = {number_of(wish.task_id, "TASK-") for wish in wishes}
    lock_tasks(tx, sorted(number for number in numbers if number is not None))


def lock_wished_jobs(tx: Transaction, wishes: Sequence[AboutJob]) -> None:
    """Lock and read, in one statement, all the jobs that ``wishes`` are about."""
    numbers = {number_of(wish.job_id, "JOB-") for wish in wishes}
    lock_named_jobs(tx, sorted(number for number in numbers if number is not None))


def is_busy(tx: Transaction, wishes: Sequence[object]) -> bool:
    """Whether another transaction works, at this moment, on a job that one of ``wishes`` is about."""
    if not tx.busy and not tx.busy_jobs:
        return False
    return any(
        (is_about_task(wish) and number_of(wish.task_id, "TASK-") in tx.busy)
        or (is_about_job(wish) and number_of(wish.job_id, "JOB-") in tx.busy_jobs)
        for wish in wishes
    )


def wished_task(tx: Transaction, task_id: str) -> tuple[Task, Job]:
    """Return a task that was locked by `lock_wished`, and its job.

    Raises:
        NotFoundError: there is no such task.
        UnavailableError: another transaction works on its job at this moment.
    """
    number = number_of(task_id, "TASK-")
    if number in tx.busy:
        raise UnavailableError("Another tower works on this task's job at this moment; try again.")
    task = None if number is None else tx.tasks.get(number)
    if task is None:
        raise no_task(task_id)
    return task, tx.jobs[task.job_id]


def wished_job(tx: Transaction, job_id: str) -> Job:
    """Return a job that was locked by `lock_wished_jobs`.

    Raises:
        NotFoundError: there is no such job.
        UnavailableError: another transaction works on it at this moment.
    """
    number = number_of(job_id, "JOB-")
    job = None if number is None else tx.jobs.get(number)
    if job is None and number in tx.busy_jobs:
        raise UnavailableError("Another tower works on this job at this moment; try again.")
    if job is None:
        raise no_job(job_id)
    return job


def no_task(task_id: str) -> NotFoundError:
    """Return what to raise where a name is no task's."""
    return NotFoundError(f"There is no task {task_id[:80]!r}; a task's id reads TASK-55 and comes with /pull.")


def no_job(job_id: str) -> NotFoundError:
    """Return what to raise where a name is no job's."""
    return NotFoundError(f"There is no job {job_id[:80]!r}; a job's id reads JOB-123 and comes with /start.")


def answer(task: Task, job: Job) -> TaskAnswer:
    """Return how the two stand now."""
    return TaskAnswer(task_id=task.name, status=task.status, job_id=job.name, job_state=job.state)
