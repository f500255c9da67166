"""A lane's ``open``: what it can say, and what is refused where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.calendar_error import CalendarError
from oms.domain.local_time import DAYS
from oms.domain.opening_hours import DAY_MIN, MAX_LENGTH, Window, clock, read_hours


def week(text: str) -> dict[str, list[str]]:
    """Return a text's windows by day; an end on the next day is 24:00 or more."""
    found: dict[str, list[str]] = {}
    for window in read_hours(text).windows:
        found.setdefault(DAYS[window.weekday], []).append(f"{clock(window.start_min)}-{clock(window.end_min)}")
    return found


def days(text: str) -> str:
    return " ".join(week(text))


def test_days_and_one_window() -> None:
    assert week("Mon-Fri 08:00-17:00") == {day: ["08:00-17:00"] for day in DAYS[:5]}
    assert week("daily 06:00-21:00") == {day: ["06:00-21:00"] for day in DAYS}


def test_commas_and_semicolons_part_windows_and_groups() -> None:
    both = ["08:00-12:00", "13:00-17:00"]
    expected = {"Mon": both, "Tue": both, "Wed": both, "Thu": both, "Fri": ["08:00-12:00"]}
    assert week("Mon-Thu 08:00-12:00,13:00-17:00; Fri 08:00-12:00") == expected
    assert week("Mon-Thu 08:00-12:00, 13:00-17:00, Fri 08:00-12:00") == expected
    assert week(" Mon-Thu   08:00 - 12:00 ,13:00-17:00;Fri 8:00-12:00 ") == expected


def test_lists_of_days_and_weeks_that_begin_on_another_day() -> None:
    assert days("Mon, Wed,Fri 08:00-12:00") == "Mon Wed Fri"
    assert days("Sun-Thu 08:00-16:00") == "Mon Tue Wed Thu Sun"
    assert days("Sat-Mon,Wed 08:00-16:00") == "Mon Wed Sat Sun"


def test_days_without_times_are_open_all_day() -> None:
    assert week("Mon-Tue; Sat 09:00-12:00") == {"Mon": ["00:00-24:00"], "Tue": ["00:00-24:00"], "Sat": ["09:00-12:00"]}
    assert week("daily") == week("Mon-Sun 00:00-24:00")


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    assert read_hours("Fri 22:00-06:00").windows == (Window(4, 22 * 60, 30 * 60),)
    assert read_hours("Fri 22:00-24:00") == read_hours("Fri 22:00-24:00")
    assert read_hours("Fri 22:00-00:00").windows == read_hours("Fri 22:00-24:00").windows == (Window(4, 1320, 1440),)


def test_the_text_is_written_anew() -> None:
    assert read_hours(" Mon,Wed-Fri 8:00 - 12:00 , 22:00-6:00;Sat ").text == "Mon,Wed-Fri 08:00-12:00,22:00-06:00; Sat"


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, "expected a day from Mon to Sun, or daily; found the end"),
        ("  ", 2, "expected a day from Mon to Sun, or daily; found the end"),
        ("08:00-17:00", 0, 'a window names its days first, such as "daily 08:00-17:00"; found "08:00"'),
        ("Mon 08:00-12:00; 13:00-17:00", 17, "a window names its days first"),
        ("Mond 08:00-12:00", 0, 'expected a day from Mon to Sun, or daily; found "Mond"; did you mean "Mon"?'),
        ("mon-fri 08:00-12:00", 0, 'found "mon"; did you mean "Mon"?'),
        ("Mon-Wednesday 08:00-12:00", 4, 'found "Wednesday"; did you mean "Wed"?'),
        ("dayly 08:00-12:00", 0, 'found "dayly"; did you mean "daily"?'),
        ("Mon, daily 08:00-12:00", 5, 'daily stands alone, not in a list of days; found "daily"'),
        ("Mon-Mon 08:00-12:00", 0, "a range from Mon to Mon: write one day, or daily"),
        ("Mon 08:00", 9, 'expected the end of the window, such as "08:00-17:00"; found the end'),
        ("Mon 08:00-", 10, "expected a time such as 08:00; found the end"),
        ("Mon 08:00-noon", 10, 'expected a time such as 08:00; found "noon"'),
        ("Mon 8-17", 4, 'expected a time from 00:00 to 23:59; found "8"'),
        ("Mon 08:00-17.00", 10, 'expected a time from 00:00 to 23:59; found "17.00"'),
        ("Mon 08:00-17:60", 10, 'expected a time from 00:00 to 23:59; found "17:60"'),
        ("Mon 08:00-24:01", 10, 'expected a time from 00:00 to 23:59; found "24:01"'),
        ("Mon 24:00-08:00", 4, "24:00 is only an end; a start at midnight is 00:00"),
        ("Mon 08:00-08:00", 4, "the window 08:00-08:00 is empty; all day is 00:00-24:00"),
        ("Mon 08:00-17:00 Tue", 16, 'expected a comma or a semicolon before what follows; found "Tue"'),
        ("Mon 08:00-17:00;", 16, "expected a day from Mon to Sun, or daily; found the end"),
        ("Mon,", 4, "expected a day"),
        ("Mon\u2013Fri 08:00-17:00", 3, 'found "\u2013"; did you mean "-"?'),
        ("Mon 08:00pm-09:00", 9, 'expected the end of the window, such as "08:00-17:00"; found "pm"'),
        ("Mon \u0661\u0662:00-13:00", 4, "expected a time from 00:00 to 23:59"),
        ("x" * (MAX_LENGTH + 1), 0, "opening hours have at most 500 characters; found 501"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(text: str, offset: int, message: str) -> None:
    with pytest.raises(CalendarError) as refused:
        read_hours(text)
    assert refused.value.key == "open"
    assert refused.value.offset == offset
    assert message in refused.value.message


@given(st.text(alphabet="MonTueFridaly 0123456789:-,;", max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused_inside_itself(text: str) -> None:
    refused, hours = None, None
    try:
        hours = read_hours(text)
    except CalendarError as error:
        refused = error
    assert refused is None or 0 <= refused.offset <= len(text)
    if hours is not None:
        assert hours.windows
        assert all(0 <= window.start_min < window.end_min < 2 * DAY_MIN for window in hours.windows)
        assert read_hours(hours.text) == hours
