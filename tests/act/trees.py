"""What the tests of the proofs share: RFC 6962's definitions, taken word for word, and readers over plain lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from hypothesis import strategies as st

from act.domain.tree import Hashes


def leaves_of(count: int, *, salt: bytes = b"") -> list[bytes]:
    """Return so many different leaf hashes."""
    return [sha256(b"\x00" + salt + b"leaf %d" % number).digest() for number in range(count)]


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _k(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = _k(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF of RFC 6962 section 2.1.2, for 0 < m."""
    return _subproof(m, leaves, b=True)


def _subproof(m: int, leaves: Sequence[bytes], *, b: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if b else [mth(leaves)]
    k = _k(len(leaves))
    if m <= k:
        return [*_subproof(m, leaves[:k], b=b), mth(leaves[k:])]
    return [*_subproof(m - k, leaves[k:], b=False), mth(leaves[:k])]


def _k(count: int) -> int:
    """Return the largest power of two below the count."""
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def reader(leaves: Sequence[bytes]) -> Hashes:
    """Return a reader of the perfect subtrees over the leaves, each hashed anew."""

    def hashes(level: int, index: int) -> bytes:
        first, end = index << level, (index + 1) << level
        assert end <= len(leaves), "a subtree was read that the tree does not have"
        return mth(leaves[first:end])

    return hashes


def alterations(value: bytes, draw: Callable[[st.SearchStrategy[int]], int]) -> bytes:
    """Return the bytes with one bit flipped, one cut off, one more, or one moved."""
    at = draw(st.integers(0, len(value) - 1))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return value[:at]
    if kind == 1:
        return value[:at] + bytes([draw(st.integers(0, 255))]) + value[at:]
    if kind == 2:
        return value[:at] + value[at + 1 :]
    return value[:at] + bytes([value[at] ^ 1 << draw(st.integers(0, 7))]) + value[at + 1 :]
