"""Run an app until a signal, and end in order: nothing that was accepted is dropped on the way out."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

GRACE_SEC = 5
"""How long running requests have after SIGTERM; the whole stop stays under 10 seconds."""

COLLECT_EVERY_OBJECTS = 50_000

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CannotListenError(Exception):
    """The address cannot be listened on; the message says why and what to do."""


class GracefulServer(uvicorn.Server):
    """Uvicorn, but a stop first wakes the requests that wait on purpose, and SIGTERM is a success.

    Uvicorn alone waits for a parked long poll until its grace runs out, and raises the signal again once it
    is through, so that the process would not exit 0.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        on_hangup: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_hangup = on_hangup

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Listen for the signals while serving, in the loop, where handlers may touch its objects."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            for number in (*STOP_SIGNALS, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _stop(self, number: int) -> None:
        # The second Ctrl-C means now. A second SIGTERM does not: it comes from wrappers that pass the first one on.
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, listen, and only then say so."""
        await super().startup(sockets)
        _calm_collector()
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop taking connections, answer what waits, let the rest end, then close the app."""
        for server in self.servers:
            server.close()
        self._on_stop()
        await super().shutdown(sockets)


def _calm_collector() -> None:
    """Let the garbage collector look less often, and not at what the start has made, which stays until the end.

    Requests leave next to no cycles; a look after every 700 objects is much of the time that reading a batch takes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY_OBJECTS, 20, 50)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address (port 0: a free one), but does not accept connections yet.

    Raises:
        CannotListenError: it is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotListenError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port, or stop what uses it"
        ) from None
    listener.set_inheritable(True)
    return listener


def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    protocol: Literal["httptools"] | type[asyncio.Protocol] = "httptools",
    on_ready: Callable[[], None] = lambda: None,
    on_stop: Callable[[], None] = lambda: None,
    on_hangup: Callable[[], None] = lambda: None,
) -> None:
    """Serve ``app`` on ``listener`` until SIGTERM or SIGINT; return when all is ended and flushed.

    Args:
        app: an ASGI app with a lifespan.
        listener: from `bind`.
        protocol: uvicorn's own, or one that is made of it.
        on_ready: called in the loop once connections are accepted.
        on_stop: called in the loop when the stop begins: answer the requests that wait.
        on_hangup: called in the loop on SIGHUP.

    Raises:
        SystemExit: the app could not start (code 3); its log says why.
    """
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client is; to read them for each request costs a dict of its headers
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SEC,
        backlog=2048,
    )
    GracefulServer(config, on_ready=on_ready, on_stop=on_stop, on_hangup=on_hangup).run(sockets=[listener])
