"""The Merkle tree of RFC 6962 over leaf hashes: append, root, inclusion and consistency proofs, and their checks.

A tree of ``n`` leaves is kept as its *frontier*: the roots of the perfect subtrees that it is made of, one for each
bit of ``n``. Appending hashes each new node once. Proofs are computed from any reader of perfect subtrees
(`Hashes`), such as `act.domain.tiles.TileHashes`, and checked without one.

Node ``(level, index)`` is the root of the perfect subtree over the leaves ``[index << level, (index + 1) << level)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Self

from act.domain.encoding import HASH_BYTES, MAX_SIZE

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves."""

MAX_PROOF_HASHES = 63
"""No proof in a tree of up to 2^62 leaves needs more: C2SP tlog-witness refuses longer ones, too."""

Hashes = Callable[[int, int], bytes]
"""Returns the hash of the node ``(level, index)``, which is in the tree."""


class ProofError(ValueError):
    """A proof does not show what it should: it, a root or a size was altered, or it belongs to another tree."""


class Run(NamedTuple):
    """Nodes of one level that have become final.

    Attributes:
        level: 0 for leaves.
        start: the index of the first one in its level.
        hashes: in the order of their indexes, without a gap.
    """

    level: int
    start: int
    hashes: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that is needed to append to a tree, and its root.

    Attributes:
        size: how many leaves the tree has.
        peaks: the roots of its perfect subtrees from left to right, the largest first; one for each bit of ``size``.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise ValueError(f"a tree cannot have {self.size} leaves")
        if len(self.peaks) != self.size.bit_count() or any(len(peak) != HASH_BYTES for peak in self.peaks):
            raise ValueError(f"a tree of {self.size} leaves has {self.size.bit_count()} peaks of {HASH_BYTES} bytes")

    @property
    def root(self) -> bytes:
        """The Merkle Tree Hash of the leaves (RFC 6962 section 2.1)."""
        return _joined(self.peaks) if self.peaks else EMPTY_ROOT

    @property
    def packed(self) -> bytes:
        """The peaks one after the other, for a column beside that of the size; at most 63 times 32 bytes."""
        return b"".join(self.peaks)

    @classmethod
    def unpacked(cls, size: int, packed: bytes) -> Self:
        """Return the frontier that was packed.

        Raises:
            ValueError: the bytes are not those of a tree of this size.
        """
        return cls(size, tuple(packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)))


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01, left, right), the hash of an inner node (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def parents(hashes: Iterable[bytes]) -> list[bytes]:
    """Return the parents of nodes of one level, taken by two from the first on; an odd last one has none yet."""
    pairs = iter(hashes)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]


def append(frontier: Frontier, leaf_hashes: Iterable[bytes]) -> tuple[Frontier, list[Run]]:
    """Return the frontier after the leaves, and the nodes that have become final: one run per level, leaves first.

    The list's position is the run's level; it ends where no node became final. What is in a run never changes again.

    Raises:
        ValueError: a leaf hash has not 32 bytes, or the tree would become too large.
    """
    nodes = list(leaf_hashes)
    if not set(map(len, nodes)) <= {HASH_BYTES}:
        raise ValueError(f"a leaf hash has {HASH_BYTES} bytes")
    size = frontier.size + len(nodes)
    peaks = list(frontier.peaks)
    new_peaks: list[bytes] = []
    runs: list[Run] = []
    start = frontier.size
    while nodes:
        runs.append(Run(len(runs), start, nodes))
        if start & 1:  # the first one's left sibling was the last peak
            nodes = [peaks.pop(), *nodes]
        if len(nodes) & 1:
            new_peaks.append(nodes[-1])
        nodes = parents(nodes)
        start >>= 1
    return Frontier(size, (*peaks, *reversed(new_peaks))), runs


def frontier_at(size: int, hashes: Hashes) -> Frontier:
    """Return the frontier of the tree's first ``size`` leaves, read node by node."""
    return Frontier(size, tuple(_peaks(0, size, hashes)))


def root_at(size: int, hashes: Hashes) -> bytes:
    """Return the root of the tree's first ``size`` leaves."""
    return frontier_at(size, hashes).root


