"""What a change costs in a small job and in a large one: the same. Counted in what the database reads, not in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from hmskit import prepared
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.signal import Signal, signal
from oms.sequencer.start import Start, start
from oms.storage import postgres
from oms.storage.store import Store
from oms.storage.tables import branches, jobs, tasks
from tests.database import Kind
from tests.oms.support import Clock, Tower, steps_of, tidy, writer_engine
from tests.oms.walk import Walker, act, plan, walker

SIZES: dict[Kind, tuple[int, int]] = {"sqlite": (10, 10_000), "postgres": (30, 700)}
"""How many items a small and a large job have. PostgreSQL counts pages of an index, of which ten rows fill none."""
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


@dataclass(frozen=True)
class Cost:
    """What a verb costs, all that it writes included: statements, and what `steps_of` counts."""

    statements: int
    steps: int


def cost_of(tower: Tower, verb: Any, wish: Any) -> tuple[Cost, Any]:
    """Return what a verb costs, and its answer."""
    found: list[Any] = []
    with tower.transaction() as tx, counted_statements(tower.store) as statements:

        def run() -> None:
            found.extend(verb(tx, [wish]))
            tx.flush()

        steps = steps_of(tx.connection, run)
        return Cost(len(statements), steps), found[0]


@contextmanager
def counted_statements(store: Store) -> Iterator[list[None]]:
    """Give a list that has an entry for each statement, those that are prepared and the others."""
    statements: list[None] = []
    run_prepared = prepared._run

    def count_prepared(*arguments: Any, **more: Any) -> Any:
        statements.append(None)
        return run_prepared(*arguments, **more)

    def count(*_: object) -> None:
        statements.append(None)

    engine = writer_engine(store)
    event.listen(engine, "before_cursor_execute", count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_run", count_prepared)
        yield statements
    event.remove(engine, "before_cursor_execute", count)


def costs_of_an_item(w: Walker, name: str, count: int) -> dict[str, Cost]:
    """Return what the changes of one item cost in a job that has so many, of which a third are half done."""
    each = {"id": "pages", "for_each": "input.pages", "as": "page", "do": INSIDE[name]}
    w.go(plan(each, id=f"large_{count}"), {"pages": list(range(count))}, reference=f"T-{count}")
    w.settle()
    w.run(complete, *(Complete(task.task_id, GOOD, task.token) for task in w.pull("a", count // 3)))
    tidy(w.store)
    costs: dict[str, Cost] = {}
    costs["pull"], (task,) = cost_of(w, pull, Pull("a", 1))
    costs["complete"], _ = cost_of(w, complete, Complete(task.task_id, GOOD, task.token))
    if name == "wait":
        costs["signal"], _ = cost_of(w, signal, Signal(w.job_id, "answered", {}))
    costs["next pull"], (task,) = cost_of(w, pull, Pull("b", 1))
    costs["next complete"], _ = cost_of(w, complete, Complete(task.task_id, GOOD, task.token))
    w.cancel()
    return costs


def check_alike(small: dict[str, Cost], large: dict[str, Cost]) -> None:
    """Check that the statements are as many, and the steps as many but for an index that is a level deeper."""
    assert {what: cost.statements for what, cost in small.items()} == {
        what: cost.statements for what, cost in large.items()
    }
    assert not {what: (small[what], cost) for what, cost in large.items() if cost.steps > 1.2 * small[what].steps + 10}


@pytest.mark.parametrize("name", INSIDE)
def test_an_item_of_many_costs_what_one_of_few_does(w: Walker, database_kind: Kind, name: str) -> None:
    few, many = SIZES[database_kind]
    check_alike(costs_of_an_item(w, name, few), costs_of_an_item(w, name, many))


def test_an_item_that_lets_the_next_begin_costs_the_same_however_many_wait(w: Walker, database_kind: Kind) -> None:
    few, many = SIZES[database_kind]
    check_alike(costs_of_a_turn(w, few), costs_of_a_turn(w, many))


def costs_of_a_turn(w: Walker, count: int) -> dict[str, Cost]:
    """Return what it costs that an item ends and the next one begins, amid a list of which a few are done at a time."""
    each = {"id": "pages", "for_each": "input.pages", "as": "page", "max_parallel": 3, "do": [act("scan")]}
    w.go(plan(each, id=f"turns_{count}"), {"pages": list(range(count))}, reference=f"T-{count}")
    w.settle()
    for _ in range(4):
        w.complete(w.pull_one("a"), GOOD)
    tidy(w.store)
    costs: dict[str, Cost] = {}
    costs["pull"], (task,) = cost_of(w, pull, Pull("a", 1))
    costs["complete"], _ = cost_of(w, complete, Complete(task.task_id, GOOD, task.token))
    (block,) = w.job(w.job_id)["blocks"]
    assert (block["total"], block["begun"], block["done"]) == (count, 8, 5)
    w.cancel()
    return costs


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


def costs_of_a_round(w: Walker) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
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
    monkeypatch.setattr(postgres, "MAX_NUMBERS_AT_ONCE", 256)
    each = {"for_each": "input.pages", "as": "page", "do": INSIDE["parallel"]}
    with counted_statements(w.store) as statements:
        w.go(plan(each, act("end", "c")), {"pages": list(range(400))})
    assert len(statements) < 100
    leased: list[LeasedTask] = w.pull("a", 1)
    with counted_statements(w.store) as statements:
        w.fail(leased[0], retryable=False)
        w.complete(w.pull_one("b"))
        w.cancel()
    assert len(statements) < 100
    with w.store.reading() as connection:
        assert connection.execute(select(branches)).all() == []


def cost_of_undoing(w: Walker, count: int) -> tuple[dict[str, Cost], int]:
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
    costs: dict[str, Cost] = {}
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
    (small, few_bytes), (large, bytes_) = cost_of_undoing(w, 30), cost_of_undoing(w, 700)
    check_alike(small, large)
    assert bytes_ <= few_bytes + 10
