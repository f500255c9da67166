"""Events go to RabbitMQ once ACT has them: at least once, in order, and nothing in ACT waits for it."""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from act.domain.errors import UnavailableError
from act.fanout import publisher
from act.fanout.message import MAX_ID_BYTES, message_of, routing_key
from act.fanout.publisher import Fanout
from act.ledger import Ledger
from act.storage.fanout import Outgoing, claim, leave, move, next_events, position_of
from act.storage.store import Store
from hmskit import broker
from tests.act.process import Served
from tests.act.support import Act, batches, event, failing_reads, plain_job, run, running
from tests.act.test_storage import put
from tests.broker import BLOCKED, LIMIT_SEC, UNBLOCKED, find_broker, own_name, proxied, until


@dataclass
class Subscriber:
    """Somebody who is bound for everything, on a connection that no proxy breaks."""

    exchange: str
    channel: AbstractChannel
    got: list[AbstractIncomingMessage] = field(default_factory=list)

    @property
    def indexes(self) -> list[Any]:
        """The ledger indexes that came, in their order."""
        return [message.headers["ledger_index"] for message in self.got]

    async def up_to(self, count: int) -> None:
        """Wait until so many messages have come."""
        await until(lambda: len(self.got) >= count, f"{count} messages")


@asynccontextmanager
async def exchange_of_own() -> AsyncIterator[tuple[str, AbstractChannel]]:
    """Give an exchange's name, and a channel; the exchange is removed at the end."""
    name = own_name("act")
    async with await aio_pika.connect(find_broker()) as connection:
        channel = await connection.channel()
        try:
            yield name, channel
        finally:
            await channel.exchange_delete(name)


@asynccontextmanager
async def subscribed(**queue: Any) -> AsyncIterator[Subscriber]:
    """Subscribe to an exchange of one's own."""
    async with exchange_of_own() as (name, channel):
        exchange = await channel.declare_exchange(name, "topic", durable=True)
        bound = await channel.declare_queue(exclusive=True, arguments=queue)
        await bound.bind(exchange, "#")
        subscriber = Subscriber(name, channel)

        async def take(message: AbstractIncomingMessage) -> None:
            subscriber.got.append(message)

        await bound.consume(take, no_ack=True)
        yield subscriber


@asynccontextmanager
async def publishing(url: str, ledger: Ledger, exchange: str, holder: str = "h1") -> AsyncIterator[Fanout]:
    """Run a publisher beside those that the service has."""
    fanout = Fanout(url, ledger, exchange=exchange, holder=holder)
    task = asyncio.create_task(fanout.run())
    try:
        yield fanout
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def fanout_of(act: Act) -> dict[str, Any]:
    """Return what the service says of its fan-out; it must be ready, whatever that is."""
    answer = await act.http.get("/readyz")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["fanout"]
    return found


async def saved_at(act: Act, exchange: str, position: int) -> None:
    """Wait until the position in the database is this."""
    async with asyncio.timeout(LIMIT_SEC):
        while await act.ledger.read(position_of, name=exchange) != position:  # noqa: ASYNC110 - a row says it
            await asyncio.sleep(0.01)


# --- what a subscriber gets ---------------------------------------------------------------------------------------


def test_events_come_as_they_were_posted_and_in_the_ledgers_order(url: str) -> None:
    raws = [raw for number in range(1, 101) for raw in plain_job(f"JOB-{number}")]

    async def scenario() -> None:
        async with (
            subscribed() as subscriber,
            running(url, amqp_url=find_broker(), amqp_exchange=subscriber.exchange) as act,
        ):
            for batch in batches(raws, 90):
                await act.append(*batch)
            await subscriber.up_to(500)
            assert subscriber.indexes == list(range(500))
            assert [message.body for message in subscriber.got] == raws
            third = subscriber.got[2]
            assert third.message_id == "JOB-1.3"
            assert third.routing_key == "passport_renewal.ai_extract.started"
            assert subscriber.got[0].routing_key == "passport_renewal.-.queued"
            assert third.content_type == "application/cloudevents+json"
            assert third.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
            await saved_at(act, subscriber.exchange, 500)
            state = await fanout_of(act)
            assert {**state, "since": None} == {
                "ok": True,
                "error": None,
                "since": None,
                "publishes": True,
                "position": 500,
                "behind": 0,
                "published": 500,
                "returned": 0,
            }

    run(scenario())


