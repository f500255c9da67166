"""A disk whose power can be cut: it keeps what was synced, and of what was not a random part of its sectors.

SQLite uses it through a VFS of apsw's. The files are in memory: a cut needs no rights, and costs no time.

How it loses, which is how a disk behind an operating system's page cache does:

* What was synced stays.
* Of each sector (512 or 4,096 bytes) written since, any earlier state may be what is found afterwards: that of the last
  sync, the newest, or one between. Sectors are independent of each other, so that writes come torn and in any order.
* A file that became shorter may come back longer. A file that was made and never synced may be gone.

Like SQLite's own VFS for Unix it says that a write leaves the bytes beside it alone (``POWERSAFE_OVERWRITE``).
"""

# ruff: noqa: N802 - SQLite's own names of what a VFS does

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

import apsw

SECTOR_BYTES = (512, 4096)
CHANCES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""How likely a write that was not synced has reached the platter; one of these for a cut."""


WAL = "the WAL"
DATABASE = "the database"


class PowerCutError(Exception):
    """The power is off."""


@dataclass
class DiskFile:
    """A file of a disk.

    Attributes:
        cached: what who reads it sees.
        platter: what was synced.
        waiting: what was done since, in order: writes as offset and bytes, truncations as a size.
    """

    cached: bytearray = field(default_factory=bytearray)
    platter: bytearray | None = None
    waiting: list[tuple[int, bytes] | int] = field(default_factory=list)


class Disk:
    """Files by name, and the moment at which the power goes.

    Args:
        files: what is on it.
        dice: decides what survives.
        lies_of: the files, "the WAL" or "the database", for which it only says that it has synced them.

    Attributes:
        cuts: how often the power went, by what was under way.
    """

    def __init__(self, files: Mapping[str, bytes], dice: random.Random, *, lies_of: Collection[str] = ()) -> None:
        self._files = {name: DiskFile(bytearray(data), bytearray(data)) for name, data in files.items()}
        self._dice = dice
        self._lies_of = lies_of
        self._steps_left: int | None = None
        self.cuts: Counter[str] = Counter()

    def power_on(self, *, steps: int) -> None:
        """Let it run, and cut the power at its ``steps``-th change."""
        self._steps_left = steps

    def files(self) -> dict[str, bytes]:
        """Return what is found on it when it has no power."""
        assert self._steps_left is None, "the power is on"
        return {name: bytes(file.cached) for name, file in self._files.items()}

    def names(self) -> set[str]:
        """Return the files that are there."""
        return set(self._files)

    def open(self, name: str) -> None:
        """Make the file where there is none."""
        self._files.setdefault(name, DiskFile())

    def read(self, name: str, count: int, offset: int) -> bytes:
        """Return the bytes from ``offset`` on: fewer than ``count`` where the file ends."""
        self._check_power()
        return bytes(self._files[name].cached[offset : offset + count])

    def size(self, name: str) -> int:
        """Return the file's size in bytes."""
        self._check_power()
        return len(self._files[name].cached)

    def write(self, name: str, data: bytes, offset: int) -> None:
        """Write into the cache."""
        self._change(name, (offset, data), what=f"writing {_kind(name)}")

    def truncate(self, name: str, size: int) -> None:
        """Cut the file off, in the cache."""
        self._change(name, size, what=f"truncating {_kind(name)}")

    def sync(self, name: str) -> None:
        """Bring the file onto the platter."""
        self._step(f"syncing {_kind(name)}")
        if _kind(name) in self._lies_of:
            return
        file = self._files[name]
        platter = bytearray() if file.platter is None else file.platter
        for change in file.waiting:
            _apply(platter, change)
        file.platter = platter
        file.waiting.clear()

    def delete(self, name: str) -> None:
        """Remove the file, for good."""
        self._step(f"removing {_kind(name)}")
        del self._files[name]

    def _change(self, name: str, change: tuple[int, bytes] | int, *, what: str) -> None:
        self._step(what)
        file = self._files[name]
        file.waiting.append(change)
        _apply(file.cached, change)

    def _check_power(self) -> None:
        if self._steps_left is None:
            raise PowerCutError

    def _step(self, what: str) -> None:
        self._check_power()
        assert self._steps_left is not None
        self._steps_left -= 1
        if self._steps_left == 0:
            self._steps_left = None
            self.cuts[what] += 1
            self._lose()
            raise PowerCutError(what)

    def _lose(self) -> None:
        chance, sector_bytes = self._dice.choice(CHANCES), self._dice.choice(SECTOR_BYTES)
        for name, file in list(self._files.items()):
            if file.platter is None and self._dice.random() >= chance:
                del self._files[name]
                continue
            found = bytearray() if file.platter is None else file.platter
            self._write_back(found, file.waiting, chance=chance, sector_bytes=sector_bytes)
            self._files[name] = DiskFile(bytearray(found), found)

    def _write_back(
        self, found: bytearray, waiting: list[tuple[int, bytes] | int], *, chance: float, sector_bytes: int
    ) -> None:
        """Bring of what waits, for each sector, its first writes onto the platter, as many as the dice say."""
        pieces: list[tuple[int, tuple[int, bytes]] | int] = []
        for change in waiting:
            pieces += [change] if isinstance(change, int) else _by_sector(*change, sector_bytes)
        written = Counter(piece[0] for piece in pieces if not isinstance(piece, int))
        kept = {sector: sum(self._dice.random() < chance for _ in range(count)) for sector, count in written.items()}
        for piece in pieces:
            if isinstance(piece, int):
                if self._dice.random() < chance:
                    _apply(found, piece)
                continue
            sector, change = piece
            if kept[sector] > 0:
                kept[sector] -= 1
                _apply(found, change)


