"""Fifty pollers at one service on one SQLite file: none of them ever sees an error."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.faults.services import serving

POLLERS = 50
JOBS = 160
PLAN = "id: busy\nlanes: [a, b]\nsequence: [a, b]\n"


def test_fifty_pollers_never_see_an_error_and_share_the_work(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "busy.yaml").write_text(PLAN)
    with serving("oms", tmp_path, act_url="http://127.0.0.1:9") as oms:
        statuses, done = asyncio.run(_work(oms.url))
    assert statuses.keys() == {200}
    assert sorted(done) == sorted(f"TASK-{number}" for number in range(1, 2 * JOBS + 1))


async def _work(url: str) -> tuple[Counter[int], list[str]]:
    statuses: Counter[int] = Counter()
    done: list[str] = []
    limits = httpx.Limits(max_connections=POLLERS + 1)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30, trust_env=False) as http:

        async def ask(method: str, path: str, **more: Any) -> Any:
            answer = await http.request(method, path, **more)
            statuses[answer.status_code] += 1
            return answer.json()

        async def poll(number: int) -> None:
            # Some wait, some come again and again, some want several at once.
            query = {"lane": "ab"[number % 2], "worker": f"w-{number}", "wait": number % 3, "max": 1 + number % 4}
            while len(done) < 2 * JOBS:
                tasks = await ask("GET", "/pull", params=query)
                if tasks:
                    wishes = [{"task_id": task["task_id"], "token": task["token"]} for task in tasks]
                    answers = await ask("POST", "/complete", json=wishes)
                    done.extend(answer["task_id"] for answer in answers if answer["status"] == "done")

        async def start() -> None:
            for number in range(0, JOBS, 20):
                wishes = [{"plan": "busy", "reference": f"T-{number + place}"} for place in range(20)]
                await ask("POST", "/start", json=wishes)

        async with asyncio.timeout(60):
            await asyncio.gather(start(), *(poll(number) for number in range(POLLERS)))
    return statuses, done
