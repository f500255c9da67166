"""One kept connection to a service: what the relay posts over, a batch after the other.

An `httpx` transport over the standard library's `http.client`, in a thread. httpx's own transport works several times
as long on a large request, in the one thread that also answers everybody else; this one waits in the system's calls,
where it is in nobody's way.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from contextlib import suppress

import httpx


class OneConnection(httpx.AsyncBaseTransport):
    """Sends requests one after the other over a connection that stays open; belongs to one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._kept: http.client.HTTPConnection | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the whole answer.

        Where a kept connection turns out to be closed, it is sent once more, on a new one: only for what may be sent
        twice.
        A caller that is cancelled does not wait for the answer, and its thread ends, too.

        Raises:
            httpx.ConnectError: the service is not there.
            httpx.TimeoutException: it does not answer in time.
            httpx.ReadError: the connection broke; whether the request was worked on is not known.
        """
        body = await request.aread()
        async with self._turn:
            exchange = _Exchange(request, body, self._kept)
            self._kept = None
            try:
                answer = await asyncio.to_thread(exchange.run)
            except asyncio.CancelledError:
                exchange.give_up()
                raise
            self._kept = exchange.connection
            return answer

    async def aclose(self) -> None:
        """Close the connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


class _Exchange:
    """One request and its answer.

    Attributes:
        connection: it is kept after an answer; None where there is none (any more).
    """

    def __init__(self, request: httpx.Request, body: bytes, kept: http.client.HTTPConnection | None) -> None:
        self.connection = kept
        self._request = request
        self._body = body
        self._given_up = False

    def run(self) -> httpx.Response:
        """Send, and return the answer. In a thread."""
        try:
            if self.connection is not None:
                with suppress(http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                    return self._ask(self.connection)
                # It had been idle for too long, or the service was started again.
            return self._ask(self._open())
        except httpx.HTTPError:
            self._close()
            raise
        except TimeoutError as error:
            self._close()
            raise httpx.ReadTimeout("no answer in time", request=self._request) from error
        except (OSError, http.client.HTTPException) as error:
            self._close()
            raise httpx.ReadError(f"{type(error).__name__}: {error}", request=self._request) from error

    def give_up(self) -> None:
        """Let the thread end now: nobody waits for the answer. From another thread."""
        self._given_up = True
        if self.connection is not None:
            with suppress(OSError, AttributeError):  # it is closed already
                self.connection.sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, connection: http.client.HTTPConnection) -> httpx.Response:
        headers = {name: value for name, value in self._request.headers.items() if name != "host"}
        connection.request(self._request.method, self._request.url.raw_path.decode("ascii"), self._body, headers)
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read(), request=self._request)

    def _open(self) -> http.client.HTTPConnection:
        self._close()
        url, timeout = self._request.url, self._request.extensions.get("timeout", {})
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.host, url.port, timeout=timeout.get("connect"))
        try:
            connection.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time", request=self._request) from error
        except OSError as error:
            raise httpx.ConnectError(f"{type(error).__name__}: {error}", request=self._request) from error
        connection.sock.settimeout(timeout.get("read"))
        self.connection = connection
        if self._given_up:
            raise httpx.ReadError("given up", request=self._request)
        return connection

    def _close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
