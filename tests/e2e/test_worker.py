"""The SDK against real services: leases that end, services that end, and managers who take work away."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from oms.demo.ledger import Ledger, differences, wait_until_delivered
from oms.demo.pair import Pair
from oms.worker import OmsClient, OmsProblem, Task, Worker
from tests.e2e.conftest import environment, is_done, task_of, told, until


@contextmanager
def working(pair: Pair, lane: str, handle: Callable[[Task], dict[str, Any]]) -> Iterator[Worker]:
    worker = Worker(pair.oms_url, lane=lane, worker=f"worker of {lane}", wait_sec=0.5)
    thread = threading.Thread(target=worker.run, args=(handle,))
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def own_client(own_pair: Pair) -> Iterator[OmsClient]:
    with OmsClient(own_pair.oms_url) as client:
        yield client


def test_heartbeats_hold_a_lease_that_is_shorter_than_the_work(own_pair: Pair, own_client: OmsClient) -> None:
    may_end = threading.Event()
    job_id = own_client.start("short", "long work")["job_id"]

    def handle(task: Task) -> dict[str, Any]:
        task.progress = 0.5
        return {"waited": may_end.wait(20)}

    with working(own_pair, "dig", handle):
        first = until(lambda: lease_of(own_client, job_id))
        # Three times prolonged: more than the whole lease has passed.
        for _ in range(3):
            last = lease_of(own_client, job_id)
            until(lambda last=last: lease_of(own_client, job_id) not in (None, last))  # type: ignore[misc]
        assert task_of(own_client, job_id, "dig")["progress"] == 0.5  # type: ignore[index]
        may_end.set()
        until(lambda: is_done(own_client, job_id, "dig"))
    task = task_of(own_client, job_id, "dig")
    assert task is not None
    assert task["attempt"] == 1
    assert first


def lease_of(client: OmsClient, job_id: str) -> str | None:
    task = task_of(client, job_id, "dig")
    return None if task is None else task["lease_expires_at"]


def test_a_worker_that_dies_loses_its_task_to_the_next(own_pair: Pair, own_client: OmsClient) -> None:
    job_id = own_client.start("short", "two workers")["job_id"]
    program = (
        "import time\nfrom oms.worker import Worker\nWorker(lane='dig', worker='mortal').run(lambda _: time.sleep(60))"
    )
    with subprocess.Popen([sys.executable, "-c", program], env=environment(own_pair)) as mortal:
        until(lambda: lease_of(own_client, job_id))
        mortal.kill()
    with working(own_pair, "dig", lambda _task: {"ok": True}):
        until(lambda: is_done(own_client, job_id, "dig"))
    with Ledger(own_pair.act_url) as ledger:
        (done,) = until(lambda: told(ledger, job_id, "done"))
        (expired,) = told(ledger, job_id, "expired")
    assert (expired["attempt"], expired["worker"]) == (1, "mortal")
    assert (done["attempt"], done["worker"]) == (2, "worker of dig")


def test_a_task_that_is_taken_away_is_seen_as_lost(own_pair: Pair, own_client: OmsClient) -> None:
    job_id = own_client.start("short", "taken away")["job_id"]
    seen: list[bool] = []

    def handle(task: Task) -> dict[str, Any]:
        seen.append(task.wait(20))
        return {"too": "late"}

    with working(own_pair, "dig", handle):
        task = until(lambda: (task_of(own_client, job_id, "dig") or {}).get("lease_expires_at"))
        task = task_of(own_client, job_id, "dig")
        assert task is not None
        own_client.reroute(task["task_id"], "fill", reason="the digger is slow", actor="manager")
        until(lambda: seen)
        with working(own_pair, "fill", lambda _task: {"in": "time"}):
            until(lambda: is_done(own_client, job_id, "dig"))
    assert seen == [True]
    assert own_client.job(job_id)["outputs"]["dig"] == {"in": "time"}


def test_work_survives_a_restart_and_a_kill_of_both_services(own_pair: Pair, own_client: OmsClient) -> None:
    assert own_pair.oms is not None
    jobs = [own_client.start("short", f"ticket {number}")["job_id"] for number in range(20)]
    stopped, may_go_on = threading.Event(), threading.Event()

    def dig(task: Task) -> dict[str, Any]:
        if task.job_id == jobs[5] and not may_go_on.is_set():
            stopped.set()
            may_go_on.wait(30)
        return {"dug": task.reference}

    with working(own_pair, "dig", dig), working(own_pair, "fill", lambda task: {"filled": task.reference}):
        assert stopped.wait(20)
        # OMS is down while a worker has work in hand; it completes it while OMS comes up again.
        assert own_pair.oms.stop() == 0
        may_go_on.set()
        own_pair.oms.start()
        own_pair.oms.wait_ready()
        own_pair.act.stop(kill=True)
        until(lambda: is_done(own_client, jobs[12], "fill"))  # OMS needs no ACT to go on
        own_pair.act.start()
        own_pair.act.wait_ready()
        own_pair.oms.stop(kill=True)
        own_pair.oms.start()
        own_pair.oms.wait_ready()
        for job_id in jobs:
            until(lambda job_id=job_id: own_client.job(job_id)["state"] == "done")  # type: ignore[misc]
    assert wait_until_delivered(own_client, limit_sec=20)
    with Ledger(own_pair.act_url) as ledger:
        for job_id in jobs:
            assert differences(own_client.job(job_id), ledger.job(job_id), ledger.rows(job_id)) == []


def test_refusals_are_problems(pair: Pair, client: OmsClient) -> None:
    with pytest.raises(OmsProblem) as unknown:
        client.start("no such plan", "r")
    assert (unknown.value.status, unknown.value.code) == (404, "not-found")
    with pytest.raises(OmsProblem) as invalid:
        client.pull("")
    assert invalid.value.status == 422
    assert invalid.value.errors
    items = client.start_many([{"plan": "no such plan", "reference": "r"}, {"plan": "passport_renewal"}])
    assert [item.status for item in items if isinstance(item, OmsProblem)] == [404, 422]
