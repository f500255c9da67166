"""Which names a plan's steps have, read before the rest: an expression needs to know the steps after it, too.

Nothing here refuses anything: what is no step has no name, and ``oms.domain.plan_steps`` says what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from oms.domain.cel_scope import Shape
from oms.domain.naming import quote
from oms.domain.plan import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from oms.domain.plan_faults import Path

BLOCKS = ("parallel", "for_each", "repeat", "choose", "wait", "plan")
"""The keys that make an entry of a list of steps a block."""
SHAPES = {"for_each": Shape.LIST, "wait": Shape.ANY, "plan": Shape.OBJECT}
"""The blocks that may have an id, and what their output is."""


class Part(NamedTuple):
    """One turn on the way to a step: ``step`` n, ``branch`` name, ``option`` n, ``each`` id or None, ``undo``."""

    kind: str
    which: str | int | None


Spot = tuple[Part, ...]
"""Where a step stands: the turns from the plan's sequence to it."""


def block_of(entry: dict[str, object]) -> str | None:
    """Return the key that makes an entry a block; None for an activity."""
    return next((key for key in entry if key in BLOCKS), None)


def own_name(entry: object) -> tuple[str, Shape] | None:
    """Return the name under which an entry itself gives an output, and what that is; None if it gives none."""
    if isinstance(entry, str):
        return entry, Shape.OBJECT
    if not isinstance(entry, dict):
        return None
    block = block_of(entry)
    name = entry.get("activity", entry.get("lane")) if block is None else entry.get("id")
    shape = Shape.OBJECT if block is None else SHAPES.get(block)
    return (name, shape) if isinstance(name, str) and shape is not None else None


def inner_lists(entry: object) -> Iterator[tuple[Path, Spot, list[object]]]:
    """Yield the lists of steps inside an entry, each with the path and the turn that lead to it from there."""
    if isinstance(entry, dict):
        for path, turn, steps in _inner(block_of(entry), entry):
            if isinstance(steps, list):
                yield path, turn, steps


def _inner(block: str | None, entry: dict[str, Any]) -> Iterator[tuple[Path, Spot, object]]:
    match block, entry.get(block or ""):
        case "parallel", dict(branches):
            for name, steps in branches.items():
                yield ("parallel", name), (Part("branch", name),), steps
        case "choose", list(options):
            for number, option in enumerate(options):
                for key in ("do", "else") if isinstance(option, dict) else ():
                    yield ("choose", number, key), (Part("option", number),), option.get(key)
        case "for_each", _:
            name = entry.get("id")
            yield ("do",), (Part("each", name if isinstance(name, str) else None),), entry.get("do")
        case "repeat", steps:
            yield ("repeat",), (), steps
        case None, _:
            yield ("undo",), (Part("undo", None),), entry.get("undo")


def spots_of(entries: object, spot: Spot = (), depth: int = 0) -> dict[str, Spot]:
    """Return where each name of a list of steps, and of the lists inside it, is given first."""
    found: dict[str, Spot] = {}
    if depth > 2 * MAX_DEPTH:
        return found
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        here = (*spot, Part("step", number))
        own = own_name(entry)
        if own is not None:
            found.setdefault(own[0], here)
        for _path, turn, inner in inner_lists(entry):
            for name, place in spots_of(inner, (*here, *turn), depth + 1).items():
                found.setdefault(name, place)
    return found


def names_after(entries: list[object], depth: int = 0) -> dict[str, Shape]:
    """Return the names that can be read after a list of steps: not those inside a ``for_each`` or an ``undo``."""
    found: dict[str, Shape] = {}
    if depth > MAX_DEPTH:
        return found
    for entry in entries:
        own = own_name(entry)
        if own is not None:
            found.setdefault(*own)
        if isinstance(entry, dict) and block_of(entry) in ("parallel", "repeat", "choose"):
            for _path, _turn, inner in inner_lists(entry):
                found |= names_after(inner, depth + 1)
    return found


def shown_spot(spot: Spot) -> str:
    """Return a step's place in words: ``step 3, branch "photo", step 1``."""
    words = []
    for kind, which in spot:
        match kind, which:
            case (("step" | "option"), int(number)):
                words.append(f"{kind} {number + 1}")
            case "branch", str(name):
                words.append(f"branch {quote(name)}")
            case "undo", _:
                words.append("undo")
    return ", ".join(words)


def why_unreadable(name: Spot, reader: Spot, readable: Collection[str]) -> str:
    """Say why the output of the step at ``name`` cannot be read by an expression of the step at ``reader``.

    The sentence begins with the name. ``readable`` are the names that can be read there.
    """
    alike = 0
    while alike < min(len(name), len(reader)) and name[alike] == reader[alike]:
        alike += 1
    apart = (name[alike].kind if alike < len(name) else "", reader[alike].kind if alike < len(reader) else "")
    if apart == ("branch", "branch"):
        return "is in another branch of the same parallel, so it may not be done yet"
    if apart == ("option", "option"):
        return "is in another option of the same choose, and only one of them is done"
    for kind, which in name[alike:]:
        if kind == "undo":
            return "is in an undo, which is done when the job ends without success"
        if kind == "each" and which is None:
            return "is inside a for_each without an id, whose outputs are not kept"
        if kind == "each" and which in readable:
            return f"is inside the for_each {quote(str(which))}, whose outputs are read as a list under that id"
    return "is not an earlier step, so it has no output yet"
