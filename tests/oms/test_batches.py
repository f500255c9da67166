"""Lanes with batches: what a vendor gets at 03:00, in which order, and what waits for the next day."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from oms.sequencer import open_batches as batches_module
from oms.sequencer.complete import Complete, complete
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.pull import Pull
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.sequencer.swept import Portion
from oms.storage import batches, tasks
from oms.storage.store import open_store
from oms.storage.tables import tasks as task_table
from oms.storage.transaction import Transaction
from tests.database import Kind
from tests.databases import Databases
from tests.oms.hours import NEW_YORK, at, utc
from tests.oms.support import (
    Clock,
    Site,
    Tower,
    break_next_commit,
    event_rows,
    in_loop,
    running,
    steps_of,
    tidy,
    until,
    working,
)


def printing(batch: dict[str, Any], plan: str = "printing", **lane: Any) -> dict[str, Any]:
    return {
        "id": plan,
        "timezone": NEW_YORK,
        "lanes": [{"id": "external_print", "kind": "vendor", "batch": batch, **lane}],
        "sequence": [{"activity": "print", "lane": "external_print"}],
    }


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2025-11-20 15:00"))


@pytest.fixture
def plant(tower: Tower) -> Tower:
    tower.put_plan(printing({"at": "03:00", "max": 5}))
    return tower


def order(tower: Tower, count: int, *, first: int = 1, priority: int = 0, plan: str = "printing") -> None:
    tower.run(start, *(Start(plan, f"P-{number}", {}, priority) for number in range(first, first + count)))


def manifest(tower: Tower, most: int = 500) -> list[str]:
    return [task.reference for task in tower.pull("external_print", most)]


def ready(tower: Tower) -> int:
    with tower.store.reading() as connection:
        count: int = connection.execute(
            select(func.count()).where(task_table.c.ready, task_table.c.status == "queued")
        ).scalar_one()
    return count


def test_nothing_is_handed_out_before_the_batch_and_its_time_is_told(plant: Tower, clock: Clock) -> None:
    order(plant, 3)
    assert plant.task("TASK-1")["available_at"] == utc(at("2025-11-21 03:00"))
    clock.now_ms = at("2025-11-21 03:00") - 1
    plant.sweep()
    assert manifest(plant) == []
    assert plant.lanes()["external_print"]["queued"] == 3


def test_the_manifest_is_there_at_the_very_moment_whether_or_not_the_sweep_has_looked(
    plant: Tower, clock: Clock
) -> None:
    order(plant, 3)
    clock.now_ms = at("2025-11-21 03:00")
    assert manifest(plant) == ["P-1", "P-2", "P-3"]
    assert manifest(plant) == []


def test_what_does_not_fit_waits_for_the_next_batch_and_comes_first_there(plant: Tower, clock: Clock) -> None:
    order(plant, 7)
    clock.now_ms = at("2025-11-21 03:00")
    plant.sweep()
    assert manifest(plant) == [f"P-{number}" for number in range(1, 6)]
    plant.sweep()
    assert manifest(plant) == []
    assert plant.task("TASK-6")["available_at"] == utc(at("2025-11-22 03:00"))
    clock.advance(1)
    order(plant, 2, first=8)
    clock.now_ms = at("2025-11-22 03:00")
    plant.sweep()
    assert manifest(plant) == ["P-6", "P-7", "P-8", "P-9"]


def test_what_nobody_took_counts_in_the_next_batch(plant: Tower, clock: Clock) -> None:
    order(plant, 9)
    clock.now_ms = at("2025-11-21 03:00")
    assert manifest(plant, 2) == ["P-1", "P-2"]
    clock.now_ms = at("2025-11-22 03:00")
    plant.sweep()
    assert manifest(plant) == ["P-3", "P-4", "P-5", "P-6", "P-7"]
    clock.now_ms = at("2025-11-23 03:00")
    assert manifest(plant) == ["P-8", "P-9"]


def test_a_batch_goes_by_priority_and_then_first_come(plant: Tower, clock: Clock) -> None:
    order(plant, 3, first=1)
    order(plant, 3, first=4, priority=7)
    clock.now_ms = at("2025-11-21 03:00")
    assert manifest(plant) == ["P-4", "P-5", "P-6", "P-1", "P-2"]


def test_a_batch_without_a_limit_takes_all(tower: Tower, clock: Clock) -> None:
    tower.put_plan(printing({"at": "03:00"}))
    order(tower, 12)
    clock.now_ms = at("2025-11-21 02:59")
    assert manifest(tower) == []
    clock.now_ms = at("2025-11-21 03:00")
    assert len(manifest(tower)) == 12
    clock.advance(1)
    order(tower, 1, first=13)
    assert manifest(tower) == []


@pytest.mark.parametrize(
    ("batch_at", "eve", "batch"),
    [
        ("02:30", "2026-03-07 12:00", "2026-03-08 03:00"),  # 02:30 is jumped over
        ("01:30", "2025-11-01 12:00", "2025-11-02 01:30"),  # 01:30 comes twice: once is enough
    ],
)
def test_a_batch_comes_once_on_the_days_on_which_clocks_change(
    tower: Tower, clock: Clock, batch_at: str, eve: str, batch: str
) -> None:
    tower.put_plan(printing({"at": batch_at, "max": 2}))
    clock.now_ms = at(eve)
    order(tower, 5)
    assert tower.task("TASK-1")["available_at"] == utc(at(batch))
    clock.now_ms = at(batch) - 1
    assert manifest(tower) == []
    clock.now_ms = at(batch)
    assert len(manifest(tower)) == 2
    taken = 0
    for _ in range(22):
        clock.advance(3600)
        tower.sweep()
        taken += len(manifest(tower))
    assert taken == 0


def test_a_task_that_is_given_back_stays_in_its_batch(plant: Tower, clock: Clock) -> None:
    order(plant, 1)
    clock.now_ms = at("2025-11-21 03:00")
    task = plant.pull_one("external_print")
    clock.advance(3600)
    plant.release(task)
    assert plant.task("TASK-1")["available_at"] == utc(at("2025-11-21 03:00"))
    assert manifest(plant) == ["P-1"]


def test_a_failed_print_comes_again_in_the_next_batch(plant: Tower, clock: Clock) -> None:
    order(plant, 1)
    clock.now_ms = at("2025-11-21 03:00")
    plant.fail(plant.pull_one("external_print"))
    assert plant.task("TASK-1")["available_at"] == utc(at("2025-11-22 03:00"))


def test_completions_report_item_by_item(plant: Tower, clock: Clock) -> None:
    order(plant, 3)
    clock.now_ms = at("2025-11-21 03:00")
    leased = plant.pull("external_print", 3)
    wishes = [Complete(task.task_id, {}, token=task.token) for task in leased]
    wishes[1] = Complete("TASK-2", {}, token="stale")
    answers = plant.run(complete, *wishes)
    assert [getattr(answer, "status", None) for answer in answers] == ["done", 409, "done"]


def test_a_batch_of_many_is_opened_bit_by_bit_and_never_more_than_its_limit(
    plant: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "BATCH", 2)
    order(plant, 9)
    clock.now_ms = at("2025-11-21 03:00")
    seen = []
    for _ in range(6):
        seen.append((plant.sweep().more, ready(plant)))
        clock.advance(1)
    assert seen == [(True, 2), (True, 4), (True, 5), (True, 5), (False, 5), (False, 5)]
    assert {plant.task(f"TASK-{number}")["available_at"] for number in range(6, 10)} == {utc(at("2025-11-22 03:00"))}


def test_two_plans_may_share_a_lane_each_with_its_own_limit(plant: Tower, clock: Clock) -> None:
    plant.put_plan(printing({"at": "03:00", "max": 2}, plan="small"))
    order(plant, 3, plan="small")
    order(plant, 4, first=11)
    clock.now_ms = at("2025-11-21 03:00")
    assert manifest(plant) == ["P-1", "P-2", "P-11", "P-12", "P-13"]


def test_a_batch_that_was_missed_while_nobody_was_there_comes_when_somebody_is(plant: Tower, clock: Clock) -> None:
    order(plant, 3)
    clock.now_ms = at("2025-11-23 11:00")
    assert manifest(plant) == ["P-1", "P-2", "P-3"]


def test_a_paused_job_s_task_misses_its_batch(plant: Tower, clock: Clock) -> None:
    order(plant, 6)
    plant.one(pause, Pause("JOB-1"))
    clock.now_ms = at("2025-11-21 03:00")
    plant.sweep()
    assert plant.task("TASK-1")["available_at"] == utc(at("2025-11-21 03:00"))
    clock.advance(60)
    plant.one(resume, Resume("JOB-1"))
    assert plant.task("TASK-1")["available_at"] == utc(at("2025-11-22 03:00"))
    assert manifest(plant) == ["P-2", "P-3", "P-4", "P-5", "P-6"]


@pytest.mark.parametrize("batch", [{"at": "03:00", "max": 5}, {"at": "03:00"}])
def test_a_task_whose_job_was_paused_after_its_batch_stays_in_it(
    tower: Tower, clock: Clock, batch: dict[str, Any]
) -> None:
    tower.put_plan(printing(batch))
    order(tower, 2)
    clock.now_ms = at("2025-11-21 03:00")
    tower.sweep()
    clock.advance(60)
    tower.one(pause, Pause("JOB-1"))
    assert manifest(tower, 1) == ["P-2"]
    clock.advance(60)
    tower.one(resume, Resume("JOB-1"))
    assert manifest(tower) == ["P-1"]


def test_a_batch_that_fails_or_is_told_to_have_failed_is_opened_once(
    plant: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(plant, 7)
    clock.now_ms = at("2025-11-21 03:00")
    for after in (False, True):
        break_next_commit(plant.store, monkeypatch, after=after)
        with pytest.raises(Exception, match=r"take it now|fsync|disk"):
            plant.sweep()
        assert ready(plant) == (5 if after else 0)
    plant.sweep()
    assert len(manifest(plant)) == 5
    plant.sweep()
    assert manifest(plant) == []


def test_a_batch_is_no_event(plant: Tower, clock: Clock) -> None:
    order(plant, 7)
    recorded = len(event_rows(plant.store))
    clock.now_ms = at("2025-11-21 03:00")
    plant.sweep()
    assert len(event_rows(plant.store)) == recorded


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    most=st.integers(1, 4),
    bits=st.integers(1, 3),
    days=st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=4), st.integers(0, 4)), min_size=1, max_size=5),
)
def test_each_day_gives_the_oldest_of_the_highest_priority_and_no_more_than_the_limit(
    databases: Databases, database_kind: Kind, most: int, bits: int, days: list[tuple[list[int], int]]
) -> None:
    """Whatever comes, and however much of it the vendor takes: a list of what waits says the same."""
    with databases.lend(database_kind, "oms") as database, pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "BATCH", bits)
        store = open_store(database.url)
        clock = Clock(at("2025-11-19 12:00"))
        tower = Tower(store, clock)
        tower.put_plan(printing({"at": "03:00", "max": most}))
        waiting: list[tuple[int, int]] = []
        opened: list[tuple[int, int]] = []
        number = 0
        for day, (priorities, takes) in enumerate(days):
            for priority in priorities:
                number += 1
                order(tower, 1, first=number, priority=priority)
                waiting.append((-priority, number))
            clock.now_ms = at("2025-11-20 03:00") + day * 86_400_000
            while tower.sweep().more:
                pass
            waiting.sort()
            room = max(0, most - len(opened))
            opened = sorted(opened + waiting[:room])
            waiting = waiting[room:]
            assert ready(tower) == len(opened)
            if takes:
                assert manifest(tower, takes) == [f"P-{which}" for _, which in opened[:takes]]
                opened = opened[takes:]
            clock.advance(3600)
        store.close()


def test_of_several_towers_that_open_a_batch_at_once_one_does(databases: Databases) -> None:
    with databases.lend("postgres", "oms") as database:
        stores = [open_store(database.url) for _ in range(4)]
        clock = Clock(at("2025-11-20 15:00"))
        towers = [Tower(store, clock) for store in stores]
        towers[0].put_plan(printing({"at": "03:00", "max": 5}))
        order(towers[0], 40)
        clock.now_ms = at("2025-11-21 03:00")
        begin = threading.Barrier(len(towers))
        taken: list[str] = []

        def look(tower: Tower, *, pulls: bool) -> None:
            begin.wait()
            for _ in range(4):
                tower.sweep()
                if pulls:
                    taken.extend(manifest(tower, 2))

        threads = [
            threading.Thread(target=look, args=(tower,), kwargs={"pulls": number % 2 == 0})
            for number, tower in enumerate(towers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken += manifest(towers[0])
        for store in stores:
            store.close()
    assert sorted(taken) == [f"P-{number}" for number in range(1, 6)]


def test_a_pull_while_another_tower_opens_the_batch_is_to_look_again(databases: Databases) -> None:
    with databases.lend("postgres", "oms") as database:
        stores = [open_store(database.url) for _ in range(2)]
        clock = Clock(at("2025-11-20 15:00"))
        one, other = (Tower(store, clock) for store in stores)
        one.put_plan(printing({"at": "03:00", "max": 5}))
        order(one, 2)
        clock.now_ms = at("2025-11-21 03:00")
        with one.transaction() as tx:
            sweep(tx, [Sweep()])
            with other.transaction() as second:
                assert batches_module.open_batch(second, "external_print", Portion([])) == 0
                assert second.contended == {"external_print"}
        assert len(manifest(other)) == 2
        for store in stores:
            store.close()


@in_loop
async def test_who_waits_for_the_batch_is_served_before_who_comes_at_its_time(plant: Tower, clock: Clock) -> None:
    order(plant, 1)
    async with working(plant) as writer:
        waits = asyncio.ensure_future(writer.pull(Pull("external_print", 1), wait_sec=60))
        await until(lambda: writer.parked == 1, what="it waits")
        clock.now_ms = at("2025-11-21 03:00")
        assert await writer.pull(Pull("external_print", 1)) == []
        assert [task.reference for task in await waits] == ["P-1"]


@in_loop
async def test_a_vendor_pulls_its_manifest_over_http(site: Site) -> None:
    clock = Clock(at("2025-11-20 15:00"))
    async with running(site, clock=clock, plans=[printing({"at": "03:00", "max": 500})]) as oms:
        orders = [{"plan": "printing", "reference": f"P-{number}"} for number in range(3)]
        assert (await oms.http.post("/start", json=orders)).status_code == 200
        assert await oms.get("/pull", lane="external_print", max=500) == []
        clock.now_ms = at("2025-11-21 03:00")
        tasks_there = await oms.get("/pull", lane="external_print", max=500)
        assert [task["reference"] for task in tasks_there] == ["P-0", "P-1", "P-2"]


def test_a_backlog_that_waits_for_a_batch_costs_pulls_and_sweeps_nothing(plant: Tower, clock: Clock) -> None:
    """Before the batch, and while it is opened bit by bit."""

    def looks(tx: Transaction) -> None:
        tasks._WAKE.rows(tx.connection, clock())
        batches._NEWEST_DUE.rows(tx.connection, "external_print", clock())
        batches._LANES.rows(tx.connection)
        tx.dialect.claim.rows(tx.connection, clock(), "external_print", 3, False, None)

    def cost() -> int:
        tidy(plant.store)
        with plant.transaction() as tx:
            return steps_of(tx.connection, lambda: looks(tx))

    order(plant, 10)
    before = cost()
    order(plant, 2_000, first=11)
    assert cost() <= before * 1.5 + 20
    clock.now_ms = at("2025-11-21 03:00")
    plant.sweep()
    assert manifest(plant) != []
    assert cost() <= before * 1.5 + 20