def inclusion_proof(index: int, size: int, hashes: Hashes) -> list[bytes]:
    """Return the path from the leaf ``index`` to the root at ``size``, the leaf's sibling first (RFC 6962, 2.1.1).

    Raises:
        ValueError: the tree of that size has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, hashes))
            end = middle
        else:
            path.append(_range_root(start, middle, hashes))
            start = middle
    return path[::-1]


def consistency_proof(old_size: int, size: int, hashes: Hashes) -> list[bytes]:
    """Return the proof that the tree of ``old_size`` is how the tree of ``size`` begins (RFC 6962, 2.1.2).

    It is empty where there is nothing to prove: from the empty tree, and between equal sizes.

    Raises:
        ValueError: the sizes are not in order.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a tree of {size} leaves does not begin with one of {old_size}")
    if old_size == 0:
        return []
    proof: list[bytes] = []
    start, end = 0, size
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(_range_root(middle, end, hashes))
            end = middle
        else:
            proof.append(_range_root(start, middle, hashes))
            start = middle
    if start != 0:  # else it is the old root itself, which the verifier has
        proof.append(_range_root(start, end, hashes))
    return proof[::-1]


def check_inclusion(leaf_hash: bytes, index: int, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """Check that the leaf is the tree's leaf ``index`` (the algorithm of RFC 9162, section 2.1.3.2).

    Raises:
        ProofError: it is not, or the path is not exactly the path of this leaf in a tree of this size.
    """
    _check_hashes(leaf_hash, root, *path)
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    place, last = index, size - 1
    hash_ = leaf_hash
    for sibling in path:
        if last == 0:
            raise ProofError("the inclusion path is too long for its tree")
        if place & 1 or place == last:
            hash_ = node_hash(sibling, hash_)
            while not place & 1 and place:  # it has no sibling at these levels
                place >>= 1
                last >>= 1
        else:
            hash_ = node_hash(hash_, sibling)
        place >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("the inclusion path is too short for its tree")
    if hash_ != root:
        raise ProofError("the inclusion path leads to another root: the entry is not in this tree at this index")


def check_consistency(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the old tree is how the new tree begins (the algorithm of RFC 9162, section 2.1.4.2).

    Raises:
        ProofError: it is not, or the proof is not exactly the proof between trees of these sizes.
    """
    _check_hashes(old_root, root, *proof)
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise ProofError(f"a tree of {size} leaves cannot go on from one of {old_size}")
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ProofError("the root of the tree without leaves is SHA-256 of nothing, and this is another one")
    if old_size in (0, size):
        if proof:
            raise ProofError("there is nothing to prove between these sizes, and the proof is not empty")
        if old_size == size and old_root != root:
            raise ProofError(f"two trees of {size} leaves have different roots: entries were changed")
        return
    _check_growth(old_size, old_root, size, root, proof)


def _check_growth(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check a proof between trees of 0 < ``old_size`` < ``size``."""
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    if not path:
        raise ProofError("the consistency proof is empty")
    place, last = old_size - 1, size - 1
    while place & 1:
        place >>= 1
        last >>= 1
    old_hash = new_hash = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long for its trees")
        if place & 1 or place == last:
            old_hash = node_hash(sibling, old_hash)
            new_hash = node_hash(sibling, new_hash)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            new_hash = node_hash(new_hash, sibling)
        place >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("the consistency proof is too short for its trees")
    if old_hash != old_root or new_hash != root:
        raise ProofError(f"the tree of {size} leaves does not begin with that of {old_size}: entries were changed")


def _check_hashes(*hashes: bytes) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"each hash of a proof, and each root, has {HASH_BYTES} bytes")


def _split(count: int) -> int:
    """Return the largest power of two below ``count``, where RFC 6962 cuts a tree of two leaves or more."""
    return 1 << (count - 1).bit_length() - 1


def _peaks(start: int, end: int, hashes: Hashes) -> list[bytes]:
    """Return the roots of the perfect subtrees of the leaves ``[start, end)``, a range that `_split` can give."""
    found: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append(hashes(level, start >> level))
        start += 1 << level
    return found


def _range_root(start: int, end: int, hashes: Hashes) -> bytes:
    return _joined(_peaks(start, end, hashes))


def _joined(peaks: Sequence[bytes]) -> bytes:
    """Return the root of the tree that is made of the peaks, the largest first; there is at least one."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root
