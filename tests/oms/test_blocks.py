"""Each block of a plan, done and failed, through the verbs, on every database."""

from __future__ import annotations

import pytest

from oms.domain.errors import ConflictError
from oms.domain.plan_reader import parse_plan
from oms.storage.plan_cache import PlanCache
from oms.storage.plans import put_plan
from oms.storage.store import Store
from tests.oms.support import Clock
from tests.oms.walk import Walker, act, plan, walker


@pytest.fixture
def w(store: Store, clock: Clock) -> Walker:
    return walker(store, clock)


# parallel


BRANCHES = {"photo": [act("ai"), act("clerk", "b")], "fee": [act("charge", "c")]}


def test_branches_run_at_once_and_the_job_goes_on_when_all_are_done(w: Walker) -> None:
    w.go(plan({"parallel": BRANCHES}, act("print")))
    assert w.queued() == ["ai", "charge"]
    w.do("ai", {"ok": True})
    assert w.queued() == ["charge", "clerk"]
    w.do("charge")
    w.do("clerk")
    assert w.queued() == ["print"]
    assert w.do("print").job_state == "done"
    assert w.outputs() == {"ai": {"ok": True}, "clerk": {}, "charge": {}, "print": {}}
    assert w.job(w.job_id)["blocks"] == []


def test_branches_begin_in_the_order_of_the_file_also_for_a_tower_that_reads_it_back(w: Walker) -> None:
    def begun(reference: str) -> list[str]:
        w.store.plans = PlanCache()  # as after a restart
        w.job_id = w.start("walked", reference).job_id
        return w.queued()

    assert w.put_plan(plan({"parallel": BRANCHES})).plan_version == 1
    assert begun("T-1") == ["ai", "charge"]
    assert w.put_plan(plan({"parallel": dict(reversed(BRANCHES.items()))})).plan_version == 2
    assert begun("T-2") == ["charge", "ai"]
    assert w.put_plan(plan({"parallel": BRANCHES})).plan_version == 1


def test_where_a_job_stands_can_be_read(w: Walker) -> None:
    w.go(plan(act("first"), {"parallel": BRANCHES}))
    w.do("first")
    w.do("ai")
    (block,) = w.job(w.job_id)["blocks"]
    assert (block["at"], block["kind"], block["state"], block["total"], block["done"]) == (
        "1", "parallel", "running", 2, 0,
    )  # fmt: skip
    assert [(one["at"], one["name"], one["step"]) for one in block["branches"]] == [
        ("1.0", "photo", 1),
        ("1.1", "fee", 0),
    ]
    assert w.live("clerk")["branch"] == "1.0"


@pytest.mark.parametrize("join", ["any", 1])
def test_with_any_the_first_branch_that_is_done_cancels_the_rest(w: Walker, join: object) -> None:
    w.go(plan({"parallel": BRANCHES, "join": join}, act("print")))
    held = w.take("charge")
    w.do("ai")
    w.complete(held)
    assert w.last("clerk")["status"] == "cancelled"
    assert w.queued() == ["print"]


def test_a_branch_that_fails_is_no_matter_while_enough_others_can_be_done(w: Walker) -> None:
    w.go(plan({"parallel": {"x": [act("x")], "y": [act("y")], "z": [act("z")]}, "join": 2}, act("print")))
    w.break_("x")
    assert w.state() == "running"
    w.do("y")
    w.do("z")
    assert w.queued() == ["print"]


def test_where_the_wanted_number_cannot_be_reached_the_job_fails_and_the_others_are_cancelled(w: Walker) -> None:
    w.go(plan({"parallel": {"x": [act("x")], "y": [act("y")], "z": [act("z")]}, "join": 2}, act("print")))
    w.break_("x")
    w.break_("y")
    assert w.state() == "failed"
    assert w.last("z")["status"] == "cancelled"


def test_a_retry_brings_the_branches_back_that_were_stopped_with_the_failed_one(w: Walker) -> None:
    w.go(plan({"parallel": BRANCHES}, act("print")))
    w.do("ai")
    w.break_("charge")
    assert w.state() == "failed"
    assert w.last("clerk")["status"] == "cancelled"
    w.retry(w.last("charge")["task_id"])
    assert w.state() == "running"
    assert w.queued() == ["charge", "clerk"]
    w.do("clerk")
    w.do("charge")
    w.do("print")
    assert w.state() == "done"


