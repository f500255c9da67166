"""Clients of towers that come and go. They do what good clients do: where no answer came, they ask again, elsewhere.

Every answer is a promise. `Promises` keeps them, for the audit.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

LANES = ("extract", "verify", "print")
PLAN = """\
id: renewal
lanes:
  - {id: extract, lease_sec: 2}
  - {id: verify, lease_sec: 2}
  - {id: print, lease_sec: 2}
sequence:
  - extract
  - {activity: verify, when: outputs.extract.score < 5}
  - print
retry_policy: {attempts: 1000, backoff_sec: 0}
"""
PAUSE_SEC = 0.05
"""Between two requests of a client that does not wait for work: the load is steady, what is audited stays bounded."""
MAX_OPEN_JOBS = 40
"""Beyond, no more are started: on a slow machine the work would pile up, and not end."""
OVERSLEEPS_SEC = 2.3
"""So long a worker that comes back late has a task: for longer than its lease, when others have it."""
AGAIN_SEC = 0.1
"""After an answer that was none: a service that starts needs the processor more than those who wait for it."""


@dataclass
class Promises:
    """What the services have acknowledged.

    Attributes:
        jobs: by reference the job that was started.
        over: the jobs that a completion ended.
        done: by task the attempt and output that were completed.
        counts: what else happened.
    """

    jobs: dict[str, str] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    done: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class Way:
    """A client's way to several services of one kind, of which it asks another when one does not answer.

    Args:
        http: for any address.
        urls: the services'.
        counts: how often no answer came (``unanswered``), and a 503 (``not now``).
        first: which one is asked first.
    """

    def __init__(self, http: httpx.AsyncClient, urls: Sequence[str], counts: Counter[str], *, first: int = 0) -> None:
        self._http = http
        self._urls = urls
        self._counts = counts
        self._place = first

    @property
    def url(self) -> str:
        """The service that is asked now."""
        return self._urls[self._place % len(self._urls)]

    def turn(self) -> None:
        """Go to the next one."""
        self._place += 1

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask until an answer comes that is one.

        Raises:
            AssertionError: an answer that no client should ever get.
        """
        while True:
            try:
                answer = await self._http.request(method, f"{self.url}{path}", **more)
            except httpx.HTTPError:
                self._counts["unanswered"] += 1
            else:
                if answer.status_code != 503:
                    assert answer.status_code < 500, f"{method} {path}: {answer.status_code} {answer.text}"
                    return answer
                check_not_now(answer)
                self._counts["not now"] += 1
            self.turn()
            await asyncio.sleep(AGAIN_SEC)


def check_not_now(answer: httpx.Response) -> None:
    """Check that a 503 says when to come again, and why it came.

    Raises:
        AssertionError: it does not.
    """
    assert int(answer.headers["retry-after"]) >= 1, answer.headers
    if answer.headers["content-type"] == "application/problem+json":
        assert answer.json()["code"] == "unavailable", answer.text
    else:
        assert answer.json()["ready"] is False, answer.text


class Starter:
    """Starts jobs, some in lists, until it is told to end.

    Args:
        number: which of the starters it is.
        way: to the towers.
        promises: where the answers are noted.
        asked: set whenever a request goes out.
    """

    def __init__(self, number: int, way: Way, promises: Promises, asked: asyncio.Event) -> None:
        self._number = number
        self._way = way
        self._promises = promises
        self._asked = asked

    async def run(self, ends: asyncio.Event) -> None:
        """Work until ``ends`` is set and every answer has come."""
        number = 0
        while not ends.is_set():
            await asyncio.sleep(PAUSE_SEC)
            if len(self._promises.jobs) - len(self._promises.over) > MAX_OPEN_JOBS:
                continue
            number += 1
            references = [f"T-{self._number}-{number}-{place}" for place in range(1 + number % 3)]
            wishes = [{"plan": "renewal", "reference": reference, "input": {"n": number}} for reference in references]
            self._asked.set()
            answer = await self._way.ask("POST", "/start", json=wishes)
            for reference, started in zip(references, answer.json(), strict=True):
                assert "job_id" in started, started
                self._promises.jobs[reference] = started["job_id"]
                self._promises.counts["started" if started["created"] else "started again"] += 1
            self._way.turn()


