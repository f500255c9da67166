"""Cancel, pause, resume, restart, skip, signals and undo: what managers and the world outside do to a job."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from oms.domain.errors import ConflictError, InvalidInputError, NotFoundError, StaleTokenError
from oms.sequencer.cancel import Cancel, cancel
from oms.sequencer.erase import Erase, erase
from oms.storage.store import Store
from oms.storage.tables import blocks, branches, jobs, signals, tasks
from tests.oms.support import Clock, events
from tests.oms.walk import Walker, act, plan, walker

THREE = plan(act("one"), act("two", "b"), act("three", "c"))


@pytest.fixture
def w(store: Store, clock: Clock) -> Walker:
    return walker(store, clock)


def kept(store: Store) -> str:
    """Return all that OMS holds of jobs, as a text."""
    with store.reading() as connection:
        return str([connection.execute(select(table)).all() for table in (jobs, tasks, branches, blocks, signals)])


def told(w: Walker) -> list[tuple[str, str | None, str]]:
    """Return kind, activity and status of the job's events, in order."""
    found = events(w.store, w.job_id)
    return [(event["type"].split(".")[1], event["data"]["activity"], event["data"]["status"]) for event in found]


def last_event(w: Walker, status: str) -> dict[str, Any]:
    found = [event["data"] for event in events(w.store, w.job_id) if event["data"]["status"] == status]
    last: dict[str, Any] = found[-1]
    return last


# cancel


def test_a_cancelled_job_hands_out_nothing_and_its_worker_is_fenced_off(w: Walker) -> None:
    w.go(plan({"parallel": {"x": [act("one")], "y": [act("two")]}}))
    held = w.take("one")
    assert w.cancel().state == "cancelled"
    assert [task["status"] for task in w.tasks()] == ["cancelled", "cancelled"]
    assert w.pull("a") == []
    with pytest.raises(StaleTokenError):
        w.complete(held)
    assert told(w)[-3:] == [("task", "one", "cancelled"), ("task", "two", "cancelled"), ("job", None, "cancelled")]
    assert last_event(w, "cancelled")["actor"] == "boss"
    assert last_event(w, "cancelled")["detail"] == {"reason": "no longer wanted"}


def test_cancelling_again_is_the_same_and_what_has_ended_stays_so(w: Walker) -> None:
    w.go(THREE)
    w.cancel()
    count = len(told(w))
    assert w.cancel().state == "cancelled"
    assert len(told(w)) == count
    w.go(plan(act("one"), id="short"), reference="T-2")
    w.do("one")
    with pytest.raises(ConflictError, match="done"):
        w.cancel()
    with pytest.raises(NotFoundError):
        w.one(cancel, Cancel("JOB-99"))


def test_what_a_cancelled_job_had_queued_is_refused_to_everybody(w: Walker) -> None:
    w.go(THREE)
    task_id = w.live("one")["task_id"]
    w.cancel()
    for act_on in (w.retry, w.skip):
        with pytest.raises(ConflictError):
            act_on(task_id)
    with pytest.raises(ConflictError):
        w.reroute(task_id, "b")
    with pytest.raises(ConflictError):
        w.restart("one")
    with pytest.raises(ConflictError):
        w.pause()


# pause and resume


def test_a_paused_job_hands_out_nothing_and_goes_on_at_its_old_place(w: Walker) -> None:
    w.go(THREE)
    place = w.live("one")["available_at"]
    assert w.pause().state == "paused"
    assert w.pause().state == "paused"
    w.later(3600)
    assert w.pull("a") == []
    assert w.live("one")["available_at"] == place
    w.start("walked", "T-2")
    assert w.resume().state == "queued"
    assert w.pull_one("a").job_id == w.job_id
    assert w.resume().state == "running"
    assert [event for event in told(w) if event[0] == "job"] == [
        ("job", None, "queued"), ("job", None, "paused"), ("job", None, "resumed"),
    ]  # fmt: skip


def test_what_runs_in_a_paused_job_may_be_completed_and_what_follows_waits(w: Walker) -> None:
    w.go(THREE)
    held = w.take("one")
    w.pause()
    assert w.complete(held).job_state == "paused"
    assert w.queued() == ["two"]
    assert w.pull("b") == []
    w.resume()
    w.do("two")
    w.do("three")
    assert w.state() == "done"


