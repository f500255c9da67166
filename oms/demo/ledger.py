"""ACT as an auditor reads it, and whether it says what OMS says."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from oms.worker import OmsClient

ANSWER_TIMEOUT_SEC = 60.0
PAGE = 10_000
POLL_SEC = 0.1


class LedgerError(Exception):
    """ACT did not answer as it should."""


class Ledger:
    """Reads ACT; a context.

    Args:
        url: of ACT.
        http: an httpx client of one's own.
    """

    def __init__(self, url: str, *, http: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = http or httpx.Client(timeout=ANSWER_TIMEOUT_SEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def size(self) -> int:
        """Return how many events it holds."""
        size: int = self._get("/readyz")["size"]
        return size

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return the state that the job's events add up to; None where it has none of them."""
        state: dict[str, Any] | None = self._get(f"/jobs/{quote(job_id, safe='')}", missing_ok=True)
        return state

    def rows(self, job_id: str) -> list[dict[str, Any]]:
        """Return the rows of a job, oldest first."""
        rows: list[dict[str, Any]] = self._get("/stream", {"job": job_id}, missing_ok=True) or []
        return rows

    def rows_after(self, row_id: int, status: str) -> list[dict[str, Any]]:
        """Return up to `PAGE` rows of a status after a row, of all jobs."""
        rows: list[dict[str, Any]] = self._get("/stream", {"after": row_id, "status": status, "limit": PAGE})
        return rows

    def _get(self, path: str, query: dict[str, str | int] | None = None, *, missing_ok: bool = False) -> Any:  # noqa: ANN401 - any JSON
        try:
            answer = self._http.get(self.url + path, params=query)
        except httpx.HTTPError as error:
            raise LedgerError(f"ACT at {self.url} gave no answer: {error or type(error).__name__}") from None
        if missing_ok and answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            raise LedgerError(f"ACT at {self.url} answered {answer.status_code} to {path}: {answer.text[:200]}")
        try:
            return answer.json()
        except ValueError:
            raise LedgerError(f"{self.url}{path} answered no JSON: is this the address of ACT?") from None


def wait_until_delivered(oms: OmsClient, *, limit_sec: float) -> bool:
    """Wait until OMS has posted all its events to ACT; False where the limit is over first."""
    give_up_at = time.monotonic() + limit_sec
    while oms.ready()["relay"]["pending"]:
        if time.monotonic() > give_up_at:
            return False
        time.sleep(POLL_SEC)
    return True


def differences(job: dict[str, Any], fold: dict[str, Any] | None, rows: list[dict[str, Any]]) -> list[str]:
    """Return in what OMS and the ledger differ about a job, and what is wrong in the ledger itself.

    Args:
        job: as OMS shows it.
        fold: the state that ACT's events add up to.
        rows: the job's rows in ACT.
    """
    name = job["job_id"]
    if fold is None:
        return [f"{name}: ACT has none of its events"]
    found = []
    if fold["state"] != job["state"]:
        found.append(f"{name}: OMS says {job['state']}, the ledger {fold['state']}")
    here = {task["task_id"]: _facts(task) for task in job["tasks"]}
    there = {task["task_id"]: _facts(task) for task in fold["tasks"]}
    found += [
        f"{name}: {task_id} is {here.get(task_id)} in OMS and {there.get(task_id)} in the ledger"
        for task_id in sorted(here.keys() | there.keys())
        if here.get(task_id) != there.get(task_id)
    ]
    seqs = [row["seq"] for row in rows]
    if seqs != list(range(1, len(rows) + 1)):
        found.append(f"{name}: its events are not numbered 1 to {len(rows)}: {seqs}")
    done = Counter(row["activity"] for row in rows if row["status"] == "done" and row["task_id"] is not None)
    found += [
        f"{name}: {task['activity']} is done {done[task['activity']]} times in the ledger"
        for task in job["tasks"]
        if task["status"] == "done" and done[task["activity"]] != 1
    ]
    return found


def _facts(task: dict[str, Any]) -> tuple[str, str, int]:
    return task["lane"], task["status"], task["attempt"]
