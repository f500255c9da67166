"""What evaluating a CEL expression could cost at most, worked out before it is evaluated.

The engine stops after 10,000 loop rounds, but not inside one: joined texts, lists that ``map`` and ``filter`` copy in
every round, and regular expressions that are compiled in every round took gigabytes and minutes in measurements. So
each evaluation is first bounded by this estimate, from the tree and the sizes of the very data it will read.

One unit is about 10 ns, or a byte of memory. The estimate errs upwards: what it lets through ends within about a fifth
of a second; what it refuses might have been cheaper.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oms.domain.cel_tree import Call, Const, Group, Ident, Loop, Node, Select, children
from oms.domain.json_data import Size

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_UNITS = 20_000_000
MAX_ROUNDS = 10_000
"""The engine's own limit on the loop rounds of one evaluation, all loops together."""

SCALAR = Size(text=0, length=0, inner=0, values=1)

_COMPARES = frozenset({"_<_", "_<=_", "_>_", "_>=_", "startsWith", "endsWith", "hasValue"})
_LOGIC = frozenset({"_&&_", "_||_", "!_", "-_", "_-_", "_*_", "_/_", "_%_", "@not_strictly_false"})
_ENTRIES = frozenset({"_[_]", "_[?_]", "_?._"})
_CHOICES = frozenset({"_?_:_", "or", "orValue", "value", "of", "none", "optional.of", "optional.none"})


class TooCostlyError(Exception):
    """The evaluation could take more than ``MAX_UNITS``."""


def check_cost(tree: Node, variables: Mapping[str, Size]) -> None:
    """Return when evaluating ``tree`` is cheap enough on variables of these sizes.

    Raises:
        TooCostlyError: it might not be.
    """
    _Estimate().size_of(tree, variables, rounds=1)


class _Estimate:
    """One estimate: walks the tree once, adding up the work and returning the size of each value."""

    def __init__(self) -> None:
        self._units = 0

    def _add(self, units: int, rounds: int) -> None:
        self._units += units * rounds
        if self._units > MAX_UNITS:
            raise TooCostlyError

    def size_of(self, node: Node, variables: Mapping[str, Size], rounds: int) -> Size:
        """Return a bound on the node's value, counting its work ``rounds`` times."""
        self._add(1, rounds)
        match node:
            case Ident():
                return variables.get(node.name, SCALAR)
            case Const():
                return SCALAR if node.value is None else _text_of(len(_utf8(node.value)))
            case Select():
                operand = self.size_of(node.operand, variables, rounds)
                return SCALAR if node.tests else _entry(operand)
            case Group():
                sizes = [self.size_of(item, variables, rounds) for item in node.items]
                self._add(16 * len(sizes), rounds)
                every = _together(sizes)
                return every._replace(length=len(sizes), inner=max(every.length, every.inner))
            case Loop():
                return self._loop(node, variables, rounds)
            case Call():
                sizes = [self.size_of(argument, variables, rounds) for argument in node.args]
                units, size = _call(node, sizes)
                self._add(units, rounds)
                return size

    def _loop(self, loop: Loop, variables: Mapping[str, Size], rounds: int) -> Size:
        items = self.size_of(loop.items, variables, rounds)
        start = self.size_of(loop.start, variables, rounds)
        times = min(items.length, MAX_ROUNDS)
        inside = min(rounds * max(times, 1), MAX_ROUNDS)
        body = {**variables, **dict.fromkeys(loop.variables, _entry(items))}
        # map and filter add an entry in each round; whatever else there is keeps the size that it has in one.
        length = times if isinstance(loop.start, Group) else start.length
        body[loop.accumulator] = start._replace(length=length)
        self.size_of(loop.condition, body, inside)
        step = self.size_of(loop.step, body, inside)
        final = Size(
            text=max(start.text, step.text),
            length=max(length, 0 if isinstance(loop.start, Group) else step.length),
            inner=max(start.inner, step.inner),
            values=start.values + times * step.values,
        )
        return self.size_of(loop.result, {**variables, loop.accumulator: final}, rounds)


def _call(call: Call, sizes: list[Size]) -> tuple[int, Size]:  # noqa: PLR0911 - one return per kind of function
    """Return a call's own work in units, and a bound on its result."""
    every = _together(sizes)
    if call.function in _LOGIC:
        return 1, SCALAR
    if call.function in _COMPARES:
        return min(size.text for size in sizes) + 1, SCALAR
    if call.function in _ENTRIES:
        return 1, _entry(sizes[0])
    if call.function in _CHOICES:
        return 1, every
    match call.function, sizes:
        case (("_==_" | "_!=_"), [left, right]):
            return min(left.values, right.values) * (16 + min(left.text, right.text)), SCALAR
        case "@in", [item, among]:
            return min(item.values, among.values) * among.length * (16 + min(item.text, among.text)), SCALAR
        case "_+_", [left, right]:
            # In a loop the accumulator is on average half as long as at its end, hence 8 units per entry, not 16.
            text, length = left.text + right.text, left.length + right.length
            return text + 8 * length, Size(text, length, every.inner, every.values)
        case _:
            return _text_call(call, sizes) or _any_call(every, sizes)


def _text_call(call: Call, sizes: list[Size]) -> tuple[int, Size] | None:  # noqa: PLR0911 - as above
    """Do the same for a function on texts whose work or result is more than its arguments; None for any other."""
    match call.function, sizes:
        case "size", [of]:
            return of.text + 1, SCALAR
        case "matches", [subject, _]:
            states = regex_states(_literal(call.args[1]))
            return 300 * states + 2 * states * subject.text, SCALAR
        case (("contains" | "indexOf" | "lastIndexOf"), [subject, sought, *_]):
            return _search(subject, sought), SCALAR
        case "split", [subject, sought, *_]:
            pieces = subject.text + 1
            return _search(subject, sought) + 16 * pieces, Size(subject.text, pieces, 0, pieces + 1)
        case "replace", [subject, sought, new, *_]:
            text = subject.text + (subject.text + 1) * new.text
            return _search(subject, sought) + 2 * text, _text_of(text)
        case "join", [parts, *separator]:
            text = parts.length * (parts.text + sum(size.text for size in separator))
            return text + 16 * parts.length, _text_of(text)
        case "format", [pattern, values]:
            # A clause has two characters at least, and writes up to 1,000 digits or a whole value.
            text = pattern.text + (pattern.text // 2) * (1100 + values.values * (values.text + 40))
            return 2 * text, _text_of(text)
        case _:
            return None


def _any_call(every: Size, sizes: list[Size]) -> tuple[int, Size]:
    """Do the same for a function that reads its arguments once and gives what they hold, maybe escaped or as text."""
    text = 6 * sum(size.text for size in sizes) + 64
    return 2 * text + 16 * every.values, every._replace(text=text)


def _entry(size: Size) -> Size:
    """Return a bound on any entry of a value."""
    return size._replace(length=size.inner)


def _text_of(length: int) -> Size:
    return Size(text=length, length=0, inner=0, values=1)


def _search(subject: Size, sought: Size) -> int:
    """Return the work of finding one text in another: in the worst case each place is compared."""
    return subject.text * (1 + sought.text // 8)


def _together(sizes: list[Size]) -> Size:
    return Size(
        text=max((size.text for size in sizes), default=0),
        length=max((size.length for size in sizes), default=0),
        inner=max((size.inner for size in sizes), default=0),
        values=1 + sum(size.values for size in sizes),
    )


def _literal(node: Node) -> str:
    return node.value if isinstance(node, Const) and isinstance(node.value, str) else ""


def _utf8(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode(errors="replace")


_REGEX_TOKEN = re.compile(
    r"""(?sx)
    (?P<repeat>\{\d+(?:,\d*)?\})                                     # {n} {n,} {n,m}
    | (?P<class>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])               # [...]
    | (?P<unicode>\\[pP](?:\{[^}]*\}|.))                               # \pL \p{Greek}
    | (?P<open>\() | (?P<close>\))
    | (?P<atom>\\.|.)
    """
)
_UNICODE_STATES = 2_000
_WIDE_STATES = 16


def regex_states(pattern: str) -> int:
    """Return about how many states RE2 makes of a pattern; its time to compile and per byte of text grows with them."""
    groups = [0]
    last = 0
    for token in _REGEX_TOKEN.finditer(pattern):
        kind, text = token.lastgroup, token.group()
        if kind == "open":
            groups.append(0)
            last = 0
        elif kind == "close" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif kind == "repeat":
            times = max(int(number) for number in re.findall(r"\d+", text)) + 1
            groups[-1] += last * (times - 1)
            last *= times
        else:
            unicode_classes = len(re.findall(r"\\[pP]", text)) if kind in ("class", "unicode") else 0
            wide = text == "." or not text.isascii() or re.match(r"\[\^|.*\\[DWS]", text)
            last = unicode_classes * _UNICODE_STATES + (_WIDE_STATES if wide else 1)
            groups[-1] += last
    return sum(groups) + 2


def walk(tree: Node) -> list[Node]:
    """Return the tree's nodes, each before those below it."""
    found: list[Node] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting.extend(reversed(children(node)))
    return found
