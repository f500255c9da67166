"""The syntax tree of a CEL expression, as the engine's own parser gives it.

The engine hands its tree out only as bytes: a ``cel.expr.ParsedExpr`` of the CEL specification, in protobuf's wire
format. Reading those few messages here gives exact names and places (macros expanded, texts unescaped, comments gone)
without a second parser that could disagree with the first, and without protobuf as a dependency.
"""

# ruff: noqa: PLR2004 - the numbers are the specification's field numbers (cel/expr/syntax.proto)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Message: TypeAlias = dict[int, list["int | bytes"]]
"""A protobuf message: its fields by number, each with its values in order."""


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. ``value`` is a text, bytes, or None for every other kind (numbers, booleans, null)."""

    offset: int
    value: str | bytes | None


@dataclass(frozen=True, slots=True)
class Ident:
    """A name that stands alone, without the leading dot that CEL allows."""

    offset: int
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """``operand.field``, or ``has(operand.field)`` where ``tests``. ``offset`` is the dot's, or the bracket's."""

    offset: int
    operand: Node
    field: str
    tests: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator (``_<_``, ``_[_]``). A method's receiver is the first of ``args``."""

    offset: int
    function: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A list, map or message literal with all its keys and values. ``message`` names a message's type."""

    offset: int
    items: tuple[Node, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Loop:
    """A macro such as ``all`` or ``map``, expanded: ``step`` gives the accumulator anew for each of ``items``."""

    offset: int
    variables: tuple[str, ...]
    accumulator: str
    items: Node
    start: Node
    condition: Node
    step: Node
    result: Node


Node: TypeAlias = Const | Ident | Select | Call | Group | Loop


def read_tree(serialized: bytes) -> Node:
    """Return the tree of a serialized, parsed expression: an ``Any`` that holds a ``ParsedExpr``.

    Raises:
        ValueError: these are not those bytes; the engine's format has changed.
    """
    parsed = _message(_only(_message(serialized), 2))
    positions: dict[int, int] = {}
    for entry in _message(_only(parsed, 3)).get(4, []):
        pair = _message(entry)
        positions[_number(pair, 1)] = _number(pair, 2)
    return _node(_message(_only(parsed, 2)), positions)


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes right below this one, in the order of their evaluation."""
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.args
        case Group():
            return node.items
        case Loop():
            return (node.items, node.start, node.condition, node.step, node.result)
        case _:
            return ()


def _node(expr: Message, positions: dict[int, int]) -> Node:  # noqa: PLR0911 - one return per kind of node
    """Build a node from an ``Expr`` message."""
    offset = positions.get(_number(expr, 2), 0)

    def below(message: Message, field: int) -> tuple[Node, ...]:
        return tuple(_node(_message(raw), positions) for raw in message.get(field, []))

    if 4 in expr:
        return Ident(offset, _text(_message(_only(expr, 4)), 1).removeprefix("."))
    if 5 in expr:
        select = _message(_only(expr, 5))
        return Select(offset, below(select, 1)[0], _text(select, 2), bool(_number(select, 3)))
    if 6 in expr:
        call = _message(_only(expr, 6))
        return Call(offset, _text(call, 2), below(call, 1) + below(call, 3))
    if 7 in expr:
        return Group(offset, below(_message(_only(expr, 7)), 1), "")
    if 8 in expr:
        struct = _message(_only(expr, 8))
        entries = [_message(raw) for raw in struct.get(2, [])]
        parts = tuple(node for entry in entries for node in (*below(entry, 3), *below(entry, 4)))
        return Group(offset, parts, _text(struct, 1))
    if 9 in expr:
        loop = _message(_only(expr, 9))
        variables = tuple(name for name in (_text(loop, 1), _text(loop, 8)) if name)
        items, start, condition, step, result = (below(loop, field)[0] for field in (2, 4, 5, 6, 7))
        return Loop(offset, variables, _text(loop, 3), items, start, condition, step, result)
    return Const(offset, _constant(_message(_only(expr, 3))))


def _constant(constant: Message) -> str | bytes | None:
    """Return a text or bytes literal's value."""
    if 6 in constant:
        return _text(constant, 6)
    return _bytes(_only(constant, 7)) if 7 in constant else None


def _message(raw: int | bytes) -> Message:
    """Split the bytes of a message into its fields."""
    fields: Message = {}
    for number, value in _fields(_bytes(raw)):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and value: a number, or bytes for a text, a message or eight or four fixed bytes."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(raw, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(raw, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} in a CEL expression")
        if at + size > len(raw):
            raise ValueError("a CEL expression is cut short")
        yield number, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at ``at``, and where the next field starts."""
    value = shift = 0
    while at < len(raw):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # the last byte has its top bit clear
            return value, at
    raise ValueError("a CEL expression is cut short")


def _only(message: Message, field: int) -> int | bytes:
    """Return the last value of a field, as protobuf does; an absent message is an empty one."""
    return message[field][-1] if field in message else b""


def _number(message: Message, field: int) -> int:
    value = _only(message, field)
    return value if isinstance(value, int) else 0


def _text(message: Message, field: int) -> str:
    return _bytes(_only(message, field)).decode(errors="replace")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a CEL expression has bytes")  # noqa: TRY004 - the format, not a caller's type
    return value