class Worker:
    """Pulls from a lane, and does what it gets.

    Most often it completes a task. Sometimes it fails it, gives it back, loses it, or comes back late; and who gets a
    task after another is late more often, so that one finds it in the other's hands.

    Args:
        number: which of the workers it is.
        seed: of what becomes of its tasks.
        way: to the towers.
        promises: where the answers are noted.
        asked: set whenever a task is completed.
        calm: once it is set, every task is completed at once.
    """

    def __init__(
        self, number: int, seed: int, way: Way, promises: Promises, *, asked: asyncio.Event, calm: asyncio.Event
    ) -> None:
        self._query: dict[str, Any] = {
            "lane": LANES[number % len(LANES)],
            "worker": f"w-{number}",
            "wait": 1,
            "max": 1 + number % 2,
        }
        self._chance = random.Random(f"{seed} {number}")
        self._way = way
        self._promises = promises
        self._asked = asked
        self._calm = calm

    async def run(self, ends: asyncio.Event) -> None:
        """Work until ``ends`` is set and nothing is in hand."""
        while not ends.is_set():
            for task in (await self._way.ask("GET", "/pull", params=self._query)).json():
                await self._do(task)

    async def _do(self, task: dict[str, Any]) -> None:
        about = {"task_id": task["task_id"], "token": task["token"]}
        fate = 0.5 if self._calm.is_set() else self._chance.random()
        if fate < 0.04:
            self._promises.counts["lost by its worker"] += 1
            return
        if fate < 0.12:
            path, body = ("/fail", {**about, "error": "no luck"}) if fate < 0.08 else ("/release", about)
            answer = await self._way.ask("POST", path, json=body)
            assert answer.status_code in (200, 409), answer.text
            self._promises.counts[path] += 1
            return
        if fate > (0.97 if task["attempt"] == 1 else 0.6):
            await asyncio.sleep(OVERSLEEPS_SEC)
        output = {"score": self._chance.randint(0, 9), "attempt": task["attempt"]}
        self._asked.set()
        answer = await self._way.ask("POST", "/complete", json={**about, "output": output})
        if answer.status_code == 200:
            known = self._promises.done.setdefault(task["task_id"], (task["attempt"], output))
            assert known == (task["attempt"], output), f"{task['task_id']} was completed twice"
            self._promises.counts["completed"] += 1
            if answer.json()["job_state"] == "done":
                self._promises.over.add(task["job_id"])
        else:
            assert answer.json()["code"] == "stale-token", answer.text
            self._promises.counts["completed too late"] += 1


class Reader:
    """Asks for all that can be read, of towers and ledgers: none of the answers may be a fault.

    Args:
        towers: the way to them.
        ledgers: the way to them.
        promises: whose jobs are asked for.
        chance: of what is asked.
    """

    def __init__(self, towers: Way, ledgers: Way, promises: Promises, chance: random.Random) -> None:
        self._towers = towers
        self._ledgers = ledgers
        self._promises = promises
        self._chance = chance

    async def run(self, ends: asyncio.Event) -> None:
        """Read until ``ends`` is set."""
        while not ends.is_set():
            job = self._chance.choice(list(self._promises.jobs.values()) or ["JOB-1"])
            way, path = self._chance.choice(
                [
                    *((self._towers, path) for path in (f"/jobs/{job}", "/jobs", "/tasks", "/lanes", "/plans")),
                    *((self._towers, path) for path in ("/tasks/TASK-1", "/readyz", "/healthz")),
                    *((self._ledgers, path) for path in (f"/stream?job={job}", "/stream?limit=5", f"/jobs/{job}")),
                    *((self._ledgers, path) for path in ("/readyz", "/healthz")),
                ]
            )
            answer = await way.ask("GET", path)
            assert answer.status_code in (200, 404), f"{path}: {answer.status_code} {answer.text}"
            way.turn()
            await asyncio.sleep(PAUSE_SEC)