def test_an_attempt_that_fails_in_a_paused_job_waits_too(w: Walker) -> None:
    w.go({**THREE, "retry_policy": {"attempts": 3, "backoff_sec": 10}})
    held = w.take("one")
    w.pause()
    w.fail(held)
    w.later(60)
    assert w.pull("a") == []
    w.resume()
    assert w.pull_one("a").attempt == 2


def test_a_rerouted_or_retried_task_of_a_paused_job_still_waits(w: Walker) -> None:
    w.go(THREE)
    w.pause()
    w.reroute(w.live("one")["task_id"], "b")
    assert w.pull("b") == []
    w.resume()
    assert w.pull_one("b").activity == "one"


# on_failure


def test_a_failure_may_pause_the_job_until_somebody_decides(w: Walker) -> None:
    w.go(plan(act("one", on_failure="pause"), act("two")))
    w.break_("one")
    assert w.state() == "paused"
    with pytest.raises(ConflictError, match="TASK-1"):
        w.resume()
    w.retry("TASK-1")
    assert w.state() == "running"
    w.break_("one")
    w.skip("TASK-1", {"by": "hand"})
    assert (w.state(), w.queued()) == ("running", ["two"])
    w.do("two")
    assert w.outputs()["one"] == {"by": "hand"}


def test_two_failures_are_both_to_be_seen_to(w: Walker) -> None:
    stuck = {name: [act(name, on_failure="pause")] for name in ("x", "y")}
    w.go(plan({"parallel": stuck}, act("end")))
    held = w.take("y")
    w.break_("x")
    w.fail(held, retryable=False)
    w.skip(w.last("x")["task_id"])
    assert w.state() == "paused"
    w.reroute(w.last("y")["task_id"], "b")
    assert w.state() == "running"
    w.do("y")
    assert w.queued() == ["end"]


def see_to(w: Walker, how: str) -> None:
    """Do something about the task that has failed."""
    if how == "retry":
        w.retry("TASK-1")
    elif how == "reroute":
        w.reroute("TASK-1", "a")
    else:
        w.skip("TASK-1")


@pytest.mark.parametrize("how", ["retry", "reroute", "skip"])
@pytest.mark.parametrize("paused", ["before", "after"])
def test_seeing_to_a_failure_takes_back_no_pause_of_a_managers(w: Walker, paused: str, how: str) -> None:
    w.go(plan(act("one", on_failure="pause"), act("two", on_failure="pause")))
    held = w.take("one")
    if paused == "before":
        w.pause()
    w.fail(held, retryable=False)
    if paused == "after":
        w.pause()
    assert (w.state(), last_event(w, "paused")["actor"]) == ("paused", "boss")
    count = len(events(w.store))
    assert w.pause().state == "paused"
    assert len(events(w.store)) == count  # once is enough
    with pytest.raises(ConflictError, match=r"TASK-1 .*, then resume it"):
        w.resume()
    see_to(w, how)
    assert (w.state(), w.pull("a")) == ("paused", [])
    assert told(w)[-1][2] != "resumed"
    assert w.resume().state == "running"
    assert last_event(w, "resumed")["actor"] == "boss"
    if how != "skip":
        w.do("one")
    # It is over with the resume: the pause of the next failure is the failure's alone.
    w.break_("two")
    assert w.state() == "paused"
    w.retry(w.last("two")["task_id"])
    assert w.state() == "running"


@pytest.mark.parametrize("end", ["restart", "undo"])
def test_what_ends_a_pause_of_a_managers_otherwise_ends_it_wholly(w: Walker, end: str) -> None:
    w.go(plan(act("one", undo=[act("back", on_failure="pause")]), act("two", on_failure="pause")))
    w.do("one")
    w.pause()
    if end == "restart":
        w.restart("two")
        w.break_("two")
    else:
        w.cancel()
        w.break_("back")
    assert w.state() == "paused"
    w.retry(w.tasks()[-1]["task_id"])
    assert w.state() == "running"


def test_a_failure_may_be_gone_on_without(w: Walker) -> None:
    w.go(plan(act("one", on_failure="continue"), act("two")))
    w.break_("one")
    assert w.queued() == ["two"]
    with pytest.raises(ConflictError, match="gone on without"):
        w.retry("TASK-1")
    w.do("two")
    assert w.state() == "done"
    assert w.outputs() == {"two": {}}


# skip


