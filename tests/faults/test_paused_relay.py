"""The tower that sends events stands still, and comes back long after another has taken over: it does no harm."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from oms.relay.loop import LEASE_SEC
from tests.faults.audit import check_order, read
from tests.faults.held_way import HeldWay, held_way
from tests.faults.services import Served, until
from tests.faults.site import Shape, Site, new_site

PLAN = "id: single\nlanes: [only]\nsequence: [only]\n"


class Pair:
    """Two towers, each with its own way to a ledger of its own, all on one PostgreSQL."""

    def __init__(self, site: Site, ways: list[HeldWay], http: httpx.AsyncClient) -> None:
        self.site = site
        self.ways = ways
        self._http = http
        self._started = 0

    async def start_jobs(self, tower: Served, count: int) -> None:
        names = [f"T-{self._started + number}" for number in range(count)]
        self._started += count
        wishes = [{"plan": "single", "reference": name} for name in names]
        answer = await self._http.post(f"{tower.url}/start", json=wishes)
        assert [started["created"] for started in answer.json()] == [True] * count

    async def relay(self, tower: Served) -> dict[str, Any]:
        relay: dict[str, Any] = (await self._http.get(f"{tower.url}/readyz")).json()["relay"]
        return relay

    async def is_active(self, tower: Served) -> bool:
        return bool((await self.relay(tower))["active"])

    async def all_sent(self, tower: Served) -> None:
        """Wait until the ledgers have every event that there is."""

        async def is_sent() -> bool:
            return bool((await self.relay(tower))["pending"] == 0)

        await until(is_sent, what="the ledger has all events")

    async def ledger(self, served: Served) -> dict[str, Any]:
        told: dict[str, Any] = (await self._http.get(f"{served.url}/readyz")).json()
        return told


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_relay_that_stood_still_for_longer_than_its_lease_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "single.yaml").write_text(PLAN)
    asyncio.run(_pause_and_continue(tmp_path))


async def _pause_and_continue(folder: Path) -> None:
    async with AsyncExitStack() as ends:
        ways = [await ends.enter_async_context(held_way()) for _ in range(2)]
        shape = Shape("postgres", towers=2, ledgers=2)
        site = ends.enter_context(new_site(folder, shape, act_urls=[way.url for way in ways]))
        for way, ledger in zip(ways, site.ledgers, strict=True):
            way.target = ledger.port
        await asyncio.to_thread(site.begin)
        http = await ends.enter_async_context(httpx.AsyncClient(timeout=30, trust_env=False))
        pair = Pair(site, ways, http)
        first, second = site.towers

        await pair.start_jobs(first, 5)
        await pair.all_sent(first)
        active = [await pair.is_active(tower) for tower in site.towers]
        assert sorted(active) == [False, True], "one tower sends"
        if active[1]:
            first, second = second, first
        way = ways[site.towers.index(first)]

        # It reads a batch, and posts it: the post is on its way when the tower stops.
        way.hold()
        await pair.start_jobs(second, 40)

        async def is_posted() -> bool:
            return way.held_bytes > 0

        await until(is_posted, what="the batch is on its way")
        first.signal(signal.SIGSTOP)

        # The other one sends that batch and more.
        await pair.start_jobs(second, 40)
        await until(
            lambda: pair.is_active(second), what=f"the other takes over {LEASE_SEC} s after the last sign of life"
        )
        await pair.all_sent(second)
        sizes = {(await pair.ledger(ledger))["size"] for ledger in site.ledgers}
        assert max(sizes) == 2 * 85

        # The old post comes at last; then its sender goes on, and believes for a moment that it is the one who sends.
        way.let_go()

        async def has_come() -> bool:
            return way.held_bytes == 0

        await until(has_come, what="the old post has come")
        first.signal(signal.SIGCONT)
        await pair.start_jobs(first, 40)
        await pair.start_jobs(second, 40)
        await pair.all_sent(first)

        async def stands_by() -> bool:
            return not await pair.is_active(first)

        await until(stands_by, what="it stands by")
        assert await pair.is_active(second)
        assert "relay_stands_by" in first.log.read_text()
        for ledger in site.ledgers:
            assert (await pair.ledger(ledger))["forks_refused"] == 0
        assert site.oms.count("stopped_streams") == 0
        found = await asyncio.to_thread(read, site.oms, site.act)
        assert len(found.kept) == 2 * 165
        check_order(found)
        await asyncio.to_thread(site.stop)
        site.check_logs()
        for tower in site.towers:
            assert "ledger_lost_events" not in tower.log.read_text(), "the ledger never had a gap"
