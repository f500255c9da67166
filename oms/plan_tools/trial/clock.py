"""How the moments of a trial are written, and read."""

from __future__ import annotations

from datetime import UTC, datetime

from oms.domain.local_time import shown_moment, to_ms, to_wall, zone
from oms.plan_tools.trial.wanted import TrialError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """The clock of a plan's timezone."""

    def __init__(self, timezone: str) -> None:
        self._zone = zone(timezone)

    def moment(self, at_ms: int) -> str:
        """Return a moment as ``Wed 2026-11-25 08:00``, with seconds where there are any."""
        sec = to_wall(at_ms, self._zone).second
        return shown_moment(at_ms, self._zone) + (f":{sec:02}" if sec else "")

    def read(self, text: str) -> int:
        """Return the milliseconds since the epoch of ``2026-11-25T08:00``; with an offset at its end, of that.

        Raises:
            TrialError: it is no moment.
        """
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise TrialError(f"{text!r} is no moment such as 2026-11-25T08:00") from None
        if found.tzinfo is None:
            return to_ms(found, self._zone)
        return int((found - _EPOCH).total_seconds() * 1000)
