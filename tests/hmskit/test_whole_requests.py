"""What is answered past ASGI is answered as uvicorn would have: in order, once, and however the bytes arrive."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hmskit.whole_requests import MAX_HEAD_BYTES, Answering, Exchange, Head, answers_whole
from tests.oms.support import in_loop, until
from tests.serving import Served, serving

LIMIT_SEC = 10.0
HEAD = b"content-type: text/plain\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Say back what was posted."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await Response(body, media_type="text/plain", headers={"content-type": "text/plain"})(scope, receive, send)


class Hot:
    """Says back what was posted to ``/hot``, at once or when it is told to."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.asked: list[tuple[bytes, Exchange]] = []
        self.protocol = answers_whole(self._choose)

    def _choose(self, head: Head) -> Answering | None:
        return self._take if (head.method, head.target) == ("POST", b"/hot") else None

    def _take(self, body: bytes, exchange: Exchange) -> None:
        self.asked.append((body, exchange))
        if self.at_once:
            self.answer(len(self.asked) - 1)

    def answer(self, number: int) -> None:
        body, exchange = self.asked[number]
        exchange.answer(body, head=HEAD)


def post(body: bytes, path: str = "/hot", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: here", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


Answer = tuple[int, dict[str, str], bytes]


class Caller:
    """A client that writes bytes and reads whole answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.001)  # so that the pieces arrive as such; whole or not, the answers must be right

    async def answer(self) -> Answer:
        async with asyncio.timeout(LIMIT_SEC):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await self.reader.readexactly(int(headers["content-length"]))
            return int(lines[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        async with asyncio.timeout(LIMIT_SEC):
            return await self.reader.read(1) == b""


@asynccontextmanager
async def calling(app: ASGIApp, protocol: Any, **options: Any) -> AsyncIterator[tuple[Served, Caller]]:
    """Serve, and call: one connection."""
    async with serving(app, protocol, **options) as served, called(served) as caller:
        yield served, caller


@asynccontextmanager
async def called(served: Served) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@in_loop
async def test_a_chosen_request_never_reaches_the_application() -> None:
    async def nobody(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("the application was asked")

    hot = Hot()
    async with calling(nobody, hot.protocol) as (served, caller):
        for number in range(3):
            await caller.send(post(b"%d" % number))
            status, headers, body = await caller.answer()
            assert (status, headers, body) == (
                200,
                {"content-type": "text/plain", "content-length": "1"},
                b"%d" % number,
            )
        assert len(hot.asked) == served.state.total_requests == 3


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"x", "/other"),
        post(b"x").replace(b"POST", b"PUT"),
        post(b"x", "/hot", "expect: 100-continue"),
        post(b"x", "/hot", "connection: close"),
        post(b"x").replace(b"HTTP/1.1", b"HTTP/1.0"),
        post(b"x", "/hot", "filler: " + "x" * MAX_HEAD_BYTES),
        b"POST /hot HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        post(b"x") + post(b"y"),
        post(b"x").replace(b"content-length: 1", b"content-length: 1\r\ncontent-length: 1"),
        post(b"x", "/hot", "no header at all"),
        b"nonsense\r\n\r\n",
    ],
)
def test_whatever_is_out_of_the_ordinary_goes_uvicorns_way(request_bytes: bytes) -> None:
    hot = Hot()
    ours, uvicorns = asyncio.run(both_said([request_bytes], hot))
    assert hot.asked == []
    assert ours == uvicorns != b""


async def both_said(pieces: Sequence[bytes], hot: Hot) -> tuple[bytes, bytes]:
    """Send the pieces to the protocol and to uvicorn's own; return all that each says until the connection's end."""
    said = []
    for protocol in (hot.protocol, "httptools"):
        async with calling(app, protocol) as (_, caller):
            await caller.send(*pieces)
            with suppress(OSError):
                caller.writer.write_eof()
            async with asyncio.timeout(LIMIT_SEC):
                said.append(await caller.reader.read())
    return said[0], said[1]


REQUESTS = st.one_of(
    st.builds(post, st.binary(max_size=40), st.sampled_from(["/hot", "/hot", "/other"])),
    st.just(b"GET /other HTTP/1.1\r\nhost: here\r\n\r\n"),
    st.just(post(b"\r\n\r\nPOST /hot HTTP/1.1\r\ncontent-length: 0\r\n\r\n")),
)


@settings(max_examples=60, deadline=None)
@example(requests=[post(b"abc"), post(b"defg"), post(b"", "/other"), post(b"h")], cuts=[])
@given(requests=st.lists(REQUESTS, min_size=1, max_size=5), cuts=st.lists(st.integers(1, 600), max_size=6))
def test_however_the_bytes_arrive_the_answers_are_uvicorns(requests: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(requests)
    places = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    pieces = [whole[first:last] for first, last in itertools.pairwise(places)]
    ours, uvicorns = asyncio.run(answers_of_both(pieces, len(requests)))
    assert ours == uvicorns


async def answers_of_both(pieces: Sequence[bytes], count: int) -> tuple[list[Answer], list[Answer]]:
    said = []
    for protocol in (Hot().protocol, "httptools"):
        async with calling(app, protocol) as (_, caller):
            await caller.send(*pieces)
            said.append([await caller.answer() for _ in range(count)])
    return said[0], said[1]


@in_loop
async def test_what_comes_behind_a_request_waits_for_its_answer() -> None:
    hot = Hot(at_once=False)
    async with calling(app, hot.protocol) as (_served, caller):
        await caller.send(post(b"first"))
        await until(lambda: len(hot.asked) == 1, what="the first request")
        await caller.send(post(b"second"), post(b"third", "/other"))
        hot.at_once = True
        hot.answer(0)
        assert [(await caller.answer())[2] for _ in range(3)] == [b"first", b"second", b"third"]


@in_loop
async def test_an_answer_comes_once_and_never_to_who_has_gone() -> None:
    hot = Hot(at_once=False)
    async with calling(app, hot.protocol) as (served, caller):
        await caller.send(post(b"first"))
        await until(lambda: len(hot.asked) == 1, what="the first request")
        exchange = hot.asked[0][1]
        hot.answer(0)
        hot.answer(0)
        assert exchange.is_over
        await caller.answer()
        await caller.send(post(b"second"))
        await until(lambda: len(hot.asked) == 2, what="the second request")
        assert not hot.asked[1][1].is_over
        caller.writer.transport.abort()
        await until(lambda: hot.asked[1][1].is_over, what="it is noticed that nobody waits")
        hot.answer(1)
        assert served.state.total_requests == 1


@in_loop
async def test_a_stop_lets_the_answer_through_and_then_closes() -> None:
    hot = Hot(at_once=False)
    async with calling(app, hot.protocol) as (served, busy), called(served) as idle:
        await busy.send(post(b"first"))
        await until(lambda: len(hot.asked) == 1 and len(served.state.connections) == 2, what="both connections")
        for connection in list(served.state.connections):
            connection.shutdown()
        assert await idle.is_closed()
        hot.answer(0)
        _, headers, body = await busy.answer()
        assert (headers["connection"], body) == ("close", b"first")
        assert await busy.is_closed()


@in_loop
async def test_a_connection_is_closed_when_it_was_idle_for_the_time() -> None:
    hot = Hot()
    async with calling(app, hot.protocol, keep_alive_sec=1) as (_served, caller):
        loop = asyncio.get_running_loop()
        for _ in range(3):  # longer in all than the time
            await caller.send(post(b"x"))
            await caller.answer()
            last_sec = loop.time()
            await asyncio.sleep(0.6)
        assert await caller.is_closed()
        assert 0.9 < loop.time() - last_sec < 2.0


@in_loop
async def test_a_request_that_takes_long_is_not_idle() -> None:
    hot = Hot(at_once=False)
    async with calling(app, hot.protocol, keep_alive_sec=1) as (_served, caller):
        hot.at_once = True
        await caller.send(post(b"x"))
        await caller.answer()
        hot.at_once = False
        await caller.send(post(b"y"))
        await asyncio.sleep(1.3)
        hot.answer(1)
        assert (await caller.answer())[2] == b"y"
