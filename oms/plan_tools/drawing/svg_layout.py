"""Where the entries of a plan stand in a drawing: one below the other, branches beside each other."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from oms.domain.plan import Choose, ForEach, Parallel, Repeat, Step, SubPlan, Wait
from oms.plan_tools.drawing.svg_parts import LINE, Box, Line, Piece, Words, width_of
from oms.plan_tools.drawing.words import ELSE, UNDO, branches_of, head_of, notes_of, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oms.domain.plan import Node
    from oms.plan_tools.drawing.svg_parts import Part

LETTERS = 38
"""A line of text in a box is so long at most."""
_PAD, _GAP, _ARROW, _LOOP = 12, 26, 28, 26
"""Inside a box; between branches; the length of an arrow; the room for the line that leads back in a loop."""
_LEAST = 110


def stacked(pieces: Sequence[Piece]) -> Piece:
    """Put pieces below each other, with an arrow from each to the next."""
    axis = max(piece.axis for piece in pieces)
    width = axis + max(piece.width - piece.axis for piece in pieces)
    parts: list[Part] = []
    top = 0.0
    for number, piece in enumerate(pieces):
        if number:
            parts.append(Line(((axis, top), (axis, top + _ARROW)), is_arrow=True))
            top += _ARROW
        parts += piece.at(axis - piece.axis, top)
        top += piece.height
    return Piece(width, top, axis, parts)


def text_box(texts: Sequence[str], style: str, *, radius: float = 4, is_double: bool = False) -> Piece:
    """Make a box of texts, the first of which is its heading."""
    head, *notes = [wrapped(text) for text in texts]
    lines = [*head, *(line for note in notes for line in note)]
    width = max(width_of(lines) + 2 * _PAD, _LEAST)
    height = len(lines) * LINE + _PAD
    parts: list[Part] = [Box(0, 0, width, height, style, radius)]
    if is_double:
        parts.append(Box(3, 3, width - 6, height - 6, style, radius))
    for number, line in enumerate(lines):
        look = "head" if number < len(head) else "note"
        parts.append(Words(width / 2, (number + 1) * LINE + 1, line, look))
    return Piece(width, height, width / 2, parts)


def sequence_piece(nodes: Sequence[Node]) -> Piece:
    """Lay out a list of steps."""
    return stacked([node_piece(node) for node in nodes])


def node_piece(node: Node) -> Piece:
    """Lay out an entry and all that is in it."""
    texts = [head_of(node), *notes_of(node)]
    maybe = "" if node.when is None else " maybe"
    match node:
        case Step():
            lane = f"lane {printable(node.lane)}"
            return _with_undo(text_box([texts[0], lane, *texts[1:]], f"task{maybe}"), node)
        case ForEach() | Repeat():
            return _around(texts, sequence_piece(node.steps), f"around{maybe}", is_loop=isinstance(node, Repeat))
        case Parallel() | Choose():
            return _beside(text_box(texts, f"block{maybe}", radius=10), node)
        case SubPlan():
            return text_box(texts, f"block{maybe}", is_double=True)
        case Wait():
            return text_box(texts, f"block{maybe}", radius=16)


def wrapped(text: str, letters: int = LETTERS) -> list[str]:
    """Return a text in lines that fit into a box."""
    return textwrap.wrap(text, letters, break_on_hyphens=False)


def _with_undo(box: Piece, step: Step) -> Piece:
    if not step.undo:
        return box
    undo = _around([UNDO], sequence_piece(step.undo), "around undo", is_loop=False)
    middle = min(box.height, undo.height) / 2
    arrow = Line(((box.width, middle), (box.width + _GAP, middle)), is_arrow=True, style="line undo")
    height = max(box.height, undo.height)
    parts = [*box.parts, arrow, *undo.at(box.width + _GAP, 0)]
    if height > box.height:
        parts.append(Line(((box.axis, box.height), (box.axis, height))))
    return Piece(box.width + _GAP + undo.width, height, box.axis, parts)


def _around(texts: Sequence[str], inner: Piece, style: str, *, is_loop: bool) -> Piece:
    """Put a frame around a piece, with texts above it; a loop has a line that leads back to its beginning."""
    heads = len(wrapped(texts[0]))
    lines = [line for text in texts for line in wrapped(text)]
    top = len(lines) * LINE + _PAD
    loop = _LOOP if is_loop else 0
    least = width_of(lines) + 2 * _PAD
    width = max(inner.width + 2 * _PAD + loop, least)
    left = max((width - loop - inner.width) / 2, _PAD)
    bottom = top + _ARROW / 2 + inner.height
    height = bottom + _ARROW / 2 + _PAD / 2
    axis = left + inner.axis
    parts: list[Part] = [Box(0, 0, width, height, style, 10)]
    for number, line in enumerate(lines):
        parts.append(Words(_PAD, (number + 1) * LINE + 1, line, "head" if number < heads else "note", "start"))
    parts += inner.at(left, top + _ARROW / 2)
    if is_loop:
        side = left + inner.width + _LOOP / 2
        back = ((axis, bottom), (axis, bottom + 8), (side, bottom + 8), (side, top), (axis, top))
        parts.append(Line((*back, (axis, top + _ARROW / 2)), is_arrow=True))
    return Piece(width, height, axis, parts)


def _beside(head: Piece, block: Parallel | Choose) -> Piece:
    """Put the branches of a block beside each other, below its box."""
    columns = [(wrapped(name), sequence_piece(steps)) for name, steps in branches_of(block)]
    if isinstance(block, Choose) and block.options[-1].when is not None:
        columns.append(([ELSE], Piece(_GAP, 0, _GAP / 2)))
    label = max(len(lines) for lines, _ in columns) * LINE
    fork = head.height + _ARROW / 2  # where the line that spreads runs, and below, where the branches begin
    top = fork + label + _ARROW
    deepest = max(piece.height for _, piece in columns)
    join = top + deepest + _ARROW / 2
    parts: list[Part] = []
    axes: list[float] = []
    left = 0.0
    for lines, piece in columns:
        label_width = width_of(lines)
        axis = max(piece.axis, label_width / 2)
        axes.append(left + axis)
        parts.append(Line(((left + axis, fork), (left + axis, fork + _ARROW / 4))))
        for number, line in enumerate(lines):
            parts.append(Words(left + axis, fork + _ARROW / 4 + (number + 0.8) * LINE, line, "branch"))
        begin = fork + _ARROW / 4 + len(lines) * LINE
        parts.append(Line(((left + axis, begin), (left + axis, top)), is_arrow=piece.height > 0))
        parts += piece.at(left + axis - piece.axis, top)
        parts.append(Line(((left + axis, top + piece.height), (left + axis, join))))
        left += axis + max(piece.width - piece.axis, label_width / 2) + _GAP
    width = left - _GAP
    axis = (axes[0] + axes[-1]) / 2
    shift = max(head.axis - axis, 0)
    style = "bar" if isinstance(block, Parallel) else "line"
    ends = [Line(((axes[0], fork), (axes[-1], fork)), style="line"), Line(((axes[0], join), (axes[-1], join)))]
    if isinstance(block, Parallel):
        ends[1] = Line(((axes[0] - 8, join), (axes[-1] + 8, join)), style=style)
    parts += ends
    parts.append(Line(((axis, head.height), (axis, fork))))
    moved = [part.moved(shift, 0) for part in parts]
    moved += head.at(axis + shift - head.axis, 0)
    return Piece(max(width + shift, axis + shift + head.width - head.axis), join, axis + shift, moved)
