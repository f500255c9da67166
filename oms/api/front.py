"""The three calls that carry the load, without the framework's routing, middleware and request objects.

`/start`, `/pull` and `/complete` are most of what OMS is asked. Served here, a call costs about a third of what it
costs as a FastAPI route (docs/performance.md). Nothing else differs: the same models, verbs and problems answer, the
routes stay in the OpenAPI document, and whatever is not the everyday form of a call (a browser's headers, a trace, a
long poll, a query that is not valid) goes to the route itself. `tests/oms/test_front.py` holds both against each other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hmskit.bodies import too_large
from hmskit.problems import Problem, invalid, unexpected
from oms.api.edge import Call
from oms.api.jobs import START
from oms.api.problems import problem_of
from oms.api.schemas import PullQuery
from oms.api.tasks import COMPLETE
from oms.config import Settings
from oms.domain.errors import OmsError
from oms.sequencer.pull import Pull
from oms.sequencer.service import Service

_POSTS: dict[str, Call[Any, Any, Any]] = {"/start": START, "/complete": COMPLETE}
# Requests with one of these need what the routes' middleware does with them.
_NOT_EVERYDAY = frozenset({b"origin", b"sec-fetch-site", b"traceparent"})
_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


class Front:
    """ASGI: answers the hot calls itself, and passes everything else to the application."""

    def __init__(self, app: FastAPI) -> None:
        self._app: ASGIApp = app
        self._state = app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] == "http" and _is_everyday(scope):
            method, path = scope["method"], scope["path"]
            if method == "POST" and path in _POSTS:
                await self._answered(self._post(_POSTS[path], receive), scope, receive, send)
                return
            if method == "GET" and path == "/pull":
                query = _pull_query(scope["query_string"])
                if query is not None:
                    await self._answered(self._pull(query), scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _post(self, call: Call[Any, Any, Any], receive: Receive) -> bytes:
        service: Service = self._state.service
        settings: Settings = self._state.settings
        return await call.answer(service.writer, await _body(receive, settings.max_body), None)

    async def _pull(self, query: PullQuery) -> bytes:
        service: Service = self._state.service
        leased = await service.writer.pull(Pull(query.lane, query.max or 1, query.worker))
        if query.max is None:
            return to_json(leased[0]) if leased else b"null"
        return to_json(leased)

    async def _answered(self, answering: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ANN401
        try:
            body: bytes = await answering
        except Problem as problem:
            await problem.response()(scope, receive, send)
        except OmsError as error:
            await problem_of(error).response()(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the framework would answer the same
            await unexpected(scope["method"], scope["path"], error).response()(scope, receive, send)
        else:
            headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _is_everyday(scope: Scope) -> bool:
    return _NOT_EVERYDAY.isdisjoint([name for name, _ in scope["headers"]])


@lru_cache(maxsize=4096)  # a worker asks the same all day
def _pull_query(raw: bytes) -> PullQuery | None:
    """Return a pull's query; None for one that is not valid or that waits, which the route answers."""
    try:
        query = PullQuery.model_validate(dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)))
    except (ValidationError, ValueError):
        return None
    return query if query.wait == 0 else None


async def _body(receive: Receive, limit_bytes: int) -> bytes:
    """Return the body; counted while it arrives, as `hmskit.bodies.read_body` does."""
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise invalid("The connection closed before the body was complete.")
        chunk: bytes = message.get("body", b"")
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise too_large(limit_bytes)
        if not chunks and not message.get("more_body", False):
            return chunk
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
