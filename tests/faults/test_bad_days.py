"""Signals, full disks, missing folders, taken ports, jumping clocks: each has an answer that says what to do."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from oms.sequencer.sweeper import _watch_clock
from tests.database import Database
from tests.faults.services import Served, free_port, serving, until, wait_until
from tests.oms.fold import check_places, fold
from tests.oms.support import Clock, Site, event_rows, in_loop, running
from tests.spawner import run

PLAN = "id: single\nlanes: [only]\nsequence: [only]\n"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "single.yaml").write_text(PLAN)
    return tmp_path


def post(served: Served, path: str, body: object) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", json=body, timeout=15, trust_env=False)


def get(served: Served, path: str, **query: Any) -> httpx.Response:
    return httpx.get(f"{served.url}{path}", params=query, timeout=15, trust_env=False)


# Signals.


@contextmanager
def silent_ledger() -> Iterator[str]:
    """A ledger that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_stop_answers_long_polls_with_nothing_and_ends_well_and_soon(folder: Path) -> None:
    """Also while the ledger does not answer."""

    async def wait_and_stop(oms: Served) -> tuple[list[httpx.Response], float]:
        async with httpx.AsyncClient(base_url=oms.url, timeout=30, trust_env=False) as http:
            await http.post("/start", json={"plan": "single", "reference": "T-1"})
            assert (await http.get("/pull", params={"lane": "only"})).json()["task_id"] == "TASK-1"
            polls = [
                asyncio.ensure_future(
                    http.get("/pull", params={"lane": "only", "wait": 60, **({"max": 3} if number % 2 else {})})
                )
                for number in range(20)
            ]
            await until(_waits(http, 20), what="all wait")
            oms.signal(signal.SIGTERM)
            began = time.monotonic()
            return await asyncio.gather(*polls), time.monotonic() - began

    with silent_ledger() as url, serving("oms", folder, act_url=url) as oms:
        answers, took_sec = asyncio.run(wait_and_stop(oms))
        assert oms.end() == 0
    assert [answer.status_code for answer in answers] == [200] * 20
    assert [answer.json() for answer in answers] == [None, []] * 10
    assert took_sec < 5


def test_a_second_signal_means_now_and_a_half_sent_request_holds_up_no_one(folder: Path) -> None:
    with (
        serving("oms", folder, act_url=NOBODY) as oms,
        socket.create_connection(("127.0.0.1", oms.port)) as half,
    ):
        half.sendall(b"POST /start HTTP/1.1\r\nHost: oms\r\nContent-Length: 100\r\n\r\n{")
        wait_until(lambda: get(oms, "/healthz").status_code == 200, what="it serves others")
        oms.signal(signal.SIGTERM)
        wait_until(lambda: not _listens(oms.port), what="it takes no more connections")
        oms.signal(signal.SIGINT)
        oms.end(limit_sec=5)


def _waits(http: httpx.AsyncClient, count: int) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return bool((await http.get("/readyz")).json()["waiting_pulls"] == count)

    return ask


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_hangup_reads_the_plans_again(folder: Path) -> None:
    with serving("oms", folder, act_url=NOBODY) as oms:
        (folder / "plans" / "more.yaml").write_text(PLAN.replace("single", "more"))
        (folder / "plans" / "single.yaml").write_text("id: single\nlanes: [only]\nsequence: [onyl]\n")
        oms.signal(signal.SIGHUP)
        wait_until(lambda: get(oms, "/plans/more").status_code == 200, what="the new plan is in force")
        assert get(oms, "/plans/single").json()["plan_version"] == 1
        wait_until(lambda: "single.yaml:3:12" in oms.log.read_text(), what="the fault is in the log")
        assert oms.stop() == 0


def test_what_was_acknowledged_is_there_after_a_stop_and_a_start(folder: Path) -> None:
    with serving("oms", folder, act_url=NOBODY) as oms:
        post(oms, "/start", [{"plan": "single", "reference": f"T-{number}"} for number in range(50)])
        token = get(oms, "/pull", lane="only").json()["token"]
        assert oms.stop() == 0
        oms.begin()
        assert post(oms, "/complete", {"task_id": "TASK-1", "token": token}).json()["job_state"] == "done"
        assert get(oms, "/lanes").json()["items"][0]["queued"] == 49


# What stands in the way of a start.


