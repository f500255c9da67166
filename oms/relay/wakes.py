"""Wake-ups between towers: a long poll that is parked at one is answered when another makes work ready.

A tower says to the others, through a fan-out exchange of RabbitMQ, in which lanes it has made work ready. It is a hint
and no more: the tasks are in the database, and a tower that hears nothing looks for itself after its poll. So nothing
here waits, repeats or is kept: a lost message costs a poll's wait, never a task.

* The exchange is named after the site: several sites on one broker hear only themselves.
* Each tower has a queue of its own that goes with its connection. The broker names it: under a name of ours, a tower
  that comes back at once would be refused until the broker has noticed that its last connection is dead.
* The queue is short, and what is in it soon worthless (`MAX_QUEUED`, `WORTHLESS_AFTER_MS`): a tower that hangs costs
  the broker nothing. Messages are taken without acknowledging them, for which the broker has no prefetch limit.
* A tower hears itself, too. What it says and does not hear within `ECHO_SEC` proves that the way is broken, however
  well the connection looks: an exchange that was deleted, an alarm of the broker, a network that swallows everything.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from hmskit.broker import BLOCKED, BrokerError, Link, is_blocked

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage

EXCHANGE = "oms.wakes"
GATHER_SEC = 0.003
"""How long lanes are gathered for one message: under load, one for many commits."""
MAX_LANES = 1_000
"""Of how many lanes one message tells; of the others the towers learn by their polls."""
MAX_QUEUED = 1_000
WORTHLESS_AFTER_MS = 5_000
PING_SEC = 5.0
"""How often a tower that has nothing to say says so, to hear itself."""
ECHO_SEC = 5.0

log = structlog.get_logger(__name__)


class Wakes:
    """Tells the other towers of a site what became ready here, and hears it from them. Belongs to the event loop.

    Args:
        url: the broker's, ``amqp://`` or ``amqps://``.
        site: what all towers on one database have in common, and no others.
        tower: this process, unlike every other one.
        on_wake: called in the loop with what another tower made ready: how many tasks in which lanes, about.

    Raises:
        BrokerError: the client is not installed.
    """

    def __init__(self, url: str, *, site: str, tower: str, on_wake: Callable[[Mapping[str, int]], None]) -> None:
        self._tower = tower
        self._exchange_name = f"{EXCHANGE}.{site}"
        self._on_wake = on_wake
        self._link = Link(url, name=f"oms {tower}", use=self._use)
        self._ready: dict[str, int] = {}
        self._news = asyncio.Event()
        self._is_open = False
        self._gone: str | None = None
        self._said_at: float | None = None

    @property
    def health(self) -> dict[str, Any]:
        """How it goes: ``ok``, ``error`` (why not) and ``since`` when, RFC 3339."""
        return self._link.health.report()

    async def run(self) -> None:
        """Connect, tell and hear, and again when the connection is lost. Returns only by being cancelled."""
        await self._link.run()

    def publish(self, lanes: Mapping[str, int]) -> None:
        """Tell the other towers how many tasks became ready in which lanes. Returns at once; may come to nothing."""
        if not self._is_open:
            return
        for lane, ready in lanes.items():
            if lane in self._ready or len(self._ready) < MAX_LANES:
                self._ready[lane] = self._ready.get(lane, 0) + ready
        self._news.set()

    async def _use(self, connection: AbstractConnection) -> None:
        """Tell and hear on an open connection.

        Raises:
            BrokerError: it is of no more use.
        """
        self._gone = None
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.declare_exchange(self._exchange_name, "fanout", durable=False, auto_delete=True)
        await self._hear(channel, exchange)
        self._said_at = None
        self._ready.clear()
        self._is_open = True
        try:
            while self._gone is None:
                self._news.clear()
                await self._say(exchange)
                await self._wait_for_news()
                await self._check_echo(connection)
        finally:
            self._is_open = False
        raise BrokerError(self._gone)

    async def _hear(self, channel: AbstractChannel, exchange: AbstractExchange) -> None:
        queue = await channel.declare_queue(
            exclusive=True,
            auto_delete=True,
            arguments={"x-max-length": MAX_QUEUED, "x-message-ttl": WORTHLESS_AFTER_MS},
        )
        await queue.bind(exchange)
        await queue.consume(self._heard, no_ack=True)
        # The broker may close the channel, and an operator delete the queue: both end the wait for news.
        channel.close_callbacks.add(lambda _, error: self._end(f"the channel was closed: {error}"))
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: self._end("the queue was deleted"))

    def _end(self, why: str) -> None:
        self._gone = self._gone or why
        self._news.set()

    async def _say(self, exchange: AbstractExchange) -> None:
        """Send what became ready; without anything, a ping."""
        import aio_pika  # noqa: PLC0415 - an extra, imported only where a URL is set

        lanes, self._ready = self._ready, {}
        message = aio_pika.Message(
            json.dumps(lanes).encode(), app_id=self._tower, content_type="application/json", delivery_mode=1
        )
        if self._said_at is None:
            self._said_at = time.monotonic()
        async with asyncio.timeout(ECHO_SEC):  # what becomes ready meanwhile is gathered
            await exchange.publish(message, routing_key="", mandatory=False)

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(PING_SEC):
                await self._news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_SEC)

    async def _check_echo(self, connection: AbstractConnection) -> None:
        if self._said_at is not None and time.monotonic() - self._said_at > ECHO_SEC:
            if await is_blocked(connection):
                raise BrokerError(BLOCKED)
            raise BrokerError("the broker does not pass on what is sent")

    async def _heard(self, message: AbstractIncomingMessage) -> None:
        if message.app_id == self._tower:
            self._said_at = None
            self._link.is_well()
            return
        lanes = _lanes_in(message.body)
        if lanes:
            try:
                self._on_wake(lanes)
            except Exception:
                log.exception("wake_failed")


def _lanes_in(body: bytes) -> dict[str, int]:
    """Return the lanes that a message names; of what is no such message, which anybody may send, none."""
    try:
        lanes = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(lanes, dict):
        return {}
    return {lane: ready for lane, ready in lanes.items() if type(ready) is int and ready > 0}
