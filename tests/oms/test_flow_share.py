"""How much one transaction begins: a bounded part, whatever nests in what, and the rest soon after."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from oms.domain import flow_share
from oms.sequencer.complete import Complete, complete
from oms.sequencer.start import Start, start
from oms.storage.store import Store
from oms.storage.tables import branches, jobs, tasks, timers
from tests.oms.support import Clock, events
from tests.oms.walk import Walker, act, plan, walker

MOST = 40


@pytest.fixture(autouse=True)
def small_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_share, "MAX_BEGUN", MOST)


@pytest.fixture
def w(store: Store, clock: Clock) -> Walker:
    return walker(store, clock)


def each(*steps: Any, items: str = "input.all", **keys: Any) -> dict[str, Any]:
    return {"for_each": items, "as": keys.pop("as_", "one"), "do": list(steps), **keys}


def held(w: Walker) -> dict[str, int]:
    """Return how much of each there is."""
    with w.store.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (jobs, tasks, branches)
        }


def most_made(w: Walker) -> dict[str, int]:
    """Let the sweep do all there is; return how much one of its transactions made at most."""
    most: dict[str, int] = {}
    while True:
        before = held(w)
        if not w.sweep().fired:
            return most
        after = held(w)
        most = {name: max(after[name] - before[name], most.get(name, 0)) for name in after}


def test_items_of_jobs_that_are_steps_of_items(w: Walker) -> None:
    w.put_plan(plan(each(act("deep")), id="inner", input_schema={"type": "object"}))
    child = {"plan": "inner", "input": {"all": "input.all"}}
    w.go(plan(each(child), act("end", "b")), {"all": list(range(30))})
    first = held(w)
    assert first["tasks"] <= MOST
    assert first["jobs"] <= 1 + MOST
    most = most_made(w)
    assert most["tasks"] <= MOST
    assert held(w)["tasks"] == 30 * 30
    for _ in range(3):
        for task in w.pull("a", 300):
            w.complete(task)
    w.settle()
    assert w.queued() == ["end"]


def test_jobs_of_jobs_without_any_list(w: Walker) -> None:
    """Two in each of seven generations are more than two hundred."""
    w.put_plan(plan(act("deep"), id="p7"))
    for number in range(6, -1, -1):
        inner = {"plan": f"p{number + 1}"}
        w.put_plan(plan({"parallel": {"x": [inner], "y": [{**inner, "id": "second"}]}}, id=f"p{number}"))
    w.job_id = w.start("p0").job_id
    assert held(w)["jobs"] <= 1 + MOST
    assert most_made(w)["jobs"] <= MOST
    assert held(w)["jobs"] == 2**8 - 1
    for task in w.pull("a", 200):
        w.complete(task)
    w.settle()
    assert w.state() == "done"


def test_rounds_that_take_no_time(w: Walker) -> None:
    never = act("never", when="input.go")
    rounds = {"repeat": [{"repeat": [never], "until": "input.go", "max_rounds": 30}], "until": "input.go"}
    w.go(plan({**rounds, "max_rounds": 3}), {"go": False})
    told = len(events(w.store))
    assert told <= MOST
    while w.sweep().fired:
        now = len(events(w.store))
        assert now - told <= MOST + 2
        told = now
    assert w.state() == "failed"
    assert told > 30


def test_lists_in_lists_are_noted_in_parts(w: Walker) -> None:
    lists = each(each(act("deep"), items="outer", as_="inner", max_parallel=1), as_="outer")
    w.go(plan(lists), {"all": [list(range(200))] * 30})
    assert held(w)["branches"] <= 30 + 200 * (MOST // 10 + 1)
    assert most_made(w)["branches"] <= 200 * (MOST // 10 + 1)
    assert held(w)["branches"] == 30 + 30 * 200
    assert len(w.queued()) == 30


def test_many_jobs_that_start_at_once(w: Walker) -> None:
    w.put_plan(plan(each(act("one"))))
    w.run(start, *(Start("walked", f"T-{number}", {"all": [1, 2, 3]}, 0) for number in range(50)))
    assert held(w)["tasks"] == MOST
    assert most_made(w)["tasks"] <= MOST
    assert held(w)["tasks"] == 150


def test_items_that_are_brought_back_come_in_parts(w: Walker) -> None:
    w.go(plan(each(act("one"))), {"all": list(range(100))})
    w.settle()
    task = w.pull_one("a")
    w.fail(task, retryable=False)
    before = held(w)["tasks"]
    w.retry(task.task_id)
    assert held(w)["tasks"] - before == MOST
    w.settle()
    assert held(w)["tasks"] - before == 99
    for other in w.pull("a", 200):
        w.complete(other)
    assert w.state() == "done"


@pytest.mark.parametrize("kind", ["plan", "repeat"])
@pytest.mark.parametrize("how", ["cancel", "restart", "retry"])
def test_what_has_yet_to_begin_is_stopped_and_goes_on_with_its_job(w: Walker, kind: str, how: str) -> None:
    w.put_plan(plan(act("deep", "b"), id="inner"))
    again = {"repeat": [act("deep", "b", when="input.go")], "until": "input.go", "max_rounds": MOST + 5}
    late = {"plan": "inner"} if kind == "plan" else again
    w.go(plan(act("zero"), {"parallel": {"x": [act("one")], "y": [late]}}, act("end", "c")), {"go": False})
    task = w.take("zero")
    with w.transaction() as tx:
        if kind == "plan":
            tx.begun = MOST  # others were first
        complete(tx, [Complete(task.task_id, {}, task.token)])
    assert held(w)["jobs"] == 1
    if how == "cancel":
        w.cancel()
    elif how == "restart":
        w.restart("one")
    else:
        w.break_("one")
        w.settle()
        assert held(w)["jobs"] == 1
        w.retry(w.last("one")["task_id"])
    w.settle()
    with w.store.reading() as connection:
        assert connection.execute(timers.select()).all() == []
    if how == "cancel":
        assert (w.state(), held(w)["jobs"]) == ("cancelled", 1)
    elif kind == "plan":
        assert held(w)["jobs"] == 2
        w.do("deep", job_id="JOB-2")
        w.settle()
        w.do("one")
        assert w.queued() == ["end"]
    else:
        assert w.state() == "failed"
        assert [event["data"]["status"] for event in events(w.store, w.job_id)].count("skipped") >= MOST + 5


def test_timers_are_gone_with_what_they_were_for(w: Walker) -> None:
    w.put_plan(plan(act("deep"), id="inner"))
    w.go(plan(each({"plan": "inner"})), {"all": list(range(100))})
    w.cancel()
    w.settle()
    with w.store.reading() as connection:
        assert connection.execute(timers.select()).all() == []
    assert {w.state(f"JOB-{number}") for number in range(1, held(w)["jobs"] + 1)} == {"cancelled"}
