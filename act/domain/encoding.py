"""The small encodings that C2SP's text formats share. Strict: each value has one text, and no other is read.

Base64 in particular has several texts for one value (its last letter holds bits that no byte needs): were they
read, a proof could be altered without being refused.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

HASH_BYTES = 32
"""SHA-256."""
MAX_SIZE = 2**63 - 1
"""The largest tree: sizes are signed 64-bit numbers in most readers and in both databases."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def read_base64(text: str) -> bytes:
    """Return what a text of RFC 4648 section 4 stands for, padding required.

    Raises:
        ValueError: it is no base64, or not the one text of its value.
    """
    try:
        value = b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no base64") from None
    if write_base64(value) != text:
        raise ValueError(f"{text[:80]!r} is base64 with stray bits at its end")
    return value


def write_base64(value: bytes) -> str:
    """Return the text of RFC 4648 section 4 for the bytes."""
    return b64encode(value).decode("ascii")


def read_hash(text: str) -> bytes:
    """Return the SHA-256 hash that a base64 text stands for.

    Raises:
        ValueError: it is not the base64 of 32 bytes.
    """
    value = read_base64(text)
    if len(value) != HASH_BYTES:
        raise ValueError(f"{text[:80]!r} is {len(value)} bytes, and a hash has {HASH_BYTES}")
    return value


def read_decimal(text: str) -> int:
    """Return a size or an index: ASCII decimal without leading zeroes, at most `MAX_SIZE`.

    Raises:
        ValueError: it is none.
    """
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_SIZE:
        raise ValueError(f"{text[:80]!r} is no size or index: decimal digits without leading zeroes, below 2^63")
    return int(text)
