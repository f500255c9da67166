"""A keep-alive HTTP connection that costs little beside what it measures.

An HTTP library would spend more time than the service under test and so measure itself. This one writes prepared
bytes and splits answers by Content-Length, which is all that the services' JSON answers need.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import cast
from urllib.parse import urlsplit

Answer = tuple[int, bytes]
"""Status and body."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*(?:\r\n|\Z)", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")


class AnswerError(Exception):
    """The service closed the connection, or answered what this client does not read."""


class AnswerReader:
    """Splits what comes over a connection into answers, however the network has cut it."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = 0

    def feed(self, data: bytes) -> list[Answer]:
        """Return the answers that are whole now.

        Raises:
            AnswerError: it is no HTTP, or its length is not given.
        """
        self._chunks.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return []
        buffer = data if len(self._chunks) == 1 else b"".join(self._chunks)
        answers: list[Answer] = []
        at = 0
        while True:
            head_end = buffer.find(_HEAD_END, at)
            if head_end < 0:
                self._keep(buffer[at:], needed=0)
                return answers
            status, length = _read_head(buffer[at:head_end])
            body_at = head_end + len(_HEAD_END)
            if len(buffer) < body_at + length:
                self._keep(buffer[at:], needed=body_at + length - at)
                return answers
            answers.append((status, buffer[body_at : body_at + length]))
            at = body_at + length
            if at == len(buffer):
                self._keep(b"", needed=0)
                return answers

    def _keep(self, rest: bytes, *, needed: int) -> None:
        """Hold back the beginning of an answer; until ``needed`` bytes are there, nothing need be looked at."""
        self._chunks = [rest] if rest else []
        self._held = len(rest)
        self._needed = needed


def _read_head(head: bytes) -> tuple[int, int]:
    status, length = _STATUS.match(head), _LENGTH.search(head)
    if status is None:
        raise AnswerError(f"no HTTP answer: {head[:40]!r}")
    if length is None:
        raise AnswerError("an answer without Content-Length")
    return int(status[1]), int(length[1])


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._answer: asyncio.Future[Answer] | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect to a service, named as ``http://127.0.0.1:8001``."""
        host, port = address_of(url)
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transport is one, and does not say so.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Give the answer once it is whole."""
        try:
            answers = self._reader.feed(data)
        except AnswerError as error:
            self._fail(error)
            self.close()
            return
        for answer in answers:
            waiting, self._answer = self._answer, None
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        self._transport = None
        self._fail(exc or AnswerError("the service closed the connection"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def send(self, message: bytes) -> Awaitable[Answer]:
        """Send a prepared request at once; await what is returned for the answer.

        Raises:
            AnswerError: the connection is closed.
        """
        if self._transport is None:
            raise AnswerError("the service closed the connection")
        self._answer = self._loop.create_future()
        self._transport.write(message)
        return self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of a service's URL.

    Raises:
        ValueError: it is no ``http://`` URL of a service.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"{url!r} is no address that can be driven; one reads http://127.0.0.1:8001")
    return parts.hostname, parts.port or 80


def get(path: str) -> bytes:
    """Prepare a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """Prepare a POST of JSON."""
    return b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        len(body),
        body,
    )
