"""What happens in a trial, as OMS itself tells it: its events, and the blocks that begin and end."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from oms.domain.paths import block_at, is_undo, parent_of
from oms.domain.plan import Lane, OnTimeout, Plan, Wait
from oms.domain.run import BlockKind, BlockRun, RunState
from oms.domain.task import Job, Task
from oms.plan_tools.drawing.words import printable, spelled
from oms.plan_tools.trial.clock import Clock
from oms.plan_tools.trial.places import place_words
from oms.plan_tools.trial.site import Site
from oms.sequencer.place import shown_available_at
from oms.storage.runs import block_of_row
from oms.storage.tables import blocks, outbox

MAX_VALUE = 60
"""So many letters of an output are shown."""
MAIN_JOB = "JOB-1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    Attributes:
        at_ms: when, milliseconds since the epoch.
        what: a word: queued, done, failed, skipped, waits, ...
        name: the activity, or what else it happened to.
        notes: what more there is to say, in short.
        job: in which job.
    """

    at_ms: int
    what: str
    name: str
    notes: tuple[str, ...]
    job: str

    def __str__(self) -> str:
        return "  ".join([self.what, self.name, *self.notes])


class Story:
    """The entries so far. Call `read` after each change."""

    def __init__(self, site: Site, clock: Clock, is_given: Callable[[str], bool]) -> None:
        """Begin with nothing.

        Args:
            site: where it happens.
            clock: how moments are shown.
            is_given: whether an event of a name is still to come from outside.
        """
        self.entries: list[Entry] = []
        self.ranks: dict[str, int] = {}
        """Of each task, which one of its activity it is, from 0."""
        self._site = site
        self._clock = clock
        self._is_given = is_given
        self._last_event = 0
        self._counts: dict[str, int] = defaultdict(int)
        self._blocks: dict[tuple[int, str], BlockRun] = {}
        self._ended: list[BlockRun] = []
        self._begun: list[BlockRun] = []
        self._jobs: dict[int, Job] = {}

    def read(self) -> bool:
        """Add what happened since the last time; tell whether anything did."""
        before = len(self.entries)
        self._jobs = {job.job_id: job for job in self._site.jobs()}
        with self._site.reading() as connection:
            rows = connection.execute(
                select(outbox.c.id, outbox.c.body).where(outbox.c.id > self._last_event).order_by(outbox.c.id)
            ).all()
            found = [block_of_row(row) for row in connection.execute(select(blocks).order_by(blocks.c.since))]
        self._compare({(block.job_id, block.path): block for block in found if block.state is RunState.RUNNING})
        events = [json.loads(body) for _, body in rows]
        signals = {event["data"]["detail"]["name"] for event in events if event["data"]["status"] == "signalled"}
        self._tell_ended(lambda block: block.signal not in signals and self._is_due(block))
        for event in events:
            self._event(event["type"].split(".")[1], event["data"])
        self._tell_ended(lambda _: True)
        self._tell_begun(lambda _: True)
        self._last_event = rows[-1][0] if rows else self._last_event
        return len(self.entries) > before

    def add(self, what: str, name: str, *notes: str, job: str = MAIN_JOB) -> None:
        """Add an entry of now."""
        told = tuple(note for note in notes if note)
        self.entries.append(Entry(self._site.now_ms, what, printable(name), told, job))

    # Events.

    def _event(self, entity: str, data: dict[str, Any]) -> None:
        job = self._jobs[int(data["job_id"].removeprefix("JOB-"))]
        if entity == "task":
            self._task_event(data, job, self._site.task(data["task_id"]))
        elif entity == "job":
            self._job_event(data["status"], data["detail"], job)
        else:
            detail = data["detail"]
            name = data["activity"] or f"entry {detail['at']}"
            branch = parent_of(detail.get("at", ""))
            place = place_words(self._site.plan_of(job), branch)
            self.add("skipped", name, f"when {printable(detail['when'])}", place, job=job.name)

    def _task_event(self, data: dict[str, Any], job: Job, task: Task) -> None:
        plan, detail = self._site.plan_of(job), data["detail"]
        place = place_words(plan, task.branch)
        match data["status"]:
            case "queued":
                self._tell_begun(lambda block: block.job_id == job.job_id and task.branch.startswith(f"{block.path}."))
                is_first = task.name not in self.ranks
                if is_first:
                    self.ranks[task.name] = self._counts[task.activity]
                    self._counts[task.activity] += 1
                notes = [f"[{printable(data['lane'])}]", place, *self._waiting(plan, task)]
                self.add("queued" if is_first else "again", task.activity, *notes, job=job.name)
            case "done":
                late = "" if task.due_at is None or task.due_at >= self._site.now_ms else "late: it was due "
                late += self._clock.moment(task.due_at) if late and task.due_at is not None else ""
                self.add("done", task.activity, place, _value(task.output), late, job=job.name)
            case "failed" | "expired":
                final = "for good" if detail["final"] else ""
                self.add("failed", task.activity, place, f"attempt {data['attempt']}", final, job=job.name)
            case "rerouted":
                lanes = f"{detail['from_lane']} -> {detail['to_lane']}"
                why = str(detail.get("reason") or "").replace("_", " ")
                self.add(
                    "rerouted", task.activity, printable(lanes), place, why, *self._waiting(plan, task), job=job.name
                )
            case "stalled":
                queued = f"queued for {spelled(detail['queued_sec'])}"
                self.add("stalled", task.activity, f"[{printable(data['lane'])}]", queued, job=job.name)
            case "cancelled":
                self.add("cancelled", task.activity, place, f"by {detail['by']}", job=job.name)
            case "started":
                pass
            case other:
                self.add(other, task.activity, place, job=job.name)

    def _waiting(self, plan: Plan, task: Task) -> list[str]:
        """Say from when on a queued task may be handed out, and why not now; and when it is due."""
        notes = []
        available_ms = shown_available_at(task)
        if available_ms > self._site.now_ms:
            lane = plan.lane(task.lane)
            notes.append(f"from {self._clock.moment(available_ms)}{_hours(lane)}")
        if task.due_at is not None:
            notes.append(f"due {self._clock.moment(task.due_at)}")
        return notes

    def _job_event(self, status: str, detail: dict[str, Any], job: Job) -> None:
        name = f"{job.plan} {job.reference}"
        if status == "queued":
            parent = detail.get("parent")
            self.add("job", name, f"starts as {job.name}", f"a step of {parent}" if parent else "", job=job.name)
        elif status == "signalled":
            self.add("signal", detail["name"], job=job.name)
            served = next(
                (block for block in self._ended if (block.job_id, block.signal) == (job.job_id, detail["name"])), None
            )
            if served is not None:
                self._ended.remove(served)
                self._block_ended(job, served, has_come=True)
        else:
            self.add("job", name, f"is {status}", printable(job.error or ""), job=job.name)

    # Blocks. What began or ended stands where a reader looks for it: beside the events that go with it.

    def _compare(self, running: dict[tuple[int, str], BlockRun]) -> None:
        """Note which blocks began and which ended since the last time."""
        for key in self._blocks.keys() | running.keys():
            was, now = self._blocks.get(key), running.get(key)
            if was is None or now is None or was.since != now.since:
                self._ended += [] if was is None or was.kind is not BlockKind.WAIT else [was]
                self._begun += [] if now is None else [now]
        self._begun.sort(key=lambda block: (block.job_id, block.path))
        self._blocks = running

    def _tell_ended(self, which: Callable[[BlockRun], bool]) -> None:
        for block in [block for block in self._ended if which(block)]:
            self._ended.remove(block)
            self._block_ended(self._jobs[block.job_id], block)

    def _tell_begun(self, which: Callable[[BlockRun], bool]) -> None:
        for block in [block for block in self._begun if which(block)]:
            self._begun.remove(block)
            self._block_began(self._jobs[block.job_id], block)

    def _is_due(self, block: BlockRun) -> bool:
        return block.due_at is not None and block.due_at <= self._site.now_ms

    def _block_began(self, job: Job, block: BlockRun) -> None:
        if block.kind is BlockKind.FOR_EACH:
            self.add("items", block.name or "for_each", f"{block.total} of them", self._place(job, block), job=job.name)
        elif block.kind is BlockKind.WAIT:
            until = "" if block.due_at is None else f"until {self._clock.moment(block.due_at)}"
            signal = "" if block.signal is None else f"for the signal {printable(block.signal)}"
            hint = ""
            if block.signal is not None and not self._is_given(block.signal):
                hint = f"nobody gives it: --signal {printable(block.signal)}=DATA.json"
            self.add("waits", block.name or "wait", signal, until, self._place(job, block), hint, job=job.name)

    def _block_ended(self, job: Job, block: BlockRun, *, has_come: bool = False) -> None:
        why = "stopped"
        if has_come:
            why = "the signal came"
        elif self._is_due(block):
            why = "its time has come"
            if block.signal is not None:
                why = f"no {printable(block.signal)} came in time: {self._on_timeout(job, block).value}"
        self.add("over", block.name or "wait", why, self._place(job, block), job=job.name)

    def _on_timeout(self, job: Job, block: BlockRun) -> OnTimeout:
        node = block_at(self._site.plan_of(job), block.path)
        assert isinstance(node, Wait)
        return node.on_timeout

    def _place(self, job: Job, block: BlockRun) -> str:
        return "" if is_undo(block.path) else place_words(self._site.plan_of(job), parent_of(block.path))


def _hours(lane: Lane | None) -> str:
    if lane is None or not lane.has_hours:
        return ""
    if lane.batch_at is not None:
        return ", the batch"
    return ", when the lane opens"


def _value(output: str | None) -> str:
    """Return an output in short; nothing where it is empty."""
    if output is None or output == "{}":
        return ""
    line = printable(output)
    return line if len(line) <= MAX_VALUE else f"{line[: MAX_VALUE - 3]}..."
