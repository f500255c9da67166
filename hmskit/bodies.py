"""Read request bodies: counted while they arrive, and as strict JSON."""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect, Request

from hmskit.problems import Problem, invalid

MAX_LENGTH_DIGITS = 18
MAX_DEPTH = 100
"""Deeper values are nobody's data, and would be walked by engines that recurse."""
_BOM = b"\xef\xbb\xbf"
# How a number is written again that is too large for a double (1.8e308): the parser makes it infinite, which no JSON
# can say.
_INFINITE = b"Infinity"


async def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """Return the body.

    Raises:
        Problem: 413, it is larger than ``limit_bytes``; what it says of its own length is not trusted.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > MAX_LENGTH_DIGITS or int(declared) > limit_bytes):
        raise too_large(limit_bytes)
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            if size_bytes > limit_bytes:
                raise too_large(limit_bytes)
            chunks.append(chunk)
    except ClientDisconnect:
        raise invalid("The connection closed before the body was complete.") from None
    return b"".join(chunks)


def too_large(limit_bytes: int) -> Problem:
    """Return the 413 of a body that is larger than that."""
    return Problem(
        413,
        "body-too-large",
        "The body is too large",
        f"The body may have {limit_bytes:,} bytes at most; send less, or several requests.",
    )


def read_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON value that ``body`` is: UTF-8, one value, no NaN, no infinity, no half surrogates.

    Raises:
        Problem: 422, it is not, and where.
    """
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise invalid("The body is empty; send a JSON object.")
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"The body is no JSON: {error}.", [{"loc": ["body"], "msg": str(error)}]) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise invalid(f"The body is nested more than {MAX_DEPTH} levels deep; send it flatter.")
    if _INFINITE in to_json(value) and _has_infinity(value):
        raise invalid("A number in the body is too large for JSON's readers; send it as text.")
    return value


def _has_infinity(value: object) -> bool:
    """Tell whether any number in ``value`` is infinite."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float):
            if math.isinf(item):
                return True
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _is_deeper(value: object, depth: int) -> bool:
    """Tell whether ``value`` is nested more than ``depth`` levels deep."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
