"""A plan as an SVG drawing that stands alone: no script, no font and no picture from elsewhere, light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from oms.plan_tools.drawing.svg_layout import sequence_piece, stacked, text_box, wrapped
from oms.plan_tools.drawing.svg_parts import LINE, Words, width_of
from oms.plan_tools.drawing.words import lane_words, printable

if TYPE_CHECKING:
    from oms.domain.plan import Plan
    from oms.plan_tools.drawing.svg_parts import Part, Piece

_MARGIN = 20
_LEGEND_LETTERS = 70
_STYLE = """\
.page { fill: #ffffff }
.task { fill: #eef4ff; stroke: #3b62b5 }
.block { fill: #fff6e0; stroke: #a8741a }
.around { fill: none; stroke: #8a8a8a }
.end { fill: #e8f5e9; stroke: #2e7d32 }
.maybe { stroke-dasharray: 5 3 }
.line { fill: none; stroke: #555555; stroke-width: 1.3 }
.bar { fill: none; stroke: #555555; stroke-width: 5 }
.undo { stroke-dasharray: 2 3 }
.head-shape { fill: #555555 }
text { font: 13px system-ui, sans-serif; fill: #1c1c1c }
.head { font-weight: 600 }
.note, .legend { font-size: 12px; fill: #4a4a4a }
.branch { font-size: 12px; font-style: italic }
@media (prefers-color-scheme: dark) {
.page { fill: #14171c }
.task { fill: #1d2a44; stroke: #86a8f0 }
.block { fill: #3a2d10; stroke: #e0b35c }
.around { stroke: #8f8f8f }
.end { fill: #16351a; stroke: #81c784 }
.line, .bar { stroke: #b5b5b5 }
.head-shape { fill: #b5b5b5 }
text { fill: #f1f1f1 }
.note, .legend { fill: #c9c9c9 }
}"""

_ARROW_HEAD = """\
<defs>
<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path class="head-shape" d="M0,0 L8,4 L0,8 z"/>
</marker>
</defs>"""


def draw_svg(plan: Plan) -> str:
    """Return the drawing of a plan's sequence, with its lanes below. An entry that may be skipped is dashed."""
    title = plan.id if plan.title is None else f"{printable(plan.title)} ({plan.id})"
    drawing = stacked(
        [
            text_box([title], "end", radius=14),
            sequence_piece(plan.sequence),
            text_box(["done"], "end", radius=14),
        ]
    )
    legend = [line for lane in plan.lanes for line in _legend(printable(lane.id), lane_words(lane))]
    width = max(drawing.width, width_of(legend)) + 2 * _MARGIN
    height = drawing.height + (len(legend) + 1) * LINE + 2 * _MARGIN
    return _document(title, width, height, [*_placed(drawing, width), *_words(legend, drawing.height)])


def _placed(drawing: Piece, width: float) -> list[Part]:
    return drawing.at((width - drawing.width) / 2, _MARGIN)


def _words(legend: list[str], below: float) -> list[Part]:
    top = below + _MARGIN + LINE
    return [Words(_MARGIN, top + (number + 1) * LINE, line, "legend", "start") for number, line in enumerate(legend)]


def _legend(name: str, rules: str) -> list[str]:
    first, *more = wrapped(f"lane {name}: {rules}", _LEGEND_LETTERS)
    return [first, *(f"\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}{line}" for line in more)]


def _document(title: str, width: float, height: float, parts: list[Part]) -> str:
    size = f'width="{width:g}" height="{height:g}"'
    seen = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label={quoteattr(title)}'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {seen}>',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        _ARROW_HEAD,
        f'<rect class="page" {size}/>',
        *(part.xml() for part in parts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
