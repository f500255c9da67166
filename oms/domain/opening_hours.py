"""A lane's weekly hours: ``Mon-Fri 08:00-17:00``, read from a plan's text.

The grammar, blanks apart::

    open    = group *((";" / ",") group)
    group   = days [times *("," times)]           ; days without times are open all day
    days    = "daily" / (day ["-" day]) *("," day ["-" day])
    day     = "Mon" / "Tue" / "Wed" / "Thu" / "Fri" / "Sat" / "Sun"
    times   = HH:MM "-" HH:MM                     ; over midnight when the end is not after the start; 24:00 as an end

A window belongs to the day on which it begins, also where it ends on the next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oms.domain.calendar_error import CalendarError
from oms.domain.local_time import DAYS
from oms.domain.naming import did_you_mean, quote

DAY_MIN = 1_440
MAX_LENGTH = 500
DASHES = ("\u2013", "\u2014")
"""What word processors make of a hyphen."""
_TOKEN = re.compile(r"\s*(?:(?P<word>[^\W\d_]+)|(?P<number>[\d:.]+)|(?P<mark>[-,;])|(?P<end>\Z)|(?P<other>\S))")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})")


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Hours on one day of the week.

    Attributes:
        weekday: the day on which it begins, 0 is Monday.
        start_min: minutes after that day's midnight, 0 to 1,439.
        end_min: minutes after the same midnight, more than ``start_min``; up to 1,440, or more on the next day.
    """

    weekday: int
    start_min: int
    end_min: int

    def holds(self, minutes: int) -> bool:
        """Tell whether so many minutes after the midnight of its day it is open."""
        return self.start_min <= minutes < self.end_min


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """A week's windows, in order, and the text that they are written as."""

    windows: tuple[Window, ...]
    text: str

    def of_weekday(self, weekday: int) -> tuple[Window, ...]:
        """Return the windows that begin on a day of the week, 0 is Monday."""
        return tuple(window for window in self.windows if window.weekday == weekday)


ALL_DAY = OpeningHours(tuple(Window(weekday, 0, DAY_MIN) for weekday in range(7)), "daily")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    offset: int


def read_hours(text: str) -> OpeningHours:
    """Read a lane's ``open``.

    Raises:
        CalendarError: the text is not of the grammar above, or a window in it is empty.
    """
    if len(text) > MAX_LENGTH:
        raise CalendarError("open", f"opening hours have at most {MAX_LENGTH} characters; found {len(text)}")
    return _Reader(text).hours()


def read_clock(key: str, text: str, offset: int, *, end: bool = False) -> int:
    """Return a time of day in minutes after midnight; only an ``end`` may be 24:00, which is 1,440.

    Raises:
        CalendarError: it is no time of day.
    """
    found = _CLOCK.fullmatch(text)
    hours, minutes = (int(found[1]), int(found[2])) if found else (-1, -1)
    if 0 <= hours < 24 and minutes < 60:  # noqa: PLR2004 - a clock's
        return hours * 60 + minutes
    if (hours, minutes) == (24, 0):
        if end:
            return DAY_MIN
        raise CalendarError(key, "24:00 is only an end; a start at midnight is 00:00", offset=offset)
    raise CalendarError(key, f"expected a time from 00:00 to 23:59; found {quote(text)}", offset=offset)


def clock(minutes: int) -> str:
    """Return minutes after midnight as ``HH:MM``."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


class _Reader:
    """Reads ``open`` from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def hours(self) -> OpeningHours:
        windows: set[Window] = set()
        groups = []
        while True:
            weekdays, group = self._days()
            times = self._times()
            windows |= {Window(weekday, start, end) for weekday in weekdays for start, end in times or [(0, DAY_MIN)]}
            groups.append(f"{group} {','.join(_shown(start, end) for start, end in times)}".rstrip())
            if self._token.kind == "end":
                return OpeningHours(tuple(sorted(windows)), "; ".join(groups))
            if not self._takes(";") and not self._takes(","):
                raise self._fault("expected a comma or a semicolon before what follows")

    def _days(self) -> tuple[set[int], str]:
        """Read ``daily`` or a list of days, and return them as a text, too."""
        if self._takes("daily"):
            return set(range(7)), "daily"
        weekdays: set[int] = set()
        shown = []
        while True:
            offset = self._token.offset
            first = last = self._day()
            if self._takes("-"):
                last = self._day()
                if last == first:
                    raise CalendarError(
                        "open", f"a range from {DAYS[first]} to {DAYS[first]}: write one day, or daily", offset=offset
                    )
            weekdays |= {(first + more) % 7 for more in range((last - first) % 7 + 1)}
            shown.append(DAYS[first] if first == last else f"{DAYS[first]}-{DAYS[last]}")
            if not self._takes(","):
                return weekdays, ",".join(shown)

    def _day(self) -> int:
        text = self._token.text
        if self._token.kind == "number":
            raise self._fault('a window names its days first, such as "daily 08:00-17:00"')
        if text == "daily":
            raise self._fault("daily stands alone, not in a list of days")
        if text not in DAYS:
            short = text[:3].capitalize()
            near = f"; did you mean {quote(short)}?" if short in DAYS else did_you_mean(text, (*DAYS, "daily"))
            raise self._fault("expected a day from Mon to Sun, or daily", near)
        self._at += 1
        return DAYS.index(text)

    def _times(self) -> list[tuple[int, int]]:
        """Read what may follow the days: windows as minutes after midnight; none is all day."""
        if self._token.kind != "number":
            return []
        times = [self._window()]
        while self._takes(",", before="number"):
            times.append(self._window())
        return times

    def _window(self) -> tuple[int, int]:
        offset = self._token.offset
        start = self._clock()
        if not self._takes("-"):
            raise self._fault('expected the end of the window, such as "08:00-17:00"')
        end = self._clock(end=True)
        if start == end:
            raise CalendarError(
                "open", f"the window {_shown(start, end)} is empty; all day is 00:00-24:00", offset=offset
            )
        return start, end if end > start else end + DAY_MIN

    def _clock(self, *, end: bool = False) -> int:
        if self._token.kind != "number":
            raise self._fault("expected a time such as 08:00")
        minutes = read_clock("open", self._token.text, self._token.offset, end=end)
        self._at += 1
        return minutes

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _takes(self, text: str, *, before: str | None = None) -> bool:
        """Pass over a token of that text, if it stands here and, where asked, before one of a kind."""
        if self._token.text != text or (before is not None and self._tokens[self._at + 1].kind != before):
            return False
        self._at += 1
        return True

    def _fault(self, expected: str, near: str = "") -> CalendarError:
        if self._token.text in DASHES:
            near = '; did you mean "-"?'
        found = "the end" if self._token.kind == "end" else quote(self._token.text)
        return CalendarError("open", f"{expected}; found {found}{near}", offset=self._token.offset)


def _tokens(text: str) -> list[_Token]:
    """Cut a text into words, numbers, marks and what is none of them; the last token is the end."""
    return [
        _Token(kind, found[kind], found.start(kind)) for found in _TOKEN.finditer(text) if (kind := found.lastgroup)
    ]


def _shown(start: int, end: int) -> str:
    return f"{clock(start)}-{clock(end if end <= DAY_MIN else end - DAY_MIN)}"
