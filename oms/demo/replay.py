"""Runs a whole event log through OMS again, and checks that ACT tells the same story."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from oms.demo.crew import Crew
from oms.demo.event_log import Case
from oms.demo.ledger import Ledger
from oms.demo.meters import Meters
from oms.demo.variants import PLAN_PREFIX, Variant, variants_of
from oms.worker import OmsClient, OmsProblem, ReleaseTask, Task, Worker

START_LIST = 500
PULL_MAX = 500
STALL_SEC = 60.0
"""The longest that nothing may move before the replay gives up."""
WAIT_SEC = 1.0
MOST_SHOWN = 20


class ReplayError(Exception):
    """The log cannot be replayed against this OMS; the message says what to do."""


@dataclass(slots=True)
class Replayed:
    """What a replay came to.

    Attributes:
        cases: how many were run.
        variants: how many plans they needed.
        activities: how many there are in the log.
        seconds: from the first start to the last event in the ledger.
        job_ids: the jobs, in the order of the cases.
        typical_job_id: one of the most frequent variant.
        differences: in what the ledger differs from the log; empty where it says the same.
    """

    cases: int
    variants: int
    activities: int
    seconds: float = 0.0
    job_ids: list[str] = field(default_factory=list)
    typical_job_id: str = ""
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Run:
    """A case with its plan and its reference in this run."""

    case: Case
    variant: Variant
    reference: str


def replay(
    cases: Sequence[Case],
    oms: OmsClient,
    ledger: Ledger,
    console: Console,
    *,
    workers_per_lane: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Replayed:
    """Run every case as a job of its variant's plan, and compare what ACT has with the log.

    Args:
        cases: an event log, from `read_event_log`.
        oms: where the jobs run. Its lanes of the log's names should be free for it.
        ledger: the ACT that this OMS posts to.
        console: where the progress goes.
        workers_per_lane: how many workers each lane gets.
        check: called now and then; raises where it makes no sense to go on.

    Raises:
        ReplayError: a lane has other work, or OMS refuses a plan or a case.
        StalledError: nothing moved for a minute.
    """
    variants = variants_of(cases)
    # A run of its own each time: the same reference again would be the same job again.
    run_id = uuid.uuid4().hex[:8]
    variant_of = {case.case_id: variant for variant in variants for case in variant.cases}
    runs = [_Run(case, variant_of[case.case_id], f"{case.case_id}/{run_id}") for case in cases]
    replayed = Replayed(len(cases), len(variants), sum(len(case.events) for case in cases))
    console.print(
        f"{replayed.cases:,} cases, {replayed.activities:,} activities, {replayed.variants} variants", highlight=False
    )
    lanes = sorted({lane for variant in variants for lane in variant.lanes})
    _check_free(oms, lanes)
    for variant in variants:
        oms.put_plan(variant.plan)
    from_row = ledger.size() - 1
    started_at = time.monotonic()
    totals = {"cases started": replayed.cases, "activities done": replayed.activities, "in the ledger": 0}
    totals["in the ledger"] = replayed.activities + replayed.cases
    with Meters(console, totals) as meters, Crew() as crew:
        for lane in lanes:
            for number in range(workers_per_lane):
                worker = Worker(
                    lane=lane, worker=f"replay-{run_id}-{number + 1}", max=PULL_MAX, wait_sec=WAIT_SEC, client=oms
                )
                crew.add(worker, _do_nothing)
        for job_ids in _start(oms, runs):
            replayed.job_ids += job_ids
            meters.show(cases_started=len(replayed.job_ids), activities_done=crew.done)
        story = _Story(ledger, after=from_row, references={run.reference for run in runs})

        def is_told() -> bool:
            check()
            crew.check()
            story.read_on()
            meters.show(activities_done=crew.done, in_the_ledger=story.done)
            return story.done >= totals["in the ledger"]

        meters.wait_for(is_told, stall_sec=STALL_SEC)
        replayed.seconds = time.monotonic() - started_at
    replayed.typical_job_id = replayed.job_ids[cases.index(variants[0].cases[0])]
    replayed.differences = [difference for run in runs for difference in story.differences(run)]
    return replayed


def print_replayed(console: Console, replayed: Replayed) -> None:
    """Print what a replay came to."""
    for difference in replayed.differences[:MOST_SHOWN]:
        console.print(f"differs: {difference}", highlight=False, style="red", markup=False)
    if len(replayed.differences) > MOST_SHOWN:
        console.print(f"... and {len(replayed.differences) - MOST_SHOWN} more", highlight=False)
    verdict = f"{len(replayed.differences)} cases differ" if replayed.differences else "nothing differs from the log"
    console.print(
        f"{replayed.cases:,} cases, {replayed.activities:,} activities in {replayed.seconds:.1f} s "
        f"({replayed.activities / max(replayed.seconds, 0.001):,.0f} activities/s): {verdict}.",
        highlight=False,
        style="red" if replayed.differences else "green",
    )


class _Story:
    """What ACT tells of this run: of each reference, the activities that were done, in the ledger's order."""

    def __init__(self, ledger: Ledger, *, after: int, references: set[str]) -> None:
        self.done = 0
        self._ledger = ledger
        self._after = after
        self._told: dict[str, list[str]] = {reference: [] for reference in references}
        self._ended: dict[str, int] = dict.fromkeys(references, 0)

    def read_on(self) -> None:
        """Take what has come since."""
        while rows := self._ledger.rows_after(self._after, "done"):
            self._after = rows[-1]["id"]
            for row in rows:
                if row["reference"] in self._told:
                    self._take(row)

    def _take(self, row: dict[str, Any]) -> None:
        self.done += 1
        if row["task_id"] is None:
            self._ended[row["reference"]] += 1
        else:
            self._told[row["reference"]].append(row["activity"])

    def differences(self, run: _Run) -> Iterator[str]:
        """Yield in what the ledger differs from the log about a case."""
        told = [run.variant.logged_as.get(activity, activity) for activity in self._told[run.reference]]
        logged = list(run.case.activities)
        if told != logged:
            yield f"{run.case.case_id}: the log has {logged}, the ledger {told}"
        elif self._ended[run.reference] != 1:
            yield f"{run.case.case_id}: its job is done {self._ended[run.reference]} times in the ledger"


