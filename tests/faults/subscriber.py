"""Somebody who subscribes to the events on RabbitMQ instead of asking the ledger, on a way that nothing breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.broker import find_broker, own_name
from tests.faults.audit import Found


@dataclass
class Subscriber:
    """What came, in the order in which it came: at least once each, and none before those that come before it.

    Attributes:
        exchange: to which events are published; it goes with the subscriber.
        got: the index and the id of each message.
    """

    exchange: str
    got: list[tuple[int, str]] = field(default_factory=list)
    _last: int = -1

    async def until(self, size: int) -> None:
        """Wait until so many different events have come."""
        while self._last + 1 < size:  # noqa: ASYNC110 - what is waited for comes in many messages
            await asyncio.sleep(0.02)

    def check(self, found: Found) -> None:
        """Check that each event of the ledger came, and first in its place.

        Raises:
            AssertionError: one did not.
        """
        names = [f"{kept.stream}.{kept.seq}" for kept in found.kept]
        last = -1
        for index, name in self.got:
            assert index <= last + 1, f"event {index} came after event {last}"
            assert name == names[index], f"event {index} came as {name}"
            last = max(last, index)
        assert last + 1 == len(names), f"event {last} was the last, of {len(names)}"

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Note a message."""
        index = message.headers["ledger_index"]
        assert isinstance(index, int)
        self.got.append((index, str(message.message_id)))
        self._last = max(self._last, index)


@asynccontextmanager
async def subscribed() -> AsyncIterator[Subscriber]:
    """Subscribe to everything on an exchange of one's own, until the end of the block."""
    async with await aio_pika.connect(find_broker()) as connection:
        channel = await connection.channel()
        subscriber = Subscriber(own_name("act"))
        exchange = await channel.declare_exchange(subscriber.exchange, "topic", durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        await queue.consume(subscriber.take, no_ack=True)
        yield subscriber
        await channel.exchange_delete(subscriber.exchange)