@pytest.mark.parametrize("stage", ["queued", "running", "failed"])
def test_a_manager_stands_in_for_a_worker(w: Walker, stage: str) -> None:
    w.go(THREE)
    task_id = w.live("one")["task_id"]
    held = w.take("one") if stage != "queued" else None
    if stage == "failed" and held is not None:
        w.fail(held, retryable=False)
    answer = w.skip(task_id, {"ok": True})
    assert (answer.status, w.queued()) == ("done", ["two"])
    done = last_event(w, "done")
    assert (done["actor"], done["detail"]["stood_in"], done["detail"]["reason"]) == ("boss", True, "seen on paper")
    assert w.skip(task_id, {"ok": True}) == answer
    with pytest.raises(ConflictError):
        w.skip(task_id, {"ok": False})
    if stage == "running" and held is not None:
        with pytest.raises(StaleTokenError):
            w.complete(held, {"ok": True})


def test_a_manager_too_must_give_what_the_plan_asks_for(w: Walker) -> None:
    w.go(plan(act("one", output_schema={"type": "object", "required": ["ok"]})))
    with pytest.raises(InvalidInputError):
        w.skip("TASK-1")
    assert w.skip("TASK-1", {"ok": 1}).job_state == "done"


# signal


ANSWER = {"id": "answer", "wait": {"signal": "answered"}}


def test_a_signal_with_an_id_counts_once(w: Walker) -> None:
    w.go(plan(ANSWER, {**ANSWER, "id": "again"}))
    w.signal("answered", {"n": 1}, "S-1")
    w.signal("answered", {"n": 1}, "S-1")
    assert w.outputs() == {"answer": {"n": 1}}
    with pytest.raises(ConflictError, match="S-1"):
        w.signal("answered", {"n": 2}, "S-1")
    w.signal("answered", {"n": 3}, "S-2")
    assert w.state() == "done"
    w.signal("answered", {"n": 3}, "S-2")
    with pytest.raises(ConflictError, match="done"):
        w.signal("answered", {"n": 4})


def test_a_signal_that_nothing_waits_for_is_refused_with_the_nearest_name(w: Walker) -> None:
    w.go(plan(ANSWER))
    with pytest.raises(InvalidInputError, match="answered"):
        w.signal("answerd")


def test_a_signals_data_is_not_in_the_ledger(w: Walker) -> None:
    w.go(plan(ANSWER))
    w.signal("answered", {"name": "MARKER"})
    assert "MARKER" not in str(events(w.store, w.job_id))
    assert len(last_event(w, "signalled")["detail"]["data_hmac"]) == 64


# restart


def test_a_job_runs_again_from_an_activity_and_what_came_after_counts_no_more(w: Walker) -> None:
    w.go(THREE)
    for name in ("one", "two", "three"):
        w.do(name, {"first": True})
    assert w.restart("two").state == "running"
    assert (w.queued(), w.outputs()) == (["two"], {"one": {"first": True}})
    assert w.pull_one("b").payload["outputs"] == {"one": {"first": True}}
    assert told(w)[-3:] == [("job", None, "restarted"), ("task", "two", "queued"), ("task", "two", "started")]
    assert last_event(w, "restarted")["detail"] == {"by": "restart", "from": "two"}


@pytest.mark.parametrize("how", ["running", "failed", "paused"])
def test_whatever_runs_is_stopped_first(w: Walker, how: str) -> None:
    w.go(plan(act("zero"), {"parallel": {"x": [act("one"), act("more")], "y": [act("two")]}}, act("end")))
    w.do("zero")
    w.do("one")
    held = w.take("two")
    if how == "failed":
        w.fail(held, retryable=False)
    if how == "paused":
        w.pause()
    w.restart("more")
    assert sorted(w.queued()) == ["one", "two"], "an activity inside a block begins the block anew"
    with pytest.raises(StaleTokenError):
        w.complete(held)
    for name in ("one", "more", "two", "end"):
        w.do(name)
    assert w.state() == "done"


def test_an_earlier_failure_is_no_longer_the_jobs_business(w: Walker) -> None:
    w.go(THREE)
    w.do("one")
    w.break_("two")
    w.restart("one")
    with pytest.raises(ConflictError):
        w.retry("TASK-2")


def test_what_a_job_has_not_come_to_yet_it_does_not_run_again_from(w: Walker) -> None:
    """What lies between would never be done."""
    inside = {"parallel": {"x": [act("x1"), act("x2")], "y": [act("y1", "b")]}}
    w.go(plan(act("one"), inside, {"wait": {"signal": "go"}}, act("end", "c")))
    before = len(events(w.store))
    for activity in ("x1", "end"):
        with pytest.raises(ConflictError, match=rf'not come to "{activity}" yet; it can run again from one\.'):
            w.restart(activity)
    assert len(events(w.store)) == before
    assert w.queued() == ["one"]
    w.do("one")
    w.restart("x2")  # the block around it has begun
    assert w.queued() == ["x1", "y1"]
    w.do("x1")
    w.do("x2")
    w.do("y1")
    with pytest.raises(ConflictError, match=r'not come to "end" yet; it can run again from one, x1, x2, y1\.'):
        w.restart("end")
    w.restart("one")
    with pytest.raises(ConflictError, match=r"it can run again from one\."):
        w.restart("x1")


