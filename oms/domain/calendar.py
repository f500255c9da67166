"""A lane's calendar, from the keys of a plan: ``open``, ``batch``, ``holidays`` and the plan's ``timezone``.

Pure rules over moments in milliseconds since the epoch. ``oms.domain.local_time`` has the rule where clocks change;
docs/calendars.md says all of it to users.
"""

from __future__ import annotations

from functools import lru_cache

from oms.domain.calendar_base import HORIZON_MS, Calendar
from oms.domain.calendar_batches import BatchCalendar
from oms.domain.calendar_error import CalendarError
from oms.domain.calendar_hours import HoursCalendar
from oms.domain.holiday import check_holidays
from oms.domain.local_time import zone
from oms.domain.opening_hours import ALL_DAY, DAY_MIN, OpeningHours, clock, read_clock, read_hours

__all__ = ["HORIZON_MS", "Calendar", "CalendarError", "lane_calendar"]

CHECKED_FROM_MS = 1_704_067_200_000
"""2024-01-01: whether it ever opens is looked at from here on, so that a plan is valid on every day or on none."""
MAX_BATCHES = 100
KEPT_CALENDARS = 1_000


def lane_calendar(
    *,
    timezone: str,
    open: str | None,  # noqa: A002 - the plan's key
    batch_at: str | None,
    holidays: str | None,
) -> Calendar | None:
    """Return a lane's calendar, or None when the lane is always open.

    Args:
        timezone: the plan's, an IANA name.
        open: weekly hours, ``Mon-Fri 08:00-17:00`` (``oms.domain.opening_hours`` has the grammar); None is all week.
        batch_at: the times of day, ``03:00`` or ``03:00, 15:00``, at which what waits is opened at once. With ``open``:
            on days on which that time is inside a window.
        holidays: a country or a part of one, ``US`` or ``US-CA``. A window or batch of such a day, on the zone's clock,
            does not take place; a window that began the evening before goes on to its end.

    Raises:
        CalendarError: one of them cannot be used; with the key, the place in its text, and what was expected there.
    """
    return _calendar(timezone, open, batch_at, holidays)


@lru_cache(maxsize=KEPT_CALENDARS)
def _calendar(timezone: str, open_text: str | None, batch_at: str | None, holidays: str | None) -> Calendar | None:
    """Make a calendar. Lanes of the same rule, in whatever plan and version, share what one has worked out."""
    on_clock = zone(timezone)
    closed_on = None if holidays is None else check_holidays(holidays)
    hours = None if open_text is None else read_hours(open_text)
    calendar: Calendar
    if batch_at is not None:
        calendar = BatchCalendar(on_clock, hours, _read_batches(batch_at, hours), closed_on)
    elif closed_on is None and (hours is None or _is_all_week(hours)):
        return None
    else:
        calendar = HoursCalendar(on_clock, hours or ALL_DAY, closed_on)
    if closed_on is not None:
        try:
            calendar.next_opening_ms(CHECKED_FROM_MS)
        except CalendarError as error:
            raise CalendarError("holidays", f"every opening is on a holiday of {holidays}: it never opens") from error
    return calendar


def _read_batches(text: str, hours: OpeningHours | None) -> tuple[int, ...]:
    """Return the times of a ``batch`` in minutes after midnight, in order."""
    times: set[int] = set()
    offset = 0
    for part in text.split(","):
        place = offset + len(part) - len(part.lstrip())
        minutes = read_clock("batch", part.strip(), place)
        if minutes in times:
            raise CalendarError("batch", f"the batch at {clock(minutes)} is given twice", offset=place)
        if hours is not None and not any(
            window.holds(minutes) or window.holds(minutes + DAY_MIN) for window in hours.windows
        ):
            raise CalendarError(
                "batch",
                f"the batch at {clock(minutes)} is outside the lane's hours {hours.text}: it never opens",
                offset=place,
            )
        times.add(minutes)
        if len(times) > MAX_BATCHES:
            raise CalendarError("batch", f"at most {MAX_BATCHES} batches a day", offset=place)
        offset += len(part) + 1
    return tuple(sorted(times))


def _is_all_week(hours: OpeningHours) -> bool:
    """Tell whether the windows leave no minute of the week out."""
    week = 7 * DAY_MIN
    spans = [
        (window.weekday * DAY_MIN + window.start_min, window.weekday * DAY_MIN + window.end_min)
        for window in hours.windows
    ]
    open_until = 0
    for start, end in sorted(spans + [(start - week, end - week) for start, end in spans]):
        if start > open_until:
            return False
        open_until = max(open_until, end)
    return open_until >= week
