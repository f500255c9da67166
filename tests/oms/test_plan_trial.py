"""`oms plan try`: a job is walked through a plan by the real verbs, on a clock that jumps."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from oms.cli import cli
from oms.domain.plan_reader import parse_plan
from oms.domain.task import JobState
from oms.plan_tools.trial import walk as walking
from oms.plan_tools.trial.clock import Clock
from oms.plan_tools.trial.walk import Walked, walk
from oms.plan_tools.trial.wanted import Trial, TrialError
from tests.oms.walk import act, plan

MONDAY = "2026-03-02T09:00"


def tried(document: dict[str, Any], *others: dict[str, Any], **wanted: Any) -> Walked:
    """Walk a job through a plan, from a Monday morning on."""
    made = parse_plan(document)
    start_ms = Clock(made.timezone).read(wanted.pop("at", MONDAY))
    return walk(Trial(made, start_ms, [parse_plan(other) for other in others], **wanted))


def path(walked: Walked) -> list[str]:
    """Return the story as lines, without what the job itself says."""
    return [str(entry) for entry in walked.entries if entry.what != "job"]


def hours(walked: Walked) -> float:
    return (walked.end_ms - walked.start_ms) / 3_600_000


def test_the_path_of_a_job_is_told_step_by_step() -> None:
    walked = tried(
        plan(act("one"), act("two", "b", when="outputs.one.ok"), act("three", "c")),
        outputs={"one": {"ok": False}, "three": {"n": 1}},
    )
    assert path(walked) == [
        "queued  one  [a]",
        'done  one  {"ok":false}',
        "skipped  two  when outputs.one.ok",
        "queued  three  [c]",
        'done  three  {"n":1}',
    ]
    assert (walked.state, walked.why, hours(walked)) == (JobState.DONE, None, 0)
    assert walked.outputs == {"one": {"ok": False}, "three": {"n": 1}}
    assert [(task.name, task.activity, task.status, task.attempts) for task in walked.tasks] == [
        ("TASK-1", "one", "done", 1),
        ("TASK-2", "three", "done", 1),
    ]


def test_branches_items_rounds_and_options_are_named() -> None:
    inner = {"repeat": [act("draft"), act("check")], "until": "outputs.check.ok"}
    walked = tried(
        plan(
            {
                "parallel": {
                    "x y": [act("x")],
                    "z": [{"choose": [{"when": "false", "do": ["a"]}, {"else": [act("z")]}]}],
                }
            },
            {"id": "pages", "for_each": "input.pages", "as": "page", "do": [inner]},
        ),
        input={"pages": ["p", "q"]},
        outputs={"check": [{"ok": False}, {"ok": True}]},
    )
    places = [(task.activity, task.place) for task in walked.tasks]
    assert places == [
        ("x", "branch x y"),
        ("z", "branch z, else"),
        ("draft", "page 1, round 1"),
        ("draft", "page 2, round 1"),
        ("check", "page 1, round 1"),
        ("check", "page 2, round 1"),
        ("draft", "page 1, round 2"),
        ("check", "page 1, round 2"),
    ]
    assert "items  pages  2 of them" in path(walked)
    assert walked.outputs["pages"][1] == {"draft": {}, "check": {"ok": True}}


def test_of_a_list_each_task_of_the_activity_gets_its_own_output_and_then_the_last() -> None:
    each = {"id": "all", "for_each": "input.all", "do": [act("one", retry_policy={"attempts": 3, "backoff_sec": 9})]}
    walked = tried(
        plan(each),
        input={"all": [1, 2, 3]},
        outputs={"one": [{"n": 1}, {"n": 2}]},
        failures={"one": 1},
    )
    assert walked.outputs["all"] == [{"one": {"n": n}} for n in (1, 2, 2)]
    assert path(walked)[4:6] == [
        "failed  one  item 1  attempt 1",
        "again  one  [a]  item 1  from Mon 2026-03-02 09:00:09",
    ]


def test_attempts_that_are_used_up_end_the_job_and_undo_it() -> None:
    walked = tried(plan(act("pay", undo=[act("refund", "b")]), act("two")), failures={"two": 1})
    assert path(walked)[2:] == [
        "queued  two  [a]",
        "failed  two  attempt 1  for good",
        "queued  refund  [b]  undo of pay",
        "done  refund  undo of pay",
    ]
    assert walked.state is JobState.FAILED
    assert walked.why == "two: it was told to fail"


def test_a_job_that_waits_for_a_decision_is_not_done() -> None:
    walked = tried(plan(act("one", on_failure="pause"), act("two")), failures={"one": 1})
    assert walked.state is JobState.PAUSED
    assert walked.why is not None
    assert "/retry, /reroute or /skip" in walked.why


def test_an_output_that_the_schema_does_not_take_is_said_clearly() -> None:
    document = plan(act("one", output_schema={"type": "object", "required": ["approved"]}))
    walked = tried(document)
    assert walked.why is not None
    assert walked.why.startswith("the output_schema of one does not take {}, which is what it gives without --outputs")
    assert "approved" in walked.why
    wrong = tried(document, outputs={"one": {"aproved": True}})
    assert wrong.why is not None
    assert wrong.why.startswith("the output_schema of one does not take it here")
    assert tried(document, outputs={"one": {"approved": True}}).why is None


WAIT = {"id": "answer", "wait": {"signal": "answered", "timeout_sec": 7200, "on_timeout": "continue"}}


def test_a_signal_comes_when_the_job_waits_for_it() -> None:
    walked = tried(plan(act("one"), WAIT, act("two")), signals={"answered": [{"text": "yes"}]})
    assert path(walked)[2:5] == [
        "waits  answer  for the signal answered  until Mon 2026-03-02 11:00",
        "signal  answered",
        "over  answer  the signal came",
    ]
    assert walked.outputs["answer"] == {"text": "yes"}
    assert hours(walked) == 0


def test_where_nobody_gives_it_the_clock_jumps_to_the_timeout() -> None:
    walked = tried(plan(WAIT, act("two")))
    hint = "nobody gives it: --signal answered=DATA.json"
    assert path(walked)[:3] == [
        f"waits  answer  for the signal answered  until Mon 2026-03-02 11:00  {hint}",
        "over  answer  no answered came in time: continue",
        "queued  two  [a]",
    ]
    assert hours(walked) == 2


def test_a_signal_that_never_comes_is_named() -> None:
    walked = tried(plan({"wait": {"signal": "answered"}}))
    assert walked.state is JobState.QUEUED
    assert walked.why == "JOB-1 waits for the signal answered, which nobody gives: --signal answered=DATA.json"


def test_a_signal_that_nothing_waited_for_is_told() -> None:
    walked = tried(plan(WAIT), signals={"answered": [{}, {}]})
    assert (walked.why, walked.unused) == (None, ["answered"])


def test_the_clock_jumps_over_nights_batches_and_timers() -> None:
    lanes = [
        {"id": "clerk", "kind": "human", "open": "Mon-Fri 08:00-17:00"},
        {"id": "print", "kind": "vendor", "batch": {"at": "03:00", "max": 5}},
    ]
    document = plan(
        {"wait": {"for_sec": 36_000}}, act("check", "clerk"), act("print", "print"), lanes=lanes, timezone="Asia/Tokyo"
    )
    walked = tried(document)
    assert path(walked) == [
        "waits  wait  until Mon 2026-03-02 19:00",
        "over  wait  its time has come",
        "queued  check  [clerk]  from Tue 2026-03-03 08:00, when the lane opens",
        "done  check",
        "queued  print  [print]  from Wed 2026-03-04 03:00, the batch",
        "done  print",
    ]
    assert hours(walked) == 42


def test_where_nobody_works_the_task_stalls_and_goes_to_the_backup() -> None:
    lanes = [{"id": "a", "stall_after_sec": 3600, "on_stall": "reroute", "backup": "b"}, "b"]
    walked = tried(plan(act("one"), lanes=lanes), absent=frozenset({"a"}))
    assert path(walked) == [
        "queued  one  [a]",
        "stalled  one  [a]  queued for 1 h",
        "rerouted  one  a -> b  stalled",
        "done  one",
    ]
    assert walked.tasks[0].lane == "b"


@pytest.mark.parametrize("lane", ["a", {"id": "a", "open": "Mon-Fri 08:00-17:00"}])
def test_where_nobody_ever_works_that_is_said(lane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_QUIET_JUMPS", 10)
    walked = tried(plan(act("one"), lanes=[lane]), absent=frozenset({"a"}))
    assert walked.why == "one is queued in a, where nobody works"


def test_a_late_task_is_told() -> None:
    lanes = [{"id": "a", "open": "Mon-Fri 08:00-17:00"}]
    walked = tried(plan(act("one", due_sec=3600), lanes=lanes), at="2026-03-02T18:00")
    assert path(walked) == [
        "queued  one  [a]  from Tue 2026-03-03 08:00, when the lane opens  due Mon 2026-03-02 19:00",
        "done  one  late: it was due Mon 2026-03-02 19:00",
    ]


def test_a_rate_lets_through_what_it_lets_through() -> None:
    lanes = [{"id": "a", "rate": {"tasks": 2, "per_sec": 60}}]
    each = {"for_each": "input.all", "do": [act("one")]}
    walked = tried(plan(each, lanes=lanes), input={"all": [1, 2, 3, 4, 5]})
    assert (walked.state, walked.end_ms - walked.start_ms) == (JobState.DONE, 120_002)


LETTER = plan(act("write"), {"id": "sent", "wait": {"signal": "posted"}}, id="send_letter")
LETTERS = plan({"id": "letters", "plan": "send_letter", "input": {"to": "reference"}}, act("end", "b"))


def test_a_plan_that_is_called_is_walked_too() -> None:
    walked = tried(LETTERS, LETTER, signals={"posted": [{"stamp": 1}]}, outputs={"write": {"text": "hi"}})
    told = [str(entry) for entry in walked.entries]
    assert "job  send_letter TRY-1/letters  starts as JOB-2  a step of JOB-1" in told
    assert walked.outputs["letters"] == {"write": {"text": "hi"}, "sent": {"stamp": 1}}
    assert [task.job for task in walked.tasks] == ["JOB-2", "JOB-1"]


def test_a_plan_that_is_called_and_not_given_is_refused() -> None:
    with pytest.raises(TrialError, match='calls "send_letter"; name that plan\'s file'):
        tried(LETTERS)
    back = plan({"plan": "walked"}, id="send_letter")
    with pytest.raises(TrialError, match="circle"):
        tried(LETTERS, back)
    with pytest.raises(TrialError, match="two of the files"):
        tried(LETTER, LETTER)


def test_the_plans_own_schedules_start_no_jobs() -> None:
    schedules = [{"cron": "0 * * * *", "reference": "hour-{date}", "input": {}}]
    walked = tried(plan({"wait": {"for_sec": 86_400}}, act("one"), schedules=schedules))
    assert (len(walked.tasks), hours(walked)) == (1, 24)


def test_a_plan_that_goes_on_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_ATTEMPTS", 20)
    again = {"repeat": [act("one")], "until": "has(outputs.one.good)", "max_rounds": 1000}
    walked = tried(plan(again))
    assert len(walked.tasks) == 21
    assert walked.why is not None
    assert "20 attempts" in walked.why


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"outputs": {"on": {}}}, 'for the activity "on", which no plan here has; did you mean "one"'),
        ({"outputs": {"one": []}}, "empty list"),
        ({"failures": {"on": 1}}, 'did you mean "one"'),
        ({"signals": {"x": [{}]}}, 'signal "x", which no plan here has; there is none'),
        ({"absent": frozenset({"q"})}, 'lane "q", which no plan here has; there are a, b, c'),
        ({"input": {}}, "input_schema"),
        ({"at": "noon"}, "2026-11-25T08:00"),
    ],
)
def test_what_cannot_be_tried_is_refused(wanted: dict[str, Any], message: str) -> None:
    document = plan(act("one"), input_schema={"type": "object", "required": ["name"]})
    with pytest.raises(TrialError, match=message.replace("{", r"\{")):
        tried(document, **{"input": {"name": "x"}, **wanted})


# The command


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "p.plan.yaml").write_text(
        "id: p\ntimezone: Europe/Berlin\nlanes: [a]\nsequence:\n"
        "  - {activity: one, lane: a, output_schema: {required: [ok]}}\n"
        "  - {wait: {signal: go}}\n  - {activity: two, lane: a, when: outputs.one.ok}\n"
    )
    for name, content in {
        "outputs.json": {"one": [{"ok": True}]},
        "input.json": {"x": 1},
        "go.json": {},
        "list.json": [],
        "wrong.json": {"one": [1]},
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "broken.json").write_text("{")
    return tmp_path


def command(files: Path, *flags: str) -> Any:
    parts = [flag.replace("@", f"{files}/") for flag in flags]
    return CliRunner().invoke(cli, ["plan", "try", f"{files}/p.plan.yaml", "--at", MONDAY, *parts])


def test_the_command_prints_the_path_the_tasks_and_the_clock(files: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("oms-try-*"))
    result = command(
        files, "--input", "@input.json", "--outputs", "@outputs.json", "--signal", "go=@go.json", "--fail", "two:1"
    )
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    assert result.stdout.startswith("Mon 2026-03-02 09:00\n  job       p TRY-1")
    assert "Mon 2026-03-02 09:00:30  (+30 s)\n  done      two" in result.stdout
    assert "The job of p is done after 30 s, at Mon 2026-03-02 09:00:30 Europe/Berlin." in result.stdout
    assert set(Path(tempfile.gettempdir()).glob("oms-try-*")) <= before, "the temporary database is gone"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--outputs"),
        (("--outputs", "@outputs.json"), "--signal go=DATA.json"),
        (("--outputs", "@none.json"), "cannot be read"),
        (("--outputs", "@broken.json"), "is no JSON"),
        (("--outputs", "@list.json"), "JSON object; found a list of 0"),
        (("--outputs", "@wrong.json"), 'the output of "one" is to be an object'),
        (("--fail", "one"), "such as check_photo:2"),
        (("--fail", "one:x"), "such as check_photo:2"),
        (("--signal", "went"), "no plan here has"),
    ],
)
def test_the_command_ends_with_1_and_says_why(files: Path, flags: tuple[str, ...], message: str) -> None:
    result = command(files, *flags)
    assert result.exit_code == 1
    assert message in result.output
