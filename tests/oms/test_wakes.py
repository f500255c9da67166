"""What becomes ready at one tower is heard at the others, if the broker is there; and nothing waits for it if not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aio_pika
import pytest
from pamqp import commands
from structlog.testing import capture_logs

from hmskit import broker
from oms.relay import wakes
from oms.relay.wakes import MAX_LANES, Wakes
from tests.broker import BLOCKED, UNBLOCKED, find_broker, own_name, proxied, until


class Tower:
    """A tower's wakes, and what it heard."""

    def __init__(self, url: str, site: str, name: str) -> None:
        self.heard: list[dict[str, int]] = []
        self.wakes = Wakes(url, site=site, tower=name, on_wake=self._hear)
        self.fails_with: Exception | None = None

    def _hear(self, lanes: Mapping[str, int]) -> None:
        self.heard.append(dict(lanes))
        if self.fails_with is not None:
            raise self.fails_with

    @property
    def is_well(self) -> bool:
        ok: bool = self.wakes.health["ok"]
        return ok

    @property
    def error(self) -> str:
        return str(self.wakes.health["error"])


@asynccontextmanager
async def tower(url: str, site: str, name: str) -> AsyncIterator[Tower]:
    """Run a tower's wakes; at the end they must end by being cancelled, and by nothing else."""
    made = Tower(url, site, name)
    task = asyncio.create_task(made.wakes.run())
    try:
        yield made
    finally:
        assert not task.done()
        task.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await task


@asynccontextmanager
async def two(url: str, site: str) -> AsyncIterator[tuple[Tower, Tower]]:
    """Run two towers of a site, the first by ``url``, the second without a proxy; both are connected."""
    async with tower(url, site, "a") as first, tower(find_broker(), site, "b") as second:
        await until(lambda: first.is_well and second.is_well, "both are connected")
        yield first, second


@asynccontextmanager
async def intruder(site: str) -> AsyncIterator[aio_pika.abc.AbstractExchange]:
    """Give the site's exchange, on a connection of somebody else."""
    async with await aio_pika.connect(find_broker()) as connection:
        channel = await connection.channel()
        yield await channel.get_exchange(f"oms.wakes.{site}")


