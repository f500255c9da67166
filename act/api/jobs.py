"""``GET /jobs/{job_id}``: the state that a job's events add up to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic_core import to_json
from sqlalchemy import Connection
from starlette.responses import Response

from act import ledger as verbs
from act.api import schemas
from act.api.query import refuse_unknown
from act.ledger import Ledger

router = APIRouter()


@router.get("/jobs/{job_id}", **schemas.GET_JOB)
async def get_job(request: Request, job_id: Annotated[str, Path(description="Such as JOB-1.")]) -> Response:
    """Show the state that the job's events in the ledger add up to, whatever OMS says."""
    refuse_unknown(request.query_params, ())
    ledger: Ledger = request.app.state.ledger
    state = await ledger.read(_state, job_id)
    return Response(state, media_type="application/json", headers={"Cache-Control": "no-store"})


def _state(tx: Connection, job_id: str) -> bytes:
    """In the reading thread: a job may have many events."""
    return to_json(verbs.job_state(tx, job_id))
