"""What ACT refuses, as one tree: each error knows its stable code, its HTTP status and what to do next.

The edge renders them as RFC 9457 problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input: where it is, and what was expected there."""

    loc: tuple[str | int, ...]
    msg: str


class ActError(Exception):
    """A request that ACT refuses. ``detail`` is a sentence that says what to do.

    Attributes:
        code: stable, kebab-case; the last part of the problem's ``type``.
        status: the HTTP status.
        title: the same for every error of the class.
        faults: for bad input, each fault with its place.
        members: what a program needs to act on it; they become members of the problem.
    """

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "The request was refused"

    def __init__(
        self, detail: str, *, faults: tuple[Fault, ...] = (), members: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults
        self.members = members or {}


class InvalidInputError(ActError):
    """The request cannot be read, or a value in it is not allowed."""

    code = "invalid-input"
    status = 422
    title = "The input is not valid"


class TooLargeError(ActError):
    """More than one request may hold; the same in parts goes through."""

    code = "body-too-large"
    status = 413
    title = "The body is too large"


class EncodingError(ActError):
    """The body is compressed: its events' bytes are kept as they come, so they must come as they are."""

    code = "unsupported-encoding"
    status = 415
    title = "The content encoding is not supported"


class NotFoundError(ActError):
    """The id names nothing."""

    code = "not-found"
    status = 404
    title = "There is no such thing"


class ForkError(ActError):
    """An event's place in its stream is taken by other bytes: two histories of one job. For good.

    Attributes:
        stream: whose place it is.
        seq: which place.
        ledger_index: the entry that has it; None where both stand in one batch.
        event: the bytes that are refused.
    """

    code = "fork"
    status = 409
    title = "The ledger has another event in this place"

    def __init__(
        self, detail: str, *, stream: str, seq: int, position: int, ledger_index: int | None, event: bytes
    ) -> None:
        event_id = f"{stream}.{seq}"
        members = {"event_id": event_id, "stream": stream, "seq": seq, "index": position, "ledger_index": ledger_index}
        super().__init__(detail, members=members)
        self.stream = stream
        self.seq = seq
        self.ledger_index = ledger_index
        self.event = event


class GapError(ActError):
    """An event of the stream is missing before this one. Later the same event goes through."""

    code = "gap"
    status = 409
    title = "An earlier event is missing"


class UnavailableError(ActError):
    """It cannot be taken now, and nothing was appended. The same request may go through later."""

    code = "unavailable"
    status = 503
    title = "Not now"

    def __init__(self, detail: str, *, retry_after_sec: int = 1, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail, members=members)
        self.retry_after_sec = retry_after_sec


class LedgerDamagedError(Exception):
    """What the database holds is not what was appended, or not what was signed: somebody must look.

    Attributes:
        detail: what is wrong, as a sentence without a full stop.
        index: the first entry that it concerns; None where that cannot be told without a full check.
    """

    def __init__(self, detail: str, *, index: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.index = index
