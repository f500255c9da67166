"""The benchmark's own HTTP client reads every answer right, however the network cuts it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.bench.connection import Answer, AnswerError, AnswerReader, Connection, address_of, get, post
from tests.oms.support import in_loop

LENGTH_NAMES = ("content-length", "Content-Length", "CONTENT-LENGTH")
OTHER_HEADERS = (
    "x-content-length: 7",
    "content-type: application/json",
    "cache-control: no-store",
    "x: Content-Length: 3",
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Answer, bytes]:
    """Draw an answer, and its bytes on the wire."""
    status = draw(st.integers(100, 599))
    # Bodies that look like heads, too.
    body = draw(
        st.binary(max_size=80) | st.sampled_from([b"\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"])
    )
    name = draw(st.sampled_from(LENGTH_NAMES))
    headers = draw(st.lists(st.sampled_from(OTHER_HEADERS), max_size=3))
    headers.insert(draw(st.integers(0, len(headers))), f"{name}:{draw(st.sampled_from(['', ' ', '  ']))}{len(body)}")
    head = "\r\n".join([f"HTTP/1.1 {status} Any Words", *headers]) + "\r\n\r\n"
    return (status, body), head.encode() + body


@given(st.lists(answers(), max_size=5), st.data())
def test_answers_are_split_right_however_they_are_cut(sent: list[tuple[Answer, bytes]], data: st.DataObject) -> None:
    wire = b"".join(raw for _, raw in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    reader = AnswerReader()
    got: list[Answer] = []
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        got += reader.feed(wire[begin:end])
    assert got == [answer for answer, _ in sent]


def test_answers_are_split_right_byte_by_byte() -> None:
    reader = AnswerReader()
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnullHTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\n{}"
    assert [answer for byte in wire for answer in reader.feed(bytes([byte]))] == [(200, b"null"), (409, b"{}")]


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nnull\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-content-length: 4\r\n\r\nnull",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
def test_what_it_cannot_read_is_refused(wire: bytes) -> None:
    with pytest.raises(AnswerError):
        AnswerReader().feed(wire)


class Wire:
    """Stands in for a transport."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.closed = True


def connected() -> tuple[Connection, Any]:
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    return connection, wire


@in_loop
async def test_a_request_and_its_answer() -> None:
    connection, wire = connected()
    answering = connection.send(get("/pull?lane=a"))
    assert wire.sent == [b"GET /pull?lane=a HTTP/1.1\r\nHost: bench\r\n\r\n"]
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnu")
    connection.data_received(b"ll")
    assert await answering == (200, b"null")


@in_loop
async def test_a_closed_connection() -> None:
    connection, _ = connected()
    answering = connection.send(post("/start", b"{}"))
    connection.connection_lost(None)
    with pytest.raises(AnswerError):
        await answering
    with pytest.raises(AnswerError):
        connection.send(b"more")


@in_loop
async def test_an_answer_that_cannot_be_read() -> None:
    connection, wire = connected()
    answering = connection.send(get("/"))
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    with pytest.raises(AnswerError):
        await answering
    assert wire.closed


def test_addresses() -> None:
    assert address_of("http://127.0.0.1:8001") == ("127.0.0.1", 8001)
    assert address_of("http://oms/") == ("oms", 80)
    for url in ("https://127.0.0.1:8001", "127.0.0.1:8001", "http://", "http://oms/start"):
        with pytest.raises(ValueError, match="is no address"):
            address_of(url)
