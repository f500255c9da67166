"""What a worker may meet, and what its handler may raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TEMPORARY = frozenset({429, 502, 503, 504})


class OmsClientError(Exception):
    """A call to OMS did not succeed.

    Attributes:
        is_temporary: the same call may succeed later.
    """

    is_temporary = False


class OmsUnreachableError(OmsClientError):
    """No answer came. Whether OMS did what was asked is not known, unless the call says so."""

    is_temporary = True


class OmsProblem(OmsClientError):  # noqa: N818 - the RFC's word for it
    """OMS refused the call (RFC 9457).

    Attributes:
        status: the HTTP status.
        code: stable, such as ``stale-token``; programs may rely on it.
        title: the same for every problem of that code.
        detail: a sentence that says what to do.
        errors: for bad input, ``{"loc": [...], "msg": "..."}`` each.
        retry_after_sec: how long OMS asks to wait; None where it does not say.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        title: str = "",
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after_sec: float | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = list(errors)
        self.retry_after_sec = retry_after_sec
        self.is_temporary = status in _TEMPORARY

    @classmethod
    def from_body(cls, status: int, body: object, *, retry_after_sec: float | None = None) -> OmsProblem:
        """Return the problem that a refusal's JSON says; what came from no OMS (a proxy) is told by its status."""
        told = body if isinstance(body, dict) else {}
        return cls(
            status,
            str(told.get("code") or f"http-{status}"),
            str(told.get("detail") or told.get("title") or f"the answer was HTTP {status}"),
            title=str(told.get("title") or ""),
            errors=told.get("errors") or (),
            retry_after_sec=retry_after_sec,
        )


class PermanentError(Exception):
    """Raise it in a handler: trying again would not help, the task fails for good.

    Args:
        message: for the people in the house; the ledger keeps only its digest.
        error_type: a short code for the ledger; by default the class's name, so that a subclass names itself.
    """

    def __init__(self, message: str = "", *, error_type: str | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type


Fatal = PermanentError


class ReleaseTask(Exception):  # noqa: N818 - it is no error: the task goes back unharmed
    """Raise it in a handler: give the task back to its place in the queue. It does not count as a failed attempt.

    Args:
        reason: goes into the ledger; never personal data.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "")
        self.reason = reason
