"""What docs/blocks says of retries, restarts and cancellations, and no other test of a block holds."""

from __future__ import annotations

import pytest

from oms.domain.errors import ConflictError
from oms.sequencer.restart import Restart, restart
from oms.storage.store import Store
from tests.oms.support import Clock
from tests.oms.walk import Walker, act, plan, walker

LETTER = plan(act("write"), id="letter")
NOTICE = plan(act("decide"), {"id": "sent", "plan": "letter", "input": {"to": "reference"}}, act("file_it", "c"))


@pytest.fixture
def w(store: Store, clock: Clock) -> Walker:
    return walker(store, clock)


def test_a_failed_branch_that_the_block_could_do_without_is_retried_until_the_block_is_done(w: Walker) -> None:
    branches = {"x": [act("x"), act("x2")], "y": [act("y")]}
    w.go(plan({"parallel": branches, "join": "any"}, act("end")))
    w.break_("x")
    w.retry(w.last("x")["task_id"])
    w.break_("x")
    w.do("y")
    with pytest.raises(ConflictError, match="gone on without"):
        w.retry(w.last("x")["task_id"])
    w.do("end")
    assert w.state() == "done"


def test_rounds_that_were_used_up_begin_anew_with_a_restart(w: Walker) -> None:
    w.go(plan({"repeat": [act("draft")], "until": "outputs.draft.?good.orValue(false)", "max_rounds": 1}))
    w.do("draft")
    assert w.state() == "failed"
    w.restart("draft")
    assert w.live("draft")["branch"] == "0.1"
    w.do("draft", {"good": True})
    assert w.state() == "done"


def test_a_restarted_wait_uses_no_event_twice_and_what_was_not_used_still_is(w: Walker) -> None:
    w.go(plan(act("ask"), {"id": "answer", "wait": {"signal": "s"}}, act("end")))
    w.do("ask")
    w.signal("s", {"n": 1})
    w.restart("ask")
    w.do("ask")
    assert w.queued() == []
    w.restart("ask")
    w.signal("s", {"n": 2})
    w.restart("ask")
    w.do("ask")
    assert w.outputs()["answer"] == {"n": 2}


def test_a_paused_jobs_timer_goes_off_and_what_follows_waits(w: Walker) -> None:
    w.go(plan({"wait": {"for_sec": 10}}, act("end")))
    w.pause()
    w.later(10)
    assert w.queued() == ["end"]
    assert w.pull("a") == []
    w.resume()
    assert len(w.pull("a")) == 1


def test_a_cancelled_step_fails_its_parent_and_a_restart_makes_another(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(NOTICE)
    w.do("decide")
    w.cancel("JOB-2")
    w.settle()
    assert (w.state(), w.job(w.job_id)["error"]) == ("failed", "JOB-2, a step of this job, is cancelled")
    w.restart("decide")
    w.do("decide")
    assert w.job("JOB-3")["reference"] == "T-1/sent.2"
    w.do("write", job_id="JOB-3")
    w.settle()
    assert w.queued() == ["file_it"]


def test_a_step_that_is_restarted_after_its_end_changes_nothing_in_its_parent(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(NOTICE)
    w.do("decide")
    w.do("write", {"n": 1}, "JOB-2")
    w.settle()
    w.one(restart, Restart("JOB-2", "write"))
    w.settle()
    w.do("write", {"n": 2}, "JOB-2")
    w.settle()
    assert w.outputs()["sent"] == {"write": {"n": 1}}
    assert w.queued() == ["file_it"]


def test_of_a_paused_parent_the_step_goes_on(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(NOTICE)
    w.do("decide")
    w.pause()
    w.do("write", {}, "JOB-2")
    w.settle()
    assert (w.state("JOB-2"), w.state()) == ("done", "paused")


def test_what_a_manager_stood_in_for_is_undone_too_and_the_undoing_can_be_paused(w: Walker) -> None:
    w.go(plan(act("charge", undo=[act("refund", "b")]), act("end")))
    w.skip(w.live("charge")["task_id"])
    w.break_("end")
    assert w.queued() == ["refund"]
    with pytest.raises(ConflictError, match="ends by itself"):
        w.cancel()
    w.pause()
    assert w.pull("b") == []
    w.resume()
    w.do("refund")
    assert w.state() == "failed"


def test_of_a_repeat_an_activity_is_undone_once_as_it_was_done_last(w: Walker) -> None:
    undo = [act("refund", "b", input={"sum": "outputs.pay.sum"})]
    w.go(plan({"repeat": [act("pay", undo=undo), act("check")], "until": "outputs.check.?good.orValue(false)"}))
    w.do("pay", {"sum": 1})
    w.do("check")
    w.do("pay", {"sum": 2})
    w.break_("check")
    refund = w.pull_one("b")
    assert refund.payload["input"] == {"sum": 2}
    assert w.complete(refund).job_state == "failed"
    assert [task["activity"] for task in w.tasks()].count("refund") == 1
