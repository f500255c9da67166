"""Tells OMS what came of the tasks in hand, and does not give up while that can still matter."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oms.worker.backoff import backoff_sec
from oms.worker.client import OmsClient
from oms.worker.errors import OmsClientError, OmsProblem, PermanentError, ReleaseTask
from oms.worker.task import Task

log = logging.getLogger("oms.worker")

ROUND_SEC = 5.0
"""How long one call is tried before it is looked whether to go on."""
AFTER_LEASE_SEC = 30.0
"""An OMS that was down takes an outcome even after its lease: nobody was there to end it."""
MAX_MESSAGE_CHARS = 10_000
_NOT_IN_TYPE = re.compile(r"[^A-Za-z0-9_.:-]+")
_MAX_TYPE_CHARS = 64
_REFUSED_TYPE = "OutputRefused"
_LOST = frozenset({404, 409})
_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Done:
    """The activity's output."""

    output: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed. ``error_type`` goes into the ledger, ``message`` stays in OMS."""

    error_type: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Released:
    """The task goes back to its place."""

    reason: str | None


Outcome = Done | Failed | Released
Pairs = Sequence[tuple[Task, Outcome]]


def as_outcome(result: object) -> Outcome:
    """Return what a handler's result, or its exception, means for the attempt.

    None is an empty output. What is no JSON object fails the attempt: OMS could not keep it.
    """
    if isinstance(result, ReleaseTask):
        return Released(result.reason)
    if isinstance(result, Exception):
        permanent = isinstance(result, PermanentError)
        named = result.error_type if isinstance(result, PermanentError) else None
        return Failed(error_type_of(named or type(result).__name__), _message(result), retryable=not permanent)
    if result is None:
        return Done({})
    try:
        if not isinstance(result, Mapping):
            raise TypeError(f"the handler returned {type(result).__name__}; an output is a dict")
        output = dict(result)
        json.dumps(output, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return as_outcome(error)
    return Done(output)


def error_type_of(name: str) -> str:
    """Return ``name`` as the ledger takes it: 1 to 64 of ``A-Z a-z 0-9 _ . : -``."""
    return _NOT_IN_TYPE.sub("_", name)[:_MAX_TYPE_CHARS] or "error"


def _message(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure itself
        text = f"{type(error).__name__}, and its message cannot be read"
    return text[:MAX_MESSAGE_CHARS].encode("utf-8", "replace").decode()


class Deliverer:
    """Tells OMS the outcomes of one worker's tasks.

    Args:
        client: calls OMS.
        worker: the worker's name.
        give_up: asked while OMS does not answer: is it time to end?
    """

    def __init__(self, client: OmsClient, worker: str, *, give_up: Callable[[], bool]) -> None:
        self.done = 0
        self._client = client
        self._worker = worker
        self._give_up = give_up

    def deliver(self, pairs: Pairs) -> None:
        """Tell OMS what came of each task; tries on for as long as the leases last, and logs what was in vain."""
        self._complete([(task, outcome) for task, outcome in pairs if isinstance(outcome, Done)])
        self._fail([(task, outcome) for task, outcome in pairs if isinstance(outcome, Failed)])
        for task, outcome in pairs:
            if isinstance(outcome, Released):
                self._release(task, outcome)

    def _complete(self, pairs: Sequence[tuple[Task, Done]]) -> None:
        if not pairs:
            return
        items = [
            {"task_id": task.task_id, "output": done.output, "token": task.token, "worker": self._worker}
            for task, done in pairs
        ]
        tasks = [task for task, _ in pairs]
        answers = self._insist(tasks, lambda: self._client.complete_many(items, retry_for_sec=ROUND_SEC))
        if _is_too_large(answers) and len(pairs) > 1:
            middle = len(pairs) // 2
            self._complete(pairs[:middle])
            self._complete(pairs[middle:])
            return
        refused: list[tuple[Task, Failed]] = []
        for task, answer in zip(tasks, answers, strict=True):
            if not isinstance(answer, OmsProblem):
                self.done += 1
            elif not _is_lost(task, answer):
                refused.append((task, Failed(_REFUSED_TYPE, answer.detail[:MAX_MESSAGE_CHARS], retryable=True)))
        self._fail(refused)

    def _fail(self, pairs: Sequence[tuple[Task, Failed]]) -> None:
        if not pairs:
            return
        items = [
            {
                "task_id": task.task_id,
                "error": {"type": failed.error_type, "message": failed.message},
                "retryable": failed.retryable,
                "token": task.token,
                "worker": self._worker,
            }
            for task, failed in pairs
        ]
        for task, failed in pairs:
            log.warning("%s: attempt %d failed: %s", task.task_id, task.attempt, failed.error_type)
        tasks = [task for task, _ in pairs]
        answers = self._insist(tasks, lambda: self._client.fail_many(items, retry_for_sec=ROUND_SEC))
        if _is_too_large(answers) and len(pairs) > 1:
            middle = len(pairs) // 2
            self._fail(pairs[:middle])
            self._fail(pairs[middle:])
            return
        for task, answer in zip(tasks, answers, strict=True):
            if isinstance(answer, OmsProblem) and not _is_lost(task, answer):
                log.error("%s: its failure was refused; its lease will run out: %s", task.task_id, answer)

    def _release(self, task: Task, released: Released) -> None:
        answers = self._insist(
            [task], lambda: [self._client.release(task, reason=released.reason, retry_for_sec=ROUND_SEC)]
        )
        if isinstance(answers[0], OmsProblem) and not _is_lost(task, answers[0]):
            log.error("%s: could not be given back; its lease will run out: %s", task.task_id, answers[0])

    def _insist(
        self, tasks: Sequence[Task], call: Callable[[], list[dict[str, Any] | OmsProblem]]
    ) -> list[dict[str, Any] | OmsProblem]:
        """Call until there is an answer, the leases are over or it is time to end; return it for each task."""
        give_up_at = time.monotonic() + max(task.lease_sec for task in tasks) + AFTER_LEASE_SEC
        rounds = 0
        while True:
            try:
                return call()
            except OmsClientError as error:
                if error.is_temporary and time.monotonic() < give_up_at and not self._give_up():
                    if rounds == 0:
                        log.warning("%s: its outcome waits for OMS: %s", tasks[0].task_id, error)
                    time.sleep(backoff_sec(rounds, most_sec=ROUND_SEC))
                    rounds += 1
                    continue
                problem = error if isinstance(error, OmsProblem) else OmsProblem(503, "unreachable", str(error))
                return [problem] * len(tasks)


def _is_too_large(answers: Sequence[dict[str, Any] | OmsProblem]) -> bool:
    return all(isinstance(answer, OmsProblem) and answer.status == _TOO_LARGE for answer in answers)


def _is_lost(task: Task, problem: OmsProblem) -> bool:
    """Mark ``task`` where the refusal means that its attempt is somebody else's now, or over."""
    if problem.status not in _LOST:
        return False
    task.lose()
    log.warning("%s: attempt %d is lost, its work is dropped: %s", task.task_id, task.attempt, problem.detail)
    return True
