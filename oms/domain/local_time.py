"""What a clock on the wall of a timezone shows, and the one moment that a time on it stands for.

Moments are milliseconds since the epoch. A *wall* time is what the clock shows, as a ``datetime`` without a timezone.
When clocks go forward some wall times are missing, when they go back some come twice. One rule answers both, for
windows, batches, schedules and due times alike: a wall time stands for **the first moment at which the clock shows it
or a later one**. A missing 02:30 is the moment at which the clock jumps over it; of a doubled 02:30 it is the first.
Later wall times never stand for earlier moments, so that windows keep their order and never overlap through a switch.

The rules of the zones are the machine's (``zoneinfo``), or those of the package tzdata where the machine has none. They
are a table that is read once per zone and process, not state: the same question has the same answer.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from oms.domain.calendar_error import CalendarError
from oms.domain.naming import did_you_mean, quote

DAY_MS = 86_400_000
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

_WALL_EPOCH = EPOCH.replace(tzinfo=None)
_OF_THE_MACHINE = frozenset({"localtime", "Factory"})
"""Names that some machines have for a zone of their own: a plan means the same everywhere."""


@cache
def zone(name: str) -> ZoneInfo:
    """Return a timezone by its IANA name, such as ``America/New_York`` or ``UTC``; letter case counts.

    Raises:
        CalendarError: there is none of that name.
    """
    if name not in _names():
        raise CalendarError("timezone", f"there is no timezone {quote(name)}{_near(name)}")
    return ZoneInfo(name)


@cache
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _OF_THE_MACHINE


def _near(name: str) -> str:
    """Return the hint for an unknown zone: the zone of that city, or the nearest name in that region, or in all."""
    region, _, city = name.rpartition("/")
    of_city = [known for known in _names() if known.rpartition("/")[2].casefold() == city.casefold()]
    if of_city:
        return f"; did you mean {quote(min(of_city, key=lambda known: (known.count('/'), known)))}?"
    in_region = [known for known in _names() if region and known.casefold().startswith(f"{region.casefold()}/")]
    return (
        did_you_mean(name, in_region)
        or did_you_mean(name, _names())
        or '; expected an IANA name such as "Europe/Berlin"'
    )


def to_wall(at_ms: int, zone: ZoneInfo) -> datetime:
    """Return what the clock shows at a moment; ``fold`` is 1 when it shows that for the second time."""
    return (EPOCH + at_ms * MILLISECOND).astimezone(zone).replace(tzinfo=None)


def to_ms(wall: datetime, zone: ZoneInfo) -> int:
    """Return the first moment at which the clock shows ``wall`` or a later time."""
    as_utc_ms = (wall - _WALL_EPOCH) // MILLISECOND
    first_ms, second_ms = _offset_ms(wall, zone, 0), _offset_ms(wall, zone, 1)
    if first_ms >= second_ms:  # a plain time, or the first of two
        return as_utc_ms - first_ms
    # The clock jumps over this time: the jump is between what the offsets after and before it make of it.
    before_ms, after_ms = as_utc_ms - second_ms, as_utc_ms - first_ms
    while after_ms - before_ms > 1:
        middle_ms = (before_ms + after_ms) // 2
        if to_wall(middle_ms, zone) > wall:
            after_ms = middle_ms
        else:
            before_ms = middle_ms
    return after_ms


def overlap(wall: datetime, zone: ZoneInfo) -> timedelta:
    """Return for how long the clock repeats itself, when it shows ``wall`` for the second time; else nothing."""
    if not wall.fold:
        return timedelta()
    return (_offset_ms(wall, zone, 0) - _offset_ms(wall, zone, 1)) * MILLISECOND


def _offset_ms(wall: datetime, zone: ZoneInfo, fold: int) -> int:
    offset = wall.replace(tzinfo=zone, fold=fold).utcoffset()
    assert offset is not None
    return offset // MILLISECOND


def shown_moment(at_ms: int, zone: ZoneInfo) -> str:
    """Return a moment as ``Wed 2026-11-25 08:00`` on the zone's clock."""
    wall = to_wall(at_ms, zone)
    return f"{DAYS[wall.weekday()]} {wall:%Y-%m-%d %H:%M}"
