"""What OMS refuses, as one tree: each error knows its stable code, its HTTP status and what to do next.

The edge renders them as RFC 9457 problems; in a batch they are values that stand in a refused item's place.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input: where it is, and what was expected there."""

    loc: tuple[str | int, ...]
    msg: str


class OmsError(Exception):
    """A request that OMS refuses. ``detail`` is a sentence that says what to do.

    Attributes:
        code: stable, kebab-case; the last part of the problem's ``type``.
        status: the HTTP status.
        title: the same for every error of the class.
        faults: for bad input, each fault with its place.
    """

    code = "refused"
    status = 400
    title = "The request was refused"

    def __init__(self, detail: str, *, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults


class InvalidInputError(OmsError):
    """The request cannot be read, or a value in it is not allowed."""

    code = "invalid-input"
    status = 422
    title = "The input is not valid"


class NotFoundError(OmsError):
    """The id names nothing."""

    code = "not-found"
    status = 404
    title = "There is no such thing"


class ConflictError(OmsError):
    """The state of the job or task forbids it."""

    code = "conflict"
    status = 409
    title = "The state forbids it"


class StaleTokenError(ConflictError):
    """The token is of an attempt that is no longer the task's."""

    code = "stale-token"
    title = "The attempt is no longer the task's"


class ErasedError(ConflictError):
    """The job's data was erased: it can neither run again nor be compared with anything."""

    code = "erased"
    title = "The job's data was erased"


class ForbiddenError(OmsError):
    """The request comes from where it must not come from."""

    code = "forbidden"
    status = 403
    title = "Not from there"


class UnavailableError(OmsError):
    """The database cannot take it now; nothing was changed. The same request may go through later."""

    code = "unavailable"
    status = 503
    title = "Not now"
    retry_after_sec = 1


class BusyError(UnavailableError):
    """Another transaction has what this is about in its hands. Nothing was done: it comes again in a moment."""
