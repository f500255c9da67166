"""Long polls that are parked at one tower, while another makes the work: they are answered soon, and cost nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.services import Served, until
from tests.faults.site import Shape, Site, new_site

PLAN = "id: single\nlanes: [only]\nsequence: [only]\n"
POLLS = 1_000
ROUNDS = 12
LOOK_SEC = 0.25
"""How late a poll without RabbitMQ may be at most, by the contract."""
SLACK_SEC = 0.35
"""For the test's own work, and a machine that does other things."""
SESSIONS = 20
"""Two towers with two connections that write and eight that read."""
BUSY_SESSIONS = 5
LIMIT_SEC = 90.0


class Polls:
    """Long polls at one tower.

    Attributes:
        served: by task the time at which it was handed out, monotonic seconds.
    """

    def __init__(self, http: httpx.AsyncClient, tower: Served, group: asyncio.TaskGroup) -> None:
        self.served: dict[str, float] = {}
        self._http = http
        self._tower = tower
        self._group = group
        self._news = asyncio.Event()

    async def park(self, count: int) -> None:
        """Send so many more; return when the tower says that all wait."""
        for _ in range(count):
            self._group.create_task(self._poll())

        async def all_wait() -> bool:
            return await self.waiting() == count

        await until(all_wait, what=f"{count} polls wait", limit_sec=LIMIT_SEC)

    async def waiting(self) -> int:
        """Return how many the tower says wait."""
        count: int = (await self._http.get(f"{self._tower.url}/readyz")).json()["waiting_pulls"]
        return count

    async def until(self, served: int) -> None:
        """Wait until so many tasks were handed out."""
        async with asyncio.timeout(LIMIT_SEC):
            while len(self.served) < served:
                self._news.clear()
                await self._news.wait()

    async def _poll(self) -> None:
        answer = await self._http.get(f"{self._tower.url}/pull", params={"lane": "only", "wait": 60})
        assert answer.status_code == 200, answer.text
        task = answer.json()
        assert task is not None, "it waited for nothing"
        assert task["task_id"] not in self.served, "it was handed out twice"
        self.served[task["task_id"]] = time.monotonic()
        self._news.set()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_polls_parked_at_one_tower_are_served_by_anothers_work_soon_and_hold_no_connection(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "single.yaml").write_text(PLAN)
    with new_site(tmp_path, Shape("postgres", towers=2, ledgers=1)) as site:
        site.begin()
        asyncio.run(_park_and_start(site))
        site.stop()
        site.check_logs()


async def _park_and_start(site: Site) -> None:
    first, second = site.towers
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with (
        httpx.AsyncClient(timeout=90, limits=limits, trust_env=False) as http,
        asyncio.TaskGroup() as group,
    ):
        polls = Polls(http, first, group)
        await polls.park(POLLS)

        late_sec = []
        for number in range(ROUNDS):
            answer = await http.post(f"{second.url}/start", json={"plan": "single", "reference": f"one-{number}"})
            assert answer.status_code == 200, answer.text
            answered = time.monotonic()
            await polls.until(number + 1)
            late_sec.append(max(polls.served.values()) - answered)
        assert sorted(late_sec)[ROUNDS // 2] < LOOK_SEC + SLACK_SEC, late_sec
        assert await polls.waiting() == POLLS - ROUNDS

        states = [state for _ in range(5) for state in [await asyncio.to_thread(_sessions, site)]]
        assert max(len(of) for of in states) <= SESSIONS, states
        assert min(len([state for state in of if state != "idle"]) for of in states) <= BUSY_SESSIONS, states

        # All the others at once: each gets a task of its own.
        wishes = [{"plan": "single", "reference": f"all-{number}"} for number in range(POLLS - ROUNDS)]
        assert (await http.post(f"{second.url}/start", json=wishes)).status_code == 200
        await polls.until(POLLS)


def _sessions(site: Site) -> list[str]:
    assert site.server is not None
    return site.server.sessions("oms")