def test_blocks_nest(w: Walker) -> None:
    inner = {"parallel": {"p": [act("p")], "q": [act("q")]}, "join": "any"}
    w.go(plan({"parallel": {"x": [inner, act("after")], "y": [act("y")]}}, act("end")))
    assert w.queued() == ["y", "p", "q"]
    w.do("q")
    assert w.last("p")["status"] == "cancelled"
    w.do("after")
    w.do("y")
    w.do("end")
    assert w.state() == "done"


def test_a_failure_deep_inside_goes_up_and_a_retry_all_the_way_back(w: Walker) -> None:
    inner = {"parallel": {"p": [act("p")], "q": [act("q")]}}
    w.go(plan({"parallel": {"x": [inner], "y": [act("y"), act("z")]}}, act("end")))
    w.do("y")
    w.break_("p")
    assert w.state() == "failed"
    assert {task["activity"]: task["status"] for task in w.tasks()} == {
        "y": "done", "z": "cancelled", "p": "failed", "q": "cancelled",
    }  # fmt: skip
    w.retry(w.last("p")["task_id"])
    assert sorted(w.queued()) == ["p", "q", "z"]
    for name in ("p", "q", "z", "end"):
        w.do(name)
    assert w.state() == "done"


def test_what_was_stopped_because_of_another_failure_is_not_retried_alone(w: Walker) -> None:
    either = {"parallel": {"p": [act("p")], "q": [act("q")]}, "join": "any"}
    w.go(plan({"parallel": {"x": [either], "y": [act("y")]}}))
    w.break_("p")
    w.break_("y")
    assert w.state() == "failed"
    with pytest.raises(ConflictError, match="another part"):
        w.retry(w.last("p")["task_id"])
    w.retry(w.last("y")["task_id"])
    assert sorted(w.queued()) == ["q", "y"]


# for_each


PAGES = {
    "id": "pages",
    "for_each": "input.pages",
    "as": "page",
    "do": [act("scan", input={"page": "page"}), act("read", "b", when="outputs.scan.ok")],
}


def test_an_item_each_and_their_outputs_in_the_items_order(w: Walker) -> None:
    w.go(plan(PAGES, act("file", "c", input={"count": "size(outputs.pages)"})), {"pages": ["x", "y"]})
    assert w.queued() == ["scan", "scan"]
    first, second = w.pull("a", 2)
    assert [first.payload["input"], second.payload["input"]] == [{"page": "x"}, {"page": "y"}]
    w.complete(second, {"ok": True})
    reading = w.pull_one("b")
    assert reading.payload["outputs"] == {"scan": {"ok": True}}
    w.complete(reading, {"text": "Y"})
    w.complete(first, {"ok": False})
    filing = w.pull_one("c")
    assert filing.payload == {
        "input": {"count": 2},
        "outputs": {"pages": [{"scan": {"ok": False}}, {"scan": {"ok": True}, "read": {"text": "Y"}}]},
    }
    assert w.complete(filing).job_state == "done"


def test_an_empty_list_is_done_at_once(w: Walker) -> None:
    w.go(plan(PAGES), {"pages": []})
    assert w.state() == "done"
    assert w.outputs() == {"pages": []}


def test_so_many_items_at_once(w: Walker) -> None:
    w.go(plan({**PAGES, "max_parallel": 2}), {"pages": list(range(5))})
    for _ in range(5):
        assert len(w.queued()) <= 2
        task = w.pull_one("a")
        w.complete(task, {"ok": False})
    assert w.state() == "done"
    assert len(w.outputs()["pages"]) == 5


@pytest.mark.parametrize(
    ("pages", "code"), [("none", "not_a_list"), (list(range(10_001)), "too_many_items")], ids=["text", "10,001"]
)
def test_what_is_no_list_or_too_long_a_one_fails_the_job_and_nothing_is_half_done(
    w: Walker, pages: object, code: str
) -> None:
    w.go(plan(act("first"), PAGES), {"pages": pages})
    w.do("first")
    job = w.job(w.job_id)
    assert (job["state"], w.queued(), job["blocks"]) == ("failed", [], [])
    assert "input.pages" in job["error"]


def test_an_item_that_fails_fails_the_job_and_is_retried_with_the_others(w: Walker) -> None:
    w.go(plan(PAGES), {"pages": [1, 2, 3]})
    first, second, _third = w.pull("a", 3)
    w.complete(first, {"ok": False})
    w.fail(second, retryable=False)
    assert w.state() == "failed"
    assert [task["status"] for task in w.tasks()] == ["done", "failed", "cancelled"]
    w.retry(second.task_id)
    for task in w.pull("a", 5):
        w.complete(task, {"ok": False})
    assert w.state() == "done"
    assert [item["scan"] for item in w.outputs()["pages"]] == [{"ok": False}] * 3


