"""A plan as a Mermaid flowchart: https://mermaid.js.org/syntax/flowchart.html."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oms.domain.plan import Choose, ForEach, Parallel, Repeat, Step, SubPlan
from oms.plan_tools.drawing.words import ELSE, UNDO, branches_of, head_of, notes_of, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oms.domain.plan import Block, Node, Plan

# What Mermaid would take for its own, or for Markdown: a list's beginning, emphasis.
_UNSAFE = re.compile(r"[^\w .,:=+()'/?!-]|^(?:\d+[.)]|[-+])|(?<![^\W_])_|_(?![^\W_])")
_STYLES = ("classDef maybe stroke-dasharray: 4 3", "classDef undo stroke-dasharray: 1 3")

End = tuple[str, str]
"""A box from which an arrow leads on, and what is written at that arrow."""


def draw_mermaid(plan: Plan) -> str:
    """Return the flowchart of a plan's sequence. An entry with a ``when``, which may be skipped, is dashed."""
    chart = _Chart()
    title = plan.id if plan.title is None else f"{plan.title} ({plan.id})"
    begin = chart.box("([", [title], "])")
    ends = chart.run(plan.sequence, [(begin, "")])
    chart.arrows(ends, chart.box("([", ["done"], "])"))
    return "\n".join(["flowchart TD", *chart.lines, *(f"  {style}" for style in _STYLES)]) + "\n"


def escaped(text: str) -> str:
    """Return a text as it can stand between double quotes, whatever is in it: by characters' numbers."""
    return _UNSAFE.sub(lambda found: "".join(f"#{ord(char)};" for char in found[0]), printable(text))


class _Chart:
    """The lines so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._indent = "  "
        self._boxes = 0

    def box(self, opening: str, texts: Sequence[str], closing: str, style: str = "") -> str:
        """Add a box with a line for each text; return its name."""
        name = self._name()
        text = "<br/>".join(escaped(text) for text in texts)
        self._add(f'{name}{opening}"{text}"{closing}{style}')
        return name

    def arrows(self, ends: Sequence[End], to: str) -> None:
        """Let arrows lead from all ends to a box."""
        for box, text in ends:
            label = f'|"{escaped(text)}"|' if text else ""
            self._add(f"{box} -->{label} {to}")

    def run(self, nodes: Sequence[Node], ends: Sequence[End]) -> list[End]:
        """Add a list of steps after some ends; return its own."""
        for node in nodes:
            ends = self._node(node, ends)
        return list(ends)

    def _node(self, node: Node, ends: Sequence[End]) -> list[End]:
        match node:
            case Step():
                return self._step(node, ends)
            case ForEach() | Repeat():
                return self._around(node, ends)
            case Parallel() | Choose():
                return self._beside(node, ends)
            case SubPlan():
                return self._one("[[", node, "]]", ends)
            case _:
                return self._one("{{", node, "}}", ends)

    def _one(self, opening: str, node: Node, closing: str, ends: Sequence[End]) -> list[End]:
        lane = [f"lane {node.lane}"] if isinstance(node, Step) else []
        name = self.box(opening, [head_of(node), *lane, *notes_of(node)], closing, _style(node))
        self.arrows(ends, name)
        return [(name, "")]

    def _step(self, step: Step, ends: Sequence[End]) -> list[End]:
        (end,) = self._one("[", step, "]", ends)
        before = end[0]
        for node in step.undo:  # blocks in there are drawn as one box each
            name = self.box("[", [head_of(node), *notes_of(node)], "]", ":::undo")
            self._add(f'{before} -.->|"{UNDO}"| {name}')
            before = name
        return [end]

    def _around(self, block: ForEach | Repeat, ends: Sequence[End]) -> list[End]:
        name = self._name()
        text = "; ".join([head_of(block), *notes_of(block)])  # a second line would be hidden behind what is inside
        self._add(f'subgraph {name}["{escaped(text)}"]')
        outer, self._indent = self._indent, self._indent + "  "
        first = self._boxes
        inner = self.run(block.steps, [])
        if isinstance(block, Repeat):
            question = self.box("{", [block.until.source], "}")
            self.arrows(inner, question)
            self.arrows([(question, "no: again")], f"n{first}")
        self._indent = outer
        self._add("end")
        if block.when is not None:
            self._add(f"class {name} maybe")
        self.arrows(ends, name)
        return [(name, "")]

    def _beside(self, block: Block, ends: Sequence[End]) -> list[End]:
        is_choice = isinstance(block, Choose)
        (fork,) = self._one("{" if is_choice else "{{", block, "}" if is_choice else "}}", ends)
        found: list[End] = []
        for name, steps in branches_of(block):
            found += self.run(steps, [(fork[0], name)])
        if isinstance(block, Choose):
            return found if block.options[-1].when is None else [*found, (fork[0], ELSE)]
        join = self.box("{{", ["joined"], "}}")
        self.arrows(found, join)
        return [(join, "")]

    def _name(self) -> str:
        self._boxes += 1
        return f"n{self._boxes - 1}"

    def _add(self, line: str) -> None:
        self.lines.append(self._indent + line)


def _style(node: Node) -> str:
    return "" if node.when is None else ":::maybe"
