"""The full grammar of plans: blocks, what their expressions may read, lanes under control, and how faults are told."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from oms.domain.expression import Kind
from oms.domain.plan import (
    Choose,
    ForEach,
    Lane,
    LaneKind,
    OnFailure,
    OnStall,
    OnTimeout,
    Parallel,
    PlanSchedule,
    Rate,
    Repeat,
    Step,
    SubPlan,
    Wait,
)
from oms.domain.plan_faults import PlanError, PlanFault
from oms.domain.plan_reader import parse_plan
from oms.domain.plan_walk import walk_plan
from oms.storage.plan_files import load_document, plan_file_schema, read_plan
from tests.oms.plan_documents import Made, full_plans, reading, why_not

SCHEMA = jsonschema_rs.Draft202012Validator(plan_file_schema())
NAMES = st.text("abcdé ", min_size=1, max_size=4).filter(lambda name: name == name.strip())
FULL = """\
id: full
title: Everything
timezone: America/New_York
input_schema: {type: object, properties: {urgent: {const: true}}}
schedules:
  - {cron: "0 6 * * MON-FRI", reference: "daily-{date}", input: {urgent: true}}
lanes:
  - ai
  - backup: human
  - {id: clerk, kind: human, max_running: 3, rate: {tasks: 10, per_sec: 60}, open: "Mon-Fri 08:00-17:00",
     holidays: US, backup: backup, stall_after_sec: 60, on_stall: reroute}
  - {id: print, kind: vendor, batch: {at: [03:00, "15:00"], max: 500}, lease_sec: 1000}
sequence:
  - parallel:
      photo: [ai, {activity: check_photo, lane: clerk, title: Photo, due: P2D, on_failure: pause}]
      fee:
        - {activity: pay, lane: backup, undo: [{activity: refund, lane: backup, input: {sum: outputs.pay.x}}]}
    join: any
  - {id: pages, for_each: input.pages, as: page, max_parallel: 5,
     do: [{activity: scan, lane: clerk, priority: page.n, input: {page: page, copies: 2, urgent: true}}]}
  - repeat:
      - {activity: draft, lane: clerk, when: "!has(outputs.review.ok)"}
      - {activity: review, lane: clerk, priority: 7}
    until: outputs.review.ok
    max_rounds: 3
  - choose:
      - {when: size(outputs.pages) > 3, do: [{activity: senior_review, lane: clerk, due_sec: 60}]}
      - else: [{activity: file_it, lane: clerk}]
    when: input.urgent
  - {id: answer, wait: {signal: applicant_answered, timeout_sec: 1209600, on_timeout: continue}}
  - wait: {for_sec: 3}
  - wait: {until: outputs.answer.at}
  - {id: letters, plan: send_letter, input: {to: reference}}
  - {activity: print_it, lane: print, when: 'has(outputs.letters.print) && outputs.answer.list[0] == "x"'}
