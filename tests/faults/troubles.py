"""What happens to a site: its processes are killed or stand still, its database crashes, its broker goes away."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, ParamSpec, TypeVar

import httpx

from oms.relay.loop import LEASE_SEC
from tests.broker import Proxy
from tests.faults.services import START_LIMIT_SEC, Served, until
from tests.faults.site import Site

P = ParamSpec("P")
T = TypeVar("T")

ALONE = {"kill a tower": 7, "kill a ledger": 3}
"""Of a site of one tower and one ledger: how often each, in ten."""
SHARED = {
    "kill a tower": 3,
    "kill a ledger": 2,
    "end all sessions": 2,
    "crash the database": 2,
    "stop the database": 1,
    "freeze the database": 1,
    "pause the relay": 1,
    "pause a ledger": 1,
}
BROKER = {"break the broker off": 2}
LONGEST_PAUSE_SEC = LEASE_SEC + 2.0
LONGEST_FREEZE_SEC = 6.0
NOTICED_WITHIN_SEC = 5.0
POLL_SEC = 0.01


def kinds_of(*, is_shared: bool, has_broker: bool) -> dict[str, int]:
    """Return the kinds of trouble that may come over a site, and how often each does, beside the others."""
    return (SHARED if is_shared else ALONE) | (BROKER if has_broker else {})


async def in_thread(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run a function in a thread; a cancellation waits for its end: nothing goes on while others clean up."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class Troubles:
    """Brings troubles over a site, several at once where it has several of everything.

    Args:
        site: it runs.
        broker: the way to its broker, if it has one.
        chance: of what comes when.
        counts: what was done.
        asked: set whenever a client has sent something of weight.
    """

    def __init__(
        self, site: Site, broker: Proxy | None, chance: random.Random, counts: Counter[str], asked: asyncio.Event
    ) -> None:
        self._site = site
        self._broker = broker
        self._chance = chance
        self._counts = counts
        self._asked = asked
        self._in_trouble: list[object] = []

    async def run(self, goes_on: Callable[[int], bool], say: Callable[[int], None]) -> None:
        """Bring one after the other, for as long as ``goes_on`` says so of the number of troubles so far.

        On return everything works again.
        """
        troubles = self._shuffled()
        number = 0

        async def hand() -> None:
            nonlocal number
            while goes_on(number):
                number += 1
                await self._one(next(troubles))
                say(number)

        hands = 1 if self._site.server is None else 2
        async with asyncio.TaskGroup() as group:
            for _ in range(hands):
                group.create_task(hand())

    def _shuffled(self) -> Iterator[str]:
        """Give every kind once, in any order; then round by round each as often as it is due."""
        kinds = kinds_of(is_shared=self._site.server is not None, has_broker=self._broker is not None)
        deck = list(kinds)
        self._chance.shuffle(deck)
        yield from deck
        while True:
            deck = [kind for kind, times in kinds.items() for _ in range(times)]
            self._chance.shuffle(deck)
            yield from deck

    async def _one(self, trouble: str) -> None:
        await asyncio.sleep(self._chance.uniform(0.05, 0.6))
        match trouble:
            case "kill a tower":
                await self._kill(self._site.towers)
            case "kill a ledger":
                await self._kill(self._site.ledgers)
            case "end all sessions":
                await self._end_sessions()
            case "crash the database":
                await self._restart_database("immediate")
            case "stop the database":
                await self._restart_database("fast")
            case "freeze the database":
                await self._freeze_database()
            case "pause the relay":
                await self._pause(await self._relaying(), self._chance.uniform(0.2, LONGEST_PAUSE_SEC))
            case "pause a ledger":
                await self._pause(self._free(self._site.ledgers), self._chance.uniform(0.2, LONGEST_PAUSE_SEC))
            case "break the broker off":
                await self._break_broker_off()
            case other:
                raise AssertionError(other)
        self._counts[trouble] += 1

    @contextmanager
    def _alone(self, victim: object) -> Iterator[bool]:
        """Let no other trouble come over the victim; False where one has already."""
        if victim in self._in_trouble:
            yield False
            return
        self._in_trouble.append(victim)
        try:
            yield True
        finally:
            self._in_trouble.remove(victim)

    def _free(self, services: Sequence[Served]) -> Served:
        return self._chance.choice([served for served in services if served not in self._in_trouble] or list(services))

    async def _moment(self) -> None:
        """Wait, mostly, for a moment after a request has gone out: between the disk and the answer."""
        if self._chance.random() < 0.7:
            self._asked.clear()
            await self._asked.wait()
            await asyncio.sleep(self._chance.uniform(0, 0.006))

    async def _kill(self, services: Sequence[Served]) -> None:
        victim = self._free(services)
        with self._alone(victim) as mine:
            if not mine:
                return
            await self._moment()
            assert victim.is_running, f"{victim.label} has ended by itself: {victim.last_words()}"
            victim.kill()
            if self._chance.random() < 0.3:
                await asyncio.sleep(self._chance.uniform(0, 0.3))
            await self._begin_again(victim)

    async def _begin_again(self, victim: Served) -> None:
        """Start it, and again where it ends because its database is away, as whoever keeps services running does."""
        victim.begin(is_ready=False)
        async with httpx.AsyncClient(timeout=2, trust_env=False) as http:

            async def is_ready() -> bool:
                if not victim.is_running:
                    self._counts["starts in vain"] += 1
                    victim.begin(is_ready=False)
                try:
                    return (await http.get(f"{victim.url}/readyz")).status_code == 200
                except httpx.HTTPError:
                    return False

            await until(is_ready, what=f"{victim.label} is up again", limit_sec=2 * START_LIMIT_SEC)

    async def _pause(self, victim: Served, pause_sec: float) -> None:
        with self._alone(victim) as mine:
            if not mine:
                return
            await self._moment()
            victim.signal(signal.SIGSTOP)
            await asyncio.sleep(pause_sec)
            victim.signal(signal.SIGCONT)

    async def _relaying(self) -> Served:
        """Return the tower that sends events now; any, where none says so."""
        free = [tower for tower in self._site.towers if tower not in self._in_trouble]
        async with httpx.AsyncClient(timeout=1, trust_env=False) as http:
            for tower in free:
                try:
                    relay = (await http.get(f"{tower.url}/readyz")).json()["relay"]
                except httpx.HTTPError:
                    continue
                if relay is not None and relay["active"]:
                    return tower
        return self._free(self._site.towers)

    async def _end_sessions(self) -> None:
        server = self._site.server
        assert server is not None
        with self._alone(server) as mine:
            if mine:
                await self._moment()
                self._counts["sessions ended"] += await in_thread(server.end_sessions)

    async def _restart_database(self, how: Literal["fast", "immediate"]) -> None:
        server = self._site.server
        assert server is not None
        with self._alone(server) as mine:
            if mine:
                await self._moment()
                refused = self._counts["not now"]
                await in_thread(server.stop, how)
                await asyncio.sleep(self._chance.choice([0.0, self._chance.uniform(0, 3)]))
                if how == "fast":  # of the two, the one that is always noticed: a campaign without a 503 tests none
                    with suppress(TimeoutError):
                        async with asyncio.timeout(NOTICED_WITHIN_SEC):
                            while self._counts["not now"] == refused:  # noqa: ASYNC110 - the clients only count
                                await asyncio.sleep(POLL_SEC)
                await in_thread(server.begin)

    async def _freeze_database(self) -> None:
        server = self._site.server
        assert server is not None
        with self._alone(server) as mine:
            if mine:
                await self._moment()
                with server.frozen():
                    await asyncio.sleep(self._chance.uniform(0.2, LONGEST_FREEZE_SEC))

    async def _break_broker_off(self) -> None:
        assert self._broker is not None
        with self._alone(self._broker) as mine:
            if mine:
                self._broker.break_off()
                await asyncio.sleep(self._chance.uniform(0.2, 3))
                self._broker.mend()
