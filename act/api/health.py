"""Whether the service lives, and whether it can work; and what is at its root."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from act.api import schemas
from act.domain.errors import UnavailableError
from act.fanout.publisher import Fanout
from act.ledger import Ledger
from act.signer import Signer

router = APIRouter()

_HEADERS = {"Cache-Control": "no-store"}


@router.get("/", **schemas.GET_ROOT)
async def get_root(request: Request) -> Response:
    """Say what this is and where to go on."""
    body = {"service": "act", "version": request.app.version, "docs": "/docs", "openapi": "/openapi.json"}
    return Response(to_json(body), media_type="application/json")


@router.get("/healthz", **schemas.GET_HEALTH)
async def get_health() -> Response:
    """Answer 200 while the process lives."""
    return Response(b'{"status":"ok"}', media_type="application/json", headers=_HEADERS)


@router.get("/readyz", **schemas.GET_READY)
async def get_ready(request: Request) -> Response:
    """Answer 200 while events can be taken: the database answers, is still the one opened, and has this schema."""
    ledger: Ledger = request.app.state.ledger
    facts: dict[str, Any] = {
        "size": ledger.size,
        "schema": ledger.schema,
        "followers": len(ledger.followers),
        "max_followers": ledger.followers.most,
        "forks_refused": ledger.forks.refused,
        "forks_recorded": ledger.forks.recorded,
    }
    fanout: Fanout | None = request.app.state.fanout
    if fanout is not None:  # readiness does not depend on it: nothing waits for the broker
        facts["fanout"] = fanout.health
    signer: Signer | None = request.app.state.signer
    if signer is not None:  # nor on this: who takes no events has no evidence at all
        facts["signing"] = signer.health
    why = await ledger.not_ready()
    if why is not None:
        raise UnavailableError(f"{why[:1].upper()}{why[1:]}.", members=facts)
    return Response(to_json({"status": "ready", **facts}), media_type="application/json", headers=_HEADERS)
