"""The parts of an SVG drawing: boxes, lines and texts, and pieces made of them. Lengths are pixels."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LINE = 17
"""From one line of text to the next."""
_LETTER, _WIDE_LETTER = 7.4, 13.5
"""No letter of the fonts that browsers have is much wider; nothing can be measured here."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle whose corners are round by ``radius``; ``style`` are classes of the style sheet."""

    x: float
    y: float
    width: float
    height: float
    style: str
    radius: float = 4

    def moved(self, x: float, y: float) -> Box:
        """Return the same at another place."""
        return replace(self, x=self.x + x, y=self.y + y)

    def xml(self) -> str:
        """Return it as SVG."""
        return (
            f'<rect class="{self.style}" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" '
            f'height="{self.height:g}" rx="{self.radius:g}"/>'
        )


@dataclass(frozen=True, slots=True)
class Line:
    """Straight lines from point to point, with an arrow's head at the last one where ``is_arrow``."""

    points: tuple[tuple[float, float], ...]
    is_arrow: bool = False
    style: str = "line"

    def moved(self, x: float, y: float) -> Line:
        """Return the same at another place."""
        return replace(self, points=tuple((left + x, top + y) for left, top in self.points))

    def xml(self) -> str:
        """Return it as SVG."""
        points = " ".join(f"{x:g},{y:g}" for x, y in self.points)
        head = ' marker-end="url(#head)"' if self.is_arrow else ""
        return f'<polyline class="{self.style}" points="{points}"{head}/>'


@dataclass(frozen=True, slots=True)
class Words:
    """One line of text; ``y`` is where the letters stand. ``anchor`` is ``start``, ``middle`` or ``end``."""

    x: float
    y: float
    text: str
    style: str = "note"
    anchor: str = "middle"

    def moved(self, x: float, y: float) -> Words:
        """Return the same at another place."""
        return replace(self, x=self.x + x, y=self.y + y)

    def xml(self) -> str:
        """Return it as SVG; the text is escaped."""
        return (
            f'<text class="{self.style}" x="{self.x:g}" y="{self.y:g}" text-anchor="{self.anchor}">'
            f"{escape(self.text)}</text>"
        )


Part = Box | Line | Words


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the drawing that fits into a rectangle.

    Attributes:
        width: of the rectangle.
        height: of the rectangle.
        axis: how far from its left side arrows come in at the top and leave at the bottom.
        parts: what is in it, from its upper left corner.
    """

    width: float
    height: float
    axis: float
    parts: Sequence[Part] = field(default=())

    def at(self, x: float, y: float) -> list[Part]:
        """Return the parts where its upper left corner is put at a place."""
        return [part.moved(x, y) for part in self.parts]


def width_of(texts: Iterable[str]) -> float:
    """Return how much room the widest of some lines needs."""
    return max((sum(_letter(char) for char in text) for text in texts), default=0.0)


def _letter(char: str) -> float:
    return _WIDE_LETTER if unicodedata.east_asian_width(char) in "WF" else _LETTER
