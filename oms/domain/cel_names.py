"""The names in an expression: which there are, which of a job's data it reads, and which it may not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oms.domain.cel import NAMESPACES, TYPES, VARIABLES, CelSyntaxError
from oms.domain.cel_cost import walk
from oms.domain.cel_tree import Call, Const, Group, Ident, Loop, Node, Select, children
from oms.domain.naming import did_you_mean, listed, quote

if TYPE_CHECKING:
    from oms.domain.cel_scope import Scope

    Reads = dict[str, "Reads"]
    """Which entries of an object are read, and which of theirs; an empty one means the whole value."""

_BEFORE_NAME = re.compile(r"[\s.?(\[\"'`]*")


def name_faults(tree: Node, source: str, scope: Scope) -> list[tuple[int, str]]:
    """Refuse free names that do not exist, loop variables that hide a name, and message literals."""
    given = (*VARIABLES, *scope.variables)
    faults: list[tuple[int, str]] = []
    waiting: list[tuple[Node, frozenset[str]]] = [(tree, frozenset())]
    while waiting:
        node, local = waiting.pop()
        match node:
            case Ident(offset, name) if name not in local and name not in given and name not in TYPES:
                near = did_you_mean(name, given) or f"; expected {listed(given)}"
                faults.append((offset, f"there is no {quote(name)} here{near}"))
            case Group(offset, _, message) if message:
                at = max(source.rfind(message, 0, offset + 1), 0)
                faults.append((at, f"messages such as {quote(message)} cannot be made in a condition"))
            case Loop(offset, variables, accumulator):
                hidden = next((name for name in (*variables, accumulator) if name in given), None)
                if hidden:
                    faults.append((offset, f"a loop's variable cannot be called {quote(hidden)}"))
                waiting += [(node.items, local), (node.start, local)]
                inside = local | {*variables, accumulator}
                waiting += [(part, inside) for part in (node.condition, node.step, node.result)]
                continue
        skip = 1 if _in_namespace(node) else 0
        waiting.extend((child, local) for child in children(node)[skip:])
    return faults


def _in_namespace(node: Node) -> bool:
    """Tell whether the node is a call such as ``optional.of(x)``, whose first part is no variable."""
    if not isinstance(node, Call) or not node.args:
        return False
    first = node.args[0]
    return isinstance(first, Ident) and node.function in NAMESPACES.get(first.name, ())


def note_reads(tree: Node, reads: Reads, source: str, scope: Scope) -> list[tuple[int, str]]:
    """Note in ``reads`` which data the expression reads; return what is wrong with how it reads outputs."""
    names = _Outputs(source, scope)
    faults: list[tuple[int, str]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        path = data_path(node, scope)
        if path is None:
            waiting.extend(children(node))
            continue
        root, keys = path
        fault = names.fault(root, keys) if root.name == "outputs" else None
        if fault is None:
            _note(reads, [root.name, *(key for key, _ in keys)])
        else:
            faults.append(fault)
    return faults


def data_path(node: Node, scope: Scope) -> tuple[Ident, list[tuple[str, int]]] | None:
    """Return the variable and the literal keys, each with its offset, that the node reads; None if no such chain."""
    keys: list[tuple[str, int]] = []
    while True:
        match node:
            case Ident(_, name) if name in VARIABLES or name in scope.variables:
                return node, keys[::-1]
            case Select(offset, operand, field):
                keys.append((field, offset))
                node = operand
            case Call(offset, "_[_]" | "_[?_]" | "_?._" as function, (operand, Const(place, str(key)))):
                keys.append((key, offset if function == "_?._" else place))
                node = operand
            case _:
                return None


def _note(reads: Reads, path: list[str]) -> None:
    """Add a path to the tree of what is read, where an empty entry already means everything below it."""
    for index, key in enumerate(path):
        if key in reads and not reads[key]:
            return
        if index == len(path) - 1:
            reads[key] = {}
            return
        reads = reads.setdefault(key, {}) if key in reads else _new_entry(reads, key)


def _new_entry(reads: Reads, key: str) -> Reads:
    reads[key] = {}
    return reads[key]


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Which outputs an expression may read, and how it is told otherwise."""

    source: str
    scope: Scope

    def fault(self, root: Ident, keys: list[tuple[str, int]]) -> tuple[int, str] | None:
        """Return what is wrong with reading these keys of ``outputs``, with its place; None if nothing is."""
        if not keys:
            return (
                root.offset,
                'outputs are read by an activity\'s name in plain text: outputs.name or outputs["any name"]',
            )
        name, place = keys[0][0], self._start(*keys[0])
        if name in self.scope.outputs:
            return None
        reason = self.scope.why_not(name)
        if reason is not None:
            return place, f"{quote(name)} {reason}; {self._readable()}"
        near = did_you_mean(name, self.scope.outputs)
        return place, f"there is no earlier activity {quote(name)}{near or '; ' + self._readable()}"

    def _readable(self) -> str:
        return (
            f"expected one of {listed(self.scope.outputs)}" if self.scope.outputs else "no step comes before this one"
        )

    def _start(self, name: str, offset: int) -> int:
        """Return where a name starts, given the place of the dot, bracket or quote before it."""
        match = _BEFORE_NAME.match(self.source, offset)
        start = match.end() if match else offset
        return start if self.source.startswith(name, start) else max(self.source.find(name, offset), offset)


def asked_outputs(tree: Node) -> frozenset[str]:
    """Return the names of which the expression asks whether there is an output at all: ``has(outputs.name)``."""
    tests = [node for node in walk(tree) if isinstance(node, Select) and node.tests]
    return frozenset(node.field for node in tests if isinstance(node.operand, Ident) and node.operand.name == "outputs")


def patterns(tree: Node) -> list[tuple[str, int]]:
    """Return the regular expressions of all ``matches``, with their places.

    Raises:
        CelSyntaxError: one is not a text in the expression itself, so that nobody knows what it costs.
    """
    found: list[tuple[str, int]] = []
    for node in walk(tree):
        if isinstance(node, Call) and node.function == "matches" and node.args:
            pattern = node.args[-1]
            if not isinstance(pattern, Const) or not isinstance(pattern.value, str):
                start = min(part.offset for part in walk(pattern))
                raise CelSyntaxError("the pattern of matches() must be a text in quotes", start)
            found.append((pattern.value, pattern.offset))
    return found
