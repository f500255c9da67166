"""``GET /stream``: the ledger as rows, as a list or live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from act import ledger as verbs
from act.api import schemas
from act.api.follow import LiveStream
from act.api.query import StreamQuery, read_stream_query
from act.domain.entry import row_json
from act.domain.errors import InvalidInputError
from act.ledger import PAGE, Ledger

router = APIRouter()

_HEADERS = {"Cache-Control": "no-store"}


@router.get("/stream", **schemas.GET_STREAM)
async def get_stream(request: Request) -> Response:
    """Show the ledger's rows, oldest first: of one job, or all of it page by page.

    With ``Accept: text/event-stream`` or ``follow=true`` the rows come as Server-Sent Events, those to come too.
    """
    ledger: Ledger = request.app.state.ledger
    query = read_stream_query(request.query_params, request.headers, now_ms=ledger.now_ms())
    if query.is_followed:
        return await _follow(request, ledger, query)
    if query.is_latest:
        rows = await ledger.read(_latest, query)
        return Response(_list(rows), media_type="application/json", headers=_HEADERS)
    # Read before the answer begins: what can be refused, or fails at once, still gets its own status.
    first = await ledger.read(_first_page, query)
    if first.is_last:
        return Response(_list(first.rows), media_type="application/json", headers=_HEADERS)
    return StreamingResponse(_long_list(ledger, query, first), media_type="application/json", headers=_HEADERS)


async def _follow(request: Request, ledger: Ledger, query: StreamQuery) -> Response:
    position = await ledger.read(_follow_from, query)
    return LiveStream(ledger, query.filters, position, ping_sec=request.app.state.settings.ping_sec)


def _follow_from(tx: Connection, query: StreamQuery) -> int:
    last = verbs.last_index(tx)
    if query.after > last:
        # To wait for it would skip whatever comes until then.
        raise InvalidInputError(
            f"The ledger ends with the id {last}, before {query.after}: it may be another ledger, or an older copy. "
            "Begin again without Last-Event-ID and after."
        )
    return verbs.start(tx, query.filters, after=query.after)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A page of the list: its rows as JSON, and where the next one begins.

    Attributes:
        last: the index that the whole list ends with: the ledger may grow while it is read.
        left: how many rows may still follow; None: all.
        is_last: nothing follows.
    """

    rows: list[bytes]
    position: int
    last: int
    left: int | None
    is_last: bool


def _first_page(tx: Connection, query: StreamQuery) -> _Rows:
    position = verbs.start(tx, query.filters, after=query.after)
    return _next_page(tx, query, _Rows([], position, verbs.last_index(tx), query.limit, is_last=False))


def _next_page(tx: Connection, query: StreamQuery, before: _Rows) -> _Rows:
    """Read and render the page after ``before``. In the reading thread: the loop has other things to do."""
    # A job's page counts the rows that are read, before the filters.
    count = PAGE if before.left is None or query.filters.job is not None else min(PAGE, before.left)
    page = verbs.stream(tx, query.filters, position=before.position, count=count, last=before.last)
    rows = [row_json(entry) for entry in page.entries[: before.left]]
    left = None if before.left is None else before.left - len(rows)
    return _Rows(rows, page.position, before.last, left, is_last=page.is_last or left == 0)


def _latest(tx: Connection, query: StreamQuery) -> list[bytes]:
    return [row_json(entry) for entry in verbs.stream_latest(tx, query.filters, after=query.after)[: query.limit]]


def _list(rows: list[bytes]) -> bytes:
    return b"[" + b",\n".join(rows) + b"]"


async def _long_list(ledger: Ledger, query: StreamQuery, page: _Rows) -> AsyncGenerator[bytes]:
    """Yield the list as it is read. One that cannot be read to its end breaks off, and is no JSON."""
    separator = b"["
    while True:
        if page.rows:
            yield separator + b",\n".join(page.rows)
            separator = b",\n"
        if page.is_last:
            break
        page = await ledger.read(_next_page, query, page)
    yield b"]" if separator != b"[" else b"[]"
