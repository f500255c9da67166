"""The sweeper: whoever shows no sign of life loses the task, and whatever has waited long enough is ready."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from oms.domain.errors import StaleTokenError, UnavailableError
from oms.sequencer import expire_leases as expire_module
from oms.sequencer import sweeper as sweeper_module
from oms.sequencer.complete import Complete, complete
from oms.sequencer.heartbeat import Heartbeat, heartbeat
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.storage.store import open_store
from tests.database import Kind
from tests.databases import Databases
from tests.oms.support import SINGLE, Clock, Site, Tower, event_rows, events, in_loop, running, until


def quick(attempts: int, backoff_sec: float, lease_sec: int = 60) -> dict[str, Any]:
    return {
        "id": "quick",
        "lanes": [{"id": "only", "lease_sec": lease_sec}],
        "sequence": ["only"],
        "retry_policy": {"attempts": attempts, "backoff_sec": backoff_sec},
    }


def test_a_lease_runs_out_at_its_last_millisecond_and_not_before(tower: Tower, clock: Clock) -> None:
    tower.start("single")
    task = tower.pull_one("only")
    clock.advance(299.999)
    assert tower.sweep().expired == 0
    clock.advance(0.001)
    assert tower.sweep().expired == 1
    with pytest.raises(StaleTokenError, match="expired"):
        tower.complete(task)


def test_an_expired_attempt_is_told_and_the_task_is_queued_again_after_its_backoff(tower: Tower, clock: Clock) -> None:
    tower.start("single")
    tower.pull_one("only", worker="w-1")
    clock.advance(300)
    tower.sweep()
    expired, queued = (event["data"] for event in events(tower.store)[-2:])
    assert (expired["status"], expired["attempt"], expired["worker"], expired["actor"]) == ("expired", 1, "w-1", "oms")
    assert expired["detail"] == {"lease_expires_at": "2025-11-22T14:10:09.123Z", "final": False}
    assert (queued["status"], queued["detail"]["available_at"]) == ("queued", "2025-11-22T14:10:39.123Z")
    assert tower.task("TASK-1")["error"] == {
        "type": "lease_expired",
        "message": "no sign of life from w-1 until 2025-11-22T14:10:09.123Z",
    }
    assert tower.pull("only") == []
    clock.advance(30)
    assert tower.pull_one("only").attempt == 2


def test_a_lost_lease_is_a_failed_attempt_so_that_nothing_loops_silently(tower: Tower, clock: Clock) -> None:
    tower.put_plan(quick(2, 0))
    tower.start("quick")
    for expected in ("queued", "failed"):
        tower.pull_one("only")
        clock.advance(60)
        tower.sweep()
        assert tower.task("TASK-1")["status"] == expected
    assert tower.job("JOB-1")["state"] == "failed"
    assert [(event["type"], event["data"]["detail"].get("final")) for event in events(tower.store)[-2:]] == [
        ("hms.task.expired.v1", True),
        ("hms.job.failed.v1", None),
    ]


def test_a_sign_of_life_after_the_lease_and_before_the_sweep_keeps_the_task(tower: Tower, clock: Clock) -> None:
    """Nobody else has it yet, so nothing is won by taking it away."""
    tower.start("single")
    task = tower.pull_one("only")
    clock.advance(3600)
    tower.run(heartbeat, Heartbeat(task.task_id, task.token))
    assert tower.sweep().expired == 0
    assert tower.complete(task).status == "done"


def test_a_sweep_and_a_completion_of_the_same_moment_give_one_ending(tower: Tower, clock: Clock) -> None:
    tower.start("single")
    task = tower.pull_one("only")
    clock.advance(300)
    with tower.transaction() as tx:
        (first,) = complete(tx, [Complete(task.task_id, {}, token=task.token)])
        (second,) = sweep(tx, [Sweep()])
    assert (getattr(first, "status", None), second.expired) == ("done", 0)
    assert [event["data"]["status"] for event in events(tower.store)].count("done") == 2


def test_a_sweep_says_when_it_is_needed_next(tower: Tower, clock: Clock) -> None:
    assert tower.sweep().next_due_ms is None
    tower.start("single", "T-1")
    tower.start("single", "T-2")
    assert tower.sweep().next_due_ms is None
    first = tower.pull_one("only")
    assert tower.sweep().next_due_ms == clock() + 300_000
    clock.advance(10)
    tower.pull_one("only")
    assert tower.sweep().next_due_ms == clock() + 290_000
    tower.fail(first)
    assert tower.sweep().next_due_ms == clock() + 30_000
    clock.advance(30)
    assert tower.sweep().next_due_ms == clock() + 270_000


def test_a_sweep_takes_a_batch_and_the_longest_expired_first(
    tower: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expire_module, "BATCH", 3)
    for number in range(5):
        tower.start("single", f"T-{number}")
        tower.pull_one("only")
        clock.advance(1)
    clock.advance(300)
    assert [tower.sweep().expired for _ in range(3)] == [3, 2, 0]
    expired = [event["subject"] for event in events(tower.store) if event["data"]["status"] == "expired"]
    assert expired == [f"TASK-{number}" for number in range(1, 6)]


def test_a_sweep_that_finds_nothing_writes_nothing(tower: Tower) -> None:
    tower.start("single")
    tower.pull_one("only")
    before = event_rows(tower.store)
    for _ in range(3):
        tower.sweep()
    assert event_rows(tower.store) == before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attempts=st.integers(1, 4),
    backoff_sec=st.sampled_from([0, 0.5, 7]),
    waits=st.lists(st.sampled_from([0.2, 1, 5, 61, 400]), min_size=1, max_size=12),
)
def test_however_often_it_looks_each_attempt_expires_once_and_there_are_as_many_as_the_policy_says(
    databases: Databases, database_kind: Kind, attempts: int, backoff_sec: float, waits: list[float]
) -> None:
    with databases.lend(database_kind, "oms") as database:
        store = open_store(database.url)
        clock = Clock()
        tower = Tower(store, clock)
        tower.put_plan(quick(attempts, backoff_sec))
        tower.start("quick")
        handed_out = 0
        for wait in waits:
            handed_out += len(tower.pull("only"))
            clock.advance(wait)
            tower.sweep()
            tower.sweep()
        told = [(event["data"]["status"], event["data"]["attempt"]) for event in events(store)]
        ended = [attempt for status, attempt in told if status == "expired"]
        task = tower.task("TASK-1")
        store.close()
    assert ended == list(range(1, len(ended) + 1))
    assert len(ended) == handed_out - (task["status"] == "running")
    assert handed_out <= attempts
    assert (task["status"] == "failed") == (len(ended) == attempts)


# The sweeper of a running service.


@in_loop
async def test_a_running_service_sweeps_by_itself(site: Site) -> None:
    clock = Clock()
    async with running(site, clock=clock, plans=[quick(2, 30)], sweep_interval_sec=0.01) as oms:
        await oms.post("/start", {"plan": "quick", "reference": "T-1"})
        await oms.get("/pull", lane="only")
        poll = asyncio.ensure_future(oms.get("/pull", lane="only", wait=60))
        await oms.parked(1)
        clock.advance(60)
        await until(lambda: [e for e in events(oms.store) if e["data"]["status"] == "expired"], what="it expires")
        clock.advance(30)
        assert (await poll)["attempt"] == 2


@in_loop
async def test_a_sweeper_goes_on_after_a_fault_of_ours_and_after_the_database_was_away(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = [ZeroDivisionError()]
    sweeps: list[None] = []

    def odd_sweep(tx: Any, wishes: Any) -> Any:
        if faults:
            raise faults[0]
        sweeps.append(None)
        return sweep(tx, wishes)

    monkeypatch.setattr(sweeper_module, "sweep", odd_sweep)
    with capture_logs() as logs:
        async with running(site, sweep_interval_sec=0.01):
            await until(lambda: any(log["event"] == "sweep_failed" for log in logs), what="it says so")
            faults[:] = [UnavailableError("the disk is full")]
            await until(lambda: any(log["event"] == "database_unavailable" for log in logs), what="it says so")
            faults.clear()
            await until(lambda: len(sweeps) > 1, what="it goes on")


def test_many_expired_leases_cost_one_batch_and_not_one_each(tower: Tower, clock: Clock) -> None:
    tower.put_plan(SINGLE)
    tower.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(400)))
    tower.pull("only", 400)
    clock.advance(300)
    assert tower.sweep().expired == 400
    assert tower.lanes()["only"]["queued"] == 400
