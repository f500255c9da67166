"""What processes cost, out of Linux's ``/proc``. Elsewhere there is none (macOS), and these figures are left out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK_SEC = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# After the name, which may hold anything but is in brackets: user and system time are the 12th and 13th field.
_USER, _SYSTEM = 11, 12
MIB = 1024 * 1024


def cpu_sec(pid: int) -> float | None:
    """Return the CPU time that a process has used, seconds; None where it, or ``/proc``, is not there."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[_USER]) + int(fields[_SYSTEM])) * _TICK_SEC


def rss_bytes(pid: int) -> int | None:
    """Return the memory that a process has in RAM; None where it, or ``/proc``, is not there."""
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return None


def busy_sec() -> float | None:
    """Return the CPU time that all processes have used, and what the machine below took; None without ``/proc``.

    Interrupts are left out: those of our own traffic are charged to nobody.
    """
    try:
        fields = (_PROC / "stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, fields[1:9])
    return (user + nice + system + steal) * _TICK_SEC


@dataclass(frozen=True, slots=True)
class Usage:
    """What the watched processes used between two moments.

    Attributes:
        cores: by name, the share of a core; None where it is not known.
        rss_mib: by name, the memory at the end.
        other_cores: what all other processes used.
    """

    cores: dict[str, float | None]
    rss_mib: dict[str, float | None]
    other_cores: float | None


class Meter:
    """Measures processes, this one too, from its making on.

    Args:
        pids: by name.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._at = time.perf_counter()
        self._own_sec = time.process_time()
        self._busy_sec = busy_sec()
        self._cpu_sec = {name: cpu_sec(pid) for name, pid in self._pids.items()}

    def read(self) -> Usage:
        """Return what was used since."""
        passed_sec = time.perf_counter() - self._at
        used: dict[str, float | None] = {}
        for name, pid in self._pids.items():
            before, now = self._cpu_sec[name], cpu_sec(pid)
            used[name] = None if before is None or now is None else now - before
        own_sec = time.process_time() - self._own_sec
        busy = busy_sec()
        other_sec: float | None = None
        if busy is not None and self._busy_sec is not None:
            other_sec = busy - self._busy_sec - own_sec - sum(sec or 0.0 for sec in used.values())
        return Usage(
            {name: None if sec is None else sec / passed_sec for name, sec in used.items()},
            {name: _mib(rss_bytes(pid)) for name, pid in self._pids.items()},
            None if other_sec is None else max(0.0, other_sec / passed_sec),
        )


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB
