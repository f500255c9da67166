"""Tiles, bundles and their paths, as C2SP tlog-tiles has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.contract import MAX_EVENT_BYTES, entry_bytes, leaf_hash
from act.domain.encoding import MAX_SIZE
from act.domain.tiles import (
    ENTRIES,
    FULL_TILE_BYTES,
    MAX_ENTRY_BYTES,
    FullTile,
    Tile,
    TileError,
    TileHashes,
    full_tiles,
    read_bundle,
    read_hashes,
    read_tile_path,
    tile_at,
    tiles_of,
    write_bundle,
)
from act.domain.tree import Frontier, append, consistency_proof, frontier_at, inclusion_proof, root_at
from tests.act.trees import leaves_of, mth, path, proof

PATHS = {
    # c2sp.org/tlog-tiles, "Merkle Tree"
    "tile/0/x001/x234/067": Tile(0, 1_234_067),
    # Tests of transparency-dev/tessera, api/layout/paths_test.go
    "tile/0/000": Tile(0, 0),
    "tile/0/000.p/255": Tile(0, 0, 255),
    "tile/15/x455/667": Tile(15, 455_667),
    "tile/15/x123/x456/789.p/41": Tile(15, 123_456_789, 41),
    "tile/entries/000": Tile(ENTRIES, 0),
    "tile/entries/255.p/253": Tile(ENTRIES, 255, 253),
    "tile/entries/x123/x456/789": Tile(ENTRIES, 123_456_789),
    # golang.org/x/mod/sumdb/tlog, tlog_test.go (its tiles name their height, too)
    "tile/5/x123/x456/078.p/2": Tile(5, 123_456_078, 2),
}


@pytest.mark.parametrize(("text", "tile"), PATHS.items())
def test_a_tile_has_one_path(text: str, tile: Tile) -> None:
    assert tile.path == text
    assert read_tile_path(text) == tile


@given(
    st.builds(Tile, st.integers(-1, 63), st.integers(0, MAX_SIZE // 256), st.integers(1, 256)),
)
def test_every_tile_is_found_again_by_its_path(tile: Tile) -> None:
    assert read_tile_path(tile.path) == tile


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",  # has a shorter path
        "tile/0/001/234",
        "tile/0/x001/x234",
        "tile/0/x001/",
        "tile/0/x001/x234/",
        "tile/0/x01/234",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/Entries/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000.p/1 ",
        "tile/0/000\n",
        "/tile/0/000",
        "xtile/0/000",
        "tile/0/\N{ARABIC-INDIC DIGIT ZERO}00",
        "tile/0/x999/x999/x999/x999/x999/x999/999",  # beyond the largest tree
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
        "tile/0/../../etc/passwd",
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(TileError):
        read_tile_path(text)


def test_the_example_of_a_tree_of_70_000() -> None:
    """c2sp.org/tlog-tiles, "Partial Tiles"."""
    tiles = list(tiles_of(70_000))
    assert sum(tile.level == 0 and not tile.is_partial for tile in tiles) == 273
    assert [tile for tile in tiles if tile.is_partial or tile.level > 0] == [
        Tile(0, 273, 112),
        Tile(1, 0),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 2_000))
def test_new_tiles_are_those_that_differ(since: int, more: int) -> None:
    size = since + more
    assert set(tiles_of(size, since=since)) == set(tiles_of(size)) - set(tiles_of(since))
    for tile in tiles_of(size, since=since):
        assert tile_at(tile.level, tile.index, size) == tile


def test_a_tile_that_has_no_hash_is_none() -> None:
    assert tile_at(0, 1, 256) is None
    assert tile_at(1, 0, 255) is None
    assert tile_at(0, -1, 256) is None
    assert tile_at(ENTRIES, 1, 300) == Tile(ENTRIES, 1, 44)
    assert tile_at(ENTRIES, 2, 300) is None


class Store:
    """Keeps full tiles, and cuts the partial ones out of what it has, as a database would."""

    def __init__(self) -> None:
        self.frontier = Frontier()
        self.leaves: list[bytes] = []
        self.tiles: dict[tuple[int, int], FullTile] = {}
        self.asked: list[Tile] = []

    def add(self, leaves: list[bytes]) -> None:
        self.asked.clear()
        self.frontier, runs = append(self.frontier, leaves)
        for tile in full_tiles(runs, self.partial):
            assert len(tile.hashes) == FULL_TILE_BYTES
            assert (tile.level, tile.index) not in self.tiles, "a full tile is stored once"
            self.tiles[tile.level, tile.index] = tile
        assert len({tile.level for tile in self.asked}) == len(self.asked), "at most one is read a level"
        self.leaves += leaves

    def partial(self, tile: Tile) -> bytes:
        self.asked.append(tile)
        if tile.level == 0:
            return b"".join(self.leaves[tile.first : tile.first + tile.width])
        below = (self.tiles[tile.level - 1, tile.first + at] for at in range(tile.width))
        return b"".join(one.root for one in below)

    def read(self, tile: Tile) -> bytes:
        return self.partial(tile) if tile.is_partial else self.tiles[tile.level, tile.index].hashes


@given(st.lists(st.integers(0, 700), max_size=6), st.data())
def test_stored_tiles_give_every_root_and_proof(batches: list[int], data: st.DataObject) -> None:
    leaves = leaves_of(sum(batches))
    store, at = Store(), 0
    for count in batches:
        store.add(leaves[at : at + count])
        at += count
    size = len(leaves)
    assert {(tile.level, tile.index) for tile in tiles_of(size) if not tile.is_partial} == set(store.tiles)
    hashes = TileHashes(size, store.read)
    assert frontier_at(size, hashes) == store.frontier
    if size:
        older = data.draw(st.integers(1, size))
        index = data.draw(st.integers(0, older - 1))
        old_hashes = TileHashes(older, store.read)
        assert root_at(older, old_hashes) == mth(leaves[:older])
        assert inclusion_proof(index, older, old_hashes) == path(index, leaves[:older])
        assert consistency_proof(older, size, hashes) == proof(older, leaves)


def test_tiles_of_the_second_level_fill_up_in_any_steps() -> None:
    leaves = leaves_of(66_000)
    store, at = Store(), 0
    for count in (1, 65_279, 255, 1, 264, 200):
        store.add(leaves[at : at + count])
        at += count
    whole = Store()
    whole.add(leaves)
    assert store.tiles == whole.tiles
    assert (1, 0) in store.tiles
    assert store.tiles[1, 0].hashes == b"".join(store.tiles[0, index].root for index in range(256))
    assert root_at(66_000, TileHashes(66_000, store.read)) == mth(leaves)


def test_a_proof_reads_each_tile_once() -> None:
    leaves = leaves_of(66_000)
    store = Store()
    store.add(leaves)
    reads: list[Tile] = []

    def read(tile: Tile) -> bytes:
        reads.append(tile)
        return store.read(tile)

    inclusion_proof(12_345, 66_000, TileHashes(66_000, read))
    assert len(reads) == len(set(reads)) <= 4


def test_a_subtree_that_is_not_there_is_not_read() -> None:
    hashes = TileHashes(5, lambda _tile: pytest.fail("nothing is read"))
    for level, index in ((0, 5), (2, 1), (3, 0), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="no perfect subtree"):
            hashes(level, index)


def test_a_tile_has_exactly_its_bytes() -> None:
    assert read_hashes(b"a" * 32 + b"b" * 32, 2) == [b"a" * 32, b"b" * 32]
    for data in (b"", b"a" * 63, b"a" * 65, b"a" * 96):
        with pytest.raises(TileError):
            read_hashes(data, 2)
    with pytest.raises(TileError):
        TileHashes(5, lambda _tile: b"short")(0, 0)


def test_a_tile_of_another_log() -> None:
    """The hashes of tile/0/000.p/2 of tessera's test log (testdata/log), whose entries are "one" and "two"."""
    tile = bytes.fromhex(
        "d0d7360ab79f58ab1e1e3fe64ad77e2ea0bc07e36b5f46ed2223edd9298df9e9"
        "ab1ab7f07c7c8fe0eff4ba6faa53c7e4412e91a599153e8aa4e01beece5b7825"
    )
    assert read_hashes(tile, 2) == [leaf_hash(b"one"), leaf_hash(b"two")]


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_a_bundle_gives_its_entries_again(entries: list[bytes]) -> None:
    assert read_bundle(write_bundle(entries), len(entries)) == entries


def test_a_bundle_as_another_log_writes_it() -> None:
    """tile/entries/000.p/3 of tessera's test log (testdata/log)."""
    data = bytes.fromhex("0003" + b"one".hex() + "0003" + b"two".hex() + "0005" + b"three".hex())
    assert write_bundle([b"one", b"two", b"three"]) == data
    assert read_bundle(data, 3) == [b"one", b"two", b"three"]


def test_a_damaged_bundle_is_refused() -> None:
    data = write_bundle([b"one", b"", b"three"])
    for damaged, width in (
        (data, 2),
        (data, 4),
        (data[:-1], 3),
        (data + b"\0", 3),
        (data + b"\0\0", 3),
        (b"", 1),
        (data[1:], 3),
    ):
        with pytest.raises(TileError):
            read_bundle(damaged, width)


def test_every_event_fits_into_a_bundle() -> None:
    largest = entry_bytes(MAX_SIZE, b"x" * MAX_EVENT_BYTES)
    assert len(largest) <= MAX_ENTRY_BYTES
    assert read_bundle(write_bundle([largest]), 1) == [largest]
    with pytest.raises(TileError, match="65,535"):
        write_bundle([b"x" * (MAX_ENTRY_BYTES + 1)])
