"""Talk to ACT over HTTP: what the relay posts with, and what readers of the ledger use."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic_core import from_json

from act.contract import BATCH_CONTENT_TYPE, Receipt
from hmskit.one_connection import OneConnection


class LedgerError(Exception):
    """ACT did not take the batch; nothing of it was appended."""


class LedgerUnavailableError(LedgerError):
    """ACT cannot be reached or cannot take it now. The same batch may go through later."""

    def __init__(self, detail: str, *, retry_after_sec: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_sec = retry_after_sec


class LedgerGapError(LedgerError):
    """ACT lacks an earlier event of the stream. ``expected_seq`` is the one it expects."""

    def __init__(self, detail: str, *, event_id: str, expected_seq: int) -> None:
        super().__init__(detail)
        self.event_id = event_id
        self.expected_seq = expected_seq


class LedgerRefusedError(LedgerError):
    """ACT refuses an event for good: a fork (same id, other bytes), or one that it cannot read.

    Attributes:
        code: ``fork``, or what the problem's type ends with.
        event_id: the refused event's id; None where ACT could not tell which it was.
    """

    def __init__(self, detail: str, *, code: str, event_id: str | None) -> None:
        super().__init__(detail)
        self.code = code
        self.event_id = event_id


class LedgerTooLargeError(LedgerError):
    """The batch is larger than ACT takes: send half of it."""


class LedgerClient:
    """An ACT service, over one connection; close it, or use it as an async context manager."""

    def __init__(
        self, url: str, *, timeout_sec: float = 30.0, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            timeout=httpx.Timeout(timeout_sec, connect=min(timeout_sec, 5.0)),
            transport=transport or OneConnection(),
            # ACT is a service inside the house: a proxy of the environment must not see the ledger's traffic.
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ping(self) -> None:
        """Return if ACT is there.

        Raises:
            LedgerUnavailableError: it is not.
        """
        try:
            answer = await self._http.get("/healthz")
        except httpx.HTTPError as error:
            raise LedgerUnavailableError(f"{type(error).__name__}: {error}") from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise LedgerUnavailableError(f"ACT answered {answer.status_code}")

    async def append(self, events: Sequence[bytes]) -> list[Receipt]:
        """Post events, in order; return one receipt each once all of them are on ACT's disk.

        Args:
            events: the events' final bytes, at most `MAX_BATCH_EVENTS` of them.

        Raises:
            LedgerUnavailableError: try the same again later.
            LedgerGapError: send that stream's earlier events first.
            LedgerTooLargeError: send half of them.
            LedgerRefusedError: one event will never be taken as it is.
        """
        try:
            answer = await self._http.post(
                "/events",
                content=b"[" + b",".join(events) + b"]",
                headers={"content-type": BATCH_CONTENT_TYPE},
            )
        except httpx.HTTPError as error:
            raise LedgerUnavailableError(f"{type(error).__name__}: {error}") from error
        # httpx binds an answer's stream to the answer. In that ring both would stay, with all that was posted, until
        # the garbage collector comes, which is after hundreds of batches: hundreds of MiB.
        answer.stream = httpx.ByteStream(b"")
        if answer.status_code == httpx.codes.OK:
            return _receipts(answer, len(events))
        raise _refusal(answer)

    async def stream(self, job_id: str) -> list[dict[str, Any]]:
        """Return the job's rows, oldest first; an empty list where ACT does not know the job (yet).

        Raises:
            LedgerUnavailableError: ACT cannot answer now.
        """
        try:
            answer = await self._http.get("/stream", params={"job": job_id})
        except httpx.HTTPError as error:
            raise LedgerUnavailableError(f"{type(error).__name__}: {error}") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        if answer.status_code != httpx.codes.OK:
            raise LedgerUnavailableError(f"ACT answered {answer.status_code}")
        rows: list[dict[str, Any]] = answer.json()
        return rows


def _receipts(answer: httpx.Response, wanted: int) -> list[Receipt]:
    """Read the receipts; an answer of any other shape is not ACT's, so nothing was acknowledged."""
    try:
        receipts = [
            Receipt(str(result["id"]), int(result["index"]), str(result["outcome"]), str(result["leaf_hash"]))
            for result in from_json(answer.content)["results"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerUnavailableError("the answer is not one of ACT's: is the ACT URL right?") from error
    if len(receipts) != wanted:
        raise LedgerUnavailableError(f"ACT answered {len(receipts)} receipts for {wanted} events")
    return receipts


def _refusal(answer: httpx.Response) -> LedgerError:
    """Turn a refusal into the error that says what the sender can do about it."""
    try:
        problem = answer.json()
        code = str(problem["code"])
        detail = str(problem["detail"])
        event_id = problem.get("event_id")
    except (ValueError, KeyError, TypeError):
        # Not a problem of ACT's: a proxy in between, or something else on its port. It may be ACT again later.
        return LedgerUnavailableError(f"answered {answer.status_code} without a reason")
    if answer.status_code == httpx.codes.CONFLICT and code == "gap":
        return LedgerGapError(detail, event_id=str(event_id), expected_seq=int(problem["expected_seq"]))
    if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return LedgerTooLargeError(detail)
    if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
        return LedgerRefusedError(detail, code=code, event_id=None if event_id is None else str(event_id))
    return LedgerUnavailableError(f"answered {answer.status_code}: {detail}", retry_after_sec=_retry_after(answer))


def _retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, where it names a number."""
    try:
        return float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        return None
