"""A live stream of the ledger's rows: Server-Sent Events.

A follower holds its position and nothing else. What it has not sent is in the database, so a slow reader costs no
memory, and a reader who comes back with ``Last-Event-ID`` goes on exactly where it was.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog
from sqlalchemy import Connection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from act import ledger as verbs
from act.api.query import EVENT_STREAM
from act.domain.entry import row_json
from act.domain.errors import UnavailableError
from act.domain.filters import Filters
from act.ledger import Ledger

log = structlog.get_logger(__name__)

PAGE = 64
"""How many entries are read at once: what one slow reader can hold in memory."""
SEND_TIMEOUT_SEC = 30.0
"""How long a reader may leave its connection full before it is closed; it can come back and go on."""
MIN_READ_INTERVAL_SEC = 0.05
"""A busy ledger wakes its followers at every commit; each reads at most this often."""
STOP_SEC = 1.0
"""How long a stream may take to end when the service stops."""


class LiveStream(Response):
    """Sends every row after a position, then those to come, until the client leaves or the service stops.

    Args:
        ledger: the open ledger.
        filters: which rows.
        position: from `act.ledger.start`.
        ping_sec: how long nothing may be sent before a comment is, so that proxies keep the connection.

    Raises:
        UnavailableError: on the first use: too many follow already.
    """

    def __init__(self, ledger: Ledger, filters: Filters, position: int, *, ping_sec: float) -> None:
        super().__init__(
            media_type=EVENT_STREAM,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]
        self._ledger = ledger
        self._filters = filters
        self._position = position
        self._ping_sec = ping_sec

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until one side ends it."""
        with self._ledger.followers.join(self._filters.job) as wake:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            stopped = self._ledger.followers.stopped
            pump, gone = asyncio.create_task(self._pump(send, wake)), asyncio.create_task(_disconnected(receive))
            stop = asyncio.create_task(_wait(stopped))
            tasks: tuple[asyncio.Task[None], ...] = (pump, gone, stop)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if stop.done() and not pump.done():
                    await asyncio.wait([pump], timeout=STOP_SEC)  # it ends after the row that it is at
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if pump.done() and not pump.cancelled() and (error := pump.exception()) is not None:
            raise error
        if not gone.done() or gone.cancelled():
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SEC):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send, wake: asyncio.Event) -> None:
        """Send rows as they come. Ends when the service stops, or the reader does not take them."""
        stopped = self._ledger.followers.stopped
        # Something at once: a client sees that it is connected, and how soon to come back.
        if not await _send(send, b"retry: 1000\n\n"):
            return
        while not stopped.is_set():
            wake.clear()  # before reading: a commit while it reads wakes it again
            read_at = time.monotonic()
            try:
                rows, self._position, is_last = await self._ledger.read(_page, self._filters, self._position)
            except UnavailableError as error:
                log.warning("live_stream_ended", why=error.detail)
                return  # the client comes back by itself, and goes on where it was
            if rows and not await _send(send, rows):
                return
            if not is_last:
                continue
            try:
                async with asyncio.timeout(self._ping_sec):
                    await wake.wait()
            except TimeoutError:
                if not await _send(send, b": ping\n\n"):
                    return
            else:
                await asyncio.sleep(max(0.0, read_at + MIN_READ_INTERVAL_SEC - time.monotonic()))


def _page(tx: Connection, filters: Filters, position: int) -> tuple[bytes, int, bool]:
    page = verbs.stream(tx, filters, position=position, count=PAGE)
    rows = b"".join(b"id: %d\ndata: %b\n\n" % (entry.idx, row_json(entry)) for entry in page.entries)
    return rows, page.position, page.is_last


async def _send(send: Send, body: bytes) -> bool:
    """Send a chunk; return False where the reader did not take it in time."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_SEC):
            await send({"type": "http.response.body", "body": body, "more_body": True})
    except TimeoutError:
        return False
    return True


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
