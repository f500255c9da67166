"""The tree and its entries cut into files that never change (C2SP tlog-tiles, height 8), and their paths.

A tile of level ``L`` holds up to 256 consecutive nodes of the tree's level ``8 * L``; an entry bundle holds the
entries of the leaves of one tile of level 0. Full ones are stored when they fill up (`full_tiles`); a partial one
is cut from what a reader has: at level 0 the leaf hashes, above it the roots of the full tiles one level below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from act.domain.encoding import HASH_BYTES, MAX_SIZE
from act.domain.tree import Run, parents

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
FULL_TILE_BYTES = TILE_WIDTH * HASH_BYTES
ENTRIES = -1
"""The level that stands for entry bundles."""
MAX_LEVEL = 63
MAX_ENTRY_BYTES = 0xFFFF
"""A bundle writes an entry's length with 16 bits."""

_LENGTH_BYTES = 2
# Seven groups hold every index of a tree of at most 2^63 leaves.
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


class TileError(ValueError):
    """A path names no tile, or a tile's or bundle's bytes are not those of one."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Which tile, or entry bundle.

    Attributes:
        level: 0 to 63, or `ENTRIES`.
        index: from 0 within its level.
        width: how many hashes (or entries) it holds; 256 is a full one.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def is_partial(self) -> bool:
        """Tell whether it has not all its 256 hashes yet."""
        return self.width < TILE_WIDTH

    @property
    def first(self) -> int:
        """The index of its first node in the tree's level (of its first entry, for a bundle)."""
        return self.index * TILE_WIDTH

    @property
    def path(self) -> str:
        """Its path below the log's URL, such as ``tile/0/x001/067.p/8``."""
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03}")
            rest //= 1000
        level = "entries" if self.level == ENTRIES else str(self.level)
        partial = f".p/{self.width}" if self.is_partial else ""
        return f"tile/{level}/{'/'.join(groups)}{partial}"


def read_tile_path(path: str) -> Tile:
    """Return the tile that a path names.

    Raises:
        TileError: it names none, or is not the one path of its tile.
    """
    parts = _PATH.fullmatch(path)
    if parts is not None:
        tile = Tile(
            level=ENTRIES if parts["level"] == "entries" else int(parts["level"]),
            index=int(parts["index"].replace("x", "").replace("/", "")),
            width=TILE_WIDTH if parts["width"] is None else int(parts["width"]),
        )
        # What is written back differently has leading zeroes to spare, or a width of 256 and more.
        if tile.path == path and tile.level <= MAX_LEVEL and tile.first <= MAX_SIZE:
            return tile
    raise TileError(f"{path[:80]!r} is no path of a tile such as tile/0/x001/067 or tile/entries/000.p/5")


def tile_at(level: int, index: int, size: int) -> Tile | None:
    """Return the tile as it is in a tree of ``size`` leaves: full, partial, or None where it has no hash yet."""
    nodes = size >> TILE_HEIGHT * max(level, 0)
    width = min(nodes - index * TILE_WIDTH, TILE_WIDTH)
    return Tile(level, index, width) if width > 0 and index >= 0 else None


def tiles_of(size: int, *, since: int = 0) -> Iterator[Tile]:
    """Yield every tile of a tree of ``size`` leaves that one of ``since`` leaves has not, by level; no bundles."""
    for level in range(MAX_LEVEL + 1):
        nodes, before = size >> TILE_HEIGHT * level, since >> TILE_HEIGHT * level
        if nodes == before:
            return
        for index in range(before // TILE_WIDTH, -(-nodes // TILE_WIDTH)):
            yield Tile(level, index, min(nodes - index * TILE_WIDTH, TILE_WIDTH))


def read_hashes(data: bytes, width: int) -> list[bytes]:
    """Return the hashes of a tile of this width.

    Raises:
        TileError: it has more or fewer bytes.
    """
    if len(data) != width * HASH_BYTES:
        raise TileError(f"a tile of {width} hashes has {width * HASH_BYTES} bytes, and this one has {len(data)}")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over the hashes, whose number is a power of two."""
    while len(hashes) > 1:
        hashes = parents(hashes)
    return hashes[0]


def write_bundle(entries: Iterable[bytes]) -> bytes:
    """Return the entry bundle: each entry behind its length, 16 bits big-endian.

    Raises:
        TileError: an entry is too long.
    """
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise TileError(f"an entry of a bundle has {MAX_ENTRY_BYTES:,} bytes at most; this one has {len(entry):,}")
        parts += (len(entry).to_bytes(_LENGTH_BYTES), entry)
    return b"".join(parts)


def read_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the ``width`` entries of a bundle.

    Raises:
        TileError: it holds more or fewer, or ends within one.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start])
        if end > len(data):
            raise TileError(f"the bundle ends within its entry {len(entries)}")
        entries.append(data[start:end])
        at = end
    if len(entries) != width:
        raise TileError(f"the bundle holds {len(entries)} entries instead of {width}")
    return entries


@dataclass(frozen=True, slots=True)
class FullTile:
    """A tile that has just filled up: to be stored once, and never again.

    Attributes:
        level: 0 and up.
        index: within the level.
        hashes: its 8,192 bytes.
        root: the root over them: the hash of this tile in a tile one level up. Stored beside it, it makes the
            partial tiles above cheap.
    """

    level: int
    index: int
    hashes: bytes
    root: bytes


def full_tiles(runs: Sequence[Run], stored: Callable[[Tile], bytes]) -> list[FullTile]:
    """Return the tiles that an append filled, the lowest level first.

    Args:
        runs: what `act.domain.tree.append` gave.
        stored: returns the bytes of a partial tile as it was before the append; asked for at most one a level.
    """
    filled: list[FullTile] = []
    for level, run in enumerate(runs[::TILE_HEIGHT]):
        end = run.start + len(run.hashes)
        for index in range(run.start // TILE_WIDTH, end // TILE_WIDTH):
            first = index * TILE_WIDTH
            width = max(run.start - first, 0)
            head = stored(Tile(level, index, width)) if width else b""
            new = run.hashes[first + width - run.start : first + TILE_WIDTH - run.start]
            above = runs[(level + 1) * TILE_HEIGHT]
            filled.append(FullTile(level, index, head + b"".join(new), above.hashes[index - above.start]))
    return filled


class TileHashes:
    """Reads the nodes of a tree of a fixed size out of its tiles: the `Hashes` for `act.domain.tree`.

    It keeps the tiles it has read, so it is for one proof or two and not for the life of a service.
    """

    def __init__(self, size: int, read_tile: Callable[[Tile], bytes]) -> None:
        """Read the tree of ``size`` leaves; ``read_tile`` is asked for tiles as they are at that size, once each."""
        self._size = size
        self._read_tile = read_tile
        self._kept: dict[Tile, list[bytes]] = {}

    def __call__(self, level: int, index: int) -> bytes:
        """Return the hash of a node.

        Raises:
            ValueError: the tree has no such perfect subtree.
            TileError: a tile that was read has not the bytes of its width.
        """
        if level < 0 or index < 0 or (index + 1) << level > self._size:
            raise ValueError(f"a tree of {self._size} leaves has no perfect subtree {index} at level {level}")
        inner = level % TILE_HEIGHT
        first, count = index << inner, 1 << inner
        tile = tile_at(level // TILE_HEIGHT, first // TILE_WIDTH, self._size)
        assert tile is not None  # the node's last leaf is in the tree
        if tile not in self._kept:
            self._kept[tile] = read_hashes(self._read_tile(tile), tile.width)
        within = first - tile.first
        return perfect_root(self._kept[tile][within : within + count])
