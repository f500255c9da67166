"""When a task is due: after so many seconds, or after so many business days.

``P10D`` is the tenth business day after the day of the beginning, at the same time of day on the clock of the plan's
timezone. Business days are Monday to Friday without the holidays of the lane. The day of the beginning never counts,
whatever day it is: what begins on a Friday or on the Saturday after it is due on Monday with ``P1D``. Hours, minutes
and seconds are plain time, and come after the days: ``P1DT4H`` is four hours later. A time of day that the clock jumps
over is the jump; of one that comes twice it is the first.

Weeks, months and years are refused: it would be anybody's guess whether they mean business days.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from oms.domain.calendar_error import CalendarError
from oms.domain.holiday import is_holiday
from oms.domain.local_time import to_ms, to_wall, zone
from oms.domain.naming import quote

MAX_DAYS = 3_650
MAX_SEC = 315_360_000
"""Ten years."""
_ISO = re.compile(r"P(?:([0-9]+)D)?(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?")
_LONGER = re.compile(r"P[0-9DT]*?([0-9]+)([WYM])")
_SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Due:
    """A task's time until it is due.

    Attributes:
        business_days: whole days, counted first.
        plain_ms: milliseconds after that.
    """

    business_days: int
    plain_ms: int


def due_of_seconds(due_sec: int) -> Due:
    """Return ``due_sec`` of a plan: plain seconds, at any time of the week."""
    return Due(0, due_sec * 1000)


def read_due(text: str) -> Due:
    """Read ``due`` of a plan, an ISO 8601 duration of days, hours, minutes and seconds: ``P10D``, ``P1DT4H``.

    Raises:
        CalendarError: it is none, is nothing at all, or is longer than ten years.
    """
    found = _ISO.fullmatch(text)
    if found is None or text == "P":
        longer = _LONGER.match(text)
        if longer and "T" not in longer[0]:
            name = {"W": "weeks", "M": "months", "Y": "years"}[longer[2]]
            raise CalendarError(
                "due", f"{name} are not business days; count them as days, such as P10D", offset=longer.start(1)
            )
        raise CalendarError("due", f"expected business days and hours such as P10D or P1DT4H; found {quote(text)}")
    days, hours, minutes, seconds = (int(part[:12]) if part else 0 for part in found.groups())
    due = Due(days, ((hours * 60 + minutes) * 60 + seconds) * 1000)
    if due.business_days > MAX_DAYS or due.plain_ms > MAX_SEC * 1000:
        raise CalendarError("due", f"at most ten years, which are P{MAX_DAYS}D; found {quote(text)}")
    if due == Due(0, 0):
        raise CalendarError("due", f"{quote(text)} is no time at all; expected one such as P10D or PT4H")
    return due


def due_ms(from_ms: int, due: Due, *, timezone: str, holidays: str | None) -> int:
    """Return the moment at which a task that began at ``from_ms`` is due, milliseconds since the epoch.

    Args:
        from_ms: the beginning.
        due: how much later, from ``read_due`` or ``due_of_seconds``.
        timezone: the plan's.
        holidays: the lane's, checked by ``lane_calendar``; None has none.
    """
    if not due.business_days:
        return from_ms + due.plain_ms
    on_clock = zone(timezone)
    wall = to_wall(from_ms, on_clock)
    left = due.business_days
    while left:
        wall += timedelta(days=1)
        if wall.weekday() < _SATURDAY and not is_holiday(holidays, wall.date()):
            left -= 1
    return to_ms(wall, on_clock) + due.plain_ms
