"""Plain JSON values and their size, measured before an engine in another language sees them.

Both engines (CEL, JSON Schema) walk what they are given recursively in C++ or Rust, where a value that is nested too
deep ends the process instead of raising. So everything that comes from outside is measured here first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_DEPTH = 100
"""Objects and lists inside each other; deeper values are refused."""


class NotPlainError(ValueError):
    """The value is not plain JSON: a foreign type, a key that is no text, half a character, or nested too deep."""


class Size(NamedTuple):
    """An upper bound on a value.

    Attributes:
        text: bytes of the longest text in it, keys included.
        length: its own entries, if it is a list or an object.
        inner: entries of the longest list or object inside it.
        values: values in it altogether, itself included.
    """

    text: int
    length: int
    inner: int
    values: int


def measure(value: object, *, takes_nul: bool = True) -> Size:
    """Return the size of a JSON value.

    Args:
        value: the value.
        takes_nul: False refuses texts and keys with the character NUL, too.

    Raises:
        NotPlainError: it is not plain JSON, or nested deeper than ``MAX_DEPTH``.
    """
    bytes_of = _bytes_of if takes_nul else _bytes_without_nul
    text = inner = values = 0
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        values += 1
        if isinstance(item, str):
            text = max(text, bytes_of(item))
        elif isinstance(item, dict):
            inner = max(inner, len(item) if depth else 0)
            text = max(text, max(map(bytes_of, item), default=0))
            waiting.extend((entry, depth + 1) for entry in item.values())
        elif isinstance(item, list):
            inner = max(inner, len(item) if depth else 0)
            waiting.extend((entry, depth + 1) for entry in item)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise NotPlainError(f"{item} is no JSON number")
        elif item is not None and not isinstance(item, (bool, int)):
            raise NotPlainError(f"a value of type {type(item).__name__} is not JSON")
        if depth > MAX_DEPTH:
            raise NotPlainError(f"the value is nested deeper than {MAX_DEPTH} levels")
    return Size(text, len(value) if isinstance(value, (dict, list)) else 0, inner, values)


def _bytes_of(text: object) -> int:
    """Return the UTF-8 length of a text, or of a key that must be one."""
    if not isinstance(text, str):
        raise NotPlainError(f"a key of type {type(text).__name__} is not JSON; keys are text")
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise NotPlainError("a text holds half of a character (a lone surrogate)") from None


def _bytes_without_nul(text: object) -> int:
    """Do the same for a text that must not have a NUL."""
    length = _bytes_of(text)
    if isinstance(text, str) and "\0" in text:
        raise NotPlainError("a text holds the character NUL, which an expression cannot read")
    return length
