"""Work for a site while one trouble after the other comes over it, and the audit of what came of it.

Every answer that a client got is a promise: at the end, each must be found kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from tests.broker import Proxy, proxied
from tests.faults.audit import check_answers, check_kept_sums, check_order, check_promises, check_rows, read
from tests.faults.clients import PLAN, Promises, Reader, Starter, Way, Worker
from tests.faults.follower import Follower
from tests.faults.services import until
from tests.faults.site import Shape, Site, new_site
from tests.faults.subscriber import Subscriber, subscribed
from tests.faults.troubles import Troubles

STARTERS = 2
WORKERS = 9
TIMEOUT_SEC = {"sqlite": 15.0, "postgres": 4.0}
"""After so long a client asks another tower, where there is one."""
FINISH_SEC = 90.0
"""After the last trouble everything must be done so soon, most of it far sooner."""


@dataclass
class Campaign:
    """A site, its clients, and the troubles that come over it.

    Attributes:
        folder: for files and logs.
        seed: of all that is left to chance.
        goes_on: whether there is to be another trouble, after so many.
        shape: of the site.
        has_broker: it uses RabbitMQ, over a way that breaks.
        say: told how it goes.
        counts: what happened.
        is_over: it ran to its end, and every promise was kept.
    """

    folder: Path
    seed: int
    goes_on: Callable[[int], bool]
    shape: Shape = field(default_factory=Shape)
    has_broker: bool = False
    say: Callable[[str], None] = lambda _line: None
    counts: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    async def run(self) -> Counter[str]:
        """Run to the end, and audit.

        Raises:
            AssertionError: a promise was not kept.
        """
        (self.folder / "plans").mkdir()
        (self.folder / "plans" / "renewal.plan.yaml").write_text(PLAN)
        broker: Proxy | None = None
        subscriber: Subscriber | None = None
        shape = self.shape
        try:
            async with AsyncExitStack() as ends:
                if self.has_broker:
                    broker = await ends.enter_async_context(proxied())
                    subscriber = await ends.enter_async_context(subscribed())
                    shape = replace(shape, amqp_url=broker.url, exchange=subscriber.exchange)
                site = ends.enter_context(new_site(self.folder, shape, sweep_interval_sec=0.05))
                await asyncio.to_thread(site.begin)
                await _Run(self, site, broker, subscriber).run()
        except BaseException as error:
            error.add_note(f"seed {self.seed}, so far {dict(self.counts)}")
            raise
        self.is_over = True
        return self.counts


class _Run:
    """One run of a campaign on a site that is up."""

    def __init__(self, campaign: Campaign, site: Site, broker: Proxy | None, subscriber: Subscriber | None) -> None:
        self._campaign = campaign
        self._site = site
        self._broker = broker
        self._subscriber = subscriber
        self._counts = campaign.counts
        self._promises = Promises(counts=campaign.counts)
        self._chance = random.Random(campaign.seed)
        self._starting, self._working, self._asked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Work, bring troubles, finish, stop, audit."""
        timeout = TIMEOUT_SEC[self._campaign.shape.kind]
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as http:
            follower = Follower(http, self._way(http, "act"))
            async with asyncio.TaskGroup() as group:
                following = group.create_task(follower.run())
                starting = [group.create_task(client) for client in self._starters(http)]
                for client in self._others(http):
                    group.create_task(client)
                troubles = Troubles(self._site, self._broker, self._chance, self._counts, self._asked)
                await troubles.run(self._campaign.goes_on, self._say)
                self._starting.set()
                await self._finish(http, starting, follower)
                self._working.set()
                following.cancel()
            await self._audit(http, follower)

    def _way(self, http: httpx.AsyncClient, name: str, first: int = 0) -> Way:
        services = self._site.towers if name == "oms" else self._site.ledgers
        return Way(http, [served.url for served in services], self._counts, first=first)

    def _starters(self, http: httpx.AsyncClient) -> list[Coroutine[Any, Any, None]]:
        return [
            Starter(number, self._way(http, "oms", number), self._promises, self._asked).run(self._starting)
            for number in range(STARTERS)
        ]

    def _others(self, http: httpx.AsyncClient) -> list[Coroutine[Any, Any, None]]:
        seed = self._campaign.seed
        workers = [
            Worker(
                number,
                seed,
                self._way(http, "oms", number // 3),
                self._promises,
                asked=self._asked,
                calm=self._starting,
            ).run(self._working)
            for number in range(WORKERS)
        ]
        chance = random.Random(f"{seed} reader")
        reader = Reader(self._way(http, "oms"), self._way(http, "act"), self._promises, chance)
        return [*workers, reader.run(self._working)]

    def _say(self, number: int) -> None:
        if number % 10 == 0:
            self._campaign.say(f"{number} troubles: {dict(self._counts)}")

    async def _finish(self, http: httpx.AsyncClient, starting: list[asyncio.Task[None]], follower: Follower) -> None:
        """Wait until all jobs are through and everybody has all events."""
        tower, ledger = self._way(http, "oms"), self._way(http, "act")
        waits_for = "the last starts"

        async def is_through() -> bool:
            nonlocal waits_for
            for state in ("queued", "running"):
                jobs = (await tower.ask("GET", "/jobs", params={"state": state})).json()["items"]
                if jobs:
                    waits_for = f"jobs: {jobs[:3]}"
                    return False
            waits_for = "the delivery to the ledger"
            return bool((await tower.ask("GET", "/readyz")).json()["relay"]["pending"] == 0)

        try:
            async with asyncio.timeout(FINISH_SEC):
                await asyncio.gather(*starting)
                await until(is_through, what="all is through", limit_sec=FINISH_SEC)
                size = (await ledger.ask("GET", "/readyz")).json()["size"]
                waits_for = f"the follower, which has {len(follower.rows)} of {size}"
                await follower.until(size)
                if self._subscriber is not None:
                    waits_for = f"the subscriber, who has {len(self._subscriber.got)} of {size}"
                    await self._subscriber.until(size)
        except TimeoutError:
            raise AssertionError(f"no end after {FINISH_SEC} s: {waits_for}") from None

    async def _audit(self, http: httpx.AsyncClient, follower: Follower) -> None:
        """Compare what was promised with what both databases hold and what all services say."""
        found = await asyncio.to_thread(read, self._site.oms, self._site.act)
        self._counts |= Counter(jobs=len(found.jobs), events=len(found.sent), streams=follower.streams)
        check_promises(found, self._promises)
        check_order(found)
        check_rows(found, follower.rows)
        if self._subscriber is not None:
            self._subscriber.check(found)
            self._counts["messages"] = len(self._subscriber.got)
        check_kept_sums(self._site.oms, self._site.act, found)
        towers, ledgers = ([served.url for served in of] for of in (self._site.towers, self._site.ledgers))
        await check_answers(http, towers, ledgers, found, self._chance)
        await asyncio.to_thread(self._site.stop)
        assert await asyncio.to_thread(read, self._site.oms, self._site.act) == found, "the stop changed something"
        self._site.check_logs()
