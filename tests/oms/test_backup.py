"""Backup lanes: where a task goes by itself when its attempts are used up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms.sequencer.fail import Fail, fail
from oms.sequencer.wishes import TaskAnswer
from oms.storage.plan_files import read_plan
from oms.storage.store import open_store
from tests.database import Kind
from tests.databases import Databases
from tests.oms.fold import fold
from tests.oms.hours import NEW_YORK, at, utc
from tests.oms.support import Clock, Tower, break_next_commit, event_rows, events

CHAIN: dict[str, Any] = {
    "id": "chain",
    "timezone": NEW_YORK,
    "lanes": [
        {"id": "robot", "lease_sec": 60, "backup": "clerk"},
        {"id": "clerk", "open": "Mon-Fri 08:00-17:00", "backup": "vendor", "lease_sec": 700},
        "vendor",
    ],
    "sequence": [{"activity": "check", "lane": "robot"}],
    "retry_policy": {"attempts": 2, "backoff_sec": 30},
}


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2025-11-21 12:00"))


@pytest.fixture
def chain(tower: Tower) -> Tower:
    tower.put_plan(CHAIN)
    return tower


def use_up(tower: Tower, lane: str) -> None:
    for _ in range(2):
        tower.fail(tower.pull_one(lane, worker="w-1"))
        tower.clock.advance(30)


def test_a_task_whose_attempts_are_used_up_goes_to_the_backup_with_fresh_ones(chain: Tower, clock: Clock) -> None:
    chain.start("chain", priority=4)
    chain.fail(chain.pull_one("robot", worker="w-1"))
    clock.advance(30)
    answer = chain.fail(chain.pull_one("robot", worker="w-1"))
    assert (answer.status, answer.job_state) == ("queued", "running")
    failed, rerouted = (event["data"] for event in events(chain.store)[-2:])
    assert (failed["status"], failed["lane"], failed["detail"]["final"]) == ("failed", "robot", False)
    assert (rerouted["status"], rerouted["lane"], rerouted["actor"]) == ("rerouted", "clerk", "oms")
    assert rerouted["worker"] is None
    assert rerouted["detail"] == {
        "from_lane": "robot",
        "to_lane": "clerk",
        "reason": "attempts_used_up",
        "priority": 4,
    }
    lanes = chain.lanes()
    assert (lanes["robot"]["queued"], lanes["clerk"]["queued"]) == (0, 1)
    use_up(chain, "clerk")
    assert chain.task("TASK-1")["lane"] == "vendor"
    use_up(chain, "vendor")
    assert chain.task("TASK-1")["status"] == "failed"
    assert chain.job("JOB-1")["state"] == "failed"
    assert events(chain.store)[-2]["data"]["detail"]["final"] is True
    assert chain.task("TASK-1")["attempt"] == 6
    fold(row.body for row in event_rows(chain.store))


def test_a_failure_that_is_not_to_be_tried_again_goes_to_the_backup_at_once(chain: Tower) -> None:
    chain.start("chain")
    chain.fail(chain.pull_one("robot"), retryable=False)
    assert chain.task("TASK-1")["lane"] == "clerk"
    assert events(chain.store)[-1]["data"]["detail"]["reason"] == "not_retryable"


def test_a_lost_lease_is_a_failure_here_too(chain: Tower, clock: Clock) -> None:
    chain.start("chain")
    for _ in range(2):
        chain.pull_one("robot")
        clock.advance(60)
        chain.sweep()
        clock.advance(30)
    task = chain.task("TASK-1")
    assert (task["lane"], task["error"]["type"]) == ("clerk", "lease_expired")
    expired, rerouted = (event["data"] for event in events(chain.store)[-2:])
    assert (expired["status"], expired["detail"]["final"], rerouted["status"]) == ("expired", False, "rerouted")


def test_the_backup_s_hours_and_lease_are_its_own(chain: Tower, clock: Clock) -> None:
    clock.now_ms = at("2025-11-21 17:30")
    chain.start("chain")
    chain.fail(chain.pull_one("robot"), retryable=False)
    assert chain.task("TASK-1")["available_at"] == utc(at("2025-11-24 08:00"))
    clock.now_ms = at("2025-11-24 08:00")
    assert chain.pull_one("clerk").lease_expires_at == utc(clock() + 700_000)


def test_who_reported_the_last_failure_and_lost_the_answer_gets_the_same_again(chain: Tower) -> None:
    chain.start("chain")
    task = chain.pull_one("robot")
    wish = Fail(task.task_id, "error", "no luck", retryable=False, token=task.token)
    answers = [chain.one(fail, wish) for _ in range(2)]
    assert answers == [TaskAnswer("TASK-1", "queued", "JOB-1", "running")] * 2
    assert [event["data"]["status"] for event in events(chain.store)].count("rerouted") == 1


def test_a_backup_that_fails_or_is_told_to_have_failed_is_taken_once(
    chain: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.start("chain")
    task = chain.pull_one("robot")
    wish = Fail(task.task_id, "error", "no luck", retryable=False, token=task.token)
    for after in (False, True):
        break_next_commit(chain.store, monkeypatch, after=after)
        with pytest.raises(Exception, match=r"take it now|fsync|disk"):
            chain.one(fail, wish)
        assert chain.task("TASK-1")["lane"] == ("clerk" if after else "robot")
    chain.one(fail, wish)
    assert chain.task("TASK-1")["lane"] == "clerk"
    fold(row.body for row in event_rows(chain.store))


def test_the_page_s_plan_does_what_the_page_says(tower: Tower, clock: Clock) -> None:
    page = (Path(__file__).parents[2] / "docs" / "backups.md").read_text()
    tower.put_plan(read_plan(page.partition("```yaml\n")[2].partition("```")[0].encode(), file="page").document)
    tower.start("passport_renewal")
    tower.fail(tower.pull_one("ai_extract"), retryable=False)
    clock.advance(14_400)
    assert tower.sweep().stalled == 1
    assert tower.task("TASK-1")["lane"] == "agency"
    clock.advance(86_400)
    assert tower.sweep().stalled == 1
    assert tower.task("TASK-1")["stalled"] is True


def test_a_task_that_a_manager_moves_goes_along_the_backups_of_that_lane(chain: Tower) -> None:
    chain.start("chain")
    chain.fail(chain.pull_one("robot"), retryable=False)
    chain.reroute("TASK-1", "robot")
    chain.fail(chain.pull_one("robot"), retryable=False)
    assert chain.task("TASK-1")["lane"] == "clerk"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(1, 5), attempts=st.integers(1, 3))
def test_along_any_backups_a_task_comes_to_each_lane_once_and_then_fails(
    databases: Databases, database_kind: Kind, data: st.DataObject, count: int, attempts: int
) -> None:
    names = [f"lane_{number}" for number in range(count)]
    backups = [
        data.draw(st.sampled_from([*names[number + 1 :], None]), label=f"backup of {number}") for number in range(count)
    ]
    lanes = [
        {"id": name, **({} if backup is None else {"backup": backup})}
        for name, backup in zip(names, backups, strict=True)
    ]
    plan = {
        "id": "any",
        "lanes": lanes,
        "sequence": [{"activity": "work", "lane": names[0]}],
        "retry_policy": {"attempts": attempts, "backoff_sec": 0},
    }
    way = [names[0]]
    while (backup := backups[names.index(way[-1])]) is not None:
        way.append(backup)
    with databases.lend(database_kind, "oms") as database:
        store = open_store(database.url)
        tower = Tower(store, Clock())
        tower.put_plan(plan)
        tower.start("any")
        for lane in way:
            for _ in range(attempts):
                tower.fail(tower.pull_one(lane))
        assert tower.job("JOB-1")["state"] == "failed"
        assert [task["lane"] for task in tower.job("JOB-1")["tasks"]] == [way[-1]]
        moves = [event["data"]["detail"] for event in events(store) if event["data"]["status"] == "rerouted"]
        fold(row.body for row in event_rows(store))
        store.close()
    assert [move["to_lane"] for move in moves] == way[1:]
