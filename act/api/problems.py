"""ACT's errors as RFC 9457 problems."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from act.domain.errors import ActError, UnavailableError
from hmskit.problems import Problem, install_problems


def problem_of(error: ActError) -> Problem:
    """Return the problem that says what the error says."""
    return Problem(
        error.status,
        error.code,
        error.title,
        error.detail,
        errors=[{"loc": list(fault.loc), "msg": fault.msg} for fault in error.faults],
        headers={"Retry-After": str(error.retry_after_sec)} if isinstance(error, UnavailableError) else None,
        extra=error.members,
    )


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem."""
    install_problems(app)
    app.add_exception_handler(ActError, _act_error)


async def _act_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ActError)
    return problem_of(error).response()