def test_what_nobody_is_bound_for_counts_as_published(url: str) -> None:
    async def scenario() -> None:
        async with (
            exchange_of_own() as (name, _),
            running(url, amqp_url=find_broker(), amqp_exchange=name) as act,
        ):
            await act.append(*plain_job("JOB-1"))
            await saved_at(act, name, 5)
            state = await fanout_of(act)
            assert (state["published"], state["returned"], state["behind"]) == (5, 5, 0)

    run(scenario())


def test_a_next_start_goes_on_where_the_last_one_ended(url: str) -> None:
    async def scenario() -> None:
        async with subscribed() as subscriber:
            for number in (1, 2):
                async with running(url, amqp_url=find_broker(), amqp_exchange=subscriber.exchange) as act:
                    await act.append(*plain_job(f"JOB-{number}"))
                    await subscriber.up_to(5 * number)
                    await saved_at(act, subscriber.exchange, 5 * number)
            assert subscriber.indexes == list(range(10))

    run(scenario())


# --- the way to the broker breaks ---------------------------------------------------------------------------------


@contextmanager
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait shorter for what does not come."""
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "CONFIRM_SEC", 0.3)
        patch.setattr(publisher, "TICK_SEC", 0.05)
        yield


def test_a_broker_that_is_away_costs_nothing_but_delay(url: str) -> None:
    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            proxy.break_off()
            await act.append(*plain_job("JOB-1"))
            await until(lambda: proxy.accepted >= 3, "it tries again and again")
            state = await fanout_of(act)
            assert not state["ok"]
            assert state["error"]
            assert state["behind"] == 5
            assert subscriber.got == []
            proxy.mend()
            await subscriber.up_to(5)
            await saved_at(act, subscriber.exchange, 5)
            assert subscriber.indexes == list(range(5))
            assert (await fanout_of(act))["ok"]

    run(scenario())


async def _caught_up(act: Act, subscriber: Subscriber) -> None:
    await act.append(*plain_job("JOB-1"))
    await subscriber.up_to(5)
    await saved_at(act, subscriber.exchange, 5)


def test_what_did_not_get_through_is_sent_again(url: str) -> None:
    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            await _caught_up(act, subscriber)
            proxy.is_up_stalled = True
            await act.append(*plain_job("JOB-2"))
            await until(lambda: proxy.held_bytes > 0, "it was sent")
            proxy.drop()
            proxy.mend()
            await saved_at(act, subscriber.exchange, 10)
            assert subscriber.indexes == list(range(10))

    run(scenario())


def test_what_got_through_without_its_confirm_comes_again_under_its_id(url: str) -> None:
    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            await _caught_up(act, subscriber)
            proxy.is_down_stalled = True
            await act.append(event("JOB-2"))
            await subscriber.up_to(6)
            proxy.drop()
            proxy.mend()
            await saved_at(act, subscriber.exchange, 6)
            assert subscriber.indexes == [0, 1, 2, 3, 4, 5, 5]
            first, again = subscriber.got[5:]
            assert (first.message_id, first.body) == (again.message_id, again.body)

    run(scenario())


def test_connections_that_break_again_and_again_lose_nothing_and_invert_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "MAX_BACKOFF_SEC", 0.1)
    raws = [raw for number in range(1, 201) for raw in plain_job(f"JOB-{number}")]

    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            for number, batch in enumerate(batches(raws, 100), start=1):
                await act.append(*batch)
                await subscriber.up_to(number * 60)
                proxy.drop()
            await saved_at(act, subscriber.exchange, 1000)
            first_time = list(dict.fromkeys(subscriber.indexes))
            assert first_time == list(range(1000))
            assert proxy.accepted > 5

    run(scenario())


def test_a_broker_that_takes_nothing_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``connection.blocked``: to connect again would not help, and would repeat what is on its way."""

    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            await _caught_up(act, subscriber)
            with hasty(monkeypatch):
                proxy.is_up_stalled = True
                proxy.say(BLOCKED)
                await act.append(*plain_job("JOB-2"))
                await until(lambda: act.app.state.fanout.health["error"] == broker.BLOCKED, "it says so")
                since = asyncio.get_running_loop().time()
                await until(lambda: asyncio.get_running_loop().time() - since > 1, "longer than a confirm may take")
                assert (await fanout_of(act))["error"] == broker.BLOCKED
                proxy.say(UNBLOCKED)
                proxy.mend()
                await saved_at(act, subscriber.exchange, 10)
            assert proxy.accepted == 1
            assert subscriber.indexes == list(range(10))
            assert (await fanout_of(act))["ok"]

    run(scenario())


