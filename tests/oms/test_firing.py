"""Schedules fire by themselves: once each, over any number of towers, outages, crashes and changes of clocks."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from oms.domain.plan_reader import parse_plan
from oms.sequencer import fire_schedules as firing_module
from oms.sequencer.load_plans import LoadPlans, load_plans
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.sequencer.views import plan_view, plans_view
from oms.storage.store import open_store
from tests.databases import Databases
from tests.oms.hours import NEW_YORK, at, utc
from tests.oms.support import Clock, Site, Tower, break_next_commit, events, in_loop, running, until


def report(*schedules: dict[str, Any], plan: str = "report", **more: Any) -> dict[str, Any]:
    return {
        "id": plan,
        "timezone": NEW_YORK,
        "lanes": ["robot"],
        "sequence": ["robot"],
        "schedules": list(schedules),
        **more,
    }


DAILY = {"cron": "30 2 * * *", "reference": "report-{date}", "input": {"kind": "daily"}}
HOURLY = {"cron": "0 * * * *", "reference": "hour-{date}"}


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2025-11-20 12:00"))


@pytest.fixture
def office(tower: Tower) -> Tower:
    tower.put_plan(report(DAILY))
    return tower


def started(tower: Tower) -> list[str]:
    """Return the references of the jobs that were started, in order."""
    told = [event["data"] for event in events(tower.store)]
    return [data["reference"] for data in told if data["status"] == "queued" and data["task_id"] is None]


def next_of(tower: Tower, plan: str = "report") -> list[str]:
    with tower.store.reading() as connection:
        return [schedule["next"] for schedule in plan_view(connection, plan)["schedules"]]


def test_a_schedule_starts_a_job_at_its_time_on_the_clock_of_the_plan(office: Tower, clock: Clock) -> None:
    assert next_of(office) == [utc(at("2025-11-21 02:30"))]
    clock.now_ms = at("2025-11-21 02:30") - 1
    assert office.sweep().schedules == []
    clock.advance(0.001)
    (fired,) = office.sweep().schedules
    assert (fired.plan, fired.reference, fired.refused) == ("report", "report-2025-11-21", None)
    assert fired.fire_at == utc(at("2025-11-21 02:30"))
    job = office.job("JOB-1")
    assert (job["reference"], job["input"], job["state"]) == ("report-2025-11-21", {"kind": "daily"}, "queued")
    event = events(office.store)[0]["data"]
    assert (event["status"], event["actor"]) == ("queued", "oms")
    assert event["detail"]["scheduled_for"] == utc(at("2025-11-21 02:30"))
    assert office.sweep().schedules == []
    assert next_of(office) == [utc(at("2025-11-22 02:30"))]
    assert office.pull_one("robot").reference == "report-2025-11-21"


def test_a_sweep_says_when_it_is_needed_for_a_schedule(office: Tower) -> None:
    assert office.sweep().next_due_ms == at("2025-11-21 02:30")


@pytest.mark.parametrize(
    ("eve", "fires"),
    [
        ("2026-03-07 12:00", ["2026-03-08 03:00", "2026-03-09 02:30"]),  # 02:30 is jumped over
        ("2025-11-01 12:00", ["2025-11-02 02:30", "2025-11-03 02:30"]),
    ],
)
def test_it_fires_once_on_the_days_on_which_clocks_change(
    tower: Tower, clock: Clock, eve: str, fires: list[str]
) -> None:
    clock.now_ms = at(eve)
    tower.put_plan(report(DAILY))
    found = []
    for _ in range(2 * 24 * 2):
        clock.advance(1_800)
        found += [fired.fire_at for fired in tower.sweep().schedules]
    assert found == [utc(at(fire)) for fire in fires]
    assert started(tower) == [f"report-{fire[:10]}" for fire in fires]


def test_what_was_missed_while_nobody_was_there_is_made_up_once_with_the_latest_fire(
    office: Tower, clock: Clock
) -> None:
    clock.now_ms = at("2025-11-24 11:00")
    assert [fired.reference for fired in office.sweep().schedules] == ["report-2025-11-24"]
    assert office.sweep().schedules == []
    assert next_of(office) == [utc(at("2025-11-25 02:30"))]
    assert started(office) == ["report-2025-11-24"]


def test_a_start_that_reads_the_same_plans_again_forgets_no_missed_fire(office: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-22 11:00")
    office.put_plan(report(DAILY))
    assert [fired.reference for fired in office.sweep().schedules] == ["report-2025-11-22"]


def test_a_new_schedule_does_not_fire_for_the_past_and_an_old_one_goes_on(office: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-22 11:00")
    office.put_plan(report({**HOURLY, "cron": "15 1 * * *"}, DAILY))
    assert next_of(office) == [utc(at("2025-11-23 01:15")), utc(at("2025-11-22 02:30") - 86_400_000)]
    assert [fired.reference for fired in office.sweep().schedules] == ["report-2025-11-22"]


def test_a_schedule_of_another_cron_or_timezone_is_a_new_one(office: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-22 11:00")
    office.put_plan(report({**DAILY, "cron": "31 2 * * *"}))
    assert office.sweep().schedules == []
    office.put_plan(report(DAILY, timezone="UTC"))
    assert next_of(office) == ["2025-11-23T02:30:00.000Z"]


def test_a_new_version_s_input_and_reference_count_from_the_next_fire_on(office: Tower, clock: Clock) -> None:
    office.put_plan(report({**DAILY, "reference": "daily-{date}", "input": {"kind": "new"}}))
    clock.now_ms = at("2025-11-21 02:30")
    office.sweep()
    assert (office.job("JOB-1")["reference"], office.job("JOB-1")["input"]) == ("daily-2025-11-21", {"kind": "new"})
    assert office.job("JOB-1")["plan_version"] == 2


def test_a_plan_that_is_withdrawn_fires_no_more_and_anew_when_it_comes_back(office: Tower, clock: Clock) -> None:
    plan = parse_plan(report(DAILY))
    office.run(load_plans, LoadPlans(plans=[("report.yaml", plan)]))
    office.run(load_plans, LoadPlans(plans=[]))
    assert next_of(office) == []
    clock.now_ms = at("2025-11-23 11:00")
    assert office.sweep().schedules == []
    office.run(load_plans, LoadPlans(plans=[("report.yaml", plan)]))
    assert office.sweep().schedules == []
    assert next_of(office) == [utc(at("2025-11-24 02:30"))]


def test_a_file_at_fault_leaves_the_schedules_of_its_last_good_version(office: Tower, clock: Clock) -> None:
    office.run(load_plans, LoadPlans(plans=[("report.yaml", parse_plan(report(DAILY)))]))
    office.run(load_plans, LoadPlans(plans=[], refused_files=["report.yaml"]))
    clock.now_ms = at("2025-11-21 02:30")
    assert len(office.sweep().schedules) == 1


def test_a_reference_that_is_there_already_is_the_same_job(office: Tower, clock: Clock) -> None:
    office.start("report", reference="report-2025-11-21", data={"kind": "daily"})
    clock.now_ms = at("2025-11-21 02:30")
    assert [fired.refused for fired in office.sweep().schedules] == [None]
    assert started(office) == ["report-2025-11-21"]


def test_a_fire_and_a_start_of_the_same_reference_in_one_transaction_are_one_job(office: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-21 02:30")
    with office.transaction() as tx:
        start(tx, [Start("report", "report-2025-11-21", {"kind": "daily"}, 0)])
        (swept,) = sweep(tx, [Sweep()])
    assert [fired.refused for fired in swept.schedules] == [None]
    assert started(office) == ["report-2025-11-21"]


def test_a_fire_that_is_refused_stops_no_other_and_is_told(office: Tower, clock: Clock) -> None:
    office.put_plan(report({**DAILY, "reference": "x" * 190 + "-{date}"}, plan="long"))
    office.put_plan(report(DAILY, plan="other"))
    office.start("report", reference="report-2025-11-21", data={"kind": "another"})
    clock.now_ms = at("2025-11-21 02:30")
    refused = {fired.plan: fired.refused for fired in office.sweep().schedules}
    assert refused["other"] is None
    assert "with another input" in (refused["report"] or "")
    assert "longer than 200" in (refused["long"] or "")
    assert office.sweep().schedules == []
    assert started(office) == ["report-2025-11-21", "report-2025-11-21"]


def test_a_sweep_fires_a_bounded_batch(tower: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing_module, "BATCH", 2)
    for number in range(3):
        tower.put_plan(report(DAILY, plan=f"report_{number}"))
    clock.now_ms = at("2025-11-21 02:30")
    assert [len(tower.sweep().schedules) for _ in range(3)] == [2, 1, 0]


def test_a_fire_that_fails_or_is_told_to_have_failed_starts_one_job(
    office: Tower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now_ms = at("2025-11-21 02:30")
    for after in (False, True):
        break_next_commit(office.store, monkeypatch, after=after)
        with pytest.raises(Exception, match=r"take it now|fsync|disk"):
            office.sweep()
        assert started(office) == (["report-2025-11-21"] if after else [])
    office.sweep()
    assert started(office) == ["report-2025-11-21"]


def test_several_towers_that_sweep_at_once_fire_each_schedule_once(databases: Databases) -> None:
    """Each with a reference of its own every time, so that no unique index is what keeps it at one."""
    plans = [report({**HOURLY, "reference": f"hour-{number}"}, plan=f"plan_{number}") for number in range(6)]
    with databases.lend("postgres", "oms") as database:
        stores = [open_store(database.url) for _ in range(4)]
        clock = Clock(at("2025-11-20 12:00"))
        towers = [Tower(store, clock) for store in stores]
        for plan in plans:
            towers[0].put_plan(plan)
        clock.now_ms = at("2025-11-20 13:00")
        begin = threading.Barrier(len(towers))
        fired: list[str] = []

        def look(tower: Tower) -> None:
            begin.wait()
            for _ in range(4):
                fired.extend(each.reference for each in tower.sweep().schedules)

        threads = [threading.Thread(target=look, args=(tower,)) for tower in towers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for store in stores:
            store.close()
    assert sorted(fired) == [f"hour-{number}" for number in range(6)]


def test_plans_show_their_schedules(office: Tower) -> None:
    with office.store.reading() as connection:
        shown = {plan["id"]: plan["schedules"] for plan in plans_view(connection)["items"]}
    schedule = {"cron": "30 2 * * *", "reference": "report-{date}", "timezone": NEW_YORK}
    assert shown["report"] == [{**schedule, "next": utc(at("2025-11-21 02:30"))}]
    assert shown["single"] == []


@in_loop
async def test_a_running_service_fires_and_says_so(site: Site) -> None:
    clock = Clock(at("2025-11-20 12:00"))
    with capture_logs() as logs:
        async with running(site, clock=clock, plans=[report(DAILY)], sweep_interval_sec=0.01) as oms:
            assert (await oms.get("/plans/report"))["schedules"][0]["next"] == utc(at("2025-11-21 02:30"))
            clock.now_ms = at("2025-11-21 02:30")
            await until(lambda: events(oms.store), what="it fires")
            jobs = await oms.get("/jobs", plan="report")
            assert [job["reference"] for job in jobs["items"]] == ["report-2025-11-21"]
            await until(lambda: any(log["event"] == "schedule_fired" for log in logs), what="it says so")