def test_a_long_list_begins_in_slices_and_each_completion_costs_the_same(w: Walker) -> None:
    w.go(plan(PAGES), {"pages": list(range(1200))})
    assert len(w.queued()) == 440  # of 500, less what it took to note the list
    w.settle()
    assert len(w.queued()) == 1200
    for task in w.pull("a", 1000) + w.pull("a", 1000):
        w.complete(task, {"ok": False})
    assert w.state() == "done"
    assert len(w.outputs()["pages"]) == 1200


# repeat


DRAFT = {"repeat": [act("draft"), act("review", "b")], "until": 'outputs.review.verdict == "good"', "max_rounds": 3}


def test_rounds_until_it_holds_and_the_last_rounds_outputs_count(w: Walker) -> None:
    w.go(plan(DRAFT, act("publish", "c")))
    w.do("draft", {"text": 1})
    w.do("review", {"verdict": "bad", "note": "longer"})
    again = w.pull_one("a")
    assert again.payload["outputs"]["review"] == {"verdict": "bad", "note": "longer"}
    w.complete(again, {"text": 2})
    w.do("review", {"verdict": "good"})
    assert w.queued() == ["publish"]
    assert w.outputs() == {"draft": {"text": 2}, "review": {"verdict": "good"}}
    assert [task["branch"] for task in w.tasks()] == ["0.1", "0.1", "0.2", "0.2", None]


def test_what_the_last_round_skipped_has_no_output(w: Walker) -> None:
    steps = [act("check", "b"), act("fix", when="!outputs.check.good")]
    w.go(plan({"repeat": steps, "until": "outputs.check.good"}, act("end")))
    w.do("check", {"good": False})
    w.do("fix", {"done": 1})
    w.do("check", {"good": True})
    assert w.outputs() == {"check": {"good": True}}


def test_rounds_that_are_used_up_fail_the_job(w: Walker) -> None:
    w.go(plan(DRAFT))
    for _ in range(3):
        w.do("draft")
        w.do("review", {"verdict": "bad"})
    assert w.state() == "failed"
    assert "3 rounds" in w.job(w.job_id)["error"]


# choose


CHOOSE = {
    "choose": [
        {"when": "input.risk > 3", "do": [act("senior"), act("seal")]},
        {"when": "input.risk > 1", "do": [act("junior")]},
        {"else": [act("file")]},
    ]
}


@pytest.mark.parametrize(("risk", "way"), [(5, "senior"), (2, "junior"), (0, "file")])
def test_the_first_option_that_holds(w: Walker, risk: int, way: str) -> None:
    w.go(plan(CHOOSE, act("end")), {"risk": risk})
    assert w.queued() == [way]
    w.do(way)
    if way == "senior":
        w.do("seal")
    assert w.queued() == ["end"]


def test_none_and_no_else_is_nothing(w: Walker) -> None:
    w.go(plan({"choose": CHOOSE["choose"][:2]}, act("end")), {"risk": 0})
    assert w.queued() == ["end"]


def test_an_option_that_cannot_be_decided_fails_the_job(w: Walker) -> None:
    w.go(plan(CHOOSE), {})
    assert w.state() == "failed"


def test_a_block_whose_when_is_false_is_skipped(w: Walker) -> None:
    w.go(plan({"parallel": BRANCHES, "when": "input.go"}, act("end")), {"go": False})
    assert w.queued() == ["end"]


# wait


def test_a_timer_goes_off_once_its_time_has_come(w: Walker) -> None:
    w.go(plan({"wait": {"for_sec": 60}}, act("end")))
    w.later(59)
    assert w.queued() == []
    w.later(1)
    assert w.queued() == ["end"]
    w.later(60)
    assert len(w.tasks()) == 1


def test_until_a_moment_of_the_jobs_data(w: Walker) -> None:
    w.go(plan({"wait": {"until": "timestamp(input.at)"}}, act("end")), {"at": "2025-11-22T14:06:00Z"})
    w.later(40)
    assert w.queued() == []
    w.later(20)
    assert w.queued() == ["end"]


def test_a_moment_in_the_past_is_no_wait(w: Walker) -> None:
    w.go(plan({"wait": {"until": "timestamp(input.at)"}}, act("end")), {"at": "2020-01-01T00:00:00Z"})
    assert w.queued() == ["end"]


ANSWER = {"id": "answer", "wait": {"signal": "answered", "timeout_sec": 100}}


