"""Warnings for what is allowed in a plan and will hurt, plans that call each other, and ``oms plan check``."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from oms.cli import cli
from oms.domain.plan import Plan
from oms.domain.plan_links import called_plans, plan_cycle, refused_for_cycles, shown_cycle
from oms.domain.plan_lint import missing_plans, warnings
from oms.domain.plan_reader import parse_plan

GOOD_LANES: list[Any] = ["a", "b", "c"]


def seq(*entries: Any, lanes: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    uses = {"parallel": {"uses": [{"activity": f"use {name}", "lane": name} for name in GOOD_LANES]}}
    return {"id": "p", "lanes": [*GOOD_LANES, *(lanes or [])], "sequence": [*entries, uses], **more}


def use(name: str, **keys: Any) -> dict[str, Any]:
    return {"activity": name, "lane": "a", **keys}


VENDOR = {"id": "v", "kind": "vendor", "lease_sec": 9, "stall_after_sec": 9}
SOON = {"cron": "*/30 6 * * *", "reference": "r-{date}"}
Warned = tuple[dict[str, Any], tuple[str | int, ...], bool, str]
S0 = ("sequence", 0)
WARNED: list[Warned] = [
    (seq(lanes=["d"]), ("lanes", 3), False, 'no step and no backup uses the lane "d"; only /reroute brings it work'),
    (
        seq(use("x", lane="v"), lanes=[{**VENDOR, "lease_sec": 9} | {"stall_after_sec": None}]),
        ("lanes", 3),
        False,
        'the vendor lane "v" has no stall_after_sec: nobody is told that nothing is fetched',
    ),
    (
        seq(use("x", lane="v"), lanes=[{**VENDOR, "lease_sec": None}]),
        ("lanes", 3),
        False,
        'the vendor lane "v" has no lease_sec: what a vendor loses is missed after 7 days',
    ),
    (
        seq(use("x", lane="d"), lanes=[{"id": "d", "backup": "a", "on_stall": "reroute"}]),
        ("lanes", 3, "on_stall"),
        True,
        "on_stall: reroute does nothing without stall_after_sec",
    ),
    (seq(use("x", when="1 > 2")), (*S0, "when"), False, "this step is never done: its when is always false"),
    (seq(use("x", when="input.x && false")), (*S0, "when"), False, "this step is never done: its when is always false"),
    (
        seq({"wait": {"for_sec": 1}, "when": "false"}),
        (*S0, "when"),
        False,
        "this block is never done: its when is always false",
    ),
    (
        seq(use("x", undo=[use("y", when="false")])),
        (*S0, "undo", 0, "when"),
        False,
        "this step is never done: its when is always false",
    ),
    (
        seq({"choose": [{"when": "false", "do": [use("x")]}, {"else": [use("y")]}]}),
        (*S0, "choose", 0, "when"),
        False,
        "this option is never taken: its when is always false",
    ),
    (
        seq(
            {
                "choose": [
                    {"when": "input.x", "do": [use("x")]},
                    {"when": "true", "do": [use("y")]},
                    {"else": [use("z")]},
                ]
            }
        ),
        (*S0, "choose", 2),
        False,
        "this option is never taken: option 2 before it always holds",
    ),
    (
        seq({"parallel": {"x": [{"repeat": [use("x")], "until": "false"}]}}),
        (*S0, "parallel", "x", 0, "until"),
        False,
        "this repeat cannot end: until is always false, and after 10 rounds the job fails",
    ),
    (
        seq({"repeat": [use("x")], "until": "input.done"}),
        (*S0, "until"),
        False,
        "until reads nothing that the steps of this repeat give, so each round decides it as the first one",
    ),
    (
        seq({"wait": {"signal": "s", "on_timeout": "continue"}}),
        (*S0, "wait", "on_timeout"),
        True,
        "on_timeout does nothing without timeout_sec: the signal is waited for for ever",
    ),
    (
        seq(schedules=[{"cron": "0 6 * * *", "reference": "always"}]),
        ("schedules", 0, "reference"),
        False,
        "only the first fire starts a job: without {date} each has the same reference, which is the same job",
    ),
    (
        seq(schedules=[SOON]),
        ("schedules", 0, "reference"),
        False,
        "of the fires of a day only the first starts a job: {date} is the same for all of them",
    ),
]


def without_nothing(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document whose lanes have no empty keys."""
    lanes = [
        {key: value for key, value in lane.items() if value is not None} if isinstance(lane, dict) else lane
        for lane in document["lanes"]
    ]
    return {**document, "lanes": lanes}


