"""Subscribe to ACT's events through RabbitMQ: each once, in order, and after a stop from where it ended.

pip install aio-pika httpx
python examples/subscribe.py 'passport_renewal.*.done'      # <plan>.<lane>.<status>; * is any
"""

import asyncio
import json
import os
import sqlite3
import sys
from typing import Any

import aio_pika
import httpx
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue

AMQP_URL = os.environ.get("ACT_AMQP_URL", "amqp://guest:guest@127.0.0.1/")
ACT_URL = os.environ.get("ACT_URL", "http://127.0.0.1:8002")
EXCHANGE = os.environ.get("ACT_AMQP_EXCHANGE", "act.events")
QUEUE = os.environ.get("QUEUE", "act-example")
KEEP = 100_000  # of so many events the ids are kept; nothing comes again after so long

pattern = sys.argv[1] if len(sys.argv) > 1 else "*.*.*"
state = sqlite3.connect(os.environ.get("STATE", "subscriber.db"))
state.execute("CREATE TABLE IF NOT EXISTS taken (event_id TEXT PRIMARY KEY, idx INTEGER NOT NULL)")
state.execute("CREATE INDEX IF NOT EXISTS taken_by_idx ON taken (idx)")


def take(event_id: str, index: int, data: dict[str, Any]) -> None:
    """Take an event, if it was not taken before. The id and what comes of the event are committed together."""
    with state:
        if state.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (event_id, index)).rowcount:
            # Your work, in this transaction. Work elsewhere must bear to be done twice: a crash may come before the
            # commit.
            print(index, event_id, data["plan"], data["lane"], data["status"], flush=True)
        state.execute("DELETE FROM taken WHERE idx < ?", (index - KEEP,))


def is_wanted(row: dict[str, Any]) -> bool:
    words = zip(pattern.split("."), (row["plan"], row["lane"], row["status"]), strict=True)
    return all(word in ("*", name or "-") for word, name in words)


async def catch_up() -> None:
    """Take from ACT what came before the queue was there, or while it had been deleted."""
    (position,) = state.execute("SELECT coalesce(max(idx), -1) FROM taken").fetchone()
    async with httpx.AsyncClient(base_url=ACT_URL) as act:
        while rows := (await act.get("/stream", params={"after": position})).raise_for_status().json():
            for row in filter(is_wanted, rows):
                take(row["event_id"], row["id"], row)
            position = rows[-1]["id"]


async def consume(queue: AbstractQueue) -> None:
    async with queue.iterator() as messages:
        message: AbstractIncomingMessage
        async for message in messages:
            index = message.headers["ledger_index"]
            take(str(message.message_id), int(str(index)), json.loads(message.body)["data"])
            await message.ack()  # only now: what was not taken comes again


async def main() -> None:
    while True:
        try:
            async with await aio_pika.connect(AMQP_URL) as connection:
                channel = await connection.channel()
                await channel.set_qos(prefetch_count=100)
                exchange = await channel.get_exchange(EXCHANGE)  # made by ACT
                queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
                await queue.bind(exchange, pattern)
                await catch_up()  # the queue is bound: what happens from here on is in it
                await consume(queue)
        except (aio_pika.exceptions.AMQPError, httpx.HTTPError, OSError) as error:
            print(f"again in 2 s: {error!r}", file=sys.stderr)
        await asyncio.sleep(2)


asyncio.run(main())
