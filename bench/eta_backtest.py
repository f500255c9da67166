"""How good the estimates of ``oms.domain.eta`` are on a real event log. ``python bench/eta_backtest.py LOG.csv``.

The log (CSV, the columns of the XES standard) is told again in the order of its times. Right after each event of a
case, and whenever a case has reached certain ages, it is asked when the case will end; only what had happened by then
is known. That a case is over is known from its last event on, as OMS knows that a job is done. docs/eta.md has figures.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from oms.demo.event_log import Case, EventLogError, read_event_log
from oms.domain.eta import MIN_JOBS, Phase, Standing, forecast
from oms.domain.eta_history import History, PastJob, Visit, newest

HOUR_MS = 3_600_000
AGES_HOURS = (1, 4, 24, 72, 168, 336, 720)
"""At these ages, too, it is asked when an open case will end: mostly it stands still then."""
AIM = (0.55, 0.65)
LEAST_BUCKET_MS = 60_000


class Asked(StrEnum):
    """When it is asked."""

    EVENT = "after an event"
    AGE = "at an age"


@dataclass(frozen=True, slots=True)
class Told:
    """An event, as it becomes known.

    Attributes:
        case: the number of its case.
        at_ms: milliseconds since the epoch.
        activity: what was done.
        is_last: the case is over with it.
    """

    case: int
    at_ms: int
    activity: str
    is_last: bool


@dataclass(slots=True)
class OpenCase:
    """What is known of a case that is not over.

    Attributes:
        events: (time, activity), in order.
        asked: (time, activity, bucket of the age) of each time it was asked when it will end.
    """

    events: list[tuple[int, str]] = field(default_factory=list)
    asked: list[tuple[int, str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was foretold, at ``at_ms``, of the time that a case still needs, in milliseconds.

    Attributes:
        low: the estimate's range; None where it gives none.
        median: the estimate.
        high: the range's other end.
        others: by name what the baselines say; none before anything is known.
    """

    case: int
    at_ms: int
    asked: Asked
    low: float | None
    median: float
    high: float
    others: dict[str, float]


Key = Callable[[str, int], object]
Summary = Callable[[Sequence[float]], float]
BASELINES: dict[str, tuple[Key, Summary]] = {
    "global mean": (lambda _activity, _bucket: None, statistics.fmean),
    "mean by activity": (lambda activity, _bucket: activity, statistics.fmean),
    "mean by activity and age": (lambda activity, bucket: (activity, bucket), statistics.fmean),
    "median by activity and age": (lambda activity, bucket: (activity, bucket), statistics.median),
}
"""What else could be foretold. An error is less with a median than with a mean where few cases take very long, so that
the last one, which nobody asked for, is the fairest."""


class Knowledge:
    """All that is known at one moment: open cases, and what is learned of those that are over."""

    def __init__(self) -> None:
        self.open: dict[int, OpenCase] = {}
        self._past: list[PastJob] = []
        self._history: History | None = None
        self._remaining: dict[tuple[str, object], list[float]] = defaultdict(list)
        self._summaries: dict[tuple[str, object], float] = {}

    def learn(self, told: Told) -> None:
        """Take in an event."""
        case = self.open.setdefault(told.case, OpenCase())
        case.events.append((told.at_ms, told.activity))
        if told.is_last:
            del self.open[told.case]
            self._learn_end(case, told.at_ms)

    def _learn_end(self, case: OpenCase, end_ms: int) -> None:
        start_ms = case.events[0][0]
        # The log has no starts of work: all of the time lies between the events.
        visits = tuple(
            Visit(activity, "", at_ms - start_ms, at_ms - start_ms, wait_ms=0, work_ms=0)
            for at_ms, activity in case.events
        )
        self._past = newest([*self._past, PastJob(end_ms, end_ms - start_ms, visits)])
        self._history = None
        for at_ms, activity, bucket in case.asked:
            for name, (key, _) in BASELINES.items():
                place = (name, key(activity, bucket))
                self._remaining[place].append(end_ms - at_ms)
                self._summaries.pop(place, None)

    def ask(self, number: int, at_ms: int, asked: Asked) -> Answer:
        """Foretell how much longer an open case takes."""
        case = self.open[number]
        since_ms, activity = case.events[-1]
        bucket = math.floor(math.log2(max(at_ms - case.events[0][0], LEAST_BUCKET_MS)))
        others = self._others(activity, bucket)
        case.asked.append((at_ms, activity, bucket))
        rounds = sum(1 for _, name in case.events if name == activity)
        if self._history is None:
            self._history = History(self._past)
        standing = Standing(Phase.BETWEEN, activity, None, since_ms, round=rounds)
        # Which job it is decides the chance in its estimate, as it does in OMS.
        unit = random.Random(number).random  # noqa: S311 - no secret
        found = forecast(self._history, standing, {}, now_ms=at_ms, random_unit=unit)
        if found is None:
            return Answer(number, at_ms, asked, None, 0.0, 0.0, others)
        low, median, high = (value - at_ms for value in (found.low_ms, found.median_ms, found.high_ms))
        return Answer(number, at_ms, asked, low, median, high, others)

    def _others(self, activity: str, bucket: int) -> dict[str, float]:
        if not self._remaining:
            return {}
        answers: dict[str, float] = {}
        known = "global mean"
        for name, (key, summary) in BASELINES.items():
            place = (name, key(activity, bucket))
            if place not in self._summaries and place in self._remaining:
                self._summaries[place] = summary(self._remaining[place])
            # Of what was never seen, the next coarser baseline speaks.
            answers[name] = self._summaries[place] if place in self._summaries else answers[known]
            known = name
        return answers


