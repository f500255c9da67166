"""A way to a service on which what clients send can be held back, and let through later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class HeldWay:
    """A TCP proxy to a port of this machine.

    Attributes:
        url: of the service, by this way.
        target: the service's port.
        held_bytes: how much is held back now.
    """

    def __init__(self) -> None:
        self.url = ""
        self.target = 0
        self.held_bytes = 0
        self._is_open = asyncio.Event()
        self._is_open.set()

    def hold(self) -> None:
        """Hold back what clients send from now on."""
        self._is_open.clear()

    def let_go(self) -> None:
        """Let everything through again, first what was held back."""
        self._is_open.set()

    async def serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        try:
            server_in, server_out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client_out.transport.abort()
            return
        carrying = [
            asyncio.create_task(self._carry(client_in, server_out, is_held=True)),
            asyncio.create_task(self._carry(server_in, client_out, is_held=False)),
        ]
        with suppress(OSError):
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
        for task in carrying:
            task.cancel()
        client_out.transport.abort()
        server_out.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_held: bool) -> None:
        with suppress(OSError):
            while chunk := await source.read(65_536):
                if is_held and not self._is_open.is_set():
                    self.held_bytes += len(chunk)
                    await self._is_open.wait()
                    self.held_bytes -= len(chunk)
                target.write(chunk)
                await target.drain()


@asynccontextmanager
async def held_way() -> AsyncIterator[HeldWay]:
    """Serve a way until the end of the block; its target is set before it is used."""
    way = HeldWay()
    server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
    way.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield way
    finally:
        server.close()
