"""``GET /export``: the ledger as a file, streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from act.api import schemas
from act.api.query import read_export_query
from act.export.formats import FORMATS, Export
from act.ledger import Ledger

router = APIRouter()

HEADER = "Act-Export"


@router.get("/export", **schemas.GET_EXPORT)
async def get_export(request: Request) -> StreamingResponse:
    """Write the ledger, or a part of it, as a file that others read. An answer that breaks off is not complete."""
    ledger: Ledger = request.app.state.ledger
    name, filters = read_export_query(request.query_params)
    export = await ledger.read(Export, name, filters)
    written = FORMATS[name]
    return StreamingResponse(
        _written(ledger, export),
        media_type=written.media_type,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="act-export.{written.suffix}"',
            HEADER: export.header.json().decode(),
        },
    )


async def _written(ledger: Ledger, export: Export) -> AsyncGenerator[bytes]:
    """Yield the export as it is read and written, in reading threads: the loop has other things to do."""
    try:
        yield export.begin()
        while not export.is_last:
            if chunk := await ledger.read(export.page):
                yield chunk
        rest = export.end()
        while chunk := await asyncio.to_thread(next, rest, b""):
            yield chunk
    finally:
        export.close()
