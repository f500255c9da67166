"""Calls to OMS, one method each. Synchronous, and safe to share between threads."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from oms.worker.backoff import backoff_sec
from oms.worker.errors import OmsClientError, OmsProblem, OmsUnreachableError
from oms.worker.task import Task, lease_sec, server_time

log = logging.getLogger("oms.worker")

DEFAULT_URL = "http://oms"
CONNECT_TIMEOUT_SEC = 5.0
ANSWER_TIMEOUT_SEC = 30.0
HEARTBEAT_TIMEOUT_SEC = 10.0
"""One heartbeat without an answer must not hold up those of the other tasks in hand."""
PAGE = 500


class Again(Enum):
    """When a call that got no answer may be sent again by itself."""

    ALWAYS = "always"
    """Twice does what once does."""
    UNSENT = "unsent"
    """Only where OMS surely did nothing: no connection, or a 503."""


class OmsClient:
    """Calls to one OMS.

    A call is tried again, with full jitter, for ``retry_for_sec`` where that cannot do harm: reads, starts,
    completions, and failures, releases and heartbeats with a token may be sent twice. A pull or a reroute is sent
    again only if OMS surely did not act on it: a pull whose answer was lost has leased a task, which comes back
    when its lease runs out.

    Args:
        url: of the service; by default ``OMS_URL``, else ``http://oms``.
        headers: to send along, such as ``Authorization`` for a gateway.
        retry_for_sec: how long a call is tried in all.
        http: an httpx client of one's own (proxies, certificates); ``url`` is put before its paths.

    Every method raises `OmsProblem` where OMS refuses, and `OmsUnreachableError` where no answer came in time.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        retry_for_sec: float = 30.0,
        http: httpx.Client | None = None,
    ) -> None:
        self.url = (url or os.environ.get("OMS_URL") or DEFAULT_URL).rstrip("/")
        self._retry_for_sec = retry_for_sec
        self._http = http or httpx.Client()
        self._http.headers.update(headers or {})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Jobs

    def start(
        self,
        plan: str,
        reference: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the contract's word
        *,
        priority: int = 0,
    ) -> dict[str, Any]:
        """Start a job; the same plan and reference again give the same job, ``created`` false."""
        body = {"plan": plan, "reference": reference, "input": dict(input or {}), "priority": priority}
        started: dict[str, Any] = self._post("/start", body, Again.ALWAYS)
        return started

    def start_many(self, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | OmsProblem]:
        """Start up to 1000 jobs, each ``{plan, reference, input?, priority?}``; a refused one is an `OmsProblem`."""
        return _items(self._post("/start", [dict(job) for job in jobs], Again.ALWAYS))

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job with its tasks and outputs."""
        job: dict[str, Any] = self._get(f"/jobs/{quote(job_id, safe='')}")
        return job

    def jobs(self, **filters: str | float) -> Iterator[dict[str, Any]]:
        """Yield jobs, the newest first. Filters: ``plan``, ``state``, ``reference``, ``older_than_sec``."""
        return self._pages("/jobs", filters)

    # A worker's calls

    def pull(self, lane: str, *, worker: str | None = None, wait_sec: float = 0) -> Task | None:
        """Lease the next task of a lane; None where there is none within ``wait_sec`` (0 to 60)."""
        return next(iter(self._pull(lane, worker, wait_sec, None, None)), None)

    def pull_many(
        self,
        lane: str,
        max: int,  # noqa: A002 - the contract's word
        *,
        worker: str | None = None,
        wait_sec: float = 0,
        retry_for_sec: float | None = None,
    ) -> list[Task]:
        """Lease up to ``max`` (1 to 1000) tasks of a lane: what is there; waits only where there is nothing."""
        return self._pull(lane, worker, wait_sec, max, retry_for_sec)

    def complete(
        self, task: Task | str, output: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> dict[str, Any]:
        """Complete a task with its output. A `Task` brings its token; of an id it may be given."""
        body = {**_named(task, token), "output": dict(output or {})}
        answer: dict[str, Any] = self._post("/complete", body, Again.ALWAYS)
        return answer

    def complete_many(
        self, done: Sequence[Mapping[str, Any]], *, retry_for_sec: float | None = None
    ) -> list[dict[str, Any] | OmsProblem]:
        """Complete up to 1000 tasks, each ``{task_id, output?, token?, worker?}``; a refused one is a problem."""
        return _items(self._post("/complete", list(done), Again.ALWAYS, retry_for_sec))

    def fail(
        self,
        task: Task | str,
        error_type: str,
        message: str = "",
        *,
        retryable: bool = True,
        token: str | None = None,
    ) -> dict[str, Any]:
        """Report a failed attempt: ``error_type`` a short code for the ledger, ``message`` for the house only."""
        named = _named(task, token)
        body = {**named, "error": {"type": error_type, "message": message}, "retryable": retryable}
        # Without a token a second one could end the attempt of the next worker.
        again = Again.ALWAYS if "token" in named else Again.UNSENT
        answer: dict[str, Any] = self._post("/fail", body, again)
        return answer

    def fail_many(
        self, failed: Sequence[Mapping[str, Any]], *, retry_for_sec: float | None = None
    ) -> list[dict[str, Any] | OmsProblem]:
        """Report up to 1000 failed attempts, each ``{task_id, error, retryable?, token, worker?}``."""
        again = Again.ALWAYS if all(item.get("token") for item in failed) else Again.UNSENT
        return _items(self._post("/fail", list(failed), again, retry_for_sec))

    def heartbeat(
        self, task: Task, *, progress: float | None = None, note: str | None = None, retry_for_sec: float | None = None
    ) -> float:
        """Show a sign of life; return how long the lease lasts from now on, seconds.

        Raises:
            OmsProblem: 409, the attempt is no longer the task's: drop the work.
        """
        told = {"progress": progress, "note": note}
        body = {**_named(task), **{name: value for name, value in told.items() if value is not None}}
        answer = self._send(
            "POST",
            "/heartbeat",
            Again.ALWAYS,
            body=body,
            answer_sec=HEARTBEAT_TIMEOUT_SEC,
            retry_for_sec=retry_for_sec,
        )
        return lease_sec(_json(answer)["lease_expires_at"], server_time(answer.headers.get("date")))

    def release(self, task: Task, *, reason: str | None = None, retry_for_sec: float | None = None) -> dict[str, Any]:
        """Give a task back to its old place; it does not count for the retry policy."""
        body = _named(task) if reason is None else {**_named(task), "reason": reason}
        answer: dict[str, Any] = self._post("/release", body, Again.ALWAYS, retry_for_sec)
        return answer

    # A manager's calls

    def reroute(
        self,
        task_id: str,
        new_lane: str,
        *,
        reason: str | None = None,
        priority: int | None = None,
        actor: str | None = None,
    ) -> dict[str, Any]:
        """Move a task to another lane; a running one is taken from its worker."""
        told = {"reason": reason, "priority": priority, "actor": actor}
        body = {"task_id": task_id, "new_lane": new_lane}
        answer: dict[str, Any] = self._post("/reroute", body | _given(told), Again.UNSENT)
        return answer

    def retry(self, task_id: str) -> dict[str, Any]:
        """Queue a failed task again, with fresh attempts; its job runs again."""
        answer: dict[str, Any] = self._post("/retry", {"task_id": task_id}, Again.UNSENT)
        return answer

    def task(self, task_id: str) -> dict[str, Any]:
        """Return a task as everybody sees it."""
        task: dict[str, Any] = self._get(f"/tasks/{quote(task_id, safe='')}")
        return task

    def tasks(self, **filters: str | float) -> Iterator[dict[str, Any]]:
        """Yield tasks, the oldest first. Filters: ``lane, status, job, plan, reference, older_than_sec``."""
        return self._pages("/tasks", filters)

    def lanes(self) -> list[dict[str, Any]]:
        """Return every lane: what waits, what runs, and who was seen."""
        lanes: list[dict[str, Any]] = self._get("/lanes")["items"]
        return lanes

    def put_plan(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Put a plan in force; return ``{id, plan_version}``. The same content is the same version."""
        answer: dict[str, Any] = self._post("/plans", dict(document), Again.ALWAYS)
        return answer

    def ready(self) -> dict[str, Any]:
        """Return how OMS and its delivery to ACT stand.

        Raises:
            OmsProblem: 503, it is not ready.
        """
        ready: dict[str, Any] = self._get("/readyz", retry_for_sec=0)
        return ready

    # How a call is sent

    def _pull(
        self, lane: str, worker: str | None, wait_sec: float, limit: int | None, retry_for_sec: float | None
    ) -> list[Task]:
        query = _given({"lane": lane, "worker": worker, "wait": wait_sec or None, "max": limit})
        answer = self._send(
            "GET",
            "/pull",
            Again.UNSENT,
            query=query,
            answer_sec=ANSWER_TIMEOUT_SEC + wait_sec,
            retry_for_sec=retry_for_sec,
        )
        leased = _json(answer)
        now = server_time(answer.headers.get("date"))
        if not isinstance(leased, list):
            leased = [] if leased is None else [leased]
        return [Task.from_answer(task, server_now=now) for task in leased]

    def _get(self, path: str, query: Mapping[str, Any] | None = None, *, retry_for_sec: float | None = None) -> Any:  # noqa: ANN401 - any JSON
        return _json(self._send("GET", path, Again.ALWAYS, query=query, retry_for_sec=retry_for_sec))

    def _post(self, path: str, body: object, again: Again, retry_for_sec: float | None = None) -> Any:  # noqa: ANN401 - any JSON
        return _json(self._send("POST", path, again, body=body, retry_for_sec=retry_for_sec))

    def _pages(self, path: str, filters: Mapping[str, str | float]) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"limit": PAGE, **filters}
        while True:
            page = self._get(path, query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _send(
        self,
        method: str,
        path: str,
        again: Again,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        answer_sec: float = ANSWER_TIMEOUT_SEC,
        retry_for_sec: float | None = None,
    ) -> httpx.Response:
        """Send a call, again where it may be; return its answer.

        Raises:
            OmsProblem: OMS refused it.
            OmsUnreachableError: no answer came.
            ValueError: the body is no JSON (NaN, half a surrogate pair).
            TypeError: the body is no JSON (a value of another type).
        """
        content = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        give_up_at = time.monotonic() + (self._retry_for_sec if retry_for_sec is None else retry_for_sec)
        tries = 0
        while True:
            try:
                return self._send_once(method, path, content, query, answer_sec)
            except OmsClientError as error:
                wait_sec = backoff_sec(tries)
                if isinstance(error, OmsProblem):
                    wait_sec = max(wait_sec, error.retry_after_sec or 0)
                tries += 1
                if not _may_go_again(error, again) or time.monotonic() + wait_sec > give_up_at:
                    raise
                log.debug("%s %s: %s; again in %.2f s", method, path, error, wait_sec)
            time.sleep(wait_sec)

    def _send_once(
        self, method: str, path: str, content: bytes | None, query: Mapping[str, Any] | None, answer_sec: float
    ) -> httpx.Response:
        try:
            answer = self._http.request(
                method,
                self.url + path,
                content=content,
                params=query,
                headers=None if content is None else {"Content-Type": "application/json"},
                timeout=httpx.Timeout(answer_sec, connect=CONNECT_TIMEOUT_SEC),
            )
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise OmsClientError(f"{self.url!r} is no address of a service; one reads http://127.0.0.1:8001") from error
        except httpx.TransportError as error:
            text = str(error) or type(error).__name__
            raise OmsUnreachableError(f"{self.url} gave no answer: {text}") from error
        if answer.is_success:
            return answer
        try:
            told = answer.json()
        except ValueError:
            told = None
        raise OmsProblem.from_body(answer.status_code, told, retry_after_sec=_retry_after(answer))


def _may_go_again(error: OmsClientError, again: Again) -> bool:
    if not error.is_temporary:
        return False
    if again is Again.ALWAYS:
        return True
    if isinstance(error, OmsProblem):
        return error.status == httpx.codes.SERVICE_UNAVAILABLE
    return isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _named(task: Task | str, token: str | None = None) -> dict[str, Any]:
    if isinstance(task, Task):
        return {"task_id": task.task_id, "token": task.token}
    return {"task_id": task} if token is None else {"task_id": task, "token": token}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _items(answers: list[dict[str, Any]]) -> list[dict[str, Any] | OmsProblem]:
    """Make a list's refused items problems."""
    return [
        OmsProblem.from_body(int(answer["error"].get("status", 400)), answer["error"])
        if isinstance(answer.get("error"), dict)
        else answer
        for answer in answers
    ]


def _json(answer: httpx.Response) -> Any:  # noqa: ANN401 - any JSON
    try:
        return answer.json()
    except ValueError:
        raise OmsClientError(f"{answer.url} answered no JSON: is this the address of OMS?") from None


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        return max(0.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
