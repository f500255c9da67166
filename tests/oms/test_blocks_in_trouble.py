"""What goes wrong in jobs with blocks, one thing on top of another: each of these was once lost, doubled or stuck."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oms.domain.errors import ConflictError
from oms.sequencer import ending
from oms.sequencer.complete import Complete, complete
from oms.sequencer.erase import Erase, erase
from oms.sequencer.fail import Fail, fail
from oms.sequencer.start import Start, start
from oms.storage.store import Store
from oms.storage.tables import blocks, branches, tasks, timers
from tests.oms.flow_rows import check_jobs
from tests.oms.support import Clock, events
from tests.oms.walk import Walker, act, plan, walker

LETTER = plan(act("write"), id="send_letter")
PAY = act("pay", input={"who": "who"}, undo=[act("take_back", "b", input={"who": "who"})])
EACH = {"for_each": "input.all", "as": "who", "do": [PAY, act("ship", "c")]}
ALL = {"all": ["x", "y"]}


@pytest.fixture
def w(store: Store, clock: Clock) -> Walker:
    return walker(store, clock)


def last_detail(w: Walker, status: str) -> dict[str, Any]:
    found = [event["data"] for event in events(w.store, w.job_id) if event["data"]["status"] == status]
    detail: dict[str, Any] = found[-1]["detail"]
    return detail


# What was done is undone.


def test_a_job_that_is_cancelled_amid_its_items_undoes_them_with_what_they_knew(w: Walker) -> None:
    w.go(plan(EACH), ALL)
    w.do("pay")
    w.do("pay")
    w.do("ship")
    assert w.cancel().state == "running"
    for expected in ("y", "x"):
        task = w.pull_one("b")
        assert task.payload["input"] == {"who": expected}
        w.complete(task)
    assert w.state() == "cancelled"
    check_jobs(w.store)


def test_items_of_a_branch_that_came_too_late_are_undone_too(w: Walker) -> None:
    w.go(plan({"parallel": {"slow": [EACH], "fast": [act("fast", "c")]}, "join": "any"}, act("end", "c")), ALL)
    w.do("pay")
    w.do("fast")
    w.break_("end")
    assert w.pull_one("b").payload["input"] == {"who": "x"}


def test_items_of_a_job_that_was_done_are_undone_when_it_is_restarted_and_fails(w: Walker) -> None:
    w.go(plan({**EACH, "do": [PAY]}, act("end", "c")), {"all": ["x"]})
    w.do("pay")
    w.do("end")
    assert w.state() == "done"
    w.restart("end")
    w.break_("end")
    assert w.pull_one("b").payload["input"] == {"who": "x"}


@pytest.mark.parametrize("inside", [False, True], ids=["job", "item"])
def test_a_step_that_undoes_may_wait_for_somebody_and_be_retried(w: Walker, *, inside: bool) -> None:
    pay = act("pay", undo=[act("take_back", "b", on_failure="pause")])
    w.go(plan({**EACH, "do": [pay]} if inside else pay, act("end", "c")), {"all": ["x"]})
    w.do("pay")
    w.break_("end")
    w.break_("take_back")
    assert w.state() == "paused"
    with pytest.raises(ConflictError, match="undone"):
        w.retry(w.last("end")["task_id"])
    with pytest.raises(ConflictError, match="take_back"):
        w.resume()
    w.retry(w.last("take_back")["task_id"])
    assert w.state() == "running"
    assert w.do("take_back").job_state == "failed"


@pytest.mark.parametrize("how", ["manager", "failure"])
def test_a_paused_job_that_is_cancelled_undoes_what_it_did(w: Walker, how: str) -> None:
    w.go(plan(act("pay", undo=[act("take_back", "b")]), act("next", "c", on_failure="pause")))
    w.do("pay")
    if how == "manager":
        w.pause()
    else:
        w.break_("next")
    assert w.state() == "paused"
    assert w.cancel().state == "running"
    w.pause()
    w.resume()
    assert w.do("take_back").job_state == "cancelled"
    check_jobs(w.store)


def test_an_error_of_any_text_is_noted_while_the_job_is_undone(w: Walker) -> None:
    w.go(plan(act("pay", undo=[act("take_back", "b")]), act("end", "c")))
    w.do("pay")
    task = w.take("end")
    message = 'a backslash \\u0000, a quote "'
    w.one(fail, Fail(task.task_id, "error", message, retryable=False, token=task.token))
    w.do("take_back")
    assert w.job(w.job_id)["error"] == f"end: {message}"


def test_the_last_event_tells_of_so_many_failed_undos_at_most(w: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "MOST_NOT_UNDONE", 1)
    w.go(plan({**EACH, "do": [PAY]}, act("end", "c")), ALL)
    w.do("pay")
    w.do("pay")
    w.break_("end")
    w.break_("take_back")
    w.break_("take_back")
    detail = last_detail(w, "failed")
    assert (len(detail["not_undone"]), detail["not_undone_in_all"]) == (1, 2)


def test_what_was_undone_is_not_gone_on_from(w: Walker) -> None:
    """It would run on as if it were still paid, and pay back twice when it fails again."""
    undo = [{"id": "note", "wait": {"signal": "noted"}}, act("take_back", "b")]
    w.go(plan(act("first"), act("pay", undo=undo), act("end", "c")))
    for run in range(2):
        if not run:
            w.do("first")
        w.do("pay")
        w.break_("end")
        w.signal("noted", {"run": run})
        w.do("take_back")
        assert w.state() == "failed"
        with pytest.raises(ConflictError, match='"pay"'):
            w.restart("end")
        w.restart("pay")
        assert w.outputs() == {"first": {}}
    w.do("pay")
    w.do("end")
    assert w.state() == "done"


# A task that failed, and whose job waits for somebody.


def test_what_failed_in_a_branch_that_is_no_longer_wanted_is_not_in_the_way(w: Walker) -> None:
    w.go(plan({"parallel": {"x": [act("x", on_failure="pause")], "y": [act("y")]}, "join": "any"}, act("end")))
    held = w.take("y")
    w.break_("x")
    assert w.complete(held).job_state == "paused"
    assert w.resume().state == "running"
    assert w.do("end").job_state == "done"


def test_what_failed_before_its_branch_was_stopped_and_begun_again_is_not_in_the_way(w: Walker) -> None:
    w.go(plan({"parallel": {"x": [act("x", on_failure="pause")], "y": [act("y")]}}, act("end")))
    held = w.take("y")
    w.break_("x")
    w.fail(held, retryable=False)
    assert w.state() == "failed"
    w.retry(held.task_id)
    w.pause()
    assert w.resume().state == "running"
    assert sorted(w.queued()) == ["x", "y"]


# Jobs that are steps of jobs.


def test_two_steps_that_run_one_plan_at_once_have_a_job_each(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(plan({"parallel": {"x": [{"plan": "send_letter"}], "y": [{"plan": "send_letter"}]}}))
    assert [w.job(f"JOB-{n}")["reference"] for n in (2, 3)] == ["T-1/send_letter", "T-1/send_letter.2"]


def test_a_step_and_a_wish_of_one_request_that_mean_the_same_job_get_one(w: Walker) -> None:
    w.put_plan(LETTER)
    w.put_plan(plan({"plan": "send_letter"}, id="parent"))
    wishes = [Start("parent", "T-1", {}, 0), Start("send_letter", "T-1/send_letter", {}, 0)]
    answers = w.run(start, *wishes)
    assert [(answer.job_id, answer.created) for answer in answers] == [("JOB-1", True), ("JOB-2", False)]  # type: ignore[union-attr]


def test_a_job_that_was_let_run_again_is_cancelled_with_its_parent(w: Walker) -> None:
    w.put_plan(LETTER)
    either = {"parallel": {"x": [{"plan": "send_letter"}], "y": [act("y", "b")]}, "join": "any"}
    w.go(plan(either))
    task = w.pull_one("a")
    w.fail(task, retryable=False)
    w.settle()
    assert (w.state(), w.state("JOB-2")) == ("queued", "failed")
    w.retry(task.task_id)
    w.cancel()
    w.settle()
    assert (w.state(), w.state("JOB-2")) == ("cancelled", "cancelled")


def test_a_job_whose_deeds_were_undone_does_not_run_again_because_its_step_does(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(plan(act("pay", "b", undo=[act("take_back", "b")]), {"plan": "send_letter"}))
    w.do("pay")
    task = w.pull_one("a")
    w.fail(task, retryable=False)
    w.settle()
    w.retry(task.task_id)
    w.settle()
    assert w.queued() == ["take_back"]
    w.do("take_back")
    w.do("write", job_id="JOB-2")
    w.settle()
    assert (w.state(), w.state("JOB-2"), w.queued()) == ("failed", "done", [])


def test_news_of_a_step_that_came_while_its_parent_was_stopped_are_heard_later(w: Walker) -> None:
    w.put_plan(LETTER)
    either = {"parallel": {"x": [{"id": "it", "plan": "send_letter"}], "y": [act("y", "b")]}, "join": "all"}
    around = {
        "parallel": {"p": [{"parallel": {"one": [either], "two": [act("two", "b")]}, "join": 1}], "q": [act("q")]}
    }
    w.go(plan(around))
    task = w.take("write", "JOB-2")
    w.fail(task, retryable=False)
    w.settle()
    w.break_("q")
    assert w.state() == "failed"
    w.retry(task.task_id)
    w.do("write", {"n": 1}, "JOB-2")
    w.settle()
    assert w.state() == "failed"
    w.retry(w.last("q")["task_id"])
    w.settle()
    assert sorted(w.queued()) == ["q", "two", "y"]
    assert w.outputs()["it"] == {"write": {"n": 1}}


# The rest.


def test_what_cannot_be_decided_after_a_round_is_told_with_its_place(w: Walker) -> None:
    w.go(plan(act("first"), {"repeat": [act("draft")], "until": "outputs.draft.good"}))
    w.do("first")
    w.do("draft")
    detail = last_detail(w, "failed")
    assert (detail["error_type"], detail["at"], detail["expression"]) == (
        "undecided_expression", "1", "outputs.draft.good",
    )  # fmt: skip


def test_items_that_are_all_skipped_ask_for_one_more_slice_at_a_time(w: Walker) -> None:
    skipped = {"for_each": "input.all", "do": [act("never", when="input.go")], "max_parallel": 600}
    w.go(plan(skipped), {"all": list(range(1_100)), "go": False})
    with w.store.reading() as connection:
        assert len(connection.execute(timers.select()).all()) == 1
    assert [w.sweep().fired for _ in range(3)] == [1, 1, 0]
    assert w.state() == "done"


def test_an_erasure_in_the_same_moment_as_the_end_leaves_nothing(w: Walker) -> None:
    each = {"id": "all", "for_each": "input.all", "do": [act("one")]}
    w.go(plan(each, act("two", when="input.missing")), {"all": ["MARKER"]})
    task = w.pull_one("a")
    with w.transaction() as tx:
        complete(tx, [Complete(task.task_id, {"m": "MARKER"}, task.token)])
        (answer,) = erase(tx, [Erase(w.job_id)])
    assert answer.state == "failed"  # type: ignore[union-attr]
    assert "MARKER" not in json.dumps(w.job(w.job_id))
    with w.store.reading() as connection:
        for table in (branches, blocks, tasks):
            assert "MARKER" not in str(connection.execute(table.select()).all())
