"""Serve an application on a port of this process's loop, as uvicorn does, without its signals and its lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState


@dataclass(frozen=True)
class Served:
    """A server: its port, and uvicorn's record of its connections."""

    port: int
    state: ServerState

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    app: ASGIApp, protocol: Literal["httptools"] | type[asyncio.Protocol] = "httptools", *, keep_alive_sec: int = 75
) -> AsyncIterator[Served]:
    """Serve until the end of the block; then every connection is closed."""
    config = uvicorn.Config(
        app, http=protocol, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=keep_alive_sec
    )
    config.load()
    state = ServerState()
    make: Any = config.http_protocol_class
    server = await asyncio.get_running_loop().create_server(
        lambda: make(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield Served(server.sockets[0].getsockname()[1], state)
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