def _do_nothing(tasks: list[Task]) -> list[dict[str, Any] | Exception]:
    """Do the work of a batch: in the log it was done long ago."""
    return [
        {} if task.plan.startswith(PLAN_PREFIX) else ReleaseTask("no work of the replay that holds this lane")
        for task in tasks
    ]


def _check_free(oms: OmsClient, lanes: Sequence[str]) -> None:
    """Refuse to work off what is not ours: a replay completes whatever is in its lanes."""
    busy = {lane["lane"] for lane in oms.lanes() if lane["queued"] or lane["running"]}
    for lane in busy.intersection(lanes):
        for status in ("queued", "running"):
            for task in oms.tasks(lane=lane, status=status):
                if not task["plan"].startswith(PLAN_PREFIX):
                    raise ReplayError(
                        f"the lane {lane!r} has work of the plan {task['plan']!r}, which a replay would complete "
                        "without doing it; use an OMS of its own"
                    )


def _start(oms: OmsClient, runs: Sequence[_Run]) -> Iterator[list[str]]:
    """Start every case, in lists; yield each list's job ids."""
    for first in range(0, len(runs), START_LIST):
        some = runs[first : first + START_LIST]
        answers = oms.start_many([{"plan": run.variant.plan_id, "reference": run.reference} for run in some])
        for run, answer in zip(some, answers, strict=True):
            if isinstance(answer, OmsProblem):
                raise ReplayError(f"the case {run.case.case_id} was refused: {answer}")
        yield [answer["job_id"] for answer in answers if not isinstance(answer, OmsProblem)]
