"""A keep-alive HTTP connection that costs little beside what it measures.

An HTTP library would spend more time than the service under test and so measure itself. This one writes prepared
bytes and splits answers by Content-Length, which is all that the services' JSON answers need.
"""

from __future__ import annotations

import asyncio

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class AnswerError(Exception):
    """The service closed the connection, or answered what this client does not read."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Give the answer once it is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(_LENGTH)
        if at < 0:
            self._fail(AnswerError("an answer without Content-Length"))
            return
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
        body_at = head_end + len(_HEAD_END)
        if len(self._buffer) < body_at + length:
            return
        body = self._buffer[body_at : body_at + length]
        self._buffer = self._buffer[body_at + length :]
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        self._fail(exc or AnswerError("the service closed the connection"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    async def request(self, message: bytes) -> tuple[int, bytes]:
        """Send a prepared request; return status and body."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


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