def replay(cases: Sequence[Case]) -> Iterator[Answer]:
    """Tell the log's events in the order of their times, and yield what is foretold in between."""
    told = sorted(_told(cases), key=lambda event: event.at_ms)
    knowledge = Knowledge()
    ages: list[tuple[int, int]] = []
    index = 0
    while index < len(told) or ages:
        at_ms = min(told[index].at_ms if index < len(told) else ages[0][0], ages[0][0] if ages else told[index].at_ms)
        stirred: dict[int, None] = {}
        while index < len(told) and told[index].at_ms == at_ms:
            event = told[index]
            index += 1
            if event.case not in knowledge.open:
                for hours in AGES_HOURS:
                    heapq.heappush(ages, (at_ms + hours * HOUR_MS, event.case))
            knowledge.learn(event)
            stirred[event.case] = None
        for case in stirred:
            if case in knowledge.open:
                yield knowledge.ask(case, at_ms, Asked.EVENT)
        while ages and ages[0][0] == at_ms:
            _, case = heapq.heappop(ages)
            if case in knowledge.open and case not in stirred:
                yield knowledge.ask(case, at_ms, Asked.AGE)


def _told(cases: Sequence[Case]) -> Iterator[Told]:
    for number, case in enumerate(cases):
        for place, event in enumerate(case.events):
            at_ms = round(event.at.timestamp() * 1000)
            yield Told(number, at_ms, event.activity, is_last=place == len(case.events) - 1)


@dataclass(frozen=True, slots=True)
class Score:
    """How good the answers were. Times are hours.

    Attributes:
        asked: how often it was asked.
        answered: how often there was an estimate; all else is about these.
        inside: the share of them whose range had the truth in it; ``below`` and ``above``: it ended before, after.
        width: the median width of the ranges.
        errors: the mean absolute error of the estimate's median (``estimate``) and of each baseline.
    """

    asked: int
    answered: int
    inside: float
    below: float
    above: float
    width: float
    errors: dict[str, float]


def score(cases: Sequence[Case], answers: Sequence[Answer]) -> Score:
    """Compare answers with what became of the cases."""
    ends_ms = [round(case.events[-1].at.timestamp() * 1000) for case in cases]
    given = [
        (answer, answer.low, ends_ms[answer.case] - answer.at_ms)
        for answer in answers
        if answer.low is not None and answer.others
    ]
    if not given:
        nothing = math.nan
        return Score(len(answers), 0, nothing, nothing, nothing, nothing, {})
    errors = {"estimate": statistics.fmean(abs(answer.median - truth) for answer, _, truth in given) / HOUR_MS}
    for name in BASELINES:
        errors[name] = statistics.fmean(abs(answer.others[name] - truth) for answer, _, truth in given) / HOUR_MS
    return Score(
        asked=len(answers),
        answered=len(given),
        inside=statistics.fmean(low <= truth <= answer.high for answer, low, truth in given),
        below=statistics.fmean(truth < low for _, low, truth in given),
        above=statistics.fmean(truth > answer.high for answer, _, truth in given),
        width=statistics.median(answer.high - low for answer, low, _ in given) / HOUR_MS,
        errors=errors,
    )


def report(cases: Sequence[Case]) -> str:
    """Run the whole log; return the figures as a table."""
    began = time.perf_counter()
    answers = list(replay(cases))
    each_ms = (time.perf_counter() - began) * 1000 / max(1, len(answers))
    columns = {str(asked): [answer for answer in answers if answer.asked is asked] for asked in Asked}
    scores = [score(cases, some) for some in [*columns.values(), answers]]
    heads = [*columns, "all"]
    events = sum(len(case.events) for case in cases)
    lines = [
        f"{len(cases):,} cases, {events:,} events; asked {len(answers):,} times, {each_ms:.1f} ms each",
        f"(no estimate out of fewer than {MIN_JOBS} cases that are over)",
        _row("", heads),
        _row("asked", [f"{one.asked:,}" for one in scores]),
        _row("estimates given", [f"{one.answered:,}" for one in scores]),
        _row("ended inside the range", [f"{one.inside:.1%}" for one in scores]),
        _row("  before it", [f"{one.below:.1%}" for one in scores]),
        _row("  after it", [f"{one.above:.1%}" for one in scores]),
        _row("median width of the range", [f"{one.width:.1f} h" for one in scores]),
        "mean absolute error",
    ]
    lines += [
        _row(f"  {name}", [f"{one.errors.get(name, math.nan):.1f} h" for one in scores])
        for name in ("estimate", *BASELINES)
    ]
    quarters = [score(cases, answers[len(answers) * part // 4 : len(answers) * (part + 1) // 4]) for part in range(4)]
    lines.append("inside, by quarter of the questions: " + ", ".join(f"{one.inside:.1%}" for one in quarters))
    inside = scores[-1].inside
    verdict = "as aimed at" if AIM[0] <= inside <= AIM[1] else "NOT as aimed at"
    lines.append(f"inside {inside:.1%}: {verdict} ({AIM[0]:.0%} to {AIM[1]:.0%} for the 60 % range)")
    return "\n".join(lines)


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name:30}" + "".join(f"{value:>16}" for value in values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, help="an event log: CSV with the columns of the XES standard")
    try:
        cases = read_event_log(parser.parse_args().log)
    except EventLogError as error:
        print(f"eta_backtest: {error}", file=sys.stderr)
        return 1
    print(report(cases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
