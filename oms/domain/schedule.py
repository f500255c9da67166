"""A plan's ``schedules``: when a cron fires on the clock of the plan's timezone, and what the job it starts is called.

cronsim reads cron texts and walks them, here over times without a timezone; which moment each of these stands for is
the rule of ``oms.domain.local_time``. So every local time that matches fires once, whatever the clocks do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from oms.domain.calendar_error import CalendarError
from oms.domain.local_time import overlap, to_ms, to_wall, zone
from oms.domain.naming import did_you_mean, quote

MAX_LENGTH = 200
DATE = "{date}"
"""In a reference: the fire's local date, ``2026-11-22``."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_CHECKED_FROM = datetime.fromisoformat("2024-01-01")
"""Whether a cron ever fires is looked at from here on, so that a plan is valid on every day or on none."""
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five parts of a cron: its name, what it takes, how many values it has, and their names."""

    name: str
    takes: str
    size: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", "0 to 59", 60),
    _Field("hour", "0 to 23", 24),
    _Field("day of the month", "1 to 31, L or LW", 31),
    _Field("month", "1 to 12 or JAN to DEC", 12, _MONTHS),
    _Field("day of the week", "0 (Sunday) to 7 or SUN to SAT, also as MON#2 or 5L", 7, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron fires in a timezone. Immutable; threads may share it.

    Attributes:
        cron: five fields, ``30 2 * * MON-FRI``, read as Debian's cron does; also ``L``, ``LW``, ``MON#2``, ``5L``.
        timezone: an IANA name.

    Raises:
        CalendarError: the cron cannot be read or never fires, or there is no such timezone.
    """

    cron: str
    timezone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", zone(self.timezone))
        _check(self.cron)

    def next_fire_ms(self, after_ms: int) -> int:
        """Return the first fire after a moment, which itself does not count."""
        # In the second pass of an hour that comes twice, fires of the first pass come up once more: they are over.
        fires = self._fires(to_wall(after_ms, self._zone))
        return next(fire for fire in fires if fire > after_ms)

    def missed(self, since_ms: int, now_ms: int) -> int | None:
        """Return the latest fire after ``since_ms`` up to ``now_ms``, both moments known, or None.

        After an outage that is the one fire that is made up; those before it are not.
        """
        wall = to_wall(now_ms, self._zone)
        fires = self._fires(wall + overlap(wall, self._zone) + _SECOND, backwards=True)
        fire = next((fire for fire in fires if fire <= now_ms), None)
        return fire if fire is not None and fire > since_ms else None

    def local_date(self, fire_ms: int) -> str:
        """Return the date of a fire on the zone's calendar, as ``2026-11-22``."""
        return to_wall(fire_ms, self._zone).date().isoformat()

    def render_reference(self, template: str, fire_ms: int) -> str:
        """Return the reference of the job that a fire starts, from a template that ``check_reference`` has passed."""
        return template.replace(DATE, self.local_date(fire_ms))

    def _fires(self, wall: datetime, *, backwards: bool = False) -> Iterator[int]:
        for local in CronSim(self.cron, wall.replace(microsecond=0), reverse=backwards):
            yield to_ms(local, self._zone)


def check_reference(template: str) -> str:
    """Return the template of a reference as it is.

    Raises:
        CalendarError: it has braces that are not ``{date}``.
    """
    for found in re.finditer(r"\{([^{}]*)\}|[{}]", template):
        if found[0] != DATE:
            near = did_you_mean(found[1] or "", ["date"]).replace('"date"', f'"{DATE}"')
            raise CalendarError(
                "reference",
                f"a reference knows only {DATE}, the fire's local date; found {quote(found[0])}{near}",
                offset=found.start(),
            )
    return template


def _check(cron: str) -> None:
    """Refuse what is no cron, at the field that is at fault."""
    if len(cron) > MAX_LENGTH:
        raise CalendarError("cron", f"a cron has at most {MAX_LENGTH} characters; found {len(cron)}")
    found = list(re.finditer(r"\S+", cron))
    if len(found) != len(_FIELDS):
        hint = f"; write {_SHORT[cron.strip()]}" if cron.strip() in _SHORT else ""
        raise CalendarError(
            "cron",
            "a cron has five fields: minute, hour, day of the month, month, day of the week; "
            f"found {quote(cron) if len(found) == 1 else len(found)}{hint}",
        )
    for index, part in enumerate(found):
        problem = _problem(index, part[0])
        if problem is not None:
            raise CalendarError("cron", problem, offset=part.start())
    try:
        fires = CronSim(cron, _CHECKED_FROM)
    except CronSimError:  # a day that none of the months has
        fires = None
    if fires is None or next(fires, None) is None:
        raise CalendarError("cron", f"{quote(cron)} never fires: there is no such day", offset=found[2].start())


def _problem(index: int, text: str) -> str | None:
    """Return what is wrong with one field, or None."""
    of = _FIELDS[index]
    alone = " ".join(text if index == other else "*" for other in range(len(_FIELDS)))
    try:
        CronSim(alone, _CHECKED_FROM)
    except CronSimError:
        unknown = next((word for word in re.findall(r"[A-Za-z]+", text) if word.upper() not in of.names), "")
        near = did_you_mean(unknown, of.names) if unknown else ""
        return f"the {of.name} is {of.takes}, with commas, - and /; found {quote(text)}{near}"
    step = max((int(step) for step in re.findall(r"/(\d+)", text)), default=0)
    if step > of.size:
        return f"the {of.name} has {of.size} values, so that a step of {step} is too long"
    return None
