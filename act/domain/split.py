r"""Cut a posted body into the original bytes of each event, as strict JSON.

What is hashed and kept is what was posted: an event that is parsed and written again would lose its ``1.0``, its
``\u20ac`` and its white space. So the array is only walked, and each event is a slice of it.

Everything that two readers could understand differently is refused (I-JSON, RFC 7493): duplicate keys, NaN and
infinities, half surrogates; and what a database cannot keep as text: NUL.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple, NoReturn

from pydantic_core import from_json, to_json

from act.contract import MAX_BATCH_EVENTS
from act.domain.errors import Fault, InvalidInputError, TooLargeError

MAX_DEPTH = 32
"""How deep objects and arrays may nest in one event; the event itself is the first."""

_BOM = b"\xef\xbb\xbf"
_SPACE = " \t\n\r"


class Slice(NamedTuple):
    """One element of the posted array.

    Attributes:
        raw: its bytes as they were posted, without the white space around them.
        value: what they say.
    """

    raw: bytes
    value: Any


def split(body: bytes) -> tuple[list[Slice], bool]:
    """Return the elements of the JSON array that ``body`` is, and True; a JSON object is one element, and False.

    Raises:
        InvalidInputError: it is neither, or no strict JSON; the fault names the element.
        TooLargeError: it has more than `MAX_BATCH_EVENTS` elements.
    """
    plain = split_plain(body)
    return (plain, True) if plain is not None else _walk(body)


def _walk(body: bytes) -> tuple[list[Slice], bool]:
    """Do `split` for whatever body, character by character."""
    try:
        text = body.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"The body is no UTF-8: byte {error.start} cannot be read.") from None
    start = _skip_space(text, 0)
    if text[start : start + 1] == "{":
        slices: list[Slice] = []
        end = _take(text, start, slices, is_array=False)
    elif text[start : start + 1] == "[":
        slices, end = _split_array(text, start + 1)
    else:
        raise InvalidInputError("The body must be a JSON array of events, or one event (a JSON object).")
    end = _skip_space(text, end)
    if end != len(text):
        raise InvalidInputError(f"After the end of the JSON, at character {end}, something else follows.")
    return slices, text[start] == "["


def split_plain(body: bytes) -> list[Slice] | None:
    """Return the elements of an array that reads as our own encoder would write it; None for any other body.

    What OMS posts does. Such a body needs no walk: written again, its elements give it byte for byte, so that these are
    the elements' own bytes, and no key occurs twice, nor is there a number that two readers could take differently.
    """
    if not body.startswith(b"[{") or b"\\u" in body:  # an escape may be half a surrogate pair, or NUL
        return None
    try:
        values = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, RecursionError):
        return None
    slices = [Slice(to_json(value), value) for value in values]
    if len(slices) > MAX_BATCH_EVENTS or any(
        piece.raw.count(b"{") + piece.raw.count(b"[") > MAX_DEPTH for piece in slices
    ):
        return None
    return slices if b"[" + b",".join([piece.raw for piece in slices]) + b"]" == body else None


def _split_array(text: str, at: int) -> tuple[list[Slice], int]:
    """Cut the array whose first element may be at ``at``; return its elements and the index after its end."""
    slices: list[Slice] = []
    at = _skip_space(text, at)
    if text[at : at + 1] == "]":
        return slices, at + 1
    while True:
        if len(slices) == MAX_BATCH_EVENTS:
            raise TooLargeError(f"A batch may have {MAX_BATCH_EVENTS} events at most: send it in parts.")
        at = _skip_space(text, _take(text, at, slices, is_array=True))
        separator = text[at : at + 1]
        if separator == "]":
            return slices, at + 1
        if separator != ",":
            raise InvalidInputError(f"The body is no JSON: ',' or ']' is expected at character {at}.")
        at = _skip_space(text, at + 1)


def _take(text: str, at: int, slices: list[Slice], *, is_array: bool) -> int:
    """Add the element at ``at`` to ``slices``; return the index after it.

    Raises:
        InvalidInputError: it is no strict JSON.
    """
    position = len(slices)
    loc: tuple[str | int, ...] = ("body", position) if is_array else ("body",)
    try:
        value, end = _DECODER.raw_decode(text, at)
        raw = text[at:end].encode()
        _check(raw, value)
    except RecursionError:
        raise _refused(loc, position, _TOO_DEEP) from None
    except ValueError as error:
        raise _refused(loc, position, str(error)) from None
    slices.append(Slice(raw, value))
    return end


def _refused(loc: tuple[str | int, ...], position: int, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"Element {position} is no JSON that ACT keeps: {why}.",
        faults=(Fault(loc, why),),
        members={"index": position},
    )


_TOO_DEEP = f"objects and arrays may nest {MAX_DEPTH} deep at most"


def _check(raw: bytes, value: object) -> None:
    """Check what the decoder lets pass.

    Raises:
        ValueError: too deep, NUL, or half a surrogate pair.
    """
    # Each bracket may stand in a text: the count is an upper bound, and few events come near it.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if b"\\u" in raw:
        from_json(raw)  # stricter than the standard library: it refuses half surrogates
        if b"\\u0000" in raw and _has_nul(value):
            raise ValueError("a text holds NUL (\\u0000), which not every database can keep")


def _depth(value: object) -> int:
    """Return how deep containers nest; a container of plain values is 1 deep."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            waiting.extend((inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item))
    return deepest


def _has_nul(value: object) -> bool:
    """Tell whether any text in ``value``, keys included, holds NUL."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} occurs twice in one object")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large for JSON's readers; write it as text")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# ``strict`` is the default: control characters inside texts are refused.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant)
