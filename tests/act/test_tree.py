"""The Merkle tree against RFC 6962's own definitions, against values that others published, and against forgers."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.contract import leaf_hash
from act.domain.encoding import MAX_SIZE
from act.domain.tree import (
    EMPTY_ROOT,
    MAX_PROOF_HASHES,
    Frontier,
    ProofError,
    append,
    check_consistency,
    check_inclusion,
    consistency_proof,
    frontier_at,
    inclusion_proof,
    node_hash,
    root_at,
)
from tests.act.trees import leaves_of, mth, path, proof, reader

LEAVES = leaves_of(140)

# The inputs and hashes that the tests of transparency-dev/merkle (testonly/constants.go) and of
# certificate-transparency before it use for RFC 6962.
GOLDEN_ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
GOLDEN_ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
GOLDEN_PATH_OF_0_IN_8 = [
    bytes.fromhex(text)
    for text in (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    )
]


def tree_of(leaves: Sequence[bytes]) -> Frontier:
    return append(Frontier(), leaves)[0]


def refuses_inclusion(leaf: bytes, index: int, size: int, root: bytes, nodes: Sequence[bytes]) -> bool:
    try:
        check_inclusion(leaf, index, size, root, nodes)
    except ProofError:
        return True
    return False


def refuses_consistency(old_size: int, old_root: bytes, size: int, root: bytes, nodes: Sequence[bytes]) -> bool:
    try:
        check_consistency(old_size, old_root, size, root, nodes)
    except ProofError:
        return True
    return False


def nothing(_level: int, _index: int) -> bytes:
    """Read a hash that does not matter."""
    return LEAVES[0]


def flipped(hashes: list[bytes], at: int, *, bit: int) -> list[bytes]:
    """Return the hashes with one bit of one of them flipped."""
    return [*hashes[:at], (int.from_bytes(hashes[at]) ^ 1 << bit).to_bytes(32), *hashes[at + 1 :]]


def test_the_published_roots() -> None:
    leaves = [leaf_hash(entry) for entry in GOLDEN_ENTRIES]
    assert [tree_of(leaves[:size]).root for size in range(9)] == GOLDEN_ROOTS
    assert GOLDEN_ROOTS[0] == EMPTY_ROOT


def test_the_published_proofs() -> None:
    leaves = [leaf_hash(entry) for entry in GOLDEN_ENTRIES]
    assert inclusion_proof(0, 8, reader(leaves)) == GOLDEN_PATH_OF_0_IN_8
    check_inclusion(leaves[0], 0, 8, GOLDEN_ROOTS[8], GOLDEN_PATH_OF_0_IN_8)
    assert consistency_proof(1, 8, reader(leaves)) == GOLDEN_PATH_OF_0_IN_8
    check_consistency(1, GOLDEN_ROOTS[1], 8, GOLDEN_ROOTS[8], GOLDEN_PATH_OF_0_IN_8)


def test_the_examples_of_rfc_6962_section_2_1_3() -> None:
    # Seven leaves d0 to d6, named there a, b, c, d, e, f, j; g, h, i, k, l are the nodes above.
    a, b, c, d, e, f, j = leaves = LEAVES[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l = node_hash(g, h), node_hash(i, j)  # noqa: E741 - the RFC's names
    hashes = reader(leaves)
    assert [inclusion_proof(index, 7, hashes) for index in (0, 3, 4, 6)] == [[b, h, l], [c, g, l], [f, j, k], [i, k]]
    assert consistency_proof(3, 7, hashes) == [c, d, g, l]
    assert consistency_proof(4, 7, hashes) == [l]
    assert consistency_proof(6, 7, hashes) == [i, j, k]


@given(st.lists(st.integers(0, 40), max_size=12))
def test_any_split_into_batches_gives_the_same_tree(batches: list[int]) -> None:
    leaves = leaves_of(sum(batches))
    frontier, at = Frontier(), 0
    seen: dict[int, list[bytes]] = {}
    for count in batches:
        frontier, runs = append(frontier, leaves[at : at + count])
        at += count
        for level, run in enumerate(runs):
            nodes = seen.setdefault(level, [])
            assert (run.level, run.start) == (level, len(nodes)), "each node is given once, in its place"
            nodes += run.hashes
    assert frontier == tree_of(leaves)
    assert frontier.root == mth(leaves)
    hashes = reader(leaves)
    for level in range(10):
        assert seen.get(level, []) == [hashes(level, index) for index in range(len(leaves) >> level)]


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_every_root_and_frontier_can_be_read_again(size: int) -> None:
    frontier = frontier_at(size, reader(LEAVES))
    assert frontier == tree_of(LEAVES[:size])
    assert root_at(size, reader(LEAVES)) == mth(LEAVES[:size])
    assert Frontier.unpacked(size, frontier.packed) == frontier
    assert len(frontier.packed) == 32 * size.bit_count()


@pytest.mark.parametrize("size", range(1, 70))
def test_every_inclusion_proof_is_the_rfcs_and_holds(size: int) -> None:
    leaves, root = LEAVES[:size], mth(LEAVES[:size])
    for index in range(size):
        nodes = inclusion_proof(index, size, reader(leaves))
        assert nodes == path(index, leaves)
        check_inclusion(leaves[index], index, size, root, nodes)


@pytest.mark.parametrize("size", range(1, 70))
def test_every_consistency_proof_is_the_rfcs_and_holds(size: int) -> None:
    leaves, root = LEAVES[:size], mth(LEAVES[:size])
    for old_size in range(1, size + 1):
        nodes = consistency_proof(old_size, size, reader(leaves))
        assert nodes == proof(old_size, leaves)
        check_consistency(old_size, mth(leaves[:old_size]), size, root, nodes)


@given(st.data())
def test_no_altered_inclusion_proof_holds(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    root, nodes = mth(LEAVES[:size]), path(index, LEAVES[:size])
    check_inclusion(LEAVES[index], index, size, root, nodes)
    for at in range(2 + len(nodes)):
        hashes = flipped([LEAVES[index], root, *nodes], at, bit=data.draw(st.integers(0, 255)))
        assert refuses_inclusion(hashes[0], index, size, hashes[1], hashes[2:])
    for other in range(index + 1, 3 * size):
        # Where a path has the same form in both trees only the signed root knows its size.
        if len(inclusion_proof(index, other, nothing)) != len(nodes):
            assert refuses_inclusion(LEAVES[index], index, other, root, nodes)
    for other in set(range(size + 1)) - {index}:
        assert refuses_inclusion(LEAVES[index], other, size, root, nodes)
    extra = data.draw(st.sampled_from([*nodes, root, LEAVES[index]]))
    for at in range(len(nodes) + 1):
        assert refuses_inclusion(LEAVES[index], index, size, root, [*nodes[:at], extra, *nodes[at:]])
        assert at == len(nodes) or refuses_inclusion(LEAVES[index], index, size, root, nodes[:at] + nodes[at + 1 :])


@given(st.data())
def test_no_altered_consistency_proof_holds(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, len(LEAVES)))
    old_size = data.draw(st.integers(1, size - 1))
    old_root, root, nodes = mth(LEAVES[:old_size]), mth(LEAVES[:size]), proof(old_size, LEAVES[:size])
    check_consistency(old_size, old_root, size, root, nodes)
    for at in range(2 + len(nodes)):
        hashes = flipped([old_root, root, *nodes], at, bit=data.draw(st.integers(0, 255)))
        assert refuses_consistency(old_size, hashes[0], size, hashes[1], hashes[2:])
    extra = data.draw(st.sampled_from([*nodes, root, old_root]))
    for at in range(len(nodes) + 1):
        assert refuses_consistency(old_size, old_root, size, root, [*nodes[:at], extra, *nodes[at:]])
        assert at == len(nodes) or refuses_consistency(old_size, old_root, size, root, nodes[:at] + nodes[at + 1 :])
    for other in range(old_size, 3 * size):
        if len(consistency_proof(old_size, other, nothing)) != len(nodes):
            assert refuses_consistency(old_size, old_root, other, root, nodes)
    for other in range(size + 1):
        if len(consistency_proof(other, size, nothing)) != len(nodes):
            assert refuses_consistency(other, old_root, size, root, nodes)
    assert refuses_consistency(size, root, old_size, old_root, nodes)
    assert refuses_consistency(0, EMPTY_ROOT, size, root, nodes)
    assert refuses_consistency(size, root, size, root, nodes)


@given(st.data())
def test_a_rewritten_tree_has_no_consistency_proof(data: st.DataObject) -> None:
    """P3: whatever proof its owner computes, an older checkpoint gives the rewriting away."""
    old_size = data.draw(st.integers(1, 60))
    size = data.draw(st.integers(old_size, 70))
    changed = data.draw(st.integers(0, old_size - 1))
    leaves = [*LEAVES[:changed], leaf_hash(b"another story"), *LEAVES[changed + 1 : size]]
    assert refuses_consistency(
        old_size, mth(LEAVES[:old_size]), size, mth(leaves), consistency_proof(old_size, size, reader(leaves))
    )


def test_the_edges_of_consistency() -> None:
    root = mth(LEAVES[:5])
    check_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    check_consistency(0, EMPTY_ROOT, 5, root, [])
    check_consistency(5, root, 5, root, [])
    assert consistency_proof(0, 5, reader(LEAVES)) == consistency_proof(5, 5, reader(LEAVES)) == []
    assert refuses_consistency(0, root, 5, root, [])  # no root of an empty tree
    assert refuses_consistency(0, EMPTY_ROOT, 0, root, [])
    assert refuses_consistency(5, root, 5, mth(LEAVES[1:6]), [])
    assert refuses_consistency(3, mth(LEAVES[:3]), 5, root, [])
    assert refuses_consistency(4, mth(LEAVES[:4]), 5, root, [])
    assert refuses_consistency(-1, EMPTY_ROOT, 5, root, [])
    assert refuses_consistency(5, root, MAX_SIZE + 1, root, [LEAVES[0]] * MAX_PROOF_HASHES)


def test_hashes_of_another_length_are_refused() -> None:
    root = mth(LEAVES[:2])
    assert refuses_inclusion(LEAVES[0], 0, 2, root, [LEAVES[1][:31]])
    assert refuses_inclusion(LEAVES[0] + b"x", 0, 2, root, [LEAVES[1]])
    # The same 64 bytes, cut in another place, have the same parent.
    assert refuses_inclusion(LEAVES[0] + LEAVES[1][:1], 0, 2, root, [LEAVES[1][1:]])
    assert refuses_consistency(1, b"no hash", 1, b"no hash", [])
    assert refuses_consistency(1, LEAVES[0], 2, root, [LEAVES[1] + b"x"])


def test_a_leaf_is_no_inner_node() -> None:
    """The two prefixes keep an entry that looks like two hashes from standing for a subtree."""
    # Nor is a tree of one leaf one of two, whose path is longer.
    assert refuses_inclusion(LEAVES[1], 0, 1, mth(LEAVES[:2]), [LEAVES[0]])
    forged = leaf_hash(LEAVES[0] + LEAVES[1])
    assert refuses_inclusion(forged, 0, 1, mth(LEAVES[:2]), [])


def test_what_the_tree_does_not_have_is_not_proved() -> None:
    for index, size in ((5, 5), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match="has no leaf"):
            inclusion_proof(index, size, reader(LEAVES))
    for old_size, size in ((6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="does not begin"):
            consistency_proof(old_size, size, reader(LEAVES))


def test_a_damaged_frontier_is_refused() -> None:
    packed = tree_of(LEAVES[:7]).packed
    for size, damaged in ((7, packed[:-1]), (7, packed[:-32]), (5, packed), (7, packed + b"x" * 32), (-1, b"")):
        with pytest.raises(ValueError, match="tree"):
            Frontier.unpacked(size, damaged)
    with pytest.raises(ValueError, match="leaf hash"):
        append(Frontier(), [LEAVES[0], LEAVES[1][:31]])


def test_nothing_appended_changes_nothing() -> None:
    frontier = tree_of(LEAVES[:7])
    assert append(frontier, []) == (frontier, [])


def test_a_huge_tree_needs_no_longer_proof() -> None:
    node, size = LEAVES[0], 2**62
    assert len(inclusion_proof(0, size, lambda _level, _index: node)) == MAX_PROOF_HASHES - 1
    assert len(consistency_proof(size // 2 - 1, size, lambda _level, _index: node)) == MAX_PROOF_HASHES


def test_appending_costs_little_more_than_the_tree_s_hashes() -> None:
    """A ratio to the bare hashes, in turns: a tree over n leaves needs n - 1 of them."""
    leaves = [os.urandom(32) for _ in range(60_000)]
    best = {"append": 1e9, "hashes": 1e9}
    for _ in range(5):  # the best of some: others use the machine, too
        started = time.process_time()
        for left, right in pairwise(leaves):
            sha256(b"\x01" + left + right).digest()
        best["hashes"] = min(best["hashes"], time.process_time() - started)
        frontier, started = Frontier(), time.process_time()
        for at in range(0, len(leaves), 500):
            frontier, _ = append(frontier, leaves[at : at + 500])
        best["append"] = min(best["append"], time.process_time() - started)
    assert frontier.size == len(leaves)
    assert best["append"] < 3 * best["hashes"], best
