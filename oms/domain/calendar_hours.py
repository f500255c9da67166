"""The calendar of a lane with opening hours."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from oms.domain.calendar_base import BLOCK_MS, HORIZON_MS, Blocks, Calendar, local_days
from oms.domain.calendar_error import CalendarError
from oms.domain.holiday import is_holiday
from oms.domain.local_time import to_ms
from oms.domain.opening_hours import OpeningHours, Window

MINUTE_MS = 60_000


def window_ms(window: Window, day: date, zone: ZoneInfo) -> tuple[int, int]:
    """Return when a window that begins on ``day`` opens and closes.

    Both are what ``to_ms`` makes of the two times. So where clocks go back, a window whose end comes twice ends at the
    first, and one that is open through the whole of it is longer. Where clocks go forward it is shorter; one that the
    clock jumps over as a whole opens at the jump, for as long as on other days.
    """
    midnight = datetime.combine(day, time())
    opens = to_ms(midnight + timedelta(minutes=window.start_min), zone)
    closes = to_ms(midnight + timedelta(minutes=window.end_min), zone)
    if closes > opens:
        return opens, closes
    return opens, opens + (window.end_min - window.start_min) * MINUTE_MS


@dataclass(frozen=True, slots=True)
class _Block:
    """Stretches of a block in which the lane is open, in order, apart from each other.

    Attributes:
        opens: when each opens.
        closes: when each closes; the last may go on in the next block.
        open_before: for how long the lane was open before each, since the block's start; then the sum.
    """

    opens: list[int]
    closes: list[int]
    open_before: list[int]

    def open_until(self, at_ms: int) -> int:
        """Return for how long the lane is open from the block's start to a moment in it."""
        last = bisect_right(self.opens, at_ms) - 1
        return 0 if last < 0 else self.open_before[last] + min(at_ms, self.closes[last]) - self.opens[last]


class HoursCalendar(Calendar):
    """A lane that is open in windows of the week, save those that begin on a holiday."""

    def __init__(self, zone: ZoneInfo, hours: OpeningHours, holidays: str | None) -> None:
        super().__init__(zone, hours.text, holidays)
        self._hours = hours
        self._holidays = holidays
        self._week = [hours.of_weekday(weekday) for weekday in range(7)]
        self._blocks = Blocks(self._block)

    def next_opening_ms(self, at_ms: int) -> int:
        """Return ``at_ms`` inside a window, else when the next one opens."""
        number = at_ms // BLOCK_MS
        block = self._blocks[number]
        index = bisect_right(block.closes, at_ms)
        if index < len(block.opens):
            return max(at_ms, block.opens[index])
        for _, later in self._blocks.after(number):
            if later.opens:
                return later.opens[0]
        raise CalendarError("open", f"{self.text} does not open within ten years of {self._shown(at_ms)}")

    def closes_at_ms(self, at_ms: int) -> int | None:
        """Return when the window that ``at_ms`` is in ends, or None."""
        number = at_ms // BLOCK_MS
        block = self._blocks[number]
        index = bisect_right(block.closes, at_ms)
        if index == len(block.opens) or block.opens[index] > at_ms:
            return None
        closes = block.closes[index]
        if closes < (number + 1) * BLOCK_MS:
            return closes
        for later_number, later in self._blocks.after(number):
            if later.opens[:1] != [closes]:
                return closes
            closes = later.closes[0]
            if closes < (later_number + 1) * BLOCK_MS:
                return closes
        return None

    def add_open_ms(self, from_ms: int, amount_ms: int) -> int:
        """Return when the windows since ``from_ms`` add up to ``amount_ms``."""
        if amount_ms <= 0:
            return from_ms
        number = from_ms // BLOCK_MS
        block = self._blocks[number]
        wanted = amount_ms + block.open_until(from_ms)
        latest_ms = from_ms + HORIZON_MS
        for later_number, later in self._blocks.after(number):
            if wanted <= block.open_before[-1]:
                break
            wanted -= block.open_before[-1]
            block = later
            if later_number * BLOCK_MS >= latest_ms:
                return latest_ms
        index = bisect_left(block.open_before, wanted) - 1
        return min(block.opens[index] + wanted - block.open_before[index], latest_ms)

    def open_ms_between(self, a_ms: int, b_ms: int) -> int:
        """Return what the windows from ``a_ms`` to ``b_ms`` add up to."""
        if b_ms <= a_ms:
            return 0
        first, last = a_ms // BLOCK_MS, b_ms // BLOCK_MS
        whole = sum(self._blocks[number].open_before[-1] for number in range(first, last))
        return whole - self._blocks[first].open_until(a_ms) + self._blocks[last].open_until(b_ms)

    def _what_is_next(self, at_ms: int) -> str:
        opens = self.next_opening_ms(at_ms)
        if opens > at_ms:
            return f"opens {self._shown(opens)}"
        closes = self.closes_at_ms(at_ms)
        return "open" if closes is None else f"open until {self._shown(closes)}"

    def _rule(self) -> tuple[object, ...]:
        return (self.zone, self._hours, self._holidays)

    def _block(self, number: int) -> _Block:
        start, end = number * BLOCK_MS, (number + 1) * BLOCK_MS
        windows = sorted(
            window_ms(window, day, self.zone)
            for day in local_days(number)
            if not is_holiday(self._holidays, day)
            for window in self._week[day.weekday()]
        )
        block = _Block([], [], [0])
        for opens, closes in ((max(opens, start), min(closes, end)) for opens, closes in windows):
            if opens >= closes:
                continue
            if block.closes and opens <= block.closes[-1]:
                block.closes[-1] = max(closes, block.closes[-1])
            else:
                block.opens.append(opens)
                block.closes.append(closes)
        for opens, closes in zip(block.opens, block.closes, strict=True):
            block.open_before.append(block.open_before[-1] + closes - opens)
        return block