def _by_sector(offset: int, data: bytes, sector_bytes: int) -> list[tuple[int, tuple[int, bytes]] | int]:
    """Return a write as one for each sector: the sector's number, the offset, the bytes."""
    pieces: list[tuple[int, tuple[int, bytes]] | int] = []
    at = offset
    while at < offset + len(data):
        end = min((at // sector_bytes + 1) * sector_bytes, offset + len(data))
        pieces.append((at // sector_bytes, (at, data[at - offset : end - offset])))
        at = end
    return pieces


def _apply(content: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del content[change:]
        return
    offset, data = change
    content.extend(bytes(max(offset - len(content), 0)))
    content[offset : offset + len(data)] = data


def _kind(name: str) -> str:
    return WAL if name.endswith("-wal") else DATABASE


class DiskVfs(apsw.VFS):
    """Lets SQLite work on a `Disk`; a file's name is its path's last part."""

    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, base="")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        assert name is not None, "SQLite keeps its temporary files in memory"
        flags[1] = flags[0]
        file: apsw.VFSFile = _VfsFile(  # type: ignore[assignment]  # apsw asks for its methods, not for its class
            self._disk, _last(name.filename() if isinstance(name, apsw.URIFilename) else name)
        )
        return file

    def xAccess(self, pathname: str, _flags: int) -> bool:
        return _last(pathname) in self._disk.names()

    def xDelete(self, filename: str, _syncdir: bool) -> None:
        self._disk.delete(_last(filename))


class _VfsFile:
    """An open file. There is one connection, so locks have nobody to keep out."""

    def __init__(self, disk: Disk, name: str) -> None:
        disk.open(name)
        self._disk = disk
        self._name = name

    def xRead(self, amount: int, offset: int) -> bytes:
        return self._disk.read(self._name, amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.write(self._name, bytes(data), offset)

    def xTruncate(self, newsize: int) -> None:
        self._disk.truncate(self._name, newsize)

    def xSync(self, _flags: int) -> None:
        self._disk.sync(self._name)

    def xFileSize(self) -> int:
        return self._disk.size(self._name)

    def xSectorSize(self) -> int:
        return max(SECTOR_BYTES)

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xFileControl(self, _op: int, _pointer: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        pass


def _last(path: str) -> str:
    return PurePath(path).name
