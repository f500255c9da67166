"""A plan as text: a tree that reads in 80 columns."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oms.domain.plan import ForEach, Repeat, Step
from oms.plan_tools.drawing.words import UNDO, branches_of, head_of, lane_words, notes_of, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oms.domain.plan import Node, Plan

WIDTH = 80
LEAST_WIDTH = 30
"""So wide a line is at least, however deep it stands."""


@dataclass(frozen=True, slots=True)
class Twig:
    """One entry of the tree.

    Attributes:
        head: its first line.
        notes: further lines.
        below: what hangs on it.
    """

    head: str
    notes: Sequence[str] = ()
    below: Sequence[Twig] = field(default=())


def draw_text(plan: Plan, *, width: int = WIDTH) -> str:
    """Return the tree of a plan's sequence, and its lanes; lines end with a newline."""
    title = "" if plan.title is None else f'  "{printable(plan.title)}"'
    lines = [f"{plan.id}{title}  ({printable(plan.timezone)})"]
    lines += _tree([_twig(node) for node in plan.sequence], "", width)
    lines += ["", "lanes"]
    lines += _tree([Twig(printable(lane.id), (lane_words(lane),)) for lane in plan.lanes], "", width)
    if plan.schedules:
        lines += ["", "schedules"]
        each = [Twig(printable(one.cron), (f"reference {printable(one.reference)}",)) for one in plan.schedules]
        lines += _tree(each, "", width)
    return "\n".join(lines) + "\n"


def _twig(node: Node) -> Twig:
    notes = notes_of(node)
    if isinstance(node, Step):
        undo = (Twig(UNDO, (), _twigs(node.undo)),) if node.undo else ()
        return Twig(f"{head_of(node)}  [{printable(node.lane)}]", notes, undo)
    if isinstance(node, ForEach | Repeat):
        return Twig(head_of(node), notes, _twigs(node.steps))
    return Twig(head_of(node), notes, [Twig(name, (), _twigs(steps)) for name, steps in branches_of(node)])


def _twigs(nodes: Sequence[Node]) -> list[Twig]:
    return [_twig(node) for node in nodes]


def _tree(twigs: Sequence[Twig], before: str, width: int) -> Iterator[str]:
    for number, twig in enumerate(twigs):
        is_last = number == len(twigs) - 1
        corner, side = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        hanging = before + side + ("│  " if twig.below else "   ")
        yield from _wrapped(twig.head, before + corner, before + side + ("│    " if twig.below else "     "), width)
        for note in twig.notes:
            yield from _wrapped(note, hanging, hanging + "  ", width)
        yield from _tree(twig.below, before + side, width)


def _wrapped(text: str, first: str, further: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, len(further) + LEAST_WIDTH),
        initial_indent=first,
        subsequent_indent=further,
        break_on_hyphens=False,
    )
