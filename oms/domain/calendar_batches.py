"""The calendar of a lane that opens what waits in it at certain times of the day, all at once."""

from __future__ import annotations

from bisect import bisect_left
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from oms.domain.calendar_base import BLOCK_MS, HORIZON_MS, Blocks, Calendar, local_days
from oms.domain.calendar_error import CalendarError
from oms.domain.holiday import is_holiday
from oms.domain.local_time import to_ms
from oms.domain.opening_hours import DAY_MIN, OpeningHours, clock


class BatchCalendar(Calendar):
    """A lane with batches, each at a time of day.

    With opening hours a batch takes place where its time is in a window; it then shares that window's fate when the
    window's first day is a holiday. Without, it takes place on every day that is no holiday.
    """

    def __init__(
        self, zone: ZoneInfo, hours: OpeningHours | None, times: tuple[int, ...], holidays: str | None
    ) -> None:
        at = ", ".join(clock(minutes) for minutes in times)
        super().__init__(zone, f"batch at {at}{'' if hours is None else f' within {hours.text}'}", holidays)
        self._hours = hours
        self._times = times
        self._holidays = holidays
        self._week = [[(minutes, _owners(hours, weekday, minutes)) for minutes in times] for weekday in range(7)]
        self._blocks = Blocks(self._block)

    def next_opening_ms(self, at_ms: int) -> int:
        """Return the first batch at or after ``at_ms``."""
        number = at_ms // BLOCK_MS
        block = self._blocks[number]
        index = bisect_left(block, at_ms)
        if index < len(block):
            return block[index]
        for _, later in self._blocks.after(number):
            if later:
                return later[0]
        raise CalendarError("batch", f"{self.text} does not come within ten years of {self._shown(at_ms)}")

    def closes_at_ms(self, at_ms: int) -> int | None:  # noqa: ARG002 - of any moment
        """Return None: what a batch has opened stays open."""
        return None

    def add_open_ms(self, from_ms: int, amount_ms: int) -> int:
        """Return ``amount_ms`` after the first batch at or after ``from_ms``."""
        if amount_ms <= 0:
            return from_ms
        return min(self.next_opening_ms(from_ms) + amount_ms, from_ms + HORIZON_MS)

    def open_ms_between(self, a_ms: int, b_ms: int) -> int:
        """Return the time from the first batch at or after ``a_ms`` to ``b_ms``."""
        return max(0, b_ms - self.next_opening_ms(a_ms))

    def _what_is_next(self, at_ms: int) -> str:
        return f"next {self._shown(self.next_opening_ms(at_ms))}"

    def _rule(self) -> tuple[object, ...]:
        return (self.zone, self._hours, self._times, self._holidays)

    def _block(self, number: int) -> list[int]:
        start, end = number * BLOCK_MS, (number + 1) * BLOCK_MS
        moments = {
            to_ms(datetime.combine(day, time()) + timedelta(minutes=minutes), self.zone)
            for day in local_days(number)
            for minutes, owners in self._week[day.weekday()]
            if any(not is_holiday(self._holidays, _before(day, days)) for days in owners)
        }
        return sorted(moment for moment in moments if start <= moment < end)


def _owners(hours: OpeningHours | None, weekday: int, minutes: int) -> list[int]:
    """Return on which days the windows begin that hold a time of day: 0 for the same day, 1 for the day before."""
    if hours is None:
        return [0]
    return [
        days
        for days in (0, 1)
        if any(window.holds(minutes + days * DAY_MIN) for window in hours.of_weekday((weekday - days) % 7))
    ]


def _before(day: date, days: int) -> date:
    return day - timedelta(days=days)
