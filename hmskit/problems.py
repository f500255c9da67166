"""Errors on the wire: RFC 9457 ``application/problem+json``, for both services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

PROBLEM_CONTENT_TYPE = "application/problem+json"

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "What was refused and what to do about it (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "urn:hms:problem:<code>"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence that says what to do."},
        "code": {"type": "string", "description": "Stable: programs may rely on it."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                },
            },
        },
    },
}

log = structlog.get_logger(__name__)


class Problem(Exception):  # noqa: N818 - the RFC's word for it
    """An answer other than success.

    Args:
        status: the HTTP status.
        code: stable and kebab-case; ``type`` is ``urn:hms:problem:<code>``.
        title: the same for every problem of that code.
        detail: a sentence that says what to do.
        errors: for bad input, ``{"loc": [...], "msg": "..."}`` each.
        headers: to send along (``Retry-After``).
        extra: further members, such as the sequence that is expected.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.extra = extra or {}

    def body(self) -> dict[str, Any]:
        """Return the members, in the order people read them."""
        body: dict[str, Any] = {
            "type": f"urn:hms:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        return body

    def response(self) -> Response:
        """Return the HTTP answer."""
        return Response(
            to_json(self.body()),
            status_code=self.status,
            media_type=PROBLEM_CONTENT_TYPE,
            headers=self.headers,
        )


def invalid(detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> Problem:
    """Return the 422 of an input that cannot be used."""
    return Problem(422, "invalid-input", "The input is not valid", detail, errors=errors)


def unavailable(detail: str, *, retry_after_sec: int = 1) -> Problem:
    """Return the 503 of a service that cannot take the request now; nothing was changed."""
    return Problem(503, "unavailable", "Not now", detail, headers={"Retry-After": str(retry_after_sec)})


def faults_of(error: Exception, *prefix: str | int) -> list[dict[str, Any]]:
    """Return ``{loc, msg}`` of each fault in a pydantic ``ValidationError`` (or FastAPI's), without the values.

    The values stay out: they are the sender's, and an answer or a log that repeats them leaks them.
    """
    return [
        {"loc": [*prefix, *fault["loc"]], "msg": str(fault["msg"]).removeprefix("Value error, ")}
        for fault in error.errors()  # type: ignore[attr-defined]
    ]


def install_problems(app: FastAPI) -> None:
    """Make every error of ``app`` a problem: its own, the framework's, and the unexpected."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _bad_parameters(_request: Request, error: Exception) -> Response:
    faults = faults_of(error)
    first = faults[0]
    where = ".".join(str(part) for part in first["loc"])
    return invalid(f"{where}: {first['msg']}.", faults).response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    details = {
        404: f"Nothing is at {request.url.path!r}; /docs lists every call.",
        405: f"{request.method} is not a method of {request.url.path!r}; /docs lists every call.",
    }
    return Problem(
        status.value,
        status.phrase.lower().replace(" ", "-"),
        status.phrase,
        details.get(status.value, str(error.detail)),
        headers=error.headers,
    ).response()


async def _unexpected(request: Request, error: Exception) -> Response:
    return unexpected(request.method, request.url.path, error).response()


def unexpected(method: str, path: str, error: Exception) -> Problem:
    """Log an error that nobody foresaw; return the 500 for it."""
    log.error("unexpected_error", path=path, method=method, exc_info=error)
    return Problem(
        500,
        "internal-error",
        "A fault of ours",
        "The service made a mistake and its log says which. Nothing was changed by this request.",
    )
