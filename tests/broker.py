"""RabbitMQ for tests: the server, and a proxy before it that breaks the way to it.

The server is the one that ``TEST_AMQP_URL`` names, else one on 127.0.0.1:5672. Where there is none, the test is
skipped; in CI it fails. It is shared: what a test makes there has a name of its own and is removed, and the server is
never stopped. What would happen then is done to the way there.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import marshal

SETTING = "TEST_AMQP_URL"
LOCAL = "amqp://guest:guest@127.0.0.1:5672/"
CONNECT_SEC = 3.0
LIMIT_SEC = 20.0
BLOCKED = commands.Connection.Blocked("low on memory")
UNBLOCKED = commands.Connection.Unblocked()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds."""
    try:
        async with asyncio.timeout(LIMIT_SEC):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"it did not come to this: {what}")


def own_name(kind: str) -> str:
    """Return a name on the broker that nobody else has."""
    return f"test.{kind}.{secrets.token_hex(6)}"


def find_broker() -> str:
    """Return the URL of a running broker."""
    url = os.environ.get(SETTING)
    address = urlsplit(url or LOCAL)
    try:
        socket.create_connection((address.hostname, address.port or 5672), timeout=CONNECT_SEC).close()
    except OSError as error:
        message = f"no RabbitMQ at {address.hostname}:{address.port or 5672} ({error}): start one, or set {SETTING}"
        if url or os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return url or LOCAL


@dataclass
class Proxy:
    """A way to the broker that can be broken. All of it works at first.

    Attributes:
        url: the broker's, through the proxy.
        is_refusing: new connections are closed at once.
        is_up_stalled: what the client sends is held back; what is held when the connection ends is lost.
        is_down_stalled: what the broker sends is read and thrown away: the client never hears of it.
        accepted: how many connections there have been.
        held_bytes: how much of what the client sent is held back.
    """

    url: str
    is_refusing: bool = False
    is_up_stalled: bool = False
    is_down_stalled: bool = False
    accepted: int = 0
    held_bytes: int = 0
    _open: dict[asyncio.StreamWriter, asyncio.StreamWriter] = field(default_factory=dict)
    _may_read: asyncio.Event = field(default_factory=asyncio.Event)

    def drop(self) -> None:
        """Reset every connection."""
        self.held_bytes = 0
        for client, server in self._open.items():
            client.transport.abort()
            server.transport.abort()

    def break_off(self) -> None:
        """Reset every connection, and refuse new ones."""
        self.is_refusing = True
        self.drop()

    def mend(self) -> None:
        """Let everything through again."""
        self.is_refusing = self.is_up_stalled = self.is_down_stalled = False
        self._may_read.set()

    def say(self, frame: Frame, *, channel: int = 0) -> None:
        """Send a frame to the clients in the broker's name. Only while the broker itself says nothing."""
        for client in self._open:
            client.write(marshal(frame, channel))

    async def serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        self.accepted += 1
        if self.is_refusing:
            client_out.transport.abort()
            return
        address = urlsplit(find_broker())
        server_in, server_out = await asyncio.open_connection(address.hostname, address.port or 5672)
        self._open[client_out] = server_out
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry_up(client_in, server_out))
                both.create_task(self._carry_down(server_in, client_out))
        except* OSError:
            pass
        finally:
            del self._open[client_out]
            client_out.transport.abort()
            server_out.transport.abort()

    async def _carry_up(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(65_536):
            while self.is_up_stalled:
                self.held_bytes += len(chunk)
                self._may_read.clear()
                await self._may_read.wait()
            target.write(chunk)
            await target.drain()
        raise ConnectionResetError

    async def _carry_down(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(65_536):
            if not self.is_down_stalled:
                target.write(chunk)
                await target.drain()
        raise ConnectionResetError


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxy]:
    """Run a proxy before the broker, until the end of the block."""
    url = find_broker()
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    parts = urlsplit(url)
    port = server.sockets[0].getsockname()[1]
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    proxy.url = parts._replace(netloc=f"{login}127.0.0.1:{port}").geturl()
    try:
        yield proxy
    finally:
        server.close()
        proxy.drop()
