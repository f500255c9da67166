"""OMS's refusals as RFC 9457 problems, alone and in the place of a list's item."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from hmskit.problems import Problem, install_problems
from oms.domain.errors import OmsError, UnavailableError


def problem_of(error: OmsError) -> Problem:
    """Return the problem that says what ``error`` says."""
    return Problem(
        error.status,
        error.code,
        error.title,
        error.detail,
        errors=[{"loc": list(fault.loc), "msg": fault.msg} for fault in error.faults],
        headers={"Retry-After": str(error.retry_after_sec)} if isinstance(error, UnavailableError) else None,
    )


def item_problem(error: OmsError | Problem) -> dict[str, Any]:
    """Return what stands in a list in the place of an item that was refused."""
    problem = error if isinstance(error, Problem) else problem_of(error)
    return {"error": problem.body()}


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem."""
    install_problems(app)
    app.add_exception_handler(OmsError, _refused)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OmsError)
    return problem_of(error).response()
