"""Walk a job through a plan: let the workers do what they are told, and the clock jump when nothing is left to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from oms.domain.errors import InvalidInputError, OmsError, StaleTokenError
from oms.domain.run import BlockKind, BlockRun, RunState
from oms.domain.task import JobState, Task, TaskStatus
from oms.plan_tools.drawing.words import printable
from oms.plan_tools.trial.clock import Clock
from oms.plan_tools.trial.places import place_words
from oms.plan_tools.trial.site import Site, temporary_site
from oms.plan_tools.trial.story import Entry, Story
from oms.plan_tools.trial.wanted import Trial, TrialError
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.signal import Signal, signal
from oms.sequencer.start import Start, start
from oms.sequencer.views import job_view
from oms.storage.runs import block_of_row
from oms.storage.tables import blocks

WORKER = "try"
AT_ONCE = 1_000
MAX_ATTEMPTS = 5_000
"""So many attempts a trial has at most."""
MAX_REASONS = 10
MAX_QUIET_JUMPS = 500
"""So often the clock jumps at most without anything happening: lanes that open and close, and nobody works there."""


@dataclass(frozen=True, slots=True)
class DoneTask:
    """What became of a task.

    Attributes:
        name: ``TASK-7``.
        job: ``JOB-1``.
        activity: the work.
        place: which branch, item or round.
        lane: where it was last.
        status: how it is now.
        attempts: how often it was handed out.
        queued_ms: when it was queued first.
        ended_ms: when its last attempt ended; None where none has.
        output: what it gave, JSON.
    """

    name: str
    job: str
    activity: str
    place: str
    lane: str
    status: TaskStatus
    attempts: int
    queued_ms: int
    ended_ms: int | None
    output: str | None


@dataclass(frozen=True, slots=True)
class Walked:
    """How a trial went. Times are milliseconds since the epoch.

    Attributes:
        state: of the job at its end.
        why: why that is not ``done``; None where it is.
        entries: all that happened.
        tasks: all tasks, in the order in which they were made.
        outputs: the job's, by name.
        start_ms: when it began.
        end_ms: when it ended, or where it was left.
        unused: names of signals that were given and that nothing waited for.
    """

    state: JobState
    why: str | None
    entries: Sequence[Entry]
    tasks: Sequence[DoneTask]
    outputs: Mapping[str, Any]
    start_ms: int
    end_ms: int
    unused: Sequence[str]


def walk(trial: Trial) -> Walked:
    """Walk one job through a plan.

    Work takes no time; a task is done as soon as its lane hands it out.

    Raises:
        TrialError: what is wanted cannot be: a name that is not there, an input that the plan refuses.
    """
    trial.check()
    with temporary_site(trial.start_ms) as site:
        return _Walk(trial, site).run()


class _Walk:
    def __init__(self, trial: Trial, site: Site) -> None:
        self._trial = trial
        self._site = site
        self._signals = {name: list(given) for name, given in trial.signals.items()}
        self._failed: dict[str, int] = defaultdict(int)
        self._clock = Clock(trial.plan.timezone)
        self._story = Story(site, self._clock, lambda name: bool(self._signals.get(name)))
        self._lanes = sorted({lane.id for plan in trial.plans for lane in plan.lanes} - trial.absent)
        self._attempts = 0
        self._why: str | None = None

    def run(self) -> Walked:
        """Walk until the job has ended, or nothing goes on any more."""
        self._start()
        quiet = 0
        while self._why is None:
            due_ms = self._site.settle()
            quiet = 0 if self._story.read() else quiet
            if not self._site.live_jobs():
                break
            if self._send_signal() or self._work():
                quiet = 0
                self._story.read()
                continue
            due_ms = min((moment for moment in (due_ms, self._site.opens_ms) if moment is not None), default=None)
            if due_ms is None or quiet > MAX_QUIET_JUMPS:
                self._why = self._stuck()
                break
            quiet += 1
            self._site.now_ms = due_ms
        self._story.read()
        return self._walked()

    def _start(self) -> None:
        trial = self._trial
        try:
            for plan in reversed(trial.plans):
                self._site.put(plan)
            self._site.one(start, Start(trial.plan.id, trial.reference, dict(trial.input), priority=0))
        except OmsError as error:
            raise TrialError(_refusal(error)) from error
        self._story.read()

    def _work(self) -> bool:
        """Let the workers of every lane do all they can get; tell whether there was anything."""
        wishes = [Pull(lane, AT_ONCE, worker=WORKER) for lane in self._lanes]
        leased = [task for tasks in self._site.run(pull, *wishes) for task in tasks]
        self._story.read()
        for task in sorted(leased, key=_number):
            if self._attempts >= MAX_ATTEMPTS:
                self._why = f"it was cut off after {MAX_ATTEMPTS} attempts: the plan goes on for very long, or for ever"
            if self._why is not None:
                break
            self._attempts += 1
            try:
                self._do(task)
            except StaleTokenError:
                continue  # the job went on without it in the same moment
        return bool(leased)

    def _do(self, task: LeasedTask) -> None:
        activity = task.activity
        if self._failed[activity] < self._trial.failures.get(activity, 0):
            self._failed[activity] += 1
            self._site.one(fail, Fail(task.task_id, "tried", "it was told to fail", token=task.token, worker=WORKER))
            return
        output = self._output(task)
        try:
            self._site.one(complete, Complete(task.task_id, dict(output), token=task.token, worker=WORKER))
        except InvalidInputError as error:
            given = "{}, which is what it gives without --outputs," if activity not in self._trial.outputs else "it"
            faults = "; ".join(fault.msg for fault in error.faults)
            self._why = f"the output_schema of {printable(activity)} does not take {given} here: {printable(faults)}"

    def _output(self, task: LeasedTask) -> Mapping[str, Any]:
        given = self._trial.outputs.get(task.activity, {})
        if isinstance(given, Mapping):
            return given
        return given[min(self._story.ranks[task.task_id], len(given) - 1)]

    def _send_signal(self) -> bool:
        """Send one event for which a job waits, if one is given."""
        for block in self._waits():
            given = self._signals.get(block.signal or "")
            if given:
                wish = Signal(f"JOB-{block.job_id}", block.signal or "", dict(given.pop(0)), actor=WORKER)
                self._site.one(signal, wish)
                return True
        return False

    def _waits(self) -> list[BlockRun]:
        """Return the waits for a signal that have begun, oldest first."""
        statement = select(blocks).where(
            blocks.c.kind == BlockKind.WAIT.value,
            blocks.c.state == RunState.RUNNING.value,
            blocks.c.signal.is_not(None),
        )
        with self._site.reading() as connection:
            rows = connection.execute(statement.order_by(blocks.c.since, blocks.c.job_id, blocks.c.path))
            return [block_of_row(row) for row in rows]

    # How it ended.

    def _stuck(self) -> str:
        """Say what the jobs that have not ended wait for."""
        reasons = [
            f"{job.name} is paused; /retry, /reroute or /skip of the task that failed would let it go on"
            for job in self._site.live_jobs()
            if job.state is JobState.PAUSED
        ]
        for block in self._waits():
            name = printable(block.signal or "")
            reasons.append(
                f"JOB-{block.job_id} waits for the signal {name}, which nobody gives: --signal {name}=DATA.json"
            )
        reasons += [
            f"{printable(task.activity)} is queued in {printable(task.lane)}"
            + (", where nobody works" if task.lane in self._trial.absent else "")
            for task in self._site.tasks()
            if task.status is TaskStatus.QUEUED and task.held_available_at is None
        ]
        return "; ".join(reasons[:MAX_REASONS])

    def _walked(self) -> Walked:
        job = self._site.jobs()[0]
        with self._site.reading() as connection:
            outputs = job_view(connection, job.name)["outputs"]
        why = self._why
        if why is None and job.state is not JobState.DONE:
            why = printable(job.error or f"the job is {job.state}")
        plans = {each.job_id: self._site.plan_of(each) for each in self._site.jobs()}
        return Walked(
            state=job.state,
            why=why,
            entries=self._story.entries,
            tasks=[_done(task, place_words(plans[task.job_id], task.branch)) for task in self._site.tasks()],
            outputs=outputs,
            start_ms=self._trial.start_ms,
            end_ms=self._site.now_ms,
            unused=[name for name, given in self._signals.items() if given],
        )


def _done(task: Task, place: str) -> DoneTask:
    return DoneTask(
        name=task.name,
        job=f"JOB-{task.job_id}",
        activity=task.activity,
        place=place,
        lane=task.lane,
        status=task.status,
        attempts=task.attempt,
        queued_ms=task.created_at,
        ended_ms=task.ended_at,
        output=task.output,
    )


def _number(task: LeasedTask) -> int:
    return int(task.task_id.removeprefix("TASK-"))


def _refusal(error: OmsError) -> str:
    faults = [f"{'.'.join(map(str, fault.loc)) or 'input'}: {fault.msg}" for fault in error.faults[1:]]
    return "; ".join([error.detail, *faults])