@pytest.fixture
def site() -> str:
    """A site of the test's own."""
    return own_name("site")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice sooner what goes wrong."""
    monkeypatch.setattr(wakes, "PING_SEC", 0.1)
    monkeypatch.setattr(wakes, "ECHO_SEC", 0.5)
    monkeypatch.setattr(broker, "MAX_BACKOFF_SEC", 0.05)


def test_the_other_towers_of_the_site_hear_it_and_nobody_else(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakes, "GATHER_SEC", 0.2)

    async def scenario() -> None:
        async with (
            two(find_broker(), site) as (first, second),
            tower(find_broker(), f"{site}.other", "b") as stranger,
        ):
            await until(lambda: stranger.is_well, "it is connected")
            first.wakes.publish({"clerk": 1})
            await asyncio.sleep(0.01)
            first.wakes.publish({"clerk": 2, "print": 1})
            await until(lambda: bool(second.heard), "the other tower heard it")
            second.wakes.publish({"scan": 1})
            await until(lambda: bool(first.heard), "and the other way")
            assert second.heard == [{"clerk": 3, "print": 1}], "gathered into one message"
            assert first.heard == [{"scan": 1}]
            assert stranger.heard == []

    asyncio.run(scenario())


def test_while_the_broker_is_away_nothing_waits_and_nothing_is_kept(site: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, two(proxy.url, site) as (first, second):
            proxy.break_off()
            await until(lambda: not first.is_well, "it notices")
            for _ in range(10_000):
                first.wakes.publish({"clerk": 1})
            assert first.wakes._ready == {}
            tries = proxy.accepted
            await until(lambda: proxy.accepted > tries + 3, "it tries again and again")
            proxy.mend()
            await until(lambda: first.is_well, "it is connected again")
            first.wakes.publish({"print": 1})
            await until(lambda: bool(second.heard), "it is heard again")
            assert second.heard == [{"print": 1}]

    asyncio.run(scenario())


def test_a_way_that_swallows_everything_is_noticed(site: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, two(proxy.url, site) as (first, second):
            for stall in ("is_up_stalled", "is_down_stalled"):
                setattr(proxy, stall, True)
                await until(lambda: not first.is_well, f"{stall} is noticed")
                proxy.mend()
                proxy.drop()
                await until(lambda: first.is_well, "it is connected again")
            assert second.is_well

    asyncio.run(scenario())


def test_the_lanes_of_which_it_tells_are_bounded(site: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, two(proxy.url, site) as (first, second):
            proxy.is_up_stalled = True
            for number in range(3 * MAX_LANES):
                first.wakes.publish({f"lane-{number}": 1})
            first.wakes.publish({"lane-0": 5})
            assert len(first.wakes._ready) == MAX_LANES
            proxy.mend()
            await until(lambda: bool(second.heard), "it is told")
            assert len(second.heard[0]) == MAX_LANES
            assert second.heard[0]["lane-0"] == 6

    asyncio.run(scenario())


def test_an_alarm_of_the_broker_is_named_and_passes(site: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, two(proxy.url, site) as (first, second):
            proxy.is_up_stalled = True
            proxy.say(BLOCKED)
            await until(lambda: first.error == broker.BLOCKED, "it says so")
            proxy.say(UNBLOCKED)
            proxy.mend()
            await until(lambda: first.is_well, "it works again")
            first.wakes.publish({"clerk": 1})
            await until(lambda: second.heard == [{"clerk": 1}], "it is heard")

    asyncio.run(scenario())


def test_a_queue_that_an_operator_deletes_is_made_again(site: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, two(proxy.url, site) as (first, second):
            # Nobody but its connection can delete an exclusive queue, except the operator: the broker then says this.
            proxy.say(commands.Basic.Cancel("any", nowait=True), channel=1)
            await until(lambda: "queue was deleted" in first.error, "it notices")
            await until(lambda: first.is_well, "it works again")
            second.wakes.publish({"clerk": 1})
            await until(lambda: first.heard == [{"clerk": 1}], "it hears again")

    asyncio.run(scenario())


def test_an_exchange_that_is_deleted_is_made_again(site: str) -> None:
    async def scenario() -> None:
        async with two(find_broker(), site) as (first, second):
            async with intruder(site) as exchange:
                await exchange.delete()
            await until(lambda: not (first.is_well and second.is_well), "one notices")
            heard = len(first.heard)

            def is_heard() -> bool:
                second.wakes.publish({"clerk": 1})
                return len(first.heard) > heard

            await until(is_heard, "they hear each other again")

    asyncio.run(scenario())


def test_a_channel_that_the_broker_closes_is_opened_again_and_the_reason_is_shown(site: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy, two(proxy.url, site) as (first, _):
            proxy.say(commands.Channel.Close(406, "PRECONDITION_FAILED - a test", 0, 0), channel=1)
            await until(lambda: "PRECONDITION_FAILED - a test" in first.error, "it says why")
            await until(lambda: first.is_well, "it works again")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"null", b'{"clerk":"1"}', b'{"clerk":-1}', b'{"clerk":true}', b"[" * 10_000]
)
def test_what_anybody_may_send_does_no_harm(site: str, body: bytes) -> None:
    async def scenario() -> None:
        async with two(find_broker(), site) as (first, second):
            async with intruder(site) as exchange:
                await exchange.publish(aio_pika.Message(body), "")
                await exchange.publish(aio_pika.Message(json.dumps({"clerk": 1}).encode()), "")
            await until(lambda: first.heard == second.heard == [{"clerk": 1}], "only the good one is heard")
            assert first.is_well

    asyncio.run(scenario())


def test_a_wake_that_fails_ends_nothing(site: str) -> None:
    async def scenario() -> None:
        async with two(find_broker(), site) as (first, second):
            second.fails_with = ValueError("a fault of ours")
            for count in (1, 2):
                first.wakes.publish({"clerk": count})
                await until(lambda count=count: len(second.heard) == count, "it is called")  # type: ignore[misc]
            assert second.is_well

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["wake_failed"] * 2


def test_it_ends_at_once_while_the_broker_says_nothing(site: str) -> None:
    async def scenario() -> None:
        async with proxied() as proxy:
            async with tower(proxy.url, site, "a") as first:
                await until(lambda: first.is_well, "it is connected")
                proxy.is_up_stalled = True
                begun = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - begun < broker.CLOSE_SEC + 1

    asyncio.run(scenario())
