"""For how long a task is queued, as its lane's ``stall_after_sec`` counts: only while it could be handed out.

Time while the lane is closed does not count, nor time while the lane or the task's job is paused. Moments and amounts
are milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oms.domain.calendar import Calendar

Pause = tuple[int, int]
"""From when to when; the pauses of a lane do not overlap."""


@dataclass(frozen=True, slots=True)
class StallClock:
    """The clock of a lane.

    Attributes:
        calendar: when it is open; None: always, from the beginning of the count on. So it is for a lane with batches,
            too: a task's count begins with its batch, and what a batch has opened stays open.
    """

    calendar: Calendar | None

    def ends_at_ms(self, from_ms: int, amount_ms: int) -> int:
        """Return when it has counted ``amount_ms``, if nothing is paused."""
        if self.calendar is None:
            return from_ms + amount_ms
        return self.calendar.add_open_ms(from_ms, amount_ms)

    def counted_ms(self, from_ms: int, until_ms: int, pauses: Sequence[Pause] = ()) -> int:
        """Return what it counts from one moment to another."""
        paused = (self._open_ms(max(from_ms, start), min(until_ms, end)) for start, end in pauses)
        return self._open_ms(from_ms, until_ms) - sum(paused)

    def left_ms(self, from_ms: int, ends_at_ms: int, until_ms: int, pauses: Sequence[Pause] = ()) -> int:
        """Return what it has still to count at ``until_ms``; 0 or less: it has come to its end.

        Args:
            from_ms: since when it counts.
            ends_at_ms: what `ends_at_ms` said then.
            until_ms: now.
            pauses: when it stood still since.
        """
        return self._open_ms(from_ms, ends_at_ms) - self.counted_ms(from_ms, until_ms, pauses)

    def _open_ms(self, from_ms: int, until_ms: int) -> int:
        if until_ms <= from_ms:
            return 0
        return until_ms - from_ms if self.calendar is None else self.calendar.open_ms_between(from_ms, until_ms)