def test_a_broker_that_says_nothing_at_all_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            await _caught_up(act, subscriber)
            with hasty(monkeypatch):
                proxy.is_up_stalled = True
                await act.append(*plain_job("JOB-2"))
                await until(lambda: not act.app.state.fanout.health["ok"], "it says so")
                assert "does not answer" in (await fanout_of(act))["error"]
                proxy.drop()
                proxy.mend()
                await saved_at(act, subscriber.exchange, 10)
            assert subscriber.indexes == list(range(10))

    run(scenario())


def test_what_a_queue_refuses_is_offered_until_it_is_taken(url: str) -> None:
    async def scenario() -> None:
        async with exchange_of_own() as (name, channel):
            exchange = await channel.declare_exchange(name, "topic", durable=True)
            queue = await channel.declare_queue(
                exclusive=True, arguments={"x-max-length": 2, "x-overflow": "reject-publish"}
            )
            await queue.bind(exchange, "#")
            async with running(url, amqp_url=find_broker(), amqp_exchange=name) as act:
                await act.append(*plain_job("JOB-1"))
                await until(lambda: "refused" in (act.app.state.fanout.health["error"] or ""), "it says so")
                assert (await fanout_of(act))["position"] < 5
                got: list[Any] = []
                while len(got) < 5:
                    message = await queue.get(no_ack=True, fail=False)
                    if message is not None and message.headers["ledger_index"] not in got:
                        got.append(message.headers["ledger_index"])
                assert got == [0, 1, 2, 3, 4]
                await saved_at(act, name, 5)

    run(scenario())


def test_after_a_failure_events_are_sent_one_by_one_and_then_more_and_more(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is right behind a refused event must not have been taken: it would come before it."""
    windows: list[int] = []

    def spy(tx: Connection, *, position: int, count: int) -> Sequence[Outgoing]:
        windows.append(count)
        return next_events(tx, position=position, count=count)

    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            await act.append(*(raw for number in range(1, 41) for raw in plain_job(f"JOB-{number}")))
            await subscriber.up_to(200)
            proxy.drop()
            await until(lambda: not act.app.state.fanout.health["ok"], "it notices")
            await act.append(*(raw for number in range(41, 81) for raw in plain_job(f"JOB-{number}")))
            await subscriber.up_to(400)
        assert windows[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
        again = windows.index(1, 1)
        assert windows[again : again + 7] == [1, 2, 4, 8, 16, 32, 64]

    monkeypatch.setattr(publisher, "next_events", spy)
    run(scenario())


def test_an_exchange_that_is_another_is_named_and_waited_for(url: str) -> None:
    async def scenario() -> None:
        async with exchange_of_own() as (name, channel):
            await channel.declare_exchange(name, "direct", durable=True)
            async with running(url, amqp_url=find_broker(), amqp_exchange=name) as act:
                await act.append(*plain_job("JOB-1"))
                await until(lambda: name in (act.app.state.fanout.health["error"] or ""), "it says which")
                await channel.exchange_delete(name)
                await saved_at(act, name, 5)

    run(scenario())


def test_a_password_is_shown_nowhere(url: str, caplog: pytest.LogCaptureFixture) -> None:
    wrong = find_broker().replace("guest:guest@", "guest:let-me-in-42@")

    async def scenario() -> None:
        async with running(url, amqp_url=wrong, amqp_exchange="test.none") as act:
            await act.append(*plain_job("JOB-1"))
            await until(lambda: "ACCESS_REFUSED" in (act.app.state.fanout.health["error"] or ""), "it says why")
            assert "let-me-in" not in str(await fanout_of(act))

    with capture_logs() as logs:
        run(scenario())
    assert any(line["event"] == "broker_fails" for line in logs)
    assert "let-me-in" not in f"{logs} {caplog.text}"


def test_a_database_that_does_not_answer_is_waited_for(url: str) -> None:
    async def scenario() -> None:
        async with (
            subscribed() as subscriber,
            running(url, amqp_url=find_broker(), amqp_exchange=subscriber.exchange) as act,
        ):
            await _caught_up(act, subscriber)
            with failing_reads(act.store.reader):
                await act.append(*plain_job("JOB-2"))
                await until(lambda: "disk" in (act.app.state.fanout.health["error"] or ""), "it says why")
            await saved_at(act, subscriber.exchange, 10)
            assert subscriber.indexes == list(range(10))

    run(scenario())


def test_the_service_ends_in_time_while_the_broker_says_nothing(url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, exchange_of_own() as (name, _):
            flags = ("--database-url", url, "--amqp-url", proxy.url, "--amqp-exchange", name)
            served = await asyncio.to_thread(Served, tmp_path, *flags)
            with served:
                await until(lambda: proxy.accepted > 0, "it connects")
                await until(lambda: "broker_works" in served.errors.read_text(), "it is connected")
                proxy.is_up_stalled = True
                await asyncio.to_thread(_post, served.url)
                await until(lambda: proxy.held_bytes > 0, "it publishes")
                code, took_sec = await asyncio.to_thread(served.stop)
        assert code == 0
        assert took_sec < 10

    run(scenario())


def _post(url: str) -> None:
    import httpx

    assert httpx.post(f"{url}/events", content=event()).status_code == 200


# --- several publishers, and crashes ------------------------------------------------------------------------------


def test_one_publishes_and_another_goes_on_when_it_ends(url: str) -> None:
    async def scenario() -> None:
        async with subscribed() as subscriber, running(url) as act:
            name = subscriber.exchange
            async with publishing(find_broker(), act.ledger, name, "h1") as first:
                await act.append(*plain_job("JOB-1"))
                await subscriber.up_to(5)
                async with publishing(find_broker(), act.ledger, name, "h2") as second:
                    await until(lambda: second.health["ok"], "the second stands by")
                    for number in range(2, 41):
                        await act.append(*plain_job(f"JOB-{number}"))
                    await subscriber.up_to(200)
                    await until(lambda: first.health["published"] == 200, "the first has published all")
                    assert second.health["published"] == 0
            async with publishing(find_broker(), act.ledger, name, "h3") as third:
                await act.append(*plain_job("JOB-41"))
                await subscriber.up_to(205)
                await until(lambda: third.health["published"] == 5, "the third has published the rest")
            assert subscriber.indexes == list(range(205))

    run(scenario())


def test_who_has_no_broker_leaves_the_publishing_to_another(url: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, subscribed() as subscriber, running(url) as act:
            name = subscriber.exchange
            async with (
                publishing(proxy.url, act.ledger, name, "h1") as first,
                publishing(find_broker(), act.ledger, name, "h2") as second,
            ):
                await until(lambda: first.health["ok"] and second.health["ok"], "both are connected")
                proxy.break_off()
                await act.append(*plain_job("JOB-1"))
                await until(lambda: second.health["published"] == 5, "the second publishes")
                assert first.health["published"] == 0
            assert subscriber.indexes == list(range(5))

    run(scenario())


def test_a_publisher_that_was_frozen_repeats_and_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "LEASE_SEC", 0.5)

    async def scenario() -> None:
        async with proxied() as proxy, subscribed() as subscriber, running(url) as act:
            name = subscriber.exchange
            async with publishing(proxy.url, act.ledger, name, "frozen") as first:
                await until(lambda: first.health["ok"], "it is connected")
                proxy.is_up_stalled = True
                await act.append(*plain_job("JOB-1"))
                await until(lambda: proxy.held_bytes > 0, "it publishes")
                async with publishing(find_broker(), act.ledger, name, "second") as second:
                    await until(lambda: second.health["published"] == 5, "the second went on when the lease ended")
                    await act.append(*plain_job("JOB-2"))
                    await saved_at(act, name, 10)
                    proxy.mend()
                    await subscriber.up_to(11)
                    await act.append(*plain_job("JOB-3"))
                    await saved_at(act, name, 15)
            assert subscriber.indexes[:10] == list(range(10))
            assert list(dict.fromkeys(subscriber.indexes)) == list(range(15))
            assert await act.ledger.read(position_of, name=name) == 15

    run(scenario())


def test_with_nothing_to_publish_nothing_is_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "LEASE_SEC", 0.2)
    monkeypatch.setattr(publisher, "STANDBY_SEC", 0.01)
    claims: list[str] = []

    def spy(tx: Connection, *, name: str, holder: str, lease_ms: int) -> int | None:
        claims.append(holder)
        return claim(tx, name=name, holder=holder, lease_ms=lease_ms)

    monkeypatch.setattr(publisher, "claim", spy)

    async def scenario() -> None:
        async with (
            subscribed() as subscriber,
            running(url) as act,
            publishing(find_broker(), act.ledger, subscriber.exchange) as fanout,
        ):
            await act.append(event("JOB-1"))
            await until(lambda: fanout.health["published"] == 1, "it is published")
            await until(lambda: not fanout.health["publishes"], "the lease is let go")
            before = len(claims)
            later = asyncio.get_running_loop().time() + 0.5
            await until(lambda: asyncio.get_running_loop().time() > later, "many looks later")
            assert len(claims) == before

    run(scenario())


def test_a_connection_that_is_lost_while_idle_is_noticed_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "STANDBY_SEC", 3600)

    async def scenario() -> None:
        async with (
            proxied() as proxy,
            subscribed() as subscriber,
            running(url, amqp_url=proxy.url, amqp_exchange=subscriber.exchange) as act,
        ):
            await _caught_up(act, subscriber)
            proxy.break_off()
            await until(lambda: not act.app.state.fanout.health["ok"], "it is noticed")

    run(scenario())


def test_a_crash_before_the_position_is_saved_repeats(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> bool:
        raise UnavailableError("The database is away.")

    async def scenario() -> None:
        async with subscribed() as subscriber, running(url) as act:
            name = subscriber.exchange
            with monkeypatch.context() as patch:
                patch.setattr(publisher, "LEASE_SEC", 0.5)
                patch.setattr(publisher, "move", away)
                patch.setattr(publisher, "leave", away)
                await act.append(*plain_job("JOB-1"))
                async with publishing(find_broker(), act.ledger, name, "h1"):
                    await subscriber.up_to(5)
            got = len(subscriber.got)
            async with publishing(find_broker(), act.ledger, name, "h2"):
                await saved_at(act, name, 5)
            assert subscriber.indexes[got:] == list(range(5))
            assert set(subscriber.indexes[:got]) == set(range(5))

    run(scenario())


# --- the position in the database ---------------------------------------------------------------------------------

FOR_EVER = 60_000


def test_the_lease_is_one_publishers_until_it_ends(store: Store) -> None:
    with store.writer.begin() as tx:
        assert position_of(tx, name="x") == 0
        assert claim(tx, name="x", holder="h1", lease_ms=FOR_EVER) == 0
        assert claim(tx, name="x", holder="h2", lease_ms=FOR_EVER) is None
        assert claim(tx, name="y", holder="h2", lease_ms=FOR_EVER) == 0
        assert move(tx, name="x", holder="h1", position=7, lease_ms=FOR_EVER)
        assert claim(tx, name="x", holder="h1", lease_ms=FOR_EVER) == 7
        assert position_of(tx, name="x") == 7
        assert position_of(tx, name="y") == 0
        leave(tx, name="x", holder="h1", position=9)
        assert claim(tx, name="x", holder="h2", lease_ms=FOR_EVER) == 9


def test_a_publisher_that_lost_the_lease_cannot_move_the_position(store: Store) -> None:
    with store.writer.begin() as tx:
        assert claim(tx, name="x", holder="h1", lease_ms=0) == 0
        assert claim(tx, name="x", holder="h2", lease_ms=FOR_EVER) == 0
        assert move(tx, name="x", holder="h2", position=8, lease_ms=FOR_EVER)
        assert not move(tx, name="x", holder="h1", position=3, lease_ms=FOR_EVER)
        leave(tx, name="x", holder="h1", position=3)
        assert claim(tx, name="x", holder="h1", lease_ms=FOR_EVER) is None
        assert position_of(tx, name="x") == 8


def test_nothing_is_published_past_a_hole(store: Store) -> None:
    put(store, plain_job("JOB-1"))
    with store.reader.begin() as tx:
        assert [out.index for out in next_events(tx, position=1, count=3)] == [1, 2, 3]
        assert next_events(tx, position=5, count=3) == []
    allow = {"sqlite": "DROP TRIGGER events_no_delete", "postgresql": "ALTER TABLE events DISABLE TRIGGER USER"}
    with store.writer.begin() as tx:
        tx.execute(text(allow[tx.dialect.name]))
        tx.execute(text("DELETE FROM events WHERE idx = 2"))
    with store.reader.begin() as tx:
        assert len(next_events(tx, position=0, count=2)) == 2
        for position in (0, 1, 2):
            with pytest.raises(LookupError, match="hole"):
                next_events(tx, position=position, count=3)


# --- names --------------------------------------------------------------------------------------------------------

NAMES = st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=500)


def outgoing(plan: str | None, lane: str | None, event_id: str = "JOB-1.1") -> Outgoing:
    return Outgoing(0, event_id, plan, lane, "queued", b"{}")


@given(NAMES, NAMES, NAMES, NAMES)
@example("a.b", "c", "a", "b.c")
@example(None, "a", "-", "a")
@example("%2E", "a", ".", "a")
@example("é" * 500, "a", "é" * 499, "a")
def test_any_name_is_one_safe_word_and_no_two_are_the_same(
    plan: str | None, lane: str | None, other_plan: str | None, other_lane: str | None
) -> None:
    key = routing_key(outgoing(plan, lane))
    words = key.split(".")
    assert len(words) == 3
    assert all(words)
    assert not set(key) & set("*#")
    assert len(key.encode()) <= 255
    assert (key == routing_key(outgoing(other_plan, other_lane))) == ((plan, lane) == (other_plan, other_lane))


def test_names_that_people_give_stay_readable() -> None:
    assert routing_key(outgoing("passport_renewal", None)) == "passport_renewal.-.queued"
    assert routing_key(outgoing("v1.2 *new*", "50% #1")) == "v1%2E2 %2Anew%2A.50%25 %231.queued"
    plain = string.ascii_letters + string.digits + "_- /"
    assert routing_key(outgoing(plain, plain)) == f"{plain}.{plain}.queued"


def test_an_id_that_is_too_long_for_the_broker_stays_an_id() -> None:
    long, other = ("LANE-" + "x" * 480 + f".{number}" for number in (1, 2))
    ids = [message_of(outgoing("a", "b", event_id)).message_id or "" for event_id in (long, other)]
    assert ids[0] != ids[1]
    assert all(len(event_id.encode()) <= MAX_ID_BYTES for event_id in ids)
    assert message_of(outgoing("a", "b", "JOB-1.17")).message_id == "JOB-1.17"
