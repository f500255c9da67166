"""Clocks around their changes, for tests: every switch of some zones, and a model that shares no code with OMS.

The model goes through time minute by minute and looks at the clock. A local time has come at the first minute at which
the clock has shown it or a later one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

ASKED = (
    *("Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata"),
    *("Pacific/Apia", "Africa/Casablanca", "America/St_Johns", "Pacific/Chatham", "Asia/Tehran"),
)
AT_MIDNIGHT = ("Africa/Cairo", "America/Havana", "America/Santiago", "America/Nuuk", "Asia/Beirut")
"""Zones whose clocks change at or near midnight, so that a day begins late, or twice."""
ZONES = (*ASKED, *AT_MIDNIGHT)
FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
NEAR_MIN = 300


def ms(text: str) -> int:
    """Return the moment that an ISO time with its offset names."""
    return ms_of(datetime.fromisoformat(text))


def ms_of(at: datetime) -> int:
    """Return an aware time in milliseconds since the epoch."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def iso(at_ms: int, zone: str = "UTC") -> str:
    """Return a moment as an ISO time on a zone's clock, with its offset."""
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).isoformat(timespec="minutes")


@dataclass(frozen=True)
class Switch:
    """A change of a zone's clock at ``at`` (UTC) by ``change``; of a zone that has none, a plain moment."""

    zone: str
    at: datetime
    change: timedelta
    shown: list[datetime] = field(compare=False, repr=False)
    """The latest time that the clock has shown until each minute near the change; before and after, it only goes on."""

    def __str__(self) -> str:
        return f"{self.zone} {self.at:%Y-%m-%d %H:%M} {self.change // MINUTE:+}"

    @property
    def at_ms(self) -> int:
        return ms_of(self.at)

    def comes_ms(self, wall: datetime) -> int:
        """Return the first minute at which the clock has shown a local time, or a later one."""
        near_ms = self.at_ms - NEAR_MIN * MINUTE_MS
        if wall <= self.shown[0]:
            return near_ms - (self.shown[0] - wall) // MINUTE * MINUTE_MS
        if wall > self.shown[-1]:
            return near_ms + (len(self.shown) - 1 + (wall - self.shown[-1]) // MINUTE) * MINUTE_MS
        return near_ms + bisect_left(self.shown, wall) * MINUTE_MS

    def midnights(self, days: int) -> list[datetime]:
        """Return the local midnights around the change, from so many days before to so many after its own day's."""
        own = self.at.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None, hour=0, minute=0, fold=0)
        return [own + timedelta(days=more) for more in range(-days, days + 1)]


@cache
def switches(zone: str) -> list[Switch]:
    """Return every change of a zone's clock from 2024 to 2030; where it has none, a plain moment in each year."""
    changes = _changes(zone) or [
        (datetime(year, 3, 29, 1, tzinfo=UTC), timedelta()) for year in range(FIRST.year, LAST.year)
    ]
    return [Switch(zone, at, change, _shown(zone, at)) for at, change in changes]


def _shown(zone: str, at: datetime) -> list[datetime]:
    shown: list[datetime] = []
    for minute in range(-NEAR_MIN, NEAR_MIN):
        wall = (at + minute * MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        shown.append(max(wall, *shown[-1:]) if shown else wall)
    return shown


def _changes(zone: str) -> list[tuple[datetime, timedelta]]:
    found = []
    day = FIRST
    while day < LAST:
        if _offset(zone, day) != _offset(zone, day + DAY):
            before, after = day, day + DAY
            while after - before > MINUTE:
                middle = before + (after - before) // MINUTE // 2 * MINUTE
                before, after = (middle, after) if _offset(zone, middle) == _offset(zone, day) else (before, middle)
            found.append((after, _offset(zone, after) - _offset(zone, before)))
        day += DAY
    return found


def _offset(zone: str, at: datetime) -> timedelta:
    offset = at.astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset
