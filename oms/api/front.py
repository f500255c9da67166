"""The three calls that carry the load, answered past the framework and past ASGI.

`/start`, `/pull` and `/complete` are most of what OMS is asked. Here a call goes from the connection into the writer's
queue, and its answer straight back (`hmskit.whole_requests`). Nothing else differs: the same models, verbs and problems
answer, the routes stay in the OpenAPI document, and whatever is not the everyday form of a call (a browser's headers, a
trace, a long poll, a query that is not valid, a body that is too large) goes to the route itself.
`tests/oms/test_front.py` holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_core import to_json

from hmskit.problems import Problem, unexpected
from hmskit.whole_requests import Answering, Exchange, Head, WholeRequests, answers_whole
from oms.api.edge import Call
from oms.api.jobs import START
from oms.api.problems import problem_of
from oms.api.schemas import PullQuery
from oms.api.tasks import COMPLETE
from oms.config import Settings
from oms.domain.errors import OmsError
from oms.sequencer.command import Command
from oms.sequencer.pull import Pull, pull
from oms.sequencer.service import Service

_POSTS: dict[bytes, Call[Any, Any, Any]] = {b"/start": START, b"/complete": COMPLETE}
# Requests with one of these need what the routes' middleware does with them.
_NOT_EVERYDAY = frozenset({b"origin", b"sec-fetch-site", b"traceparent"})
_HEAD = b"content-type: application/json\r\ncache-control: no-store\r\n"


def front(app: FastAPI) -> type[WholeRequests]:
    """Return the protocol that answers the hot calls of ``app`` itself, and gives it everything else."""

    def choose(head: Head) -> Answering | None:
        settings: Settings = app.state.settings
        if not _NOT_EVERYDAY.isdisjoint([name for name, _ in head.headers]) or head.body_bytes > settings.max_body:
            return None
        path, _, query = head.target.partition(b"?")
        if head.method == "POST" and head.target in _POSTS:
            call = _POSTS[path]
            return lambda body, exchange: _post(app, call, body, exchange)
        if head.method == "GET" and path == b"/pull":
            asked = _pull_query(query)
            return None if asked is None else lambda _body, exchange: _pull(app, asked, exchange)
        return None

    return answers_whole(choose)


def _post(app: FastAPI, call: Call[Any, Any, Any], body: bytes, exchange: Exchange) -> None:
    reply = Reply(exchange, f"/{call.verb.__name__}")
    try:
        asked = call.read(body, None)
    except Exception as error:  # noqa: BLE001 - it is the answer
        reply.set_exception(error)
        return
    reply.render = asked.answer
    if asked.wishes:
        _submit(app, Command(call.verb, asked.wishes, reply))
    else:
        reply.set_result([])


def _pull(app: FastAPI, query: PullQuery, exchange: Exchange) -> None:
    wish = Pull(query.lane, query.max or 1, query.worker)
    is_list = query.max is not None
    _submit(app, Command(pull, [wish], Reply(exchange, "/pull", _leased if is_list else _leased_one)))


def _submit(app: FastAPI, command: Command) -> None:
    service: Service = app.state.service
    try:
        service.writer.submit(command)
    except Exception as error:  # noqa: BLE001 - it is the answer
        command.answer(error)


def _leased(results: Sequence[Any]) -> bytes:
    return to_json(results[0])


def _leased_one(results: Sequence[Any]) -> bytes:
    return to_json(results[0][0]) if results[0] else b"null"


def _nothing(_results: Sequence[Any]) -> bytes:
    return b"null"


@dataclass(slots=True)
class Reply:
    """Where the writer's answers to one request go: as a future has it, but answered without a turn of the loop.

    Attributes:
        exchange: with whoever asked.
        path: what was asked for.
        render: makes the answer's JSON out of what the verb said; it may raise `OmsError`.
    """

    exchange: Exchange
    path: str
    render: Callable[[Sequence[Any]], bytes] = _nothing

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.exchange.is_over

    def set_result(self, results: Sequence[Any], /) -> None:
        """Answer the request."""
        try:
            body = self.render(results)
        except Exception as error:  # noqa: BLE001 - it is the answer
            self.set_exception(error)
        else:
            self.exchange.answer(body, head=_HEAD)

    def set_exception(self, error: Exception, /) -> None:
        """Answer the request with why there is nothing else to say."""
        if isinstance(error, OmsError):
            problem = problem_of(error)
        elif isinstance(error, Problem):
            problem = error
        else:
            problem = unexpected("GET" if self.path == "/pull" else "POST", self.path, error)
        self.exchange.respond(problem.response())


def _pull_query(query: bytes) -> PullQuery | None:
    """Return a pull's query; None for one that is not valid or that waits, which the route answers."""
    try:
        read = PullQuery.model_validate(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))
    except (ValidationError, ValueError):
        return None
    return read if read.wait == 0 else None
