"""What a change costs in a small job and in a large one: the same. Counted in what the database reads, not in time."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select

from hmskit import prepared
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.signal import Signal, signal
from oms.sequencer.start import Start, start
from oms.storage import postgres
from oms.storage.store import Store
from oms.storage.tables import branches, jobs, tasks
from tests.oms.support import Clock, Tower, steps_of, tidy
from tests.oms.walk import Walker, act, plan, walker

SMALL, LARGE = 30, 700
GOOD = {"ok": True}

INSIDE: dict[str, list[Any]] = {
    "activities": [act("scan", input={"page": "page"}), act("read", "b", when="outputs.scan.ok")],
    "parallel": [{"parallel": {"x": [act("scan")], "y": [act("read", "b")]}, "join": "any"}],
    "repeat": [{"repeat": [act("scan"), act("read", "b")], "until": "outputs.read.ok"}],
    "wait": [act("scan"), {"id": "answer", "wait": {"signal": "answered"}}, act("read", "b")],
}
"""What is done for each item. In all of them one completion comes in lane a, and the next in lane b."""


@pytest.fixture
def w(store: Store, clock: Clock) -> Walker:
    return walker(store, clock)


def cost_of(tower: Tower, verb: Any, wish: Any) -> tuple[int, Any]:
    """Return what a verb costs, all that it writes included, and its answer."""
    found: list[Any] = []
    with tower.transaction() as tx:

        def run() -> None:
            found.extend(verb(tx, [wish]))
            tx.flush()

        return steps_of(tx.connection, run), found[0]


def costs_of_an_item(w: Walker, name: str, count: int) -> dict[str, int]:
    """Return what the changes of one item cost in a job that has so many, of which a good part is done."""
    each = {"id": "pages", "for_each": "input.pages", "as": "page", "do": INSIDE[name]}
    w.go(plan(each, id=f"large_{count}"), {"pages": list(range(count))}, reference=f"T-{count}")
    w.settle()
    w.run(complete, *(Complete(task.task_id, GOOD, task.token) for task in w.pull("a", count // 3)))
    tidy(w.store)
    costs: dict[str, int] = {}
    costs["pull"], (task,) = cost_of(w, pull, Pull("a", 1))
    costs["complete"], _ = cost_of(w, complete, Complete(task.task_id, GOOD, task.token))
    if name == "wait":
        costs["signal"], _ = cost_of(w, signal, Signal(w.job_id, "answered", {}))
    costs["next pull"], (task,) = cost_of(w, pull, Pull("b", 1))
    costs["next complete"], _ = cost_of(w, complete, Complete(task.task_id, GOOD, task.token))
    w.cancel()
    return costs


def check_alike(small: dict[str, int], large: dict[str, int]) -> None:
    """Check that costs are the same, but for an index that is a level deeper."""
    assert not {what: (small[what], cost) for what, cost in large.items() if cost > 1.2 * small[what] + 10}


@pytest.mark.parametrize("name", INSIDE)
def test_an_item_of_many_costs_what_one_of_few_does(w: Walker, name: str) -> None:
    small, large = costs_of_an_item(w, name, SMALL), costs_of_an_item(w, name, LARGE)
    check_alike(small, large)


def test_a_round_after_many_costs_what_an_early_one_does(w: Walker) -> None:
    again = {"repeat": [act("draft"), act("review", "b")], "until": "outputs.review.ok", "max_rounds": 1000}
    w.go(plan(again))
    tidy(w.store)
    early = costs_of_a_round(w)
    with w.transaction() as tx:
        row = dict(tx.connection.execute(select(tasks).where(tasks.c.superseded).limit(1)).mappings().one())
        tx.connection.execute(insert(tasks), [{**row, "task_id": 10_000 + number} for number in range(10_000)])
    tidy(w.store)
    late = costs_of_a_round(w)
    check_alike(early, late)


def costs_of_a_round(w: Walker) -> dict[str, int]:
    costs: dict[str, int] = {}
    for _ in range(2):  # the second has one before it that counts no more
        for lane in ("a", "b"):
            costs[f"pull {lane}"], (task,) = cost_of(w, pull, Pull(lane, 1))
            costs[f"complete {lane}"], _ = cost_of(w, complete, Complete(task.task_id, {"ok": False}, task.token))
    return costs


def test_a_plain_plan_is_never_asked_for_blocks(w: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs as many statements as it did before there were blocks."""
    w.put_plan(plan(act("one"), act("two", "b", when="outputs.one.ok"), act("three", "c")))
    monkeypatch.setattr("oms.storage.runs.Runs.__init__", lambda *_: pytest.fail("a plain job has no blocks"))
    w.run(start, Start("walked", "T-1", {}, 0))
    for lane in ("a", "b", "c"):
        w.complete(w.pull_one(lane), GOOD)
    assert w.run(start, Start("walked", "T-1", {}, 0))[0].state == "done"  # type: ignore[union-attr]


def test_a_long_list_begins_ends_and_is_cancelled_in_few_statements(w: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each item would hold up everybody who writes."""
    counted = 0
    original = prepared._run

    def count(*arguments: Any, **more: Any) -> Any:
        nonlocal counted
        counted += 1
        return original(*arguments, **more)

    monkeypatch.setattr(prepared, "_run", count)
    monkeypatch.setattr(postgres, "MAX_NUMBERS_AT_ONCE", 256)
    each = {"for_each": "input.pages", "as": "page", "do": INSIDE["parallel"]}
    w.go(plan(each, act("end", "c")), {"pages": list(range(400))})
    assert counted < 100
    leased: list[LeasedTask] = w.pull("a", 1)
    counted = 0
    w.fail(leased[0], retryable=False)
    w.complete(w.pull_one("b"))
    w.cancel()
    assert counted < 100
    with w.store.reading() as connection:
        assert connection.execute(select(branches)).all() == []


def cost_of_undoing(w: Walker, count: int) -> tuple[dict[str, int], int]:
    """Return what it costs to undo one of so many items, and the most that a change then writes of the job itself."""
    back = f"back_{count}"
    undone = act("scan", undo=[act("take_back", back, input={"page": "page"})])
    each = {"for_each": "input.pages", "as": "page", "do": [undone]}
    document = plan(each, act("end", "c"), id=f"undone_{count}", lanes=["a", back, "c"])
    w.go(document, {"pages": list(range(count))}, reference=f"U-{count}")
    w.settle()
    w.run(complete, *(Complete(task.task_id, GOOD, task.token) for task in w.pull("a", count)))
    w.settle()
    w.break_("end")
    tidy(w.store)
    costs: dict[str, int] = {}
    costs["pull"], (task,) = cost_of(w, pull, Pull(back, 1))
    costs["complete"], _ = cost_of(w, complete, Complete(task.task_id, GOOD, task.token))
    costs["next pull"], (task,) = cost_of(w, pull, Pull(back, 1))
    assert task.payload["input"] == {"page": count - 2}
    failing = Fail(task.task_id, "error", "no", retryable=False, token=task.token)
    costs["fail"], _ = cost_of(w, fail, failing)
    with w.store.reading() as connection:
        (row,) = connection.execute(select(jobs).where(jobs.c.reference == f"U-{count}")).all()
    return costs, len(str(row.ending))


def test_to_undo_an_item_of_many_costs_what_one_of_few_does(w: Walker) -> None:
    (small, few_bytes), (large, bytes_) = cost_of_undoing(w, SMALL), cost_of_undoing(w, LARGE)
    check_alike(small, large)
    assert bytes_ <= few_bytes + 10
