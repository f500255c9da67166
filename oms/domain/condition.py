"""``when:`` clauses: checked when the plan is loaded, true or false when it runs.

A condition sees ``input``, ``outputs`` and ``reference``. What it cannot decide is a ``ConditionError`` and never
counts as true. It reads outputs by an activity's name, ``outputs.check_photo`` or, for any name,
``outputs["T02 Check"]``; the name is always written out, so that a plan that reads what is not there is refused before
a job runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oms.domain.cel import (
    NAMESPACES,
    TYPES,
    VARIABLES,
    CelError,
    CelSyntaxError,
    Program,
    check_regex,
    parse,
)
from oms.domain.cel_cost import TooCostlyError, check_cost, walk
from oms.domain.cel_tree import Call, Const, Group, Ident, Loop, Node, Select, children
from oms.domain.json_data import NotPlainError, Size, measure
from oms.domain.naming import did_you_mean, listed, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    Reads = dict[str, "Reads"]
    """Which entries of an object are read, and which of theirs; an empty one means the whole value."""

_BEFORE_NAME = re.compile(r"[\s.?(\[\"'`]*")
_EMPTY = {name: Size(text=0, length=0, inner=0, values=1) for name in VARIABLES}


class ConditionSyntaxError(ValueError):
    """A ``when`` that cannot be used.

    Attributes:
        faults: every fault found, each with its character offset inside the source, in their order there.
        message: the first one: what was found, what was expected.
        offset: its place; 0 if unknown.
    """

    def __init__(self, faults: Iterable[tuple[int, str]]) -> None:
        self.faults = tuple(sorted(faults))
        self.offset, self.message = self.faults[0]
        super().__init__(self.message)


class ConditionError(Exception):
    """A ``when`` that cannot be decided on a job's data.

    Attributes:
        source: the expression.
        code: ``missing_key``, ``type_mismatch``, ``not_boolean``, ``budget_exceeded`` or ``other``; safe for a ledger.
        message: why; may hold the citizen's data, so it stays inside OMS.
    """

    def __init__(self, source: str, code: str, message: str) -> None:
        super().__init__(f"{source}: {message}")
        self.source = source
        self.code = code
        self.message = message


class Condition:
    """One ``when``, ready to be decided. Immutable; threads may share it.

    Attributes:
        source: the expression as written.
        reads: the names of the activities whose outputs it reads.
    """

    __slots__ = ("_asked", "_data", "_program", "_tree", "reads", "source")

    def __init__(self, source: str, activities: Collection[str], *, later: Collection[str] = ()) -> None:
        """Check and compile.

        Args:
            source: CEL, at most 1,000 characters.
            activities: the names of the earlier steps' activities, whose outputs it may read.
            later: the names of this and the later steps' activities, so that a message can say so.

        Raises:
            ConditionSyntaxError: it is no CEL, names what it cannot read, is not true or false, or is too costly.
        """
        try:
            self._tree = parse(source)
            data: Reads = {}
            faults = _name_faults(self._tree, source)
            faults += _note_reads(self._tree, data, _Names(source, activities, later))
            if faults:
                raise ConditionSyntaxError(faults)
            for pattern in _patterns(self._tree):
                check_regex(*pattern)
            self._program = Program(source)
        except CelSyntaxError as error:
            raise ConditionSyntaxError([(error.offset, error.message)]) from None
        kind = self._program.type_name
        if kind not in ("BOOL", "DYN"):
            raise ConditionSyntaxError([(0, _not_boolean(kind))])
        try:
            check_cost(self._tree, _EMPTY)
        except TooCostlyError:
            raise ConditionSyntaxError([(0, "the expression is too costly, whatever the data")]) from None
        self.source = source
        self.reads = frozenset(data.get("outputs", {}))
        self._data = data
        self._asked = _asked_outputs(self._tree)

    def holds(self, *, input: Mapping[str, Any], outputs: Mapping[str, Any], reference: str) -> bool:  # noqa: A002
        """Decide it on a job's data.

        Args:
            input: the job's input, plain JSON.
            outputs: each finished activity's output, an object. One that is missing, because its step was skipped or
                has not run, counts as ``{}``, so that ``has(outputs.x.ok)`` is false; where the expression asks
                ``has(outputs.x)``, it is really missing. Only ``reads`` are looked at.
            reference: the job's reference.

        Raises:
            ConditionError: it cannot be decided: a key is missing, a type does not fit, the data is too large for it.
        """
        given: dict[str, Any] = {"input": _plain_object(input), "reference": reference}
        names = [name for name in self.reads if name in outputs or name not in self._asked]
        given["outputs"] = {name: outputs.get(name, {}) for name in names}
        data = _read(given, self._data)
        try:
            check_cost(self._tree, {name: measure(value) for name, value in data.items()})
            answer = self._program.evaluate(data)
        except NotPlainError as error:
            raise ConditionError(self.source, "type_mismatch", str(error)) from None
        except TooCostlyError:
            message = "the data is too large for this expression; it would take too long"
            raise ConditionError(self.source, "budget_exceeded", message) from None
        except CelError as error:
            raise ConditionError(self.source, error.kind, error.message) from None
        if answer is None:
            raise ConditionError(self.source, "not_boolean", "it gave a value that is neither true nor false")
        return answer

    def __repr__(self) -> str:
        return f"Condition({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and (self.source, self.reads) == (other.source, other.reads)

    def __hash__(self) -> int:
        return hash((self.source, self.reads))


def _plain_object(value: object) -> object:
    """Return a mapping as a dict, which is what the engine takes; anything else as it is, for the engine to refuse."""
    return dict(value) if isinstance(value, Mapping) else value


def _read(value: Any, reads: Reads) -> Any:  # noqa: ANN401 - JSON
    """Return the part of a value that is read; what is elsewhere in it can neither cost time nor be the wrong type."""
    if not reads or not isinstance(value, dict):
        return value
    return {key: _read(value[key], below) for key, below in reads.items() if key in value}


def _name_faults(tree: Node, source: str) -> list[tuple[int, str]]:
    """Refuse free names that do not exist, loop variables that hide a name, and message literals."""
    faults: list[tuple[int, str]] = []
    waiting: list[tuple[Node, frozenset[str]]] = [(tree, frozenset())]
    while waiting:
        node, local = waiting.pop()
        match node:
            case Ident(offset, name) if name not in local and name not in (*VARIABLES, *TYPES):
                faults.append((offset, f"there is no {quote(name)} here{_expected_name(name)}"))
            case Group(offset, _, message) if message:
                at = max(source.rfind(message, 0, offset + 1), 0)
                faults.append((at, f"messages such as {quote(message)} cannot be made in a condition"))
            case Loop(offset, variables, accumulator):
                hidden = next((name for name in (*variables, accumulator) if name in VARIABLES), None)
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


def _expected_name(name: str) -> str:
    near = did_you_mean(name, VARIABLES)
    return near or f"; expected {listed(VARIABLES)}"


def _note_reads(tree: Node, reads: Reads, names: _Names) -> list[tuple[int, str]]:
    """Note in ``reads`` which data the expression reads; return what is wrong with how it reads outputs."""
    faults: list[tuple[int, str]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        path = _path(node)
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


def _path(node: Node) -> tuple[Ident, list[tuple[str, int]]] | None:
    """Return the variable and the literal keys, each with its offset, that the node reads; None if no such chain."""
    keys: list[tuple[str, int]] = []
    while True:
        match node:
            case Ident(_, name) if name in VARIABLES:
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
class _Names:
    """Which outputs an expression may read, and how it is told otherwise."""

    source: str
    activities: Collection[str]
    later: Collection[str]

    def fault(self, root: Ident, keys: list[tuple[str, int]]) -> tuple[int, str] | None:
        """Return what is wrong with reading these keys of ``outputs``, with its place; None if nothing is."""
        if not keys:
            return (
                root.offset,
                'outputs are read by an activity\'s name in plain text: outputs.name or outputs["any name"]',
            )
        name, place = keys[0][0], self._start(*keys[0])
        if name in self.activities:
            return None
        if name in self.later:
            return place, f"{quote(name)} is not an earlier step, so it has no output yet; {self._readable()}"
        near = did_you_mean(name, self.activities)
        return place, f"there is no earlier activity {quote(name)}{near or '; ' + self._readable()}"

    def _readable(self) -> str:
        return f"expected one of {listed(self.activities)}" if self.activities else "no step comes before this one"

    def _start(self, name: str, offset: int) -> int:
        """Return where a name starts, given the place of the dot, bracket or quote before it."""
        match = _BEFORE_NAME.match(self.source, offset)
        start = match.end() if match else offset
        return start if self.source.startswith(name, start) else max(self.source.find(name, offset), offset)


def _asked_outputs(tree: Node) -> frozenset[str]:
    """Return the names of which the expression asks whether there is an output at all: ``has(outputs.name)``."""
    tests = [node for node in walk(tree) if isinstance(node, Select) and node.tests]
    return frozenset(node.field for node in tests if isinstance(node.operand, Ident) and node.operand.name == "outputs")


def _patterns(tree: Node) -> list[tuple[str, int]]:
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


def _not_boolean(kind: str) -> str:
    if "optional" in kind.lower():
        return "the expression gives an optional value; end it with .orValue(false)"
    return f"the expression gives {kind.lower()}, not true or false; compare it with something"