"""


def faults_of(document: object) -> tuple[PlanFault, ...]:
    with pytest.raises(PlanError) as caught:
        parse_plan(document)
    return caught.value.faults


def sources(inputs: Any) -> dict[str, str]:
    return {key: expression.source for key, expression in inputs.items()}


def test_every_block_and_key_is_read_into_its_shape() -> None:
    plan = read_plan(FULL, file="f")
    parallel, pages, repeat, choose, answer, pause, until, letters, print_it = plan.sequence
    steps = {step.activity: step for step in plan.steps}
    assert list(steps) == [
        *(
            "ai",
            "check_photo",
            "pay",
            "refund",
            "scan",
            "draft",
            "review",
            "senior_review",
            "file_it",
            "print_it",
        ),
    ]
    assert [step.number for step in plan.steps] == list(range(10))
    assert (plan.title, plan.timezone, plan.is_flat) == ("Everything", "America/New_York", False)
    assert plan.input_schema is not None
    assert plan.schedules == (PlanSchedule("0 6 * * MON-FRI", "daily-{date}", {"urgent": True}),)
    assert plan.lanes[1:] == (
        Lane("backup", LaneKind.HUMAN, None, 28_800),
        Lane(
            "clerk",
            LaneKind.HUMAN,
            None,
            28_800,
            max_running=3,
            rate=Rate(10, 60),
            open="Mon-Fri 08:00-17:00",
            holidays="US",
            backup="backup",
            stall_after_sec=60,
            on_stall=OnStall.REROUTE,
        ),
        Lane("print", LaneKind.VENDOR, None, 1000, batch_at="03:00,15:00", batch_max=500),
    )
    fee, refund = steps["pay"], steps["refund"]
    assert parallel == Parallel(None, (("photo", (steps["ai"], steps["check_photo"])), ("fee", (fee,))), 1)
    assert fee.undo == (refund,)
    assert sources(refund.input) == {"sum": "outputs.pay.x"}
    photo = steps["check_photo"]
    assert (photo.title, photo.due, photo.on_failure) == ("Photo", "P2D", OnFailure.PAUSE)
    assert isinstance(pages, ForEach)
    assert (pages.id, pages.items.source, pages.variable, pages.steps, pages.max_parallel) == (
        *("pages", "input.pages", "page", (steps["scan"],), 5),
    )
    assert sources(steps["scan"].input) == {"page": "page", "copies": "2", "urgent": "true"}
    assert getattr(steps["scan"].priority, "kind", None) is Kind.PRIORITY
    assert isinstance(repeat, Repeat)
    assert (repeat.steps, repeat.until.source, repeat.max_rounds) == (
        *((steps["draft"], steps["review"]), "outputs.review.ok", 3),
    )
    assert steps["review"].priority == 7
    assert isinstance(choose, Choose)
    assert choose.when is not None
    assert [(option.when and option.when.source, option.steps) for option in choose.options] == [
        ("size(outputs.pages) > 3", (steps["senior_review"],)),
        (None, (steps["file_it"],)),
    ]
    assert steps["senior_review"].due_sec == 60
    assert answer == Wait(None, "answer", None, None, "applicant_answered", 1_209_600, OnTimeout.CONTINUE)
    assert pause == Wait(None, None, 3, None, None, None, OnTimeout.FAIL)
    assert isinstance(until, Wait)
    assert until.until is not None
    assert until.until.kind is Kind.MOMENT
    assert isinstance(letters, SubPlan)
    assert (letters.id, letters.plan, sources(letters.input)) == ("letters", "send_letter", {"to": "reference"})
    assert isinstance(print_it, Step)


def test_what_is_not_given_has_its_default() -> None:
    plan = parse_plan(
        seq(
            {"for_each": "input.l", "do": ["a"]}, {"repeat": ["b"], "until": "outputs.b.ok"}, {"parallel": {"x": ["c"]}}
        )
    )
    each, repeat, parallel = plan.sequence
    assert isinstance(each, ForEach)
    assert (each.id, each.variable, each.max_parallel) == (None, "item", None)
    assert isinstance(repeat, Repeat)
    assert repeat.max_rounds == 10
    assert isinstance(parallel, Parallel)
    assert parallel.wanted == 1
    step = plan.steps[0]
    assert (step.input, step.priority, step.due, step.due_sec, step.title, step.on_failure, step.undo) == (
        *(None, None, None, None, None, OnFailure.FAIL, ()),
    )
    assert (plan.timezone, plan.title, plan.input_schema, plan.schedules) == ("UTC", None, None, ())


def test_a_plan_of_activities_only_is_flat() -> None:
    assert parse_plan(seq("a", {"activity": "b", "lane": "b", "input": {}})).is_flat
    assert not parse_plan(seq({"lane": "a", "undo": ["b"]})).is_flat


def test_words_are_booleans_in_data_only() -> None:
    document, _ = load_document(
        "input_schema: {const: true}\nschedules: [{input: {a: [true]}, reference: true}]\n"
        "sequence: [{input: {output_schema: true}, parallel: {output_schema: [true]}, output_schema: {const: false}}]\n"
    )
    assert document == {
        "input_schema": {"const": True},
        "schedules": [{"input": {"a": [True]}, "reference": "true"}],
        "sequence": [
            {
                "input": {"output_schema": "true"},
                "parallel": {"output_schema": ["true"]},
                "output_schema": {"const": False},
            }
        ],
    }


def seq(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"id": "p", "lanes": ["a", "b", "c"], "sequence": list(entries), **more}


def lane(**keys: Any) -> dict[str, Any]:
    return seq("a") | {"lanes": ["a", "b", {"id": "x", **keys}]}


def step(**keys: Any) -> dict[str, Any]:
    return seq("a", {"lane": "b", **keys})


def wait(**keys: Any) -> dict[str, Any]:
    return seq({"wait": keys})


def nested(block: str, depth: int) -> Any:
    """Return a step inside so many blocks."""
    entry: Any = "a"
    for _ in range(depth):
        entry = {
            "parallel": {"parallel": {"x": [entry]}},
            "choose": {"choose": [{"when": "true", "do": [entry]}]},
            "repeat": {"repeat": [entry], "until": "true"},
        }[block]
    return entry


Refusal = tuple[dict[str, Any], tuple[str | int, ...], bool, int, str]
S0 = ("sequence", 0)
S1 = ("sequence", 1)
SHAPES: list[Refusal] = [
    # What a block is.
    (
        seq({"parallel": {"x": ["a"]}, "wait": {"for_sec": 1}}),
        (*S0, "wait"),
        True,
        0,
        "one block; found parallel and wait",
    ),
    (
        seq({"paralel": {"x": ["a"]}, "join": 1}),
        (*S0, "paralel"),
        True,
        0,
        'no key "paralel"; did you mean "parallel"?',
    ),
    (seq({"repeat": ["a"], "until": "true", "max_round": 1}), (*S0, "max_round"), True, 0, 'mean "max_rounds"?'),
    (seq({"parallel": {"x": ["a"]}, "id": "p"}), (*S0, "id"), True, 0, "outputs under their own names"),
    (seq({"choose": [{"else": ["a"]}], "activity": "b"}), (*S0, "activity"), True, 0, "an entry of its own"),
    (seq({"wait": {"signal": "s"}, "timeout_sec": 3}), (*S0, "timeout_sec"), True, 0, "it stands inside wait"),
    (seq({"plan": "q", "do": ["a"]}), (*S0, "do"), True, 0, 'no key "do"; expected one of plan, when, id, input'),
    # parallel
    (seq({"parallel": ["a"]}), (*S0, "parallel"), False, 0, "a mapping of branches, name: [steps]; found a list of 1"),
    (seq({"parallel": {}}), (*S0, "parallel"), False, 0, "one branch or more; found none"),
    (seq({"parallel": {"x": "a"}}), (*S0, "parallel", "x"), False, 0, 'branch "x" is a list of steps; found the text'),
    (seq({"parallel": {"x": []}}), (*S0, "parallel", "x"), False, 0, 'the branch "x" has 1 to 1000 entries; found 0'),
    (seq({"parallel": {" x": ["a"]}}), (*S0, "parallel", " x"), True, 0, "a branch's name is a text"),
    (seq({"parallel": {"x": ["a"], "join": "any"}}), (*S0, "parallel", "join"), True, 0, "join stands beside parallel"),
    (seq({"parallel": {"x": ["a"]}, "join": 0}), (*S0, "join"), False, 0, "a number from 1 to 1"),
    (
        seq({"parallel": {"x": ["a"]}, "join": "al"}),
        (*S0, "join"),
        False,
        0,
        'found the text "al"; did you mean "all"?',
    ),
    (seq({"parallel": {"x": ["a"]}, "join": True}), (*S0, "join"), False, 0, "found true"),
    # for_each
    (seq({"for_each": "input.l"}), S0, False, 0, 'a for_each block needs the key "do"'),
    (
        seq({"for_each": ["x"], "do": ["a"]}),
        (*S0, "for_each"),
        False,
        0,
        "a CEL expression, written as text; found a list",
    ),
    (seq({"for_each": "input.l", "do": []}), (*S0, "do"), False, 0, "do has 1 to 1000 entries; found 0"),
    (seq({"for_each": "input.l", "do": "a"}), (*S0, "do"), False, 0, "do is a list of steps; found the text"),
    (seq({"for_each": "input.l", "do": ["a"], "as": "1st"}), (*S0, "as"), False, 0, "letters, digits and _"),
    (seq({"for_each": "input.l", "do": ["a"], "as": 1}), (*S0, "as"), False, 0, "found the number 1"),
    (seq({"for_each": "input.l", "do": ["a"], "max_parallel": 0}), (*S0, "max_parallel"), False, 0, "from 1 to 10000"),
    (seq({"for_each": "input.l", "do": ["a"], "id": 7}), (*S0, "id"), False, 0, "the id of a for_each block is a text"),
    # repeat
    (seq({"repeat": "a", "until": "true"}), (*S0, "repeat"), False, 0, "repeat is a list of steps; found the text"),
    (seq({"repeat": [], "until": "true"}), (*S0, "repeat"), False, 0, "repeat has 1 to 1000 entries; found 0"),
    (seq({"repeat": ["a"]}), S0, False, 0, 'a repeat block needs the key "until"'),
    (seq({"repeat": ["a"], "untill": "true"}), (*S0, "untill"), True, 0, 'did you mean "until"?'),
    (seq({"repeat": ["a"], "until": "true", "max_rounds": 1001}), (*S0, "max_rounds"), False, 0, "from 1 to 1000"),
    # choose
    (seq({"choose": {"when": "true"}}), (*S0, "choose"), False, 0, "choose is a list of options"),
    (seq({"choose": []}), (*S0, "choose"), False, 0, "choose has 1 to 1000 entries; found 0"),
    (seq({"choose": ["a"]}), (*S0, "choose", 0), False, 0, "an option of choose is a mapping of when, do, else"),
    (seq({"choose": [{"do": ["a"]}]}), (*S0, "choose", 0), False, 0, 'an option of choose needs the key "when"'),
    (seq({"choose": [{"when": "true"}]}), (*S0, "choose", 0), False, 0, 'an option of choose needs the key "do"'),
    (seq({"choose": [{"when": "true", "do": []}]}), (*S0, "choose", 0, "do"), False, 0, "do has 1 to 1000 entries"),
    (seq({"choose": [{"else": []}]}), (*S0, "choose", 0, "else"), False, 0, "else has 1 to 1000 entries"),
    (seq({"choose": [{"else": ["a"], "do": ["b"]}]}), (*S0, "choose", 0, "do"), True, 0, "found else and do"),
    (
        seq({"choose": [{"when": "1", "do": ["a"]}]}),
        (*S0, "choose", 0, "when"),
        False,
        0,
        "gives int, not true or false",
    ),
    # wait
    (seq({"wait": 5}), (*S0, "wait"), False, 0, "wait is a mapping of for_sec, until, signal, timeout_sec, on_timeout"),
    (wait(), (*S0, "wait"), False, 0, "wait needs one of for_sec, until, signal"),
    (wait(timeout_sec=3), (*S0, "wait"), False, 0, "wait needs one of for_sec, until, signal"),
    (wait(for_sec=1, signal="s"), (*S0, "wait", "signal"), True, 0, "found for_sec and signal"),
    (wait(for_sec=0), (*S0, "wait", "for_sec"), False, 0, "for_sec is a whole number from 1 to 315360000"),
    (wait(for_sec=1, on_timeout="fail"), (*S0, "wait", "on_timeout"), True, 0, "for a signal only"),
    (wait(until="input.x", timeout_sec=4), (*S0, "wait", "timeout_sec"), True, 0, "for a signal only"),
    (wait(signal=" "), (*S0, "wait", "signal"), False, 0, "a signal's name is a text"),
    (wait(signal="s", on_timeout="fial"), (*S0, "wait", "on_timeout"), False, 0, 'did you mean "fail"?'),
    (wait(signal="s", timeout_sec="1h"), (*S0, "wait", "timeout_sec"), False, 0, "a whole number"),
    (wait(signal="s", timeot_sec=1), (*S0, "wait", "timeot_sec"), True, 0, 'did you mean "timeout_sec"?'),
    (wait(until="1"), (*S0, "wait", "until"), False, 0, "gives int, not a moment; write timestamp(...) around"),
    (
        wait(until="reference"),
        (*S0, "wait", "until"),
        False,
        0,
        "gives string, not a moment; write timestamp(...) around it",
    ),
    # plan
    (seq({"plan": "1"}), (*S0, "plan"), False, 0, "plan is a plan's id, a letter and up to 99 more"),
    (seq({"plan": "q", "input": ["x"]}), (*S0, "input"), False, 0, "input is a mapping of keys to CEL expressions"),
    (seq({"plan": "q", "input": {"x": None}}), (*S0, "input", "x"), False, 0, "input.x is a CEL expression"),
    (seq({"plan": "q", "input": {"x": "foo"}}), (*S0, "input", "x"), False, 0, 'input.x: there is no "foo" here'),
    (seq({"plan": "q", "input": {" x": "1"}}), (*S0, "input", " x"), False, 0, "a key of input is a text"),
    # activities
    (step(priority=1.5), (*S1, "priority"), False, 0, "a whole number from -1000000 to 1000000; found the number 1.5"),
    (step(priority=None), (*S1, "priority"), False, 0, "priority is a number or a CEL expression; found null"),
    (
        step(priority="reference"),
        (*S1, "priority"),
        False,
        0,
        "gives string, not a whole number; write int(...) around it",
    ),
    (step(due_sec=0), (*S1, "due_sec"), False, 0, "due_sec is a whole number from 1 to 315360000"),
    (step(due_sec=3, due="P1D"), (*S1, "due"), True, 0, "due_sec or due, not both"),
    (step(due=3), (*S1, "due"), False, 0, "due is a duration such as P5D, written as text"),
    (step(title=" x"), (*S1, "title"), False, 0, "a step's title is a text of 1 to 200 characters"),
    (step(on_failure="stop"), (*S1, "on_failure"), False, 0, "on_failure is one of fail, pause, continue"),
    (step(undo="c"), (*S1, "undo"), False, 0, "undo is a list of steps; found the text"),
    (step(undo=[]), (*S1, "undo"), False, 0, "undo has 1 to 1000 entries; found 0"),
    (step(input={"x": "optional.of(1)"}), (*S1, "input", "x"), False, 0, "end it with .orValue(...)"),
    (step(input={"x": "b'x'"}), (*S1, "input", "x"), False, 0, "the expression gives bytes, not a JSON value"),
    # lanes
    (lane(max_running=0), ("lanes", 2, "max_running"), False, 0, "max_running is a whole number from 1"),
    (lane(rate=3), ("lanes", 2, "rate"), False, 0, "rate is a mapping of tasks, per_sec; found the number 3"),
    (lane(rate={"tasks": 3}), ("lanes", 2, "rate"), False, 0, 'rate needs the key "per_sec"'),
    (lane(rate={"tasks": 3, "per_sec": 0}), ("lanes", 2, "rate", "per_sec"), False, 0, "from 1 to 2678400"),
    (lane(open=9), ("lanes", 2, "open"), False, 0, "open is hours such as Mon-Fri 08:00-17:00, written as text"),
    (lane(batch="03:00"), ("lanes", 2, "batch"), False, 0, "batch is a mapping of at, max; found the text"),
    (lane(batch={"max": 3}), ("lanes", 2, "batch"), False, 0, 'batch needs the key "at"'),
    (
        lane(batch={"at": []}),
        ("lanes", 2, "batch", "at"),
        False,
        0,
        "at is a time of day such as 03:00, or a list of them",
    ),
    (lane(batch={"at": [3]}), ("lanes", 2, "batch", "at"), False, 0, "found the number 3"),
    (lane(batch={"at": "03:00", "max": 0}), ("lanes", 2, "batch", "max"), False, 0, "max is a whole number from 1"),
    (lane(holidays=1), ("lanes", 2, "holidays"), False, 0, "such as US or US-CA, written as text"),
    (lane(backup=1), ("lanes", 2, "backup"), False, 0, "backup is the name of a lane, written as text"),
    (lane(stall_after_sec=0), ("lanes", 2, "stall_after_sec"), False, 0, "stall_after_sec is a whole number from 1"),
    (lane(on_stall="move"), ("lanes", 2, "on_stall"), False, 0, "on_stall is one of alert, reroute"),
    (lane(on_stall="reroute"), ("lanes", 2, "on_stall"), False, 0, 'needs the key "backup"'),
    (seq("a") | {"lanes": ["a", {"max_running": 5}]}, ("lanes", 1), False, 0, 'a lane needs the key "id"'),
    # the plan
    (seq("a", title=1), ("title",), False, 0, "a plan's title is a text"),
    (seq("a", timezone=1), ("timezone",), False, 0, "timezone is an IANA name such as Europe/Vienna, written as text"),
    (seq("a", input_schema={"type": "strng"}), ("input_schema", "type"), False, 0, 'did you mean "string"?'),
    (seq("a", schedules={}), ("schedules",), False, 0, "schedules is a list of mappings of cron, reference, input"),
    (seq("a", schedules=["x"]), ("schedules", 0), False, 0, "a schedule is a mapping of cron, reference, input"),
    (seq("a", schedules=[{"cron": "0 6 * * *"}]), ("schedules", 0), False, 0, 'a schedule needs the key "reference"'),
    (seq("a", schedules=[{"reference": "r"}]), ("schedules", 0), False, 0, 'a schedule needs the key "cron"'),
    (
        seq("a", schedules=[{"cron": 5, "reference": "r"}]),
        ("schedules", 0, "cron"),
        False,
        0,
        "a schedule's cron is a text",
    ),
    (
        seq("a", schedules=[{"cron": "0 6 * * *", "reference": "r", "input": []}]),
        ("schedules", 0, "input"),
        False,
        0,
        "a schedule's input is a mapping",
    ),
    (
        seq("a", schedules=[{"cron": "0 6 * * *", "reference": "r"}] * 101),
        ("schedules",),
        False,
        0,
        "up to 100 entries",
    ),
]
BETWEEN_PARTS: list[Refusal] = [
    (
        seq(nested("choose", 21)),
        (*S0, *("choose", 0, "do", 0) * 20, "choose"),
        True,
        0,
        "depth of 20; this choose is one more",
    ),
    (seq(nested("parallel", 21)), (*S0, *("parallel", "x", 0) * 20, "parallel"), True, 0, "this parallel is one more"),
    (
        seq({"lane": "c", "undo": [nested("repeat", 20), {"lane": "b", "undo": ["c"]}]}),
        (*S0, "undo", 1, "undo"),
        True,
        0,
        "a step of an undo has no undo itself",
    ),
    (
        seq({"parallel": {"x": ["a"], "y": ["b"]}, "join": 3}),
        (*S0, "join"),
        False,
        0,
        "from 1 to 2, the branches; found the",
    ),
    (
        seq({"choose": [{"else": ["a"]}, {"when": "true", "do": ["b"]}]}),
        (*S0, "choose", 0, "else"),
        True,
        0,
        "else is the last option, and there is one at most",
    ),
    (seq({"choose": [{"else": ["a"]}, {"else": ["b"]}]}), (*S0, "choose", 0, "else"), True, 0, "one at most"),
    (seq({"plan": "p"}), (*S0, "plan"), False, 0, 'the plan "p" cannot be a step of itself'),
    (seq("a", {"parallel": {"x": ["b", "a"]}}), (*S1, "parallel", "x", 1), False, 0, "the other is step 1"),
    (
        seq({"parallel": {"x": ["b", {"choose": [{"when": "true", "do": ["a"]}]}]}}, {"lane": "c", "undo": ["a"]}),
        (*S1, "undo", 0),
        False,
        0,
        'two steps have the activity "a"; the other is step 1, branch "x", step 2, option 1, step 1',
    ),
    (seq("a", {"plan": "q", "id": "a"}), (*S1, "id"), False, 0, 'two steps are called "a"; the other is step 1'),
    (
        seq({"plan": "q", "id": "a"}, {"wait": {"for_sec": 1}, "id": "a"}),
        (*S1, "id"),
        False,
        0,
        'two steps are called "a"',
    ),
    (seq({"for_each": "input.l", "id": "a", "do": ["a"]}), (*S0, "do", 0), False, 0, 'two steps are called "a"'),
    # What an item may be called.
    *(
        (seq({"for_each": "input.l", "as": name, "do": ["a"]}), (*S0, "as"), False, 0, "means something else in CEL")
        for name in ("input", "outputs", "reference", "in", "true", "string", "optional")
    ),
    (
        seq({"for_each": "input.l", "as": "x", "do": [{"for_each": "x.l", "as": "x", "do": ["a"]}]}),
        (*S0, "do", 0, "as"),
        False,
        0,
        'the item cannot be called "x", like that of a for_each around it',
    ),
    (
        seq({"for_each": "input.l", "do": [{"for_each": "item.l", "do": ["a"]}]}),
        (*S0, "do", 0, "for_each"),
        False,
        0,
        'the item cannot be called "item", like that of a for_each around it; name it with "as"',
    ),
    (step(when="item.x"), (*S1, "when"), False, 0, 'there is no "item" here; expected input, outputs, reference'),
    (
        seq({"for_each": "input.l", "as": "page", "do": [{"lane": "a", "when": "[1].all(page, true)"}]}),
        (*S0, "do", 0, "when"),
        False,
        7,
        'a loop\'s variable cannot be called "page"',
    ),
    (
        seq({"for_each": "input.l", "as": "page", "do": [{"lane": "a", "when": "pag.x"}]}),
        (*S0, "do", 0, "when"),
        False,
        0,
        'there is no "pag" here; did you mean "page"?',
    ),
    # What may be read.
    (
        seq({"parallel": {"x": ["a"], "y": [{"lane": "b", "when": "outputs.a.ok"}]}}),
        (*S0, "parallel", "y", 0, "when"),
        False,
        8,
        '"a" is in another branch of the same parallel, so it may not be done yet',
    ),
    (
        seq({"repeat": [{"parallel": {"x": ["a"], "y": [{"lane": "b", "when": "outputs.a.ok"}]}}], "until": "true"}),
        (*S0, "repeat", 0, "parallel", "y", 0, "when"),
        False,
        8,
        "is in another branch of the same parallel",
    ),
    (
        seq({"choose": [{"when": "true", "do": ["a"]}, {"when": "outputs.a.ok", "do": ["b"]}]}),
        (*S0, "choose", 1, "when"),
        False,
        8,
        '"a" is in another option of the same choose, and only one of them is done',
    ),
    (
        seq({"id": "pages", "for_each": "input.l", "do": ["a"]}, {"lane": "b", "when": "outputs.a.ok"}),
        (*S1, "when"),
        False,
        8,
        '"a" is inside the for_each "pages", whose outputs are read as a list under that id; expected one of pages',
    ),
    (
        seq({"for_each": "input.l", "do": ["a"]}, {"lane": "b", "when": "outputs.a.ok"}),
        (*S1, "when"),
        False,
        8,
        '"a" is inside a for_each without an id, whose outputs are not kept',
    ),
    (
        seq({"lane": "a", "undo": ["c"]}, {"lane": "b", "when": "outputs.c.ok"}),
        (*S1, "when"),
        False,
        8,
        '"c" is in an undo, which is done when the job ends without success',
    ),
    (
        seq({"lane": "a", "undo": [{"lane": "b", "when": "outputs.c.ok"}]}, "c"),
        (*S0, "undo", 0, "when"),
        False,
        8,
        '"c" is not an earlier step, so it has no output yet; expected one of a',
    ),
    (
        seq({"repeat": ["a"], "when": "outputs.a.ok", "until": "true"}),
        (*S0, "when"),
        False,
        8,
        '"a" is not an earlier step, so it has no output yet; no step comes before this one',
    ),
    (
        seq({"for_each": "outputs.a.l", "do": ["a"], "id": "x"}),
        (*S0, "for_each"),
        False,
        8,
        '"a" is not an earlier step',
    ),
    # Lanes.
    (
        lane(backup="y"),
        ("lanes", 2, "backup"),
        False,
        0,
        'the backup lane "y" is not declared in lanes; expected one of a, b, x',
    ),
    (lane(backup="x"), ("lanes", 2, "backup"), False, 0, 'the lane "x" is its own backup; expected another lane'),
    (lane(open="Mon-Fry 08:00-17:00"), ("lanes", 2, "open"), False, 4, "open: "),
    (lane(batch={"at": "03:00, 25:00"}), ("lanes", 2, "batch", "at"), False, 7, "batch: "),
    (lane(batch={"at": ["03:00, 04:00", "25:00"]}), ("lanes", 2, "batch", "at", 1), False, 0, "batch: "),
    (lane(holidays="Narnia"), ("lanes", 2, "holidays"), False, 0, "holidays: "),
    (lane(open="Mon 08:00-17:00", batch={"at": "03:00"}), ("lanes", 2, "batch", "at"), False, 0, "it never opens"),
    (step(due="P1Y"), (*S1, "due"), False, 1, "due: years are not business days"),
    (seq("a", timezone="Europe/Viena"), ("timezone",), False, 0, 'did you mean "Europe/Vienna"?'),
    (
        seq("a", schedules=[{"cron": "0 25 * * *", "reference": "r-{date}"}]),
        ("schedules", 0, "cron"),
        False,
        2,
        "cron: ",
    ),
    (
        seq("a", schedules=[{"cron": "0 6 * * *", "reference": "r-{dat}"}]),
        ("schedules", 0, "reference"),
        False,
        2,
        'did you mean "{date}"?',
    ),
    (
        seq("a", input_schema={"properties": {"n": {"type": "integer"}}})
        | {"schedules": [{"cron": "0 6 * * *", "reference": "r", "input": {"n": "x"}}]},
        ("schedules", 0, "input", "n"),
        False,
        0,
        "the input does not fit input_schema: expected integer",
    ),
    (
        seq("a", input_schema={"required": ["n"]}, schedules=[{"cron": "0 6 * * *", "reference": "r"}]),
        ("schedules", 0),
        False,
        0,
        'the key "n" is required',
    ),
]


@pytest.mark.parametrize(
    ("document", "path", "on_key", "offset", "message"), SHAPES + BETWEEN_PARTS, ids=lambda value: str(value)[-50:]
)
def test_a_fault_is_told_at_its_own_place(
    document: dict[str, Any], path: tuple[str | int, ...], on_key: bool, offset: int, message: str
) -> None:
    (fault,) = faults_of(document)
    assert (fault.path, fault.on_key, fault.offset) == (path, on_key, offset)
    assert message in fault.message


@pytest.mark.parametrize("refusal", SHAPES, ids=lambda refusal: refusal[-1][-50:])
def test_the_schema_refuses_bad_shapes(refusal: Refusal) -> None:
    """All but what an expression gives, which only the reader knows."""
    assert SCHEMA.is_valid(refusal[0]) == any(word in refusal[-1] for word in ("gives", "there is no", "orValue"))


@pytest.mark.parametrize("block", ["parallel", "choose", "repeat"])
def test_blocks_nest_to_a_depth_of_20_in_a_file_too(block: str) -> None:
    document = seq(nested(block, 20))
    plan = read_plan(json.dumps(document), file="f")
    assert [step.activity for step in plan.steps] == ["a"]
    assert SCHEMA.is_valid(document)


def test_backups_in_a_circle_are_told_at_each_of_them() -> None:
    lanes = [{"id": "a", "backup": "b"}, {"id": "b", "backup": "c"}, {"id": "c", "backup": "b"}]
    first, second = faults_of(seq("a") | {"lanes": lanes})
    assert (first.path, first.message) == (
        ("lanes", 1, "backup"),
        'the backups lead back to this lane: "b" -> "c" -> "b"',
    )
    assert second.path == ("lanes", 2, "backup")


def test_at_most_1000_activities_in_all_lists() -> None:
    def many(count: int) -> dict[str, Any]:
        names = [f"n{number}" for number in range(count)]
        return seq({"parallel": {"x": names[:600], "y": names[600:]}}) | {"lanes": names[:1000]}

    assert len(parse_plan(many(1000)).steps) == 1000
    faults = faults_of(many(1001))
    assert [fault.message for fault in faults if fault.path == ("sequence",)] == [
        "a plan has at most 1000 activities; found 1001"
    ]


# Of every plan there is.


@given(made=full_plans(NAMES))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_plan_is_read_and_taken_by_the_schema(made: Made) -> None:
    plan = parse_plan(made.document)
    assert SCHEMA.is_valid(made.document)
    assert parse_plan(json.loads(json.dumps(made.document))) == plan
    walked = list(walk_plan(plan))
    assert [node for _, node in walked if isinstance(node, Step)] == list(plan.steps)
    assert [step.number for step in plan.steps] == list(range(len(plan.steps)))
    for path, node in walked:
        entry = at_place(made.document, path)
        if isinstance(node, Step):
            assert node.activity == (entry if isinstance(entry, str) else entry.get("activity", entry.get("lane")))
        elif isinstance(node, ForEach | Wait | SubPlan):
            assert node.id == entry.get("id")


REASONS = {
    "another branch": "is in another branch of the same parallel",
    "another option": "is in another option of the same choose",
    "undo": "is in an undo",
    "each": "is inside",
    "later": "is not an earlier step",
}


@given(made=full_plans(NAMES), data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_what_an_expression_may_not_read_is_refused_at_its_place(made: Made, data: st.DataObject) -> None:
    slots = [slot for slot in made.slots if len(made.readable(slot)) < len(made.names)]
    assume(slots)
    slot = data.draw(st.sampled_from(slots))
    closed = [given_ for given_ in made.names if why_not(given_.spot, slot.spot) is not None]
    given_ = data.draw(st.sampled_from(closed))
    slot.holder[slot.key] = reading(given_, slot.kind)
    (fault,) = faults_of(made.document)
    assert fault.path == slot.path
    assert fault.message.count(json.dumps(given_.name, ensure_ascii=False)) >= 1
    reason = why_not(given_.spot, slot.spot) or ""
    said = [word for word, text in REASONS.items() if text in fault.message]
    assert said == ["another branch"] if reason == "another branch" else said and "another branch" not in said


def at_place(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every value inside a document."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in parts:
        yield from places(item, (*path, key))


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 1, -1, 1.5, "", "a", "x y", "true", "outputs.a.ok", [], ["a"], {}, {"a": "human"}, {"id": "a"}]
)


@given(made=full_plans(NAMES), data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_put_into_a_plan_is_told_inside_it_and_the_schema_refuses_no_plan(
    made: Made, data: st.DataObject
) -> None:
    document = copy.deepcopy(made.document)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(document))[1:]))
        holder, key = at_place(document, path[:-1]), path[-1]
        if data.draw(st.booleans()):
            holder[key] = data.draw(JUNK)
        elif isinstance(holder, dict):
            value = holder.pop(str(key))
            holder[data.draw(st.sampled_from(["zz", "when", "do", "id", "input", "wait", f"{key}s"]))] = value
        else:
            holder.append(holder[0])
    try:
        parse_plan(document)
    except PlanError as error:
        for fault in error.faults:
            at_place(document, fault.path)
            assert fault.message
    else:
        assert SCHEMA.is_valid(document)
