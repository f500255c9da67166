"""The backtest of the estimates: it knows only what had happened, and its figures are right."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from oms.demo.event_log import Case, LoggedEvent, read_event_log

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "bench" / "eta_backtest.py"
MUNICIPAL_LOG = ROOT.parent / "shared" / "data" / "receipt.csv"
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def backtest() -> ModuleType:
    spec = importlib.util.spec_from_file_location("eta_backtest", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["eta_backtest"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def a_log(*, seed: int, count: int = 160) -> list[Case]:
    """Return cases that begin one after the other, some hours apart, and take a few days: an office without seasons."""
    chance = random.Random(seed)
    at = BEGIN
    cases = []
    for number in range(count):
        at += timedelta(hours=chance.expovariate(1 / 5))
        names = ["receive", *(["ask"] if chance.random() < 0.3 else []), "check", "send"]
        events, now = [], at
        for name in names:
            events.append(LoggedEvent(name, "desk", now))
            now += timedelta(hours=chance.lognormvariate(2, 1.2))
        cases.append(Case(f"case-{number}", tuple(events)))
    return cases


def until(cases: list[Case], end: datetime, *, then: timedelta) -> list[Case]:
    """Return the log with another future: what comes after ``end`` comes that much later."""
    return [
        replace(
            case,
            events=tuple(replace(event, at=event.at + then) if event.at > end else event for event in case.events),
        )
        for case in cases
    ]


def test_nothing_of_the_future_is_known(backtest: ModuleType) -> None:
    cases = a_log(seed=1)
    end = cases[110].events[0].at
    end_ms = round(end.timestamp() * 1000)
    told, told_otherwise = (
        [answer for answer in backtest.replay(log) if answer.at_ms <= end_ms]
        for log in (cases, until(cases, end, then=timedelta(days=900)))
    )
    assert told == told_otherwise
    assert sum(answer.low is not None for answer in told) > 100
    # What was foretold is not the truth itself: the range and the baselines are of others.
    ends_ms = [round(case.events[-1].at.timestamp() * 1000) for case in cases]
    assert all(answer.median != ends_ms[answer.case] - answer.at_ms for answer in told if answer.low is not None)


def test_a_case_is_asked_about_after_each_event_and_at_its_ages_until_it_is_over(backtest: ModuleType) -> None:
    hours = (0, 2, 2, 30)
    events = tuple(LoggedEvent(f"a{hour}", "g", BEGIN + timedelta(hours=hour)) for hour in hours)
    answers = list(backtest.replay([Case("one", events)]))
    begin_ms = round(BEGIN.timestamp() * 1000)
    assert [((answer.at_ms - begin_ms) / 3_600_000, str(answer.asked)) for answer in answers] == [
        (0, "after an event"),
        (1, "at an age"),
        (2, "after an event"),
        (4, "at an age"),
        (24, "at an age"),
    ]
    assert all(answer.low is None and answer.others == {} for answer in answers)


def test_the_range_holds_what_it_promises_where_the_past_is_like_the_future(backtest: ModuleType) -> None:
    cases = a_log(seed=2)
    answers = list(backtest.replay(cases))
    score = backtest.score(cases, answers)
    assert score.answered > 0.7 * score.asked
    assert 0.55 < score.inside < 0.65
    assert score.inside + score.below + score.above == pytest.approx(1)
    others = {name: error for name, error in score.errors.items() if name != "estimate"}
    assert len(others) == 4
    assert score.errors["estimate"] < min(error for name, error in others.items() if "mean" in name)


def test_the_figures_are_right(backtest: ModuleType) -> None:
    hour_ms = 3_600_000
    at_ms = round(BEGIN.timestamp() * 1000)
    case = Case("one", (LoggedEvent("a", "g", BEGIN), LoggedEvent("b", "g", BEGIN + timedelta(hours=10))))
    others = dict.fromkeys(backtest.BASELINES, 4.0 * hour_ms)

    def answer(low: float | None, median: float, high: float) -> object:
        ends = (None if low is None else low * hour_ms, median * hour_ms, high * hour_ms)
        return backtest.Answer(0, at_ms, backtest.Asked.EVENT, *ends, others)

    answers = [answer(9, 9, 11), answer(10, 10, 10), answer(11, 12, 13), answer(7, 8, 9), answer(None, 0, 0)]
    score = backtest.score([case], answers)
    assert (score.asked, score.answered) == (5, 4)
    assert (score.inside, score.below, score.above, score.width) == (0.5, 0.25, 0.25, 2.0)
    assert score.errors == {"estimate": 1.25, **dict.fromkeys(backtest.BASELINES, 6.0)}
    nothing = backtest.score([case], answers[-1:])
    assert (nothing.asked, nothing.answered, nothing.errors) == (1, 0, {})


def test_the_baselines_are_of_what_was_over(backtest: ModuleType) -> None:
    def case(number: int, *hours: float) -> Case:
        begin = BEGIN + timedelta(days=number)
        events = zip("xyz", hours, strict=False)
        return Case(str(number), tuple(LoggedEvent(name, "g", begin + timedelta(hours=hour)) for name, hour in events))

    cases = [case(0, 0, 0.5), case(1, 0, 0.25), case(2, 0, 0.5, 0.75)]
    answers = [answer for answer in backtest.replay(cases) if answer.case == 2]
    hour_ms = 3_600_000
    assert [answer.others["mean by activity"] / hour_ms for answer in answers] == [0.375, 0.375]
    assert {answer.others["global mean"] / hour_ms for answer in answers} == {0.375}


def test_the_command(
    backtest: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case:concept:name", "concept:name", "org:group", "time:timestamp"])
        for case in a_log(seed=3, count=60):
            writer.writerows([case.case_id, event.activity, event.group, event.at] for event in case.events)
    monkeypatch.setattr(sys, "argv", ["eta_backtest.py", str(log)])
    assert backtest.main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("60 cases")
    for name in ("ended inside the range", "estimate", *backtest.BASELINES):
        assert f"\n{name}" in shown or f"\n  {name}" in shown
    assert "as aimed at (55% to 65% for the 60 % range)" in shown
    monkeypatch.setattr(sys, "argv", ["eta_backtest.py", str(tmp_path / "none.csv")])
    assert backtest.main() == 1
    assert "none.csv: cannot be read" in capsys.readouterr().err


def test_on_the_first_cases_of_a_real_log(backtest: ModuleType) -> None:
    if not MUNICIPAL_LOG.exists():
        assert not os.environ.get("CI"), f"{MUNICIPAL_LOG} is missing"
        pytest.skip("the municipal log is not here")
    cases = read_event_log(MUNICIPAL_LOG)[:250]
    score = backtest.score(cases, list(backtest.replay(cases)))
    assert score.answered > 1000
    assert 0.5 < score.inside < 0.7
    assert score.errors["estimate"] < min(score.errors[name] for name in backtest.BASELINES if "mean" in name)