def test_a_signal_ends_its_wait_and_its_data_is_the_output(w: Walker) -> None:
    w.go(plan(ANSWER, act("end")))
    w.signal("answered", {"text": "yes"})
    assert w.queued() == ["end"]
    assert w.outputs() == {"answer": {"text": "yes"}}
    w.later(100)
    assert w.state() == "queued"


def test_a_signal_that_comes_before_its_wait_is_kept_and_serves_one_wait(w: Walker) -> None:
    w.go(plan(act("first"), ANSWER, {**ANSWER, "id": "second"}))
    w.signal("answered", {"n": 1})
    w.do("first")
    assert w.outputs()["answer"] == {"n": 1}
    assert w.state() == "running"
    w.signal("answered", {"n": 2})
    assert w.state() == "done"
    assert w.outputs()["second"] == {"n": 2}


def test_a_signal_that_does_not_come_fails_the_job_or_lets_it_go_on(w: Walker) -> None:
    w.go(plan(ANSWER, act("end")))
    w.later(100)
    assert w.state() == "failed"
    lenient = {"wait": {"signal": "answered", "timeout_sec": 100, "on_timeout": "continue"}}
    w.go(plan(lenient, act("end"), id="lenient"))
    w.later(100)
    assert w.queued() == ["end"]


# plan


LETTER = plan(act("write"), act("post", "b"), id="send_letter")
LETTERS = {"id": "letters", "plan": "send_letter", "input": {"to": "reference"}}


def test_a_job_of_another_plan_is_a_step_and_its_outputs_are_the_blocks(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(plan(LETTERS, act("end", "c")))
    child = w.job("JOB-2")
    assert (child["plan"], child["reference"], child["input"], child["parent"]) == (
        "send_letter", "T-1/letters", {"to": "T-1"}, "JOB-1",
    )  # fmt: skip
    w.do("write", {"text": "hi"}, "JOB-2")
    w.do("post", {"stamp": 1}, "JOB-2")
    assert w.state("JOB-2") == "done"
    w.settle()
    assert w.queued() == ["end"]
    assert w.outputs() == {"letters": {"write": {"text": "hi"}, "post": {"stamp": 1}}}


def test_a_childs_failure_goes_up_and_its_retry_too(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(plan(LETTERS, act("end", "c")))
    task = w.pull_one("a")
    w.fail(task, retryable=False)
    w.settle()
    assert (w.state("JOB-2"), w.state()) == ("failed", "failed")
    w.retry(task.task_id)
    w.settle()
    assert (w.state("JOB-2"), w.state()) == ("running", "running")
    w.do("write", job_id="JOB-2")
    w.do("post", job_id="JOB-2")
    w.settle()
    assert w.queued() == ["end"]


def test_cancelling_goes_down(w: Walker) -> None:
    w.put_plan(LETTER)
    w.go(plan(LETTERS))
    w.cancel()
    w.settle()
    assert (w.state(), w.state("JOB-2")) == ("cancelled", "cancelled")
    assert w.pull("a") == []


def test_a_plan_that_nobody_has_fails_the_block(w: Walker) -> None:
    w.go(plan(LETTERS))
    assert w.state() == "failed"
    assert "send_letter" in w.job(w.job_id)["error"]


def test_each_item_has_a_job_of_its_own(w: Walker) -> None:
    w.put_plan(LETTER)
    each = {
        "for_each": "input.to",
        "as": "who",
        "do": [{"id": "letter", "plan": "send_letter", "input": {"to": "who"}}],
    }
    w.go(plan({**each, "id": "all"}), {"to": ["x", "y"]})
    assert [w.job(f"JOB-{n}")["reference"] for n in (2, 3)] == ["T-1/letter/1", "T-1/letter/2"]
    for number in (2, 3):
        w.do("write", {"n": number}, f"JOB-{number}")
        w.do("post", {}, f"JOB-{number}")
    w.settle()
    assert w.state() == "done"
    assert w.outputs() == {"all": [{"letter": {"write": {"n": n}, "post": {}}} for n in (2, 3)]}


def test_a_plan_that_came_to_call_itself_through_another_fails_where_it_does(w: Walker) -> None:
    w.put_plan(plan(act("a1"), id="other"))
    w.go(plan({"id": "down", "plan": "other", "input": {}}, id="walked"))
    with w.transaction() as tx:  # two towers may close a circle at the same moment, and do not see each other
        put_plan(tx, parse_plan(plan({"id": "up", "plan": "walked", "input": {}}, id="other")), file=None)
    w.start("walked", "T-2")
    w.settle()
    assert w.state("JOB-3") == "failed"
    assert "JOB-3" in w.job("JOB-4")["error"]
