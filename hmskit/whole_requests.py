"""Answer chosen requests straight from the connection, where each came whole; all others go to the ASGI application.

To take a request apart and wrap it for ASGI costs uvicorn more than a hot call's own work (docs/adr/0012). Workers
send the same head again and again: one that was parsed once, by httptools as uvicorn does it, is looked up by its
bytes. Whatever is out of the ordinary takes uvicorn's own way: a request in pieces, several at once, a body
without a length, ``Expect``, a connection that is to be closed, a client that does not read its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 2_048
MAX_HEADS = 4_096
"""How many heads are known by their bytes; each of at most `MAX_HEAD_BYTES`."""

_END_OF_HEAD = b"\r\n\r\n"
# What changes how a body or an answer is sent.
_NOT_EVERYDAY = frozenset({b"expect", b"transfer-encoding", b"upgrade"})

Header = tuple[bytes, bytes]
"""A lower-case name, and a value."""


class Head(NamedTuple):
    """What a request says before its body, which has ``body_bytes``; ``target`` is path and query as they were sent."""

    method: str
    target: bytes
    headers: Sequence[Header]
    body_bytes: int


class Exchange:
    """A request that came whole, and its answer. Belongs to the event loop's thread."""

    __slots__ = ("_connection", "_is_over")

    def __init__(self, connection: WholeRequests) -> None:
        self._connection = connection
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether it was answered, or whoever asked has gone away."""
        return self._is_over or self._connection.transport.is_closing()

    def answer(self, body: bytes, *, head: bytes) -> None:
        """Send a body with 200. ``head``: the lines of its headers, but for the length, each with its line's end."""
        self._send(STATUS_LINE[200], b"%bcontent-length: %d\r\n" % (head, len(body)), body)

    def respond(self, response: Response) -> None:
        """Send a response, whatever its status."""
        head = b"".join([b"%b: %b\r\n" % header for header in response.raw_headers])
        self._send(STATUS_LINE[response.status_code], head, bytes(response.body))

    def _send(self, status_line: bytes, head: bytes, body: bytes) -> None:
        if not self.is_over:
            self._is_over = True
            self._connection.answered(status_line, head, body)


Answering = Callable[[bytes, Exchange], None]
"""Takes a request's body, and sees to it that the exchange is answered, now or later; it must not raise."""
Choose = Callable[[Head], Answering | None]
"""Says how a request is answered; None: by the application. The same head must always give the same."""


class _Known(NamedTuple):
    """A head that is answered here: how, and how long its body is."""

    answering: Answering
    body_bytes: int


class WholeRequests(HttpToolsProtocol):
    """Uvicorn's protocol with a way past ASGI. Made by `answers_whole`, which says for which requests."""

    _known: Callable[[bytes], _Known | None]

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **options)
        self._exchange: Exchange | None = None
        self._behind: list[bytes] = []
        self._is_in_message = False
        self._closes = False
        self._answered_at_sec = 0.0

    def data_received(self, data: bytes) -> None:
        """Answer a request that came whole and stands alone; leave everything else to uvicorn."""
        if self._exchange is not None:  # what comes behind a request waits for its answer
            self._behind.append(data)
            if sum(map(len, self._behind)) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            return
        is_free = not self._is_in_message and (self.cycle is None or self.cycle.response_complete)
        if is_free and not self.flow.write_paused:
            end = data.find(_END_OF_HEAD, 0, MAX_HEAD_BYTES) + len(_END_OF_HEAD)
            known = self._known(data[:end]) if end >= len(_END_OF_HEAD) else None
            if known is not None and len(data) - end == known.body_bytes:
                self._exchange = Exchange(self)
                known.answering(data[end:], self._exchange)
                return
        super().data_received(data)

    def answered(self, status_line: bytes, head: bytes, body: bytes) -> None:
        """Send the answer of the exchange, and go on with what came behind it."""
        self._exchange = None
        self.server_state.total_requests += 1
        default = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        close = b"connection: close\r\n" if self._closes else b""
        self.transport.write(b"".join((status_line, default, head, close, b"\r\n", body)))
        if self._closes:
            self.transport.close()
            return
        self._answered_at_sec = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_more(self.timeout_keep_alive)
        if self._behind:
            behind = b"".join(self._behind)
            self._behind.clear()
            self.flow.resume_reading()
            self.data_received(behind)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless it was used since: a timer for each request would cost more than the rest."""
        left_sec = self._answered_at_sec + self.timeout_keep_alive - self.loop.time()
        if self.transport.is_closing():
            return
        if self._exchange is not None:
            self._wait_for_more(self.timeout_keep_alive)
        elif left_sec > 0:
            self._wait_for_more(left_sec)
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Close the connection once what it asked for is answered."""
        if self._exchange is None:
            super().shutdown()
        else:
            self._closes = True

    def on_message_begin(self) -> None:
        """Note that a request is being read by uvicorn."""
        self._is_in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that it was read."""
        self._is_in_message = False
        super().on_message_complete()

    def _wait_for_more(self, sec: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(sec, self.timeout_keep_alive_handler)


def answers_whole(choose: Choose) -> type[WholeRequests]:
    """Return a protocol for uvicorn's ``http=`` that answers what ``choose`` chooses."""

    @lru_cache(maxsize=MAX_HEADS)
    def known(head: bytes) -> _Known | None:
        read = _read(head)
        answering = None if read is None else choose(read)
        return None if read is None or answering is None else _Known(answering, read.body_bytes)

    class AnswersWhole(WholeRequests):
        _known = staticmethod(known)

    return AnswersWhole


class _Reader:
    """Collects what httptools tells of a head."""

    def __init__(self, head: bytes) -> None:
        self.target = b""
        self.headers: list[Header] = []
        self.is_plain = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(head)
        self.method = self._parser.get_method().decode("ascii")

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        stays_open = self._parser.get_http_version() == "1.1" and self._parser.should_keep_alive()
        self.is_plain = stays_open and _NOT_EVERYDAY.isdisjoint([name for name, _ in self.headers])


def _read(head: bytes) -> Head | None:
    """Return a head; None where it is not an everyday one."""
    try:
        reader = _Reader(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not reader.is_plain:
        return None
    body_bytes = next((int(value) for name, value in reader.headers if name == b"content-length"), 0)
    return Head(reader.method, reader.target, tuple(reader.headers), body_bytes)
