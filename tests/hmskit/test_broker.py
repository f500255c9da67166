"""A link to the broker: its URL is checked, its password stays secret, and nothing ends it but its cancellation."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import pytest
from aio_pika.abc import AbstractConnection
from structlog.testing import capture_logs

from act.config import Settings as ActSettings
from hmskit import broker
from hmskit.broker import EXTRA, BrokerError, Link, is_blocked, read_amqp_url
from hmskit.settings import SettingsError, read_settings
from oms.config import Settings as OmsSettings
from tests.broker import BLOCKED, UNBLOCKED, find_broker, proxied, until


@pytest.mark.parametrize(
    "url",
    ["amqp://h", "amqp://u:p@h:5672/", "amqps://u:p%40%2F@h/v%2Fhost?heartbeat=5", "amqp://[::1]:5672/vhost"],
)
def test_a_url_of_a_broker_is_taken(url: str) -> None:
    assert read_amqp_url(f" {url} ") == url


@pytest.mark.parametrize("nothing", ["", "  ", None])
def test_an_empty_one_is_none(nothing: str | None) -> None:
    assert read_amqp_url(nothing) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://u:secret@h", "amqp:// or amqps://"),
        ("secret", "amqp:// or amqps://"),
        ("amqp://", "names no broker"),
        ("amqp://u:secret@h:0/", "names no broker"),
        ("amqp://u:secret@h/a/b", "%2F"),
        ("amqp://u:sec/ret@h", "%2F"),
        ("amqp://u:p@h:secret", "cannot be read"),
        ("amqp://[secret", "cannot be read"),
    ],
)
def test_another_one_is_refused_without_repeating_it(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        read_amqp_url(url)
    assert "sec" not in str(refused.value)


def test_without_the_client_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "find_spec", lambda name: None if name == "aio_pika" else find_spec(name))
    assert read_amqp_url(None) is None
    with pytest.raises(ValueError, match=r"hms-orchestration\[rabbitmq\]"):
        read_amqp_url("amqp://h")
    with pytest.raises(BrokerError) as missing:
        Link("amqp://h", name="x", use=_stay)
    assert str(missing.value) == EXTRA


@pytest.mark.parametrize("settings", [OmsSettings, ActSettings])
def test_both_services_take_one(settings: type[OmsSettings | ActSettings]) -> None:
    assert settings().amqp_url is None
    assert settings(amqp_url="").amqp_url is None
    assert settings(amqp_url="amqp://h").amqp_url == "amqp://h"
    with pytest.raises(SettingsError, match=r"_AMQP_URL: a broker's URL begins with amqp"):
        read_settings(settings, amqp_url="http://u:secret@h")


async def _stay(_: AbstractConnection) -> None:
    await asyncio.Event().wait()


def test_a_link_comes_back_whatever_ends_its_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client answers with a CancelledError of its own where a connection is lost: that must not end the link."""
    monkeypatch.setattr(broker, "MAX_BACKOFF_SEC", 0.01)
    ends: list[BaseException | None] = [
        ValueError("a fault of ours"),
        asyncio.CancelledError(),
        TimeoutError(),
        None,
        BrokerError("the last"),
    ]
    seen: list[str | None] = []

    async def use(_: AbstractConnection) -> None:
        seen.append(link.health.error)
        link.is_well()
        if ends:
            end = ends.pop(0)
            if end is not None:
                raise end
        else:
            await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.create_task(link.run())
        await until(lambda: len(seen) == 6, "it was used six times")
        assert link.health.report()["ok"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    link = Link(find_broker(), name="x", use=use)
    with capture_logs() as logs:
        asyncio.run(scenario())
    assert seen == [
        "not connected yet",
        "a fault of ours",
        "the connection was lost",
        "the broker does not answer",
        "the connection was closed",
        "the last",
    ]
    assert [line["detail"] for line in logs if line["event"] == "broker_fails"] == seen[1:]


def test_the_backoff_grows_with_full_jitter_and_is_short_again_after_it_worked() -> None:
    link = Link("amqp://h", name="x", use=_stay, random_unit=lambda: 0.5)
    waits = [link._backoff_sec() for _ in range(12)]
    assert waits[:4] == [0.025, 0.05, 0.1, 0.2]
    assert waits[-1] == 2.5
    link._well_at = -1e9
    assert link._backoff_sec() == 0.025


def test_why_it_fails_is_said_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "MAX_BACKOFF_SEC", 0.01)

    async def error_of(url: str) -> str:
        link = Link(url, name="x", use=_stay)
        task = asyncio.create_task(link.run())
        await until(lambda: link.health.error != "not connected yet", "it failed")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return str(link.health.error)

    async def scenario() -> None:
        url = find_broker()
        assert "ACCESS_REFUSED" in await error_of(url.replace("guest:guest@", "guest:secret@"))
        assert "the broker refuses the vhost" in await error_of(f"{url.rstrip('/')}/no-such-vhost")
        assert "Connect call failed" in await error_of("amqp://guest:secret@127.0.0.1:1/")
        link = Link("amqp://u:se%40cret@h/", name="x", use=_stay)
        assert link._in_words(ValueError("no login with se@cret or se%40cret")) == "no login with *** or ***"

    asyncio.run(scenario())


def test_a_blocked_connection_is_told_from_one_that_is_not() -> None:
    async def scenario() -> None:
        found: list[bool] = []

        async def use(connection: AbstractConnection) -> None:
            found.append(await is_blocked(connection))
            for frame, is_now in ((BLOCKED, True), (UNBLOCKED, False)):
                proxy.say(frame)
                while await is_blocked(connection) is not is_now:  # noqa: ASYNC110 - the frame is on its way
                    await asyncio.sleep(0.001)
                found.append(is_now)
            await asyncio.Event().wait()

        async with proxied() as proxy:
            task = asyncio.create_task(Link(proxy.url, name="x", use=use).run())
            await until(lambda: found == [False, True, False], "it was told")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
