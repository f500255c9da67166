"""Bulk reroute: the preview is what moves, each task moves as a single reroute moves it, and a second call ends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms.sequencer import reroute_many as module
from oms.sequencer.start import Start, start
from oms.storage.store import open_store
from oms.storage.tasks import lock_tasks
from tests.database import Database, Kind
from tests.databases import Databases, postgres_only
from tests.oms.api_client import Client, serving
from tests.oms.fold import check_places
from tests.oms.retained import counts_are_lists
from tests.oms.support import Clock, Site, Tower, event_rows, events, steps_of, tidy

BOUNDED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EXAMPLES = {"sqlite": 15, "postgres": 4}
SIDES: dict[str, Any] = {
    "id": "sides",
    "lanes": ["extract", "verify"],
    "sequence": [
        {
            "parallel": {
                "a": [{"activity": "a", "lane": "extract"}],
                "b": [{"activity": "b", "lane": "extract"}],
                "c": [{"activity": "c", "lane": "verify"}],
            },
            "join": "any",
        }
    ],
    "retry_policy": {"attempts": 1},
}
"""Three at once, one of which is enough: two may have failed, and the job is running."""


@pytest.fixture
def oms(site: Site) -> Iterator[Client]:
    with serving(site) as client:
        yield client


def move(oms: Client, where: dict[str, Any], new_lane: str = "print", **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = oms.post(
        "/reroute", {"where": where, "new_lane": new_lane, "reason": "the lane is stuck", **more}
    )
    return answer


def all_tasks(oms: Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = oms.get("/tasks", limit=1000)["items"]
    return items


# What it does.


def test_tasks_move_with_an_event_each_and_the_single_form_still_works(oms: Client) -> None:
    for number in range(5):
        oms.start(f"T-{number}")
    held = oms.get("/pull", lane="extract", worker="w-1")
    assert move(oms, {"lane": "extract"}, actor="boss") == {
        "matched": 5,
        "moved": 5,
        "tasks": [f"TASK-{number}" for number in range(1, 6)],
        "more": False,
    }
    told = [event for event in events(oms.store) if event["data"]["status"] == "rerouted"]
    assert [event["data"]["task_id"] for event in told] == [f"TASK-{number}" for number in range(1, 6)]
    for event in told:
        assert event["data"]["actor"] == "boss"
        assert event["data"]["detail"] == {
            "from_lane": "extract",
            "to_lane": "print",
            "reason": "the lane is stuck",
            "priority": 0,
        }
    assert oms.refused("/complete", {"task_id": held["task_id"], "token": held["token"]})[0] == 409
    assert oms.post("/reroute", {"task_id": "TASK-1", "new_lane": "verify"})["lane"] == "verify"
    assert move(oms, {"lane": "extract"}) == {"matched": 0, "moved": 0, "tasks": [], "more": False}


def test_a_single_reroute_and_a_bulk_one_leave_the_same(oms: Client) -> None:
    for number in range(2):
        oms.start(f"T-{number}")
        oms.get("/pull", lane="extract", worker="w-1")
    oms.post("/reroute", {"task_id": "TASK-1", "new_lane": "print", "reason": "the lane is stuck"})
    move(oms, {"worker": "w-1"})
    single, bulk = (oms.get(f"/tasks/TASK-{number}") for number in (1, 2))
    apart = ("task_id", "job_id")
    assert {key: single[key] for key in single if key not in apart} == {
        key: bulk[key] for key in bulk if key not in apart
    }
    assert facts(oms, "JOB-1") == facts(oms, "JOB-2")


def facts(oms: Client, job: str) -> list[dict[str, Any]]:
    """Return what a job's events say, without what is the job's own."""
    told = [event["data"] | dict.fromkeys(("job_id", "task_id", "reference")) for event in events(oms.store, job)]
    return [{**data, "detail": {**data["detail"], "input_hmac": None}} for data in told]


def test_a_failed_task_gets_fresh_attempts_and_its_job_runs_again(oms: Client) -> None:
    oms.start("T-1")
    task = oms.get("/pull", lane="extract")
    oms.post("/fail", {"task_id": task["task_id"], "error": "x", "retryable": False})
    assert move(oms, {"status": "failed"})["moved"] == 1
    assert oms.get("/jobs/JOB-1")["state"] == "running"


def test_what_may_not_move_is_not_meant(oms: Client) -> None:
    """Of an erased job nothing can run again; it must not stand in the way of what can."""
    for number in range(4):
        oms.start(f"T-{number}")
        task = oms.get("/pull", lane="extract")
        oms.post("/fail", {"task_id": task["task_id"], "error": "x", "retryable": False})
    oms.post("/jobs/JOB-1/erase", {})
    oms.post("/jobs/JOB-3/erase", {})
    answer = move(oms, {"status": "failed"}, max=1)
    assert (answer["matched"], answer["tasks"], answer["more"]) == (1, ["TASK-2"], True)
    assert move(oms, {"status": "failed"})["tasks"] == ["TASK-4"]
    assert move(oms, {"status": "failed"}) == {"matched": 0, "moved": 0, "tasks": [], "more": False}


def test_the_oldest_go_first_and_more_says_that_there_are_others(oms: Client) -> None:
    for number in range(7):
        oms.start(f"T-{number}")
    rounds = []
    while True:
        rounds.append(move(oms, {"plan": "renewal"}, max=3))
        if not rounds[-1]["more"]:
            break
    assert [answer["tasks"] for answer in rounds] == [
        ["TASK-1", "TASK-2", "TASK-3"],
        ["TASK-4", "TASK-5", "TASK-6"],
        ["TASK-7"],
    ]
    assert [answer["matched"] for answer in rounds] == [3, 3, 1]


def test_a_lane_that_nobody_knows_is_moved_to_with_a_warning(oms: Client) -> None:
    oms.start("T-1")
    assert "'print'" in move(oms, {"lane": "extract"}, "prnt", dry_run=True)["warning"]
    assert "'print'" in move(oms, {"lane": "extract"}, "prnt")["warning"]


def test_strict_lanes_refuse_it_whole(site: Site) -> None:
    with serving(site, strict_lanes=True) as oms:
        oms.start("T-1")
        body = {"where": {"lane": "extract"}, "new_lane": "prnt", "reason": "x"}
        assert oms.refused("/reroute", body)[0] == 422
        assert oms.get("/tasks/TASK-1")["lane"] == "extract"


def test_what_changed_between_the_look_and_the_move_stays(oms: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        oms.start(f"T-{number}")
    find = module._find

    def find_and_let_others_act(*arguments: Any, **more: Any) -> list[int]:
        found = find(*arguments, **more)
        monkeypatch.undo()
        Tower(oms.store, oms.clock).pull("extract")
        return found

    monkeypatch.setattr(module, "_find", find_and_let_others_act)
    answer = move(oms, {"lane": "extract", "status": "queued"})
    assert (answer["matched"], answer["tasks"], answer["more"]) == (2, ["TASK-2", "TASK-3"], False)


@postgres_only
def test_what_another_tower_has_in_its_hands_is_left_out_and_said(site: Site, oms_database: Database) -> None:
    with serving(site) as oms:
        for number in range(3):
            oms.start(f"T-{number}")
        other = open_store(oms_database.url)
        tower = Tower(other, Clock())
        with tower.transaction() as tx:
            lock_tasks(tx, [2])
            for dry_run in (True, False):
                answer = move(oms, {"lane": "extract"}, dry_run=dry_run)
                assert (answer["matched"], answer["tasks"], answer["more"]) == (3, ["TASK-1", "TASK-3"], True)
        assert move(oms, {"lane": "extract"})["tasks"] == ["TASK-2"]
        other.close()


@pytest.mark.parametrize(
    "body",
    [
        {"new_lane": "print", "reason": "x"},
        {"task_id": "TASK-1", "where": {"lane": "a"}, "new_lane": "print", "reason": "x"},
        {"where": {}, "new_lane": "print", "reason": "x"},
        {"where": {"lane": None}, "new_lane": "print", "reason": "x"},
        {"where": {"lane": "a"}, "new_lane": "print"},
        {"where": {"lane": "a"}, "reason": "x"},
        {"where": {"line": "a"}, "new_lane": "print", "reason": "x"},
        {"where": {"status": "done"}, "new_lane": "print", "reason": "x"},
        {"where": {"older_than_sec": -1}, "new_lane": "print", "reason": "x"},
        {"where": [], "new_lane": "print", "reason": "x"},
        {"where": {"lane": "a"}, "new_lane": "print", "reason": "x", "max": 1001},
        {"where": {"lane": "a"}, "new_lane": "print", "reason": "x", "max": 0},
        {"where": {"lane": "a"}, "new_lane": "print", "reason": "x", "priority": 1},
        [],
        "TASK-1",
        None,
    ],
)
def test_bad_input_says_what_is_wrong(oms: Client, body: Any) -> None:
    status, problem = oms.refused("/reroute", body)
    assert status == 422
    assert problem["detail"]


# The preview equals what moves.

wheres = st.fixed_dictionaries(
    {},
    optional={
        "lane": st.sampled_from(["extract", "verify", "print", "only"]),
        "plan": st.sampled_from(["renewal", "single", "sides"]),
        "status": st.sampled_from(["queued", "running", "failed"]),
        "older_than_sec": st.sampled_from([0, 5, 15]),
        "worker": st.sampled_from(["w-1", "w-2"]),
    },
).filter(bool)


happenings = st.tuples(
    st.sampled_from(["renewal", "single", "sides"]),
    st.lists(
        st.tuples(
            st.sampled_from(["extract", "only", "verify"]),
            st.sampled_from(["w-1", "w-2"]),
            st.sampled_from(["hold", "fail", "fail", "complete", "fail, and try again"]),
        ),
        max_size=3,
    ),
    st.sampled_from([0, 1, 10]),
)
"""A job of which plan starts; who pulls from which lane, and what becomes of it; how much time passes."""


@dataclass(frozen=True)
class Case:
    """What has happened before, and which tasks are to move."""

    before: list[tuple[str, list[tuple[str, str, str]], int]]
    is_erased: bool
    where: dict[str, Any]
    new_lane: str
    limit: int


cases = st.builds(
    Case,
    before=st.lists(happenings, min_size=1, max_size=8),
    is_erased=st.booleans(),
    where=wheres,
    new_lane=st.sampled_from(["extract", "verify", "print"]),
    limit=st.sampled_from([1, 2, 1000]),
)


def let_it_happen(oms: Client, case: Case) -> None:
    for number, (plan, pulls, sec) in enumerate(case.before):
        oms.start(f"T-{number}", plan)
        for lane, worker, end in pulls:
            task = oms.get("/pull", lane=lane, worker=worker)
            if task is None or end == "hold":
                continue
            name = {"task_id": task["task_id"], "token": task["token"]}
            if end == "complete":
                oms.post("/complete", name)
            else:
                oms.post("/fail", {**name, "error": "x", "retryable": end != "fail"})
        oms.clock.advance(sec)
    failed = oms.get("/jobs", state="failed")["items"]
    if case.is_erased and failed:
        oms.post(f"/jobs/{failed[0]['job_id']}/erase", {})


def is_meant(task: dict[str, Any], case: Case) -> bool:
    """Tell, from what the list of tasks shows, whether one is meant; whether one that failed may move, it does not."""
    keys = ("lane", "plan", "status", "worker")
    return (
        task["status"] in ("queued", "running", "failed")
        and all(case.where.get(key) in (None, task[key]) for key in keys)
        and (task["lane"], task["status"]) != (case.new_lane, "queued")
    )


def check_a_preview(oms: Client, case: Case) -> None:
    old = oms.get("/tasks", limit=1000, older_than_sec=case.where.get("older_than_sec", 0))["items"]
    meant = {task["task_id"]: task for task in old if is_meant(task, case)}
    rows = oms.tables()
    shown = move(oms, case.where, case.new_lane, max=case.limit, dry_run=True)
    assert oms.tables() == rows, "a preview changes nothing"
    assert shown["moved"] == 0
    done = move(oms, case.where, case.new_lane, max=case.limit)
    assert {**done, "moved": 0} == shown
    assert done["moved"] == len(done["tasks"]) == done["matched"] <= case.limit
    now = {task["task_id"]: (task["lane"], task["status"]) for task in all_tasks(oms)}
    assert {now[name] for name in done["tasks"]} <= {(case.new_lane, "queued")}
    assert set(done["tasks"]) <= meant.keys()
    if case.limit == 1000:
        assert not done["more"]
        left = meant.keys() - set(done["tasks"])
        assert {meant[name]["status"] for name in left} <= {"failed"}, "only what failed may have to stay"
        for name in left:
            assert oms.refused("/reroute", {"task_id": name, "new_lane": case.new_lane})[0] == 409
        assert move(oms, case.where, case.new_lane)["matched"] == 0, "what has moved is not meant any more"
    with oms.store.reading() as connection:
        assert counts_are_lists(connection)
    check_places(event_rows(oms.store))


def test_the_preview_is_what_moves_and_both_are_what_was_asked_for(
    databases: Databases, database_kind: Kind, tmp_path: Path
) -> None:
    @settings(BOUNDED, max_examples=EXAMPLES[database_kind])
    @given(case=cases)
    def check(case: Case) -> None:
        with databases.lend(database_kind, "oms") as database, serving(Site(tmp_path, database)) as oms:
            oms.post("/plans", SIDES)
            let_it_happen(oms, case)
            check_a_preview(oms, case)

    check()


def test_two_failed_tasks_of_one_job_both_move(oms: Client) -> None:
    """The first lets the job go on, and the second may still move."""
    oms.post("/plans", SIDES)
    oms.start("T-1", "sides")
    for lane in ("extract", "extract", "verify"):
        task = oms.get("/pull", lane=lane)
        oms.post("/fail", {"task_id": task["task_id"], "error": "x"})
    assert oms.get("/jobs/JOB-1")["state"] == "failed"
    shown = move(oms, {"status": "failed"}, dry_run=True)
    assert move(oms, {"status": "failed"}) == {**shown, "moved": len(shown["tasks"])}
    assert shown["tasks"] == ["TASK-1", "TASK-2", "TASK-3"]


# What it costs.


def test_the_search_costs_what_it_finds_whatever_else_is_there(oms: Client) -> None:
    """Beside the tasks that are meant stand others, before and behind them."""
    tower = Tower(oms.store, oms.clock)

    def cost() -> int:
        order = module.RerouteMany(module.Where(lane="only"), "extract", "x", limit=20)
        with oms.store.reading() as connection:
            return steps_of(connection, lambda: module._find(connection, order, after=0, limit=21, now_ms=oms.clock()))

    tower.run(start, *(Start("single", f"A-{number}", {}, 0) for number in range(30)))
    tidy(oms.store)
    few = cost()
    tower.run(start, *(Start("renewal", f"B-{number}", {}, 0) for number in range(1_000)))
    tower.run(start, *(Start("single", f"C-{number}", {}, 0) for number in range(1_000)))
    tidy(oms.store)
    assert cost() <= few * 1.2 + 100