def refused_start(folder: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """Start it where it must not start; return its exit code and what it says."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMS_", "ACT_"))}
    ended = run("oms", "serve", *arguments, cwd=folder, env=environment | settings, limit_sec=30)
    said = ended.stderr.decode()
    assert "Traceback" not in said, said
    return ended.returncode, said


def test_a_second_process_on_the_same_file_is_refused_and_told_who_has_it(folder: Path) -> None:
    with serving("oms", folder, act_url=NOBODY) as oms:
        code, says = refused_start(folder, "--port", str(free_port()))
        assert code == 1
        assert "another process uses" in says
        assert "pid " in says
        assert post(oms, "/start", {"plan": "single", "reference": "T-1"}).status_code == 200


def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, says = refused_start(folder, "--port", str(port))
    assert code == 1
    assert f"127.0.0.1:{port}" in says
    assert "--port" in says


def test_a_plan_folder_that_is_not_there_is_named(folder: Path) -> None:
    code, says = refused_start(folder, OMS_PLANS="nowhere")
    assert code == 1
    assert "nowhere" in says
    assert "OMS_PLANS" in says


def test_a_folder_that_cannot_be_written_to_is_named(folder: Path) -> None:
    locked = Path("/sys") if os.geteuid() == 0 else folder / "locked"
    if locked.parent == folder:
        locked.mkdir(mode=0o500)
    code, says = refused_start(folder, OMS_DATABASE_URL=f"sqlite:///{locked / 'oms.db'}")
    assert code == 1
    assert f"cannot write in {locked}" in says


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"OMS_PORT": "many"}, "OMS_PORT"),
        ({"OMS_ACT_URL": "act:8002"}, "OMS_ACT_URL"),
        ({"OMS_SWEEP_INTERVAL_SEC": "0"}, "OMS_SWEEP_INTERVAL_SEC"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(folder: Path, settings: dict[str, str], named: str) -> None:
    code, says = refused_start(folder, **settings)
    assert code == 2
    assert named in says


# The disk.


def test_a_full_disk_refuses_loses_nothing_and_works_again_when_there_is_room(folder: Path) -> None:
    with serving("oms", folder, act_url=NOBODY) as oms:
        resource.prlimit(oms.pid, resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
        acknowledged = []
        for number in range(200):
            answer = post(oms, "/start", {"plan": "single", "reference": f"T-{number}", "input": {"x": "y" * 20_000}})
            if answer.status_code != 200:
                break
            acknowledged.append(answer.json()["job_id"])
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
        assert get(oms, "/healthz").status_code == 200
        assert len(acknowledged) > 5
        resource.prlimit(oms.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        more = post(oms, "/start", {"plan": "single", "reference": "T-more"})
        assert more.status_code == 200, more.text
        names = [job["job_id"] for job in get(oms, "/jobs", limit=1000).json()["items"]]
        assert sorted(names) == sorted([*acknowledged, more.json()["job_id"]])
        assert oms.stop() == 0


# The clock.


@in_loop
async def test_a_clock_that_jumps_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with running(Site(tmp_path, Database("sqlite", f"sqlite:///{tmp_path / 'oms.db'}")), clock=clock) as oms:
        for number, jump_sec in enumerate((86_400, -2 * 86_400, 400 * 86_400, -399 * 86_400)):
            await oms.post("/start", {"plan": "single", "reference": f"before-{number}"})
            held = await oms.get("/pull", lane="only")
            clock.advance(jump_sec)
            await oms.sweep()
            await oms.post("/start", {"plan": "single", "reference": f"after-{number}"})
            if jump_sec > 0:  # its lease is over, and it waits for its next attempt
                clock.advance(30)
                await oms.sweep()
            else:
                answer = await oms.post("/complete", {"task_id": held["task_id"], "token": held["token"]})
                assert answer["status"] == "done"
            for task in await oms.get("/pull", lane="only", max=100):
                await oms.post("/complete", {"task_id": task["task_id"], "token": task["token"]})
            assert {job["state"] for job in (await oms.get("/jobs"))["items"]} == {"done"}
            (lane,) = [lane for lane in (await oms.get("/lanes"))["items"] if lane["lane"] == "only"]
            assert (lane["queued"], lane["running"]) == (0, 0)
        check_places(event_rows(oms.store))
        assert len(fold(row.body for row in event_rows(oms.store))) == 8


def test_a_jump_of_the_clock_is_logged_and_a_long_pause_is_none() -> None:
    wall, steady = time.time(), time.monotonic()
    with capture_logs() as logs:
        _watch_clock(wall, steady)
        _watch_clock(wall - 3600, steady - 3600)
        assert logs == []
        _watch_clock(wall - 3600, steady)
        _watch_clock(wall + 3600, steady)
    assert [(log["event"], round(log["by_sec"] / 100)) for log in logs] == [("clock_jumped", 36), ("clock_jumped", -36)]
