"""PostgreSQL stops and starts again: everybody is told to come back, and nothing has to be restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from act.contract import BATCH_CONTENT_TYPE
from tests.act.support import array, plain_job
from tests.faults.clients import check_not_now
from tests.faults.services import Served, until
from tests.faults.site import Shape, Site, new_site

PLAN = "id: single\nlanes: [only, later]\nsequence: [only]\n"
LATER = "id: later\nlanes: [later]\nsequence: [later]\n"
PARKED = 20
"""Long polls at each tower."""
BACK_SEC = 10.0
"""So soon after the database is back everything works; on a quiet machine in a tenth of that."""
TOWER_CALLS: Sequence[tuple[str, str, Any]] = [
    ("POST", "/start", {"plan": "single", "reference": "T-9"}),
    ("POST", "/start", [{"plan": "single", "reference": "T-9"}]),
    ("GET", "/pull?lane=only", None),
    ("GET", "/pull?lane=only&max=3&worker=w-1", None),
    ("GET", "/pull?lane=only&wait=30", None),
    ("POST", "/complete", {"task_id": "TASK-1"}),
    ("POST", "/complete", [{"task_id": "TASK-1"}]),
    ("POST", "/fail", {"task_id": "TASK-1", "error": "no luck"}),
    ("POST", "/heartbeat", {"task_id": "TASK-1", "token": "t"}),
    ("POST", "/release", {"task_id": "TASK-1", "token": "t"}),
    ("POST", "/reroute", {"task_id": "TASK-1", "new_lane": "later"}),
    ("POST", "/retry", {"task_id": "TASK-1"}),
    ("GET", "/jobs/JOB-1", None),
    ("GET", "/tasks/TASK-1", None),
    ("GET", "/jobs", None),
    ("GET", "/tasks", None),
    ("GET", "/lanes", None),
    ("GET", "/plans", None),
    ("GET", "/plans/single", None),
    ("POST", "/plans/reload", None),
    ("GET", "/readyz", None),
]
LEDGER_CALLS: Sequence[tuple[str, str, Any]] = [
    ("POST", "/events", plain_job("JOB-9")),
    ("GET", "/stream?job=JOB-1", None),
    ("GET", "/stream", None),
    ("GET", "/stream?view=latest&job=JOB-1", None),
    ("GET", "/stream?job=JOB-1&follow=true", None),
    ("GET", "/jobs/JOB-1", None),
    ("GET", "/readyz", None),
]


async def call(http: httpx.AsyncClient, served: Served, method: str, path: str, body: Any) -> httpx.Response:
    if path == "/events":
        headers = {"content-type": BATCH_CONTENT_TYPE}
        return await http.request(method, f"{served.url}{path}", content=array(body), headers=headers)
    return await http.request(method, f"{served.url}{path}", json=body)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_database_that_is_away_is_a_503_and_needs_no_restart(
    tmp_path: Path, how: Literal["fast", "immediate"]
) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "single.yaml").write_text(PLAN)
    (tmp_path / "plans" / "later.yaml").write_text(LATER)
    with new_site(tmp_path, Shape("postgres", towers=2, ledgers=1)) as site:
        site.begin()
        asyncio.run(_stop_and_start(site, how))
        site.stop()
        site.check_logs()


async def _stop_and_start(site: Site, how: Literal["fast", "immediate"]) -> None:
    assert site.server is not None
    pids = [served.pid for served in site.services]
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as http,
        asyncio.TaskGroup() as group,
    ):
        await call(http, site.towers[0], "POST", "/start", {"plan": "single", "reference": "T-1"})
        task = (await call(http, site.towers[1], "GET", "/pull?lane=only", None)).json()
        assert task["task_id"] == "TASK-1"
        await _delivered(http, site)
        polls = [
            group.create_task(http.get(f"{tower.url}/pull", params={"lane": "later", "wait": 60}, timeout=90))
            for tower in site.towers
            for _ in range(PARKED)
        ]
        for tower in site.towers:
            await _parked(http, tower)

        await asyncio.to_thread(site.server.stop, how)
        await _check_away(http, site)
        assert not any(poll.done() for poll in polls), "a poll that waits need not know"

        await asyncio.to_thread(site.server.begin)
        began = time.monotonic()
        await asyncio.gather(*(_ready(http, served) for served in site.services))
        answer = await call(http, site.towers[0], "POST", "/complete", {"task_id": "TASK-1", "token": task["token"]})
        assert (answer.status_code, answer.json()["job_state"]) == (200, "done")
        wishes = [{"plan": "later", "reference": f"L-{number}"} for number in range(2 * PARKED)]
        assert (await call(http, site.towers[1], "POST", "/start", wishes)).status_code == 200
        served = [(await poll).json() for poll in polls]
        assert len({task["task_id"] for task in served}) == 2 * PARKED, "each poll got a task of its own"
        await _delivered(http, site)
        for ledger in site.ledgers:
            rows = (await call(http, ledger, "GET", "/stream?job=JOB-1", None)).json()
            assert [row["status"] for row in rows] == ["queued", "queued", "started", "done", "done"]
            taken = await call(http, ledger, "POST", "/events", plain_job("JOB-900"))
            assert taken.status_code == 200, taken.text
        assert time.monotonic() - began < 3 * BACK_SEC
    assert [served.pid for served in site.services if served.is_running] == pids


async def _check_away(http: httpx.AsyncClient, site: Site) -> None:
    """Check what every call is answered while no database is there, one by one and all at once."""
    asked = [(tower, *it) for tower in site.towers for it in TOWER_CALLS]
    asked += [(ledger, *it) for ledger in site.ledgers for it in LEDGER_CALLS]
    for served, method, path, body in asked:
        answer = await call(http, served, method, path, body)
        assert answer.status_code == 503, f"{served.label} {method} {path}: {answer.status_code} {answer.text}"
        check_not_now(answer)
    answers = await asyncio.gather(*(call(http, *it) for it in asked * 3))
    assert {answer.status_code for answer in answers} == {503}
    for served in site.services:
        assert (await http.get(f"{served.url}/healthz")).status_code == 200
        assert "database" in (await http.get(f"{served.url}/readyz")).text, "it says what is amiss"


async def _ready(http: httpx.AsyncClient, served: Served) -> None:
    async def is_ready() -> bool:
        return (await http.get(f"{served.url}/readyz")).status_code == 200

    await until(is_ready, what=f"{served.label} is ready again", limit_sec=BACK_SEC)


async def _parked(http: httpx.AsyncClient, tower: Served) -> None:
    async def all_wait() -> bool:
        return bool((await http.get(f"{tower.url}/readyz")).json()["waiting_pulls"] == PARKED)

    await until(all_wait, what="all polls wait")


async def _delivered(http: httpx.AsyncClient, site: Site) -> None:
    async def is_delivered() -> bool:
        return bool((await http.get(f"{site.towers[0].url}/readyz")).json()["relay"]["pending"] == 0)

    await until(is_delivered, what="the ledger has all events", limit_sec=BACK_SEC)
