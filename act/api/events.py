"""``POST /events``: take a batch into the ledger."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from act.api import schemas
from act.api.query import refuse_unknown
from act.contract import MAX_BATCH_BYTES
from act.domain.errors import EncodingError
from act.domain.posted import Posted, read_posted
from act.ledger import Ledger
from act.writer import Appended
from hmskit.bodies import read_body

router = APIRouter()

_LARGE_BYTES = 64 * 1024
"""From this size on a body is read in a thread: in the loop it would hold up everyone else for milliseconds."""


@router.post("/events", **schemas.POST_EVENTS)
async def post_events(request: Request) -> Response:
    """Append a batch of events, or one event: all of them or none.

    The answer comes once they are on disk. An event that the ledger has already, byte for byte, is a duplicate and
    changes nothing, so that a batch whose answer was lost is simply posted again.
    """
    refuse_unknown(request.query_params, ())
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise EncodingError("The body is compressed; post it as it is, without Content-Encoding.")
    body = await read_body(request, limit_bytes=MAX_BATCH_BYTES)
    batch = read_posted(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(read_posted, body)
    ledger: Ledger = request.app.state.ledger
    appended = await ledger.append(batch)
    return Response(to_json(_answer(batch, appended)), media_type="application/json")


def _answer(batch: list[Posted], appended: Appended) -> dict[str, Any]:
    news = sum(new for _, new, _ in appended.places)
    return {
        "accepted": news,
        "duplicates": len(batch) - news,
        "size": appended.size,
        "results": [
            {
                "id": event.event_id,
                "index": index,
                "outcome": "appended" if new else "duplicate",
                "leaf_hash": leaf.hex(),
            }
            for event, (index, new, leaf) in zip(batch, appended.places, strict=True)
        ],
    }
