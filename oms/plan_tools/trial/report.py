"""Print how a trial went: in colours where there is a terminal, plain where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oms.domain.plan import Plan
from oms.domain.task import TaskStatus
from oms.plan_tools.drawing.words import printable, spelled
from oms.plan_tools.trial.clock import Clock
from oms.plan_tools.trial.story import MAIN_JOB, Entry
from oms.plan_tools.trial.walk import Walked

_WHAT, _NAME = 10, 22
_COLOURS = {
    "done": "green",
    "failed": "red",
    "cancelled": "red",
    "stalled": "yellow",
    "rerouted": "yellow",
    "skipped": "bright_black",
    "waits": "cyan",
    "over": "cyan",
    "signal": "cyan",
    "job": "bold",
}


def print_walk(console: Console, plan: Plan, walked: Walked) -> None:
    """Print the path with its clock, the tasks, and how it ended."""
    clock = Clock(plan.timezone)
    before_ms = walked.start_ms
    for at_ms, entries in groupby(walked.entries, lambda entry: entry.at_ms):
        later = "" if at_ms == before_ms else f"  (+{spelled((at_ms - before_ms) / 1000)})"
        _say(console, Text(f"{clock.moment(at_ms)}{later}", "bold"))
        before_ms = at_ms
        for entry in entries:
            _say(console, _line(entry))
    if walked.tasks:
        console.print(_tasks(walked, console.width))
    for line in _end(plan, walked, clock):
        _say(console, line)


def _say(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)  # a line is a line, also where it is read by a program


def _line(entry: Entry) -> Text:
    text = Text("  ")
    text.append(f"{entry.what:<{_WHAT}}", _COLOURS.get(entry.what, ""))
    text.append(f"{entry.name:<{_NAME}}")
    job = () if entry.job == MAIN_JOB or entry.what == "job" else (entry.job,)
    text.append(f"  {'; '.join((*job, *entry.notes))}", "" if entry.what == "failed" else "dim")
    text.rstrip()
    return text


def _tasks(walked: Walked, width: int) -> Table:
    table = Table(box=SIMPLE, width=min(width, 100), padding=(0, 1), pad_edge=False)
    for heading in ("task", "activity", "where", "lane", "status"):
        table.add_column(heading, overflow="fold")
    table.add_column("tries", justify="right")
    table.add_column("took", justify="right")
    for task in walked.tasks:
        where = task.place if task.job == MAIN_JOB else ", ".join(part for part in (task.job, task.place) if part)
        took = "" if task.ended_ms is None else spelled((task.ended_ms - task.queued_ms) / 1000)
        colour = {TaskStatus.DONE: "green", TaskStatus.FAILED: "red", TaskStatus.CANCELLED: "red"}.get(task.status, "")
        cells = (task.name, printable(task.activity), where, printable(task.lane), Text(task.status.value, colour))
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), str(task.attempts), took)
    return table


def _end(plan: Plan, walked: Walked, clock: Clock) -> Iterator[Text]:
    took = spelled((walked.end_ms - walked.start_ms) / 1000)
    for name in walked.unused:
        yield Text(f"The signal {printable(name)} was given more often than anything waited for it.", "yellow")
    done = walked.why is None
    how = Text(f"The job of {plan.id} is {walked.state.value}", "bold green" if done else "bold red")
    how.append(f" after {took}, at {clock.moment(walked.end_ms)} {plan.timezone}.", "")
    yield how
    if not done:
        yield Text(f"Why: {walked.why}.")
