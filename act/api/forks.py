"""``GET /forks``: the events that were refused because other bytes have their place."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic_core import to_json
from sqlalchemy import Connection
from starlette.responses import Response

from act.api import schemas
from act.api.query import read_forks_query
from act.contract import format_time_ms
from act.ledger import Ledger
from act.storage.forks import forks_after

router = APIRouter()


@router.get("/forks", **schemas.GET_FORKS)
async def get_forks(request: Request) -> Response:
    """List what was refused as a fork: two histories of one job, of which the ledger keeps the first. Oldest first.

    Each different one is there once, with its bytes. They are in no tree: the entry at `index` is.
    """
    after, limit = read_forks_query(request.query_params)
    ledger: Ledger = request.app.state.ledger
    listed = await ledger.read(_listed, after, limit)
    return Response(listed, media_type="application/json", headers={"Cache-Control": "no-store"})


def _listed(tx: Connection, after: int, limit: int) -> bytes:
    """In the reading thread: events are long."""
    return to_json(
        [
            {
                "id": fork.number,
                "event_id": fork.event_id,
                "stream": fork.stream,
                "seq": fork.seq,
                "index": fork.idx,
                "refused_at": format_time_ms(fork.refused_us // 1000),
                "event_sha256": fork.sha256.hex(),
                "event": fork.event.decode(),
            }
            for fork in forks_after(tx, after, count=limit)
        ]
    )
