"""Is the process alive, and can it work?"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from oms.api.edge import json_response, service_of

router = APIRouter(tags=["health"])

_READY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "ready": {"type": "boolean"},
        "database": {"type": "object"},
        "act": {"type": "object"},
        "relay": {"type": "object"},
        "set_aside": {"type": "object"},
    },
}


@router.get("/healthz", responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})
async def healthz() -> Response:
    """Answer 200 while the process lives."""
    return json_response({"alive": True})


@router.get(
    "/readyz",
    responses={
        200: {"content": {"application/json": {"schema": _READY}}},
        503: {"description": "Not ready", "content": {"application/json": {"schema": _READY}}},
    },
)
async def readyz(request: Request) -> Response:
    """Answer 200 only when the database answers and its schema is current. ACT may be down; the body says so."""
    report = await service_of(request).report()
    response = json_response(report)
    if not report["ready"]:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return response
