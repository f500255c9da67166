"""Publish the ledger to RabbitMQ: at least once, in its order, and nothing in ACT waits for it.

A position in ACT's own database says what comes next (`act.storage.fanout`, also on why that is safe). What is
published is read from the ledger, never from memory: a broker that was away for a week is caught up with like one that
was away for a second. A crash between the broker's confirm and the saved position repeats some events, under the same
message ids.

* Confirms are awaited for a window of messages together. After any failure the window is one message, and doubles with
  each that succeeds: what comes behind a refused message is sent again, and would be out of order for a subscriber.
* A message that nobody is bound for comes back and is confirmed all the same. It counts as published.
* Several ACT processes may run this: one publishes, while there is something to publish; the others stand by. Who has
  no broker takes no lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from act.domain.errors import UnavailableError
from act.fanout.message import message_of, routing_key
from act.ledger import Ledger
from act.storage.fanout import Outgoing, claim, leave, move, next_events, position_of
from hmskit.broker import BLOCKED, BrokerError, Link, is_blocked

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection, AbstractExchange

MAX_WINDOW = 500
"""Messages that wait for their confirms at once."""
MAX_WINDOW_BYTES = 4 * 1024 * 1024
LEASE_SEC = 15.0
SAVE_EVERY_SEC = 1.0
"""How often the position is saved: each time is a commit, and a crash repeats what came after the last."""
GATHER_SEC = 0.01
"""After a small window more is waited for: one of its own for each event would cost ACT more than it tells."""
SMALL_WINDOW = 100
STANDBY_SEC = 1.0
"""How often one that stands by looks whether it is needed."""
CONFIRM_SEC = 30.0
"""After so long without a confirm, and without the broker saying that it takes none, the connection is given up."""
TICK_SEC = 0.5
LEAVE_SEC = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Lease:
    """What the publisher knows while it holds the lease.

    Attributes:
        position: the index that is published next.
        saved: the position in the database.
        saved_at: when that was saved and the lease renewed, monotonic seconds; taken before asking.
    """

    position: int
    saved: int
    saved_at: float


class Fanout:
    """Publishes the ledger for as long as the service runs. Belongs to the event loop.

    Args:
        url: the broker's, ``amqp://`` or ``amqps://``.
        ledger: open.
        exchange: the topic exchange; the position has its name.
        holder: this process, unlike every other one.
        steady: a clock for waiting, seconds.

    Raises:
        BrokerError: the client is not installed.
    """

    def __init__(
        self,
        url: str,
        ledger: Ledger,
        *,
        exchange: str,
        holder: str,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._holder = holder
        self._exchange = exchange
        self._steady = steady
        self._link = Link(url, name=f"act {holder}", use=self._use)
        self._news = asyncio.Event()
        self._closed_by = ""
        self._lease: Lease | None = None
        self._known_position = 0
        self._window = 1
        self._published = 0
        self._returned = 0

    @property
    def health(self) -> dict[str, Any]:
        """How it goes, for ``/readyz``.

        ``ok``, ``error`` and ``since`` are those of the broker; ``publishes`` whether this process does so now;
        ``position`` the index that comes next, as far as known here, and ``behind`` how many events wait for it;
        ``published`` what this process has published since it started, ``returned`` how many of those nobody was
        bound for.
        """
        position = self._lease.position if self._lease is not None else self._known_position
        return {
            **self._link.health.report(),
            "publishes": self._lease is not None,
            "position": position,
            "behind": max(0, self._ledger.size - position),
            "published": self._published,
            "returned": self._returned,
        }

    async def run(self) -> None:
        """Publish, for ever: an outage ends when it ends. Returns only by being cancelled."""
        self._ledger.followers.listen(self._news)
        await self._link.run()

    async def _use(self, connection: AbstractConnection) -> None:
        """Publish on an open connection.

        Raises:
            Exception: something is amiss; after a while it is tried again from the first event without a confirm.
        """
        self._window = 1
        channel = await connection.channel(publisher_confirms=True, on_return_raises=False)
        exchange = await channel.declare_exchange(self._exchange, "topic", durable=True)
        self._closed_by = "for no reason given"
        channel.close_callbacks.add(lambda _, error: self._note_closed(error))
        self._link.is_well()
        try:
            while not channel.is_closed:
                self._news.clear()
                if not await self._publish_next(connection, exchange):
                    await self._wait_for_news()
        finally:
            await self._leave()
        raise BrokerError(f"the channel was closed: {self._closed_by}")

    def _note_closed(self, error: BaseException | None) -> None:
        self._closed_by = str(error or self._closed_by)
        self._news.set()

    async def _publish_next(self, connection: AbstractConnection, exchange: AbstractExchange) -> bool:
        """Publish the next window; False where there is nothing to do for this process now."""
        if self._lease is None or self._is_old(self._lease):
            await self._take_lease()
        if self._lease is None:
            return False
        events = await self._ledger.read(next_events, position=self._lease.position, count=self._window)
        if not events:
            await self._save(self._lease)
            return False
        await self._publish(connection, exchange, _of_size(events), self._lease)
        self._link.is_well()
        self._window = min(MAX_WINDOW, self._window * 2)
        if self._steady() - self._lease.saved_at >= SAVE_EVERY_SEC:
            await self._save(self._lease)
        if len(events) < min(self._window // 2, SMALL_WINDOW):
            await asyncio.sleep(GATHER_SEC)
        return True

    async def _publish(
        self,
        connection: AbstractConnection,
        exchange: AbstractExchange,
        events: Sequence[Outgoing],
        lease: Lease,
    ) -> None:
        """Publish events in order; move the position past those that are confirmed without one missing before them.

        Raises:
            Exception: one was refused, or is not confirmed.
        """
        # Tasks begin in the order in which they were made, and each waits for its turn on the channel in that order.
        sent = [asyncio.create_task(self._send(exchange, event)) for event in events]
        try:
            await self._wait_for_confirms(connection, sent)
        finally:
            for task in sent:
                task.cancel()
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            for is_returned in outcomes:
                if isinstance(is_returned, BaseException):
                    break
                lease.position += 1
                self._published += 1
                self._returned += is_returned
        refusal = next((outcome for outcome in outcomes if isinstance(outcome, Exception)), None)
        if type(refusal).__name__ == "DeliveryError":
            raise BrokerError("the broker refused an event: a queue is full, or has no majority of its nodes")
        if refusal is not None:
            raise refusal
        if lease.position != events[-1].index + 1:
            raise BrokerError("the connection was lost")

    async def _send(self, exchange: AbstractExchange, event: Outgoing) -> bool:
        """Send one event; return once it is confirmed, True where nobody is bound for it."""
        confirmed = await exchange.publish(message_of(event), routing_key(event), mandatory=True)
        return not isinstance(confirmed, _ack_type())

    async def _wait_for_confirms(self, connection: AbstractConnection, sent: Sequence[asyncio.Task[bool]]) -> None:
        """Wait until all are confirmed or one is refused; for as long as the broker says that it takes nothing now.

        Raises:
            TimeoutError: the broker says nothing at all.
        """
        waiting = set(sent)
        silent_since = self._steady()
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=TICK_SEC, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.cancelled() or task.exception() is not None for task in done):
                return
            if done:
                silent_since = self._steady()
            elif await is_blocked(connection):
                self._link.is_failing(BLOCKED)
                silent_since = self._steady()
            elif self._steady() - silent_since > CONFIRM_SEC:
                raise TimeoutError

    async def _take_lease(self) -> None:
        """Become the publisher, or stay it, if there is something to publish and nobody else is.

        A lease that is not needed just ends: an idle service writes nothing.
        """
        if self._lease is not None and self._lease.saved != self._lease.position:
            await self._save(self._lease)  # which renews the lease
            return
        if self._lease is None:
            self._known_position = await self._ledger.read(position_of, name=self._exchange)
        else:
            self._known_position = self._lease.position
        if self._known_position >= self._ledger.size:
            self._lease = None
            return
        now = self._steady()
        position = await self._ledger.write(
            claim, name=self._exchange, holder=self._holder, lease_ms=round(LEASE_SEC * 1000)
        )
        self._lease = None if position is None else Lease(position, position, now)

    async def _save(self, lease: Lease) -> None:
        """Save the position, unless it is; find out whether another one publishes meanwhile."""
        if lease.saved == lease.position:
            return
        now, position = self._steady(), lease.position
        if await self._ledger.write(
            move, name=self._exchange, holder=self._holder, position=position, lease_ms=round(LEASE_SEC * 1000)
        ):
            lease.saved, lease.saved_at = position, now
        else:
            log.info("fanout_lease_lost", position=position)
            self._lease = None

    async def _leave(self) -> None:
        """Save the position and let another process go on at once; if that fails, it does when the lease ends."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        self._known_position = lease.position
        with suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(LEAVE_SEC):
                await self._ledger.write(leave, name=self._exchange, holder=self._holder, position=lease.position)

    def _is_old(self, lease: Lease) -> bool:
        return self._steady() - lease.saved_at > LEASE_SEC / 2

    async def _wait_for_news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STANDBY_SEC):
                await self._news.wait()


def _of_size(events: Sequence[Outgoing]) -> Sequence[Outgoing]:
    """Return the first of the events, at least one, that together are no larger than a window may be."""
    size_bytes = 0
    for place, event in enumerate(events):
        size_bytes += len(event.raw)
        if size_bytes > MAX_WINDOW_BYTES and place:
            return events[:place]
    return events


def _ack_type() -> type:
    """Return the type of the broker's plain confirm; a returned message comes as something else."""
    from pamqp.commands import Basic  # noqa: PLC0415 - an extra, imported only where a URL is set

    return Basic.Ack
