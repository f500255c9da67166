"""Work for both services while they are killed again and again, and the audit of what came of it.

Every answer that a client got is a promise: at the end, each must be found kept. Clients do what good clients do:
where an answer did not come, they ask the same again.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.faults.services import Served
from tests.oms.fold import check_agrees, check_attempts, check_places, fold

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
LANES = ("extract", "verify", "print")
STARTERS = 2
WORKERS = 8
PAUSE_SEC = 0.05
"""Between two starts of a client: the load is steady, and what is audited stays bounded."""


@dataclass
class Promises:
    """What the services have acknowledged.

    Attributes:
        jobs: by reference the job that was started.
        done: by task the attempt and output that were completed.
        counts: what else happened.
    """

    jobs: dict[str, str] = field(default_factory=dict)
    done: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass
class Campaign:
    """Both services, their clients, and whoever kills them."""

    folder: Path
    seed: int
    kills: int
    say: Callable[[str], None] = lambda _line: None

    async def run(self) -> Counter[str]:
        """Run to the end, and audit.

        Raises:
            AssertionError: a promise was not kept.
        """
        chance = random.Random(self.seed)
        (self.folder / "plans").mkdir()
        (self.folder / "plans" / "renewal.plan.yaml").write_text(PLAN)
        act = Served("act", self.folder)
        oms = Served("oms", self.folder, act_url=act.url, sweep_interval_sec=0.05)
        self._promises = Promises()
        self._starting, self._working = asyncio.Event(), asyncio.Event()
        self._asked = asyncio.Event()
        try:
            await asyncio.gather(*(asyncio.to_thread(served.begin) for served in (act, oms)))
            async with httpx.AsyncClient(base_url=oms.url, timeout=15, trust_env=False) as http:
                self._http = http
                clients = [asyncio.ensure_future(self._start_jobs(number)) for number in range(STARTERS)]
                clients += [asyncio.ensure_future(self._work(number)) for number in range(WORKERS)]
                killing = asyncio.ensure_future(self._kill(chance, oms, act))
                done, _ = await asyncio.wait([*clients, killing], return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    future.result()
                self._starting.set()
                await self._finish(clients)
                self._working.set()
                await asyncio.gather(*clients)
                await self._audit(http, act)
            for served in (oms, act):
                assert served.stop() == 0, f"{served.name} did not stop well"
            self._audit_files()
        except AssertionError as error:
            error.add_note(f"seed {self.seed}")
            raise
        finally:
            oms.leave()
            act.leave()
        return self._promises.counts

    # The clients.

    async def _ask(self, request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Ask until an answer comes that is one."""
        while True:
            try:
                answer = await request()
            except httpx.HTTPError:
                self._promises.counts["unanswered"] += 1
            else:
                if answer.status_code != 503:
                    assert answer.status_code < 500, answer.text
                    return answer
                self._promises.counts["not now"] += 1
            await asyncio.sleep(0.02)

    async def _start_jobs(self, client: int) -> None:
        number = 0
        while not self._starting.is_set():
            number += 1
            references = [f"T-{client}-{number}-{place}" for place in range(1 + number % 3)]
            wishes = [{"plan": "renewal", "reference": reference, "input": {"n": number}} for reference in references]
            self._asked.set()
            answer = await self._ask(lambda wishes=wishes: self._http.post("/start", json=wishes))  # type: ignore[misc]
            for reference, started in zip(references, answer.json(), strict=True):
                self._promises.jobs[reference] = started["job_id"]
                self._promises.counts["started again" if not started["created"] else "started"] += 1
            await asyncio.sleep(PAUSE_SEC)

    async def _work(self, client: int) -> None:
        chance = random.Random(f"{self.seed} {client}")
        lane = LANES[client % len(LANES)]
        query: dict[str, Any] = {"lane": lane, "worker": f"w-{client}", "wait": 1, "max": 1 + client % 2}
        while not self._working.is_set():
            for task in (await self._ask(lambda: self._http.get("/pull", params=query))).json():
                await self._do(task, chance)

    async def _do(self, task: dict[str, Any], chance: random.Random) -> None:
        """Do a task: complete it most often; fail it, give it back, or lose it sometimes."""
        about = {"task_id": task["task_id"], "token": task["token"]}
        fate = chance.random()
        if fate < 0.04:
            self._promises.counts["lost by its worker"] += 1
            return
        if fate < 0.12:
            path, body = ("/fail", {**about, "error": "no luck"}) if fate < 0.08 else ("/release", about)
            answer = await self._ask(lambda: self._http.post(path, json=body))
            assert answer.status_code in (200, 409), answer.text
            self._promises.counts[path] += 1
            return
        output = {"score": chance.randint(0, 9), "attempt": task["attempt"]}
        self._asked.set()
        answer = await self._ask(lambda: self._http.post("/complete", json={**about, "output": output}))
        if answer.status_code == 200:
            known = self._promises.done.setdefault(task["task_id"], (task["attempt"], output))
            assert known == (task["attempt"], output), f"{task['task_id']} was completed twice"
            self._promises.counts["completed"] += 1
        else:
            assert answer.json()["code"] == "stale-token", answer.text
            self._promises.counts["completed too late"] += 1

    # Whoever kills them.

    async def _kill(self, chance: random.Random, oms: Served, act: Served) -> None:
        for number in range(1, self.kills + 1):
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            victim = oms if chance.random() < 0.7 else act
            if chance.random() < 0.7:
                # In the moments after a request has gone out: between the disk and the answer.
                self._asked.clear()
                await self._asked.wait()
                await asyncio.sleep(chance.uniform(0, 0.006))
            victim.kill()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 0.3))
            await asyncio.to_thread(victim.begin)
            self._promises.counts[f"{victim.name} killed"] += 1
            if number % 10 == 0:
                self.say(f"{number} kills: {dict(self._promises.counts)}")

    async def _finish(self, clients: Sequence[asyncio.Future[None]], limit_sec: float = 60) -> None:
        """Wait until all jobs are through and the ledger has all events."""
        ends = time.monotonic() + limit_sec
        while True:
            for client in clients:
                if client.done():
                    client.result()
            open_jobs = await self._jobs_in("queued") + await self._jobs_in("running")
            ready = (await self._ask(lambda: self._http.get("/readyz"))).json()
            if not open_jobs and ready["relay"]["pending"] == 0 and all(client.done() for client in clients[:STARTERS]):
                return
            assert time.monotonic() < ends, f"no end: {open_jobs[:3]} {ready}"
            await asyncio.sleep(0.05)

    async def _jobs_in(self, state: str) -> list[Any]:
        answer = await self._ask(lambda: self._http.get("/jobs", params={"state": state}))
        jobs: list[Any] = answer.json()["items"]
        return jobs

    # The audit.

    async def _audit(self, http: httpx.AsyncClient, act: Served) -> None:
        """Compare what was promised with what both services say."""
        jobs = await self._all_jobs(http)
        by_reference = {job["reference"]: job for job in jobs.values()}
        assert len(by_reference) == len(jobs), "a reference has two jobs"
        for reference, job_id in self._promises.jobs.items():
            assert by_reference[reference]["job_id"] == job_id, f"{reference} was started and is not there"
        tasks = {task["task_id"]: (job, task) for job in jobs.values() for task in job["tasks"]}
        for task_id, (attempt, output) in self._promises.done.items():
            job, task = tasks[task_id]
            assert (task["status"], task["attempt"]) == ("done", attempt), f"{task_id} was completed and is {task}"
            assert job["outputs"][task["activity"]] == output, f"{task_id} has another output"
        assert all(job["state"] == "done" for job in jobs.values())
        self._views = jobs
        self._promises.counts["jobs"] = len(jobs)
        async with httpx.AsyncClient(base_url=act.url, timeout=15, trust_env=False) as ledger:
            self._ledger: dict[str, list[dict[str, Any]]] = {}
            for job_id, job in jobs.items():
                rows = (await ledger.get("/stream", params={"job": job_id})).json()
                assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), f"{job_id} has a hole"
                done = Counter(row["activity"] for row in rows if row["status"] == "done" and row["task_id"])
                assert set(done) == set(job["outputs"]), job_id
                assert all(count == 1 for count in done.values()), f"{job_id}: {done}"
                assert [row["status"] for row in rows].count("started") >= len(done)
                folded = (await ledger.get(f"/jobs/{job_id}")).json()
                assert folded["state"] == job["state"]
                self._ledger[job_id] = rows

    async def _all_jobs(self, http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
        names: list[str] = []
        cursor: str | None = None
        while True:
            query: dict[str, Any] = {"limit": 1000} if cursor is None else {"limit": 1000, "cursor": cursor}
            page = (await http.get("/jobs", params=query)).json()
            names += [job["job_id"] for job in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return {name: (await http.get(f"/jobs/{name}")).json() for name in names}

    def _audit_files(self) -> None:
        """Compare the two files, now that both services have stopped."""
        oms = sqlite3.connect(self.folder / "oms.db")
        oms.row_factory = sqlite3.Row
        rows = oms.execute("SELECT * FROM outbox ORDER BY id").fetchall()
        oms.close()
        places = [_Place(row["id"], row["stream"], row["seq"]) for row in rows]
        check_places(places)
        jobs = fold(row["body"] for row in rows)
        check_attempts(jobs)
        check_agrees(jobs, self._views)
        sent = Counter(row["stream"] for row in rows)
        assert sent == Counter({name: len(known) for name, known in self._ledger.items()})
        indexes = {(row["job_id"], row["seq"]): row["id"] for known in self._ledger.values() for row in known}
        assert sorted(indexes.values()) == list(range(len(indexes))), "the ledger's index has a hole"
        for row in rows:
            assert row["delivered"]
            assert row["ledger_index"] == indexes[row["stream"], row["seq"]]
            told = self._ledger[row["stream"]][row["seq"] - 1]
            event = json.loads(row["body"])
            assert told["event_id"] == event["id"]
            assert all(told[key] == event["data"][key] for key in ("status", "lane", "task_id", "attempt", "detail"))
        self._promises.counts["events"] = len(rows)


@dataclass(frozen=True)
class _Place:
    id: int
    stream: str
    seq: int