@pytest.mark.parametrize(("document", "path", "on_key", "message"), WARNED, ids=lambda value: str(value)[-40:])
def test_what_will_hurt_is_told_at_its_place(
    document: dict[str, Any], path: tuple[str | int, ...], on_key: bool, message: str
) -> None:
    (warning,) = warnings(parse_plan(without_nothing(document)))
    assert (warning.path, warning.on_key, warning.offset, warning.message) == (path, on_key, 0, message)


def test_what_follows_a_repeat_without_end_is_never_reached() -> None:
    document = seq({"repeat": [use("x")], "until": "false"}, use("y"), use("z"))
    assert [(warning.path, warning.message) for warning in warnings(parse_plan(document))] == [
        (("sequence", 1), "this is never reached: the repeat before it, step 1, cannot end"),
        ((*S0, "until"), "this repeat cannot end: until is always false, and after 10 rounds the job fails"),
    ]


@pytest.mark.parametrize(
    "document",
    [
        seq(use("x", when="input.x"), use("y", when="true"), use("z", when="1 / 0 == 1")),
        seq(use("x", lane="v"), lanes=[VENDOR]),
        seq(use("x", lane="d"), lanes=[{"id": "d", "backup": "e"}, "e"]),
        seq({"repeat": [use("x")], "until": "outputs.x.ok"}),
        seq({"repeat": [{"wait": {"signal": "s"}, "id": "w"}], "until": "outputs.w.ok"}),
        seq({"repeat": [use("x")], "until": "true"}),
        seq({"choose": [{"when": "input.x", "do": [use("x")]}, {"else": [use("y")]}]}),
        seq({"wait": {"signal": "s", "timeout_sec": 9, "on_timeout": "continue"}}, {"wait": {"signal": "s"}}),
        seq(schedules=[{"cron": "0 6 * * *", "reference": "r-{date}"}]),
        seq({"repeat": [use("x")], "until": "input.x || outputs.x.ok", "when": "input.y"}),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_what_does_not_hurt_is_not_told(document: dict[str, Any]) -> None:
    assert warnings(parse_plan(document)) == []


# Plans that call each other.


def calling(name: str, *called: str) -> Plan:
    steps = [{"choose": [{"when": "input.x", "do": [{"plan": other}]}]} for other in called]
    return parse_plan({"id": name, "lanes": ["a"], "sequence": [*steps, "a"]})


def test_called_plans_are_found_wherever_they_stand() -> None:
    plan = parse_plan(
        seq(
            {"for_each": "input.l", "do": [{"repeat": [{"plan": "q"}, use("x")], "until": "outputs.x.ok"}]},
            use("y", undo=[{"plan": "r"}]),
            {"plan": "q"},
        )
    )
    assert called_plans(plan) == {"q", "r"}
    assert [(warning.path, warning.message) for warning in missing_plans(plan, ["qq", "r"])] == [
        (
            ("sequence", 0, "do", 0, "repeat", 0, "plan"),
            'the plan "q" is not among the files; did you mean "qq"?; until it is in force, this step fails',
        )
    ]


def test_a_circle_of_calls_is_named() -> None:
    plans = {plan.id: plan for plan in (calling("b", "c", "d"), calling("c"), calling("d", "e"), calling("e", "a"))}
    assert plan_cycle(calling("a", "c", "b"), plans) == ["a", "b", "d", "e", "a"]
    assert plan_cycle(calling("a", "c", "x"), plans) is None
    assert plan_cycle(calling("b", "c"), plans) is None
    assert shown_cycle(["a", "b", "a"]).endswith('a job would never end: "a" -> "b" -> "a"')


def test_the_plan_that_closes_a_circle_is_refused_and_what_was_in_force_stays() -> None:
    old = {"a": calling("a"), "b": calling("b", "a")}
    assert refused_for_cycles([calling("a", "b")], old) == {"a": ["a", "b", "a"]}
    # The other one changes with it: no circle.
    assert refused_for_cycles([calling("a", "b"), calling("b")], old) == {}
    assert refused_for_cycles([calling("b"), calling("a", "b")], old) == {}
    # One that is as it was is not to blame.
    assert refused_for_cycles([calling("b", "a"), calling("a", "b")], old) == {"a": ["a", "b", "a"]}
    # b is refused for c, so its old version stays, which closes a circle with the new a.
    new = [calling("a", "b"), calling("c", "b"), calling("b", "c")]
    assert refused_for_cycles(new, old) == {"b": ["b", "c", "b"], "a": ["a", "b", "a"]}


IDS = "abcde"
CALLS = st.dictionaries(st.sampled_from(IDS), st.lists(st.sampled_from(IDS), max_size=3), max_size=5)


@given(old=CALLS, new=CALLS)
@settings(deadline=None, max_examples=200)
def test_what_is_in_force_never_goes_in_a_circle(old: dict[str, list[str]], new: dict[str, list[str]]) -> None:
    def plans(calls: dict[str, list[str]]) -> list[Plan]:
        return [calling(name, *(other for other in called if other != name)) for name, called in calls.items()]

    def load(wishes: list[Plan], in_force: dict[str, Plan]) -> dict[str, Plan]:
        refused = refused_for_cycles(wishes, in_force)
        assert refused.keys() <= {plan.id for plan in wishes}
        return in_force | {plan.id: plan for plan in wishes if plan.id not in refused}

    before = load(plans(old), {})
    after = load(plans(new), before)
    for state in (before, after):
        assert all(plan_cycle(plan, state) is None for plan in state.values())
    for name, circle in refused_for_cycles(plans(new), before).items():
        assert circle[0] == circle[-1] == name
        known = before | {plan.id: plan for plan in plans(new)}
        assert all(two in called_plans(known[one]) or two in called_plans(before[one]) for one, two in pairwise(circle))


# The command.


def check(*files: Path) -> tuple[int, list[str]]:
    run = CliRunner().invoke(cli, ["plan", "check", *map(str, files)])
    return run.exit_code, run.output.splitlines()


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_warnings_leave_the_exit_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "p.yaml", "id: p\nlanes: [a, b]\nsequence:\n  - {lane: a, when: 'false'}\n  - {plan: letter}\n")
    first = "id: q\nschedules: [{cron: 0 6 * * *, reference: x}]\nlanes: [a, b]\nsequence: [a]\n"
    assert [line[:8] for line in check(write(tmp_path, "q.yaml", first).relative_to(tmp_path))[1]] == [
        "q.yaml:2",
        "q.yaml:3",
        "q.yaml: ",
    ]
    assert check(Path("p.yaml")) == (
        0,
        [
            'p.yaml:2:12: warning: no step and no backup uses the lane "b"; only /reroute brings it work',
            "p.yaml:4:21: warning: this step is never done: its when is always false",
            'p.yaml:5:12: warning: the plan "letter" is not among the files; until it is in force, this step fails',
            "p.yaml: ok: plan p, 1 steps, 2 lanes",
        ],
    )
    write(tmp_path, "letter.yaml", "id: letter\nlanes: [a]\nsequence: [a]\n")
    code, lines = check(Path("letter.yaml"), Path("p.yaml"))
    assert (code, lines[0], len(lines)) == (0, "letter.yaml: ok: plan letter, 1 steps, 1 lanes", 4)


def test_faults_are_told_for_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "bad.yaml", "id: bad\nlanes: [a]\nsequence: [b]\n")
    write(tmp_path, "good.yaml", "id: good\nlanes: [a]\nsequence: [a]\n")
    assert check(Path("bad.yaml"), Path("gone.yaml"), Path("good.yaml")) == (
        1,
        [
            'bad.yaml:3:12: the lane "b" is not declared in lanes; expected one of a',
            "gone.yaml:1:1: cannot be read: No such file or directory",
            "good.yaml: ok: plan good, 1 steps, 1 lanes",
        ],
    )


def test_plans_in_a_circle_are_a_fault_of_the_one_that_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, called in (("a", "b"), ("b", "c"), ("c", "a")):
        write(tmp_path, f"{name}.yaml", json.dumps({"id": name, "lanes": ["x"], "sequence": ["x", {"plan": called}]}))
    code, lines = check(Path("a.yaml"), Path("b.yaml"), Path("c.yaml"))
    assert code == 1
    assert lines == [
        "a.yaml: ok: plan a, 1 steps, 1 lanes",
        "b.yaml: ok: plan b, 1 steps, 1 lanes",
        'c.yaml:1:56: the plans call each other in a circle, so that a job would never end: "c" -> "a" -> "b" -> "c"',
    ]
    assert check(Path("a.yaml"), Path("b.yaml"))[0] == 0
