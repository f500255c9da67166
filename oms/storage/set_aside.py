"""What could not be handled when it was due, and is left alone for a while: so it hinders nothing else.

It is kept in memory, not in the rows: what is due stays due, and whoever looks next, another tower or the release with
the fault mended, tries it at once. A tower by itself tries it again after a pause that doubles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

FIRST_PAUSE_MS = 10_000
MAX_PAUSE_MS = 900_000

Key = int | str


class Due(StrEnum):
    """What the clock makes due: each is looked for on its own."""

    LEASE = "lease"
    WINDOW = "window"
    BATCH = "batch"
    STALL = "stall"
    SCHEDULE = "schedule"
    TIMER = "timer"


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """What is left alone. Times are milliseconds since the epoch.

    Attributes:
        what: of which kind.
        key: the job's number; of a schedule, its plan's id.
        tries: how often it was tried.
        since: when it was tried first.
        again_at: when it is tried next.
        error: the name of what was raised last; its message may hold a citizen's data, and is in the log.
    """

    what: Due
    key: Key
    tries: int
    since: int
    again_at: int
    error: str

    @property
    def of(self) -> str:
        """Whose it is, as people name that."""
        return self.key if isinstance(self.key, str) else f"JOB-{self.key}"


class SetAside:
    """What one tower leaves alone. One thread adds and drops; others may read at the same time."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Due, Key], LeftAlone] = {}  # replaced as a whole: others read it

    @property
    def entries(self) -> list[LeftAlone]:
        """All that is left alone, the longest first."""
        return sorted(self._entries.values(), key=lambda entry: (entry.since, entry.what, str(entry.key)))

    def keys(self, what: Due, now_ms: int) -> list[Key]:
        """Return whose things of a kind are to be left alone now."""
        return [entry.key for entry in self._entries.values() if entry.what is what and entry.again_at > now_ms]

    def over(self, now_ms: int) -> list[LeftAlone]:
        """Return what is to be tried again by now."""
        return [entry for entry in self._entries.values() if entry.again_at <= now_ms]

    def add(self, what: Due, key: Key, error: Exception, now_ms: int) -> LeftAlone:
        """Leave something alone from now on, each time for longer."""
        before = self._entries.get((what, key))
        tries = 1 if before is None else before.tries + 1
        pause_ms = min(FIRST_PAUSE_MS * 2 ** min(tries - 1, 20), MAX_PAUSE_MS)
        since = now_ms if before is None else before.since
        entry = LeftAlone(what, key, tries, since, now_ms + pause_ms, type(error).__name__)
        self._entries = {**self._entries, (what, key): entry}
        return entry

    def drop(self, entries: Iterable[LeftAlone]) -> None:
        """Forget what was handled. What was added anew in the meantime stays."""
        dropped = set(entries)
        self._entries = {key: entry for key, entry in self._entries.items() if entry not in dropped}
