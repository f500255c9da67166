"""What is written about the entries and the lanes of a plan, whatever it is drawn as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms.domain.plan import Choose, ForEach, OnFailure, OnStall, Parallel, Repeat, Step, SubPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oms.domain.expression import Expression
    from oms.domain.plan import Block, Lane, Node, Option, Wait

UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
MAX_UNITS = 2
ELSE = "else"
UNDO = "undo"


def printable(text: str) -> str:
    """Return a text in one line that a terminal shows and does not obey: what cannot be seen is escaped."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def spelled(sec: float) -> str:
    """Return a time span such as ``14 d``, ``1 h 30 min`` or ``0 s``, by its two largest units."""
    left = round(sec)
    words: list[str] = []
    for size, unit in UNITS:
        count, left = divmod(left, size)
        if count or (words and left):
            words.append(f"{count} {unit}")
        if len(words) == MAX_UNITS:
            break
    return " ".join(word for word in words if not word.startswith("0 ")) or "0 s"


def head_of(node: Node) -> str:  # noqa: PLR0911 - one return per kind of entry
    """Return what an entry is, in a few words; of an activity its name."""
    match node:
        case Step():
            return printable(node.activity)
        case Parallel():
            wanted, count = node.wanted, len(node.branches)
            how = f"all {count}" if wanted == count else f"any {wanted} of {count}" if wanted > 1 else f"any of {count}"
            return f"parallel: {how}"
        case ForEach():
            at_once = "" if node.max_parallel is None else f", {node.max_parallel} at once"
            return f"for each {node.variable} of {printable(node.items.source)}{at_once}"
        case Repeat():
            return f"repeat until {printable(node.until.source)}, {node.max_rounds} rounds at most"
        case Choose():
            return "choose"
        case SubPlan():
            return f"a job of plan {node.plan}"
        case _:
            return _wait(node)


def notes_of(node: Node) -> list[str]:
    """Return what else a plan says about an entry, a line each; not what is inside it."""
    notes = [] if node.when is None else [f"when {printable(node.when.source)}"]
    if isinstance(node, Step):
        notes += _of_step(node)
    elif isinstance(node, SubPlan) and node.input:
        notes.append(f"input: {_entries(node.input)}")
    name = name_of(node)
    if name is not None:
        notes.append(f"output: {name}")
    return notes


def name_of(node: Node) -> str | None:
    """Return the name under which a block's output can be read."""
    name = None if isinstance(node, Step | Parallel | Repeat | Choose) else node.id
    return None if name is None else printable(name)


def option_of(option: Option) -> str:
    """Return when an option of a ``choose`` is taken."""
    return ELSE if option.when is None else f"when {printable(option.when.source)}"


def branches_of(block: Block) -> list[tuple[str, tuple[Node, ...]]]:
    """Return the lists of steps that a block has beside each other, each with its name."""
    match block:
        case Parallel():
            return [(printable(name), steps) for name, steps in block.branches]
        case Choose():
            return [(option_of(option), option.steps) for option in block.options]
        case _:
            return []


def lane_words(lane: Lane) -> str:
    """Return what a lane's rules are: ``vendor, a batch at 03:00 of 500 at most, holidays US``."""
    words = [lane.kind.value]
    if lane.title is not None:
        words.append(f'"{printable(lane.title)}"')
    words.append(f"lease {spelled(lane.lease_sec)}")
    if lane.open is not None:
        words.append(f"open {printable(lane.open)}")
    if lane.batch_at is not None:
        most = "" if lane.batch_max is None else f" of {lane.batch_max} at most"
        words.append(f"a batch at {printable(lane.batch_at)}{most}")
    if lane.holidays is not None:
        words.append(f"holidays {printable(lane.holidays)}")
    if lane.max_running is not None:
        words.append(f"{lane.max_running} at once")
    if lane.rate is not None:
        words.append(f"{lane.rate.tasks} in any {spelled(lane.rate.per_sec)}")
    if lane.stall_after_sec is not None:
        then = "to its backup" if lane.on_stall is OnStall.REROUTE else "told"
        words.append(f"stalls after {spelled(lane.stall_after_sec)}: {then}")
    if lane.backup is not None:
        words.append(f"backup {printable(lane.backup)}")
    return ", ".join(words)


def _wait(node: Wait) -> str:
    if node.signal is None:
        return (
            f"wait for {spelled(node.for_sec or 0)}"
            if node.until is None
            else f"wait until {printable(node.until.source)}"
        )
    limit = "" if node.timeout_sec is None else f", {spelled(node.timeout_sec)} at most, then {node.on_timeout.value}"
    return f"wait for the signal {printable(node.signal)}{limit}"


def _of_step(step: Step) -> list[str]:
    notes = []
    if step.title is not None:
        notes.append(f'"{printable(step.title)}"')
    if step.input is not None:
        notes.append(f"input: {_entries(step.input) or 'nothing'}")
    if step.priority is not None:
        source = step.priority if isinstance(step.priority, int) else printable(step.priority.source)
        notes.append(f"priority: {source}")
    if step.due is not None:
        notes.append(f"due: {printable(step.due)}")
    if step.due_sec is not None:
        notes.append(f"due: {spelled(step.due_sec)}")
    if step.output_schema is not None:
        notes.append("its output is checked")
    if step.on_failure is not OnFailure.FAIL:
        notes.append(f"on failure: {step.on_failure.value}")
    return notes


def _entries(entries: Mapping[str, Expression]) -> str:
    return ", ".join(f"{printable(key)} = {printable(value.source)}" for key, value in entries.items())