def test_a_job_that_waits_before_any_activity_runs_again_from_none(w: Walker) -> None:
    w.go(plan({"wait": {"signal": "go"}}, act("end")))
    with pytest.raises(ConflictError, match="nor to any other"):
        w.restart("end")


def test_an_unknown_activity_is_refused_with_the_nearest_name(w: Walker) -> None:
    w.go(THREE)
    with pytest.raises(InvalidInputError, match="three"):
        w.restart("thre")
    assert w.queued() == ["one"]


# undo


SAGA = plan(
    act("charge", undo=[act("refund", "b")]),
    act("book", undo=[act("unbook", "b"), act("tell", "c")]),
    act("print"),
    act("send"),
)


def test_what_was_done_is_undone_latest_first_when_the_job_fails(w: Walker) -> None:
    w.go(SAGA)
    w.do("charge", {"receipt": 7})
    w.do("book")
    w.break_("print")
    assert (w.state(), w.queued()) == ("running", ["unbook"])
    w.do("unbook")
    w.do("tell")
    refund = w.take("refund")
    assert refund.payload["outputs"]["charge"] == {"receipt": 7}
    assert w.complete(refund).job_state == "failed"
    job = w.job(w.job_id)
    assert job["error"].startswith("print: ")
    assert told(w)[-1] == ("job", None, "failed")
    assert last_event(w, "failed")["detail"]["undone"] is True
    with pytest.raises(ConflictError, match="undone"):
        w.retry(w.last("print")["task_id"])
    w.restart("charge")
    assert w.queued() == ["charge"]


def test_a_cancelled_job_is_undone_too_and_cancelling_again_waits_for_it(w: Walker) -> None:
    w.go(SAGA)
    w.do("charge")
    assert w.cancel().state == "running"
    assert w.cancel().state == "running"
    assert w.queued() == ["refund"]
    with pytest.raises(ConflictError):
        w.restart("charge")
    w.do("refund")
    assert w.state() == "cancelled"
    assert last_event(w, "cancelled")["actor"] == "boss"


def test_what_cannot_be_undone_is_said_and_the_rest_is_undone(w: Walker) -> None:
    w.go(SAGA)
    w.do("charge")
    w.do("book")
    w.break_("print")
    w.break_("unbook")
    w.do("refund")
    assert w.state() == "failed"
    assert last_event(w, "failed")["detail"]["not_undone"][0]["activity"] == "unbook"


def test_nothing_done_is_nothing_to_undo(w: Walker) -> None:
    w.go(SAGA)
    w.break_("charge")
    assert (w.state(), w.queued()) == ("failed", [])


def test_an_item_is_undone_with_what_it_knew(w: Walker) -> None:
    pay = act("pay", input={"who": "who"}, undo=[act("take_back", "b", input={"who": "who", "sum": "outputs.pay.sum"})])
    w.go(plan({"for_each": "input.all", "as": "who", "do": [pay]}, act("end")), {"all": ["x", "y"]})
    first, second = w.pull("a", 2)
    w.complete(first, {"sum": 1})
    w.clock.advance(1)
    w.complete(second, {"sum": 2})
    w.break_("end")
    for expected in ({"who": "y", "sum": 2}, {"who": "x", "sum": 1}):
        task = w.pull_one("b")
        assert task.payload["input"] == expected
        w.complete(task)
    assert w.state() == "failed"


# erase


def test_nothing_of_the_citizens_is_left_after_an_erasure(w: Walker, store: Store) -> None:
    pages = {"id": "pages", "for_each": "input.pages", "as": "page", "do": [act("scan", input={"page": "page"})]}
    w.go(plan({"id": "answer", "wait": {"signal": "s"}}, pages), {"pages": ["MARKER"]})
    w.signal("s", {"m": "MARKER"})
    w.do("scan", {"m": "MARKER"})
    assert "MARKER" in kept(store)
    w.one(erase, Erase(w.job_id))
    assert "MARKER" not in kept(store)
