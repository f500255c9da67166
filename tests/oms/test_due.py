"""When a task is due: plain seconds, or business days."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.calendar_error import CalendarError
from oms.domain.due import MAX_DAYS, Due, due_ms, due_of_seconds, read_due
from oms.domain.holiday import is_holiday
from tests.oms.clocks import HOUR_MS, ZONES, iso, ms

NEW_YORK = "America/New_York"


def due(text: str, begins: str, zone: str = NEW_YORK, holidays: str | None = None) -> str:
    return iso(due_ms(ms(begins), read_due(text), timezone=zone, holidays=holidays), zone)


def test_seconds_are_plain_time() -> None:
    friday = ms("2026-11-27T16:00Z")
    assert due_ms(friday, due_of_seconds(86_400), timezone=NEW_YORK, holidays="US") == friday + 24 * HOUR_MS


def test_days_are_business_days_at_the_same_time_of_day() -> None:
    assert due("P1D", "2026-11-25T10:00-05:00") == "2026-11-26T10:00-05:00"
    assert due("P1D", "2026-11-25T10:00-05:00", holidays="US") == "2026-11-27T10:00-05:00"  # over Thanksgiving
    assert due("P10D", "2026-11-16T10:00-05:00", holidays="US") == "2026-12-01T10:00-05:00"
    assert due("P20D", "2026-12-14T10:00-05:00", holidays="US") == "2027-01-13T10:00-05:00"  # a records request's 20


def test_the_day_of_the_beginning_never_counts() -> None:
    for begins in ("2026-11-20T10:00-05:00", "2026-11-21T10:00-05:00", "2026-11-22T10:00-05:00"):  # Friday to Sunday
        assert due("P1D", begins) == "2026-11-23T10:00-05:00"


def test_hours_come_after_the_days_and_are_plain_time() -> None:
    assert due("PT4H", "2026-11-27T22:00-05:00") == "2026-11-28T02:00-05:00"
    assert due("P1DT4H30M15S", "2026-11-27T22:00-05:00") == "2026-12-01T02:30-05:00"
    assert read_due("PT90M") == read_due("PT1H30M") == read_due("PT5400S") == Due(0, 5_400_000)


def test_the_day_is_that_of_the_plans_timezone() -> None:
    begins = "2026-11-27T23:30Z"  # Friday in New York, Saturday in Auckland
    assert due("P1D", begins, NEW_YORK) == "2026-11-30T18:30-05:00"
    assert due("P1D", begins, "Pacific/Auckland") == "2026-11-30T12:30+13:00"


def test_the_time_of_day_stays_when_the_clock_changes() -> None:
    assert due("P1D", "2026-10-30T10:00-04:00") == "2026-11-02T10:00-05:00"
    assert due("P1D", "2026-10-22T02:30+03:00", "Asia/Beirut") == "2026-10-23T02:30+03:00"
    assert due("P1D", "2026-04-23T00:30+02:00", "Africa/Cairo") == "2026-04-24T01:00+03:00"  # jumps from 0:00 to 1:00


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, 'expected business days and hours such as P10D or P1DT4H; found ""'),
        ("P", 0, 'found "P"'),
        ("PT", 0, 'found "PT"'),
        ("P1DT", 0, 'found "P1DT"'),
        ("10", 0, 'found "10"'),
        ("10D", 0, 'found "10D"'),
        ("p10d", 0, 'found "p10d"'),
        ("P-1D", 0, 'found "P-1D"'),
        ("P1.5D", 0, 'found "P1.5D"'),
        ("PT1.5H", 0, 'found "PT1.5H"'),
        ("P4H", 0, 'found "P4H"'),
        ("PT1M1H", 0, 'found "PT1M1H"'),
        ("P2W", 1, "weeks are not business days; count them as days, such as P10D"),
        ("P1M", 1, "months are not business days; count them as days, such as P10D"),
        ("P1Y2M", 1, "years are not business days; count them as days, such as P10D"),
        ("P0D", 0, '"P0D" is no time at all; expected one such as P10D or PT4H'),
        ("PT0H0M", 0, "is no time at all"),
        ("P3651D", 0, 'at most ten years, which are P3650D; found "P3651D"'),
        ("PT87601H", 0, "at most ten years"),
        (f"P{'9' * 5000}D", 0, "at most ten years"),
        ("P\u0661D", 0, "expected business days and hours"),
    ],
)
def test_what_is_no_time_is_refused(text: str, offset: int, message: str) -> None:
    with pytest.raises(CalendarError) as refused:
        read_due(text)
    assert (refused.value.key, refused.value.offset) == ("due", offset)
    assert message in refused.value.message


def test_the_longest_time_is_ten_years() -> None:
    assert due(f"P{MAX_DAYS}D", "2026-11-16T10:00-05:00").startswith("2040-")
    assert read_due("PT87600H").plain_ms == 315_360_000_000


@given(
    begins=st.integers(ms("2024-01-01T00:00Z"), ms("2031-01-01T00:00Z")),
    days=st.integers(1, 60),
    zone=st.sampled_from(ZONES),
    holidays=st.sampled_from([None, "US", "DE-BY"]),
)
def test_there_are_so_many_business_days_up_to_the_due_day(
    begins: int, days: int, zone: str, holidays: str | None
) -> None:
    def day_of(at_ms: int) -> date:
        return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).date()

    def works(day: date) -> bool:
        return day.isoweekday() <= 5 and not is_holiday(holidays, day)

    first, last = day_of(begins), day_of(due_ms(begins, Due(days, 0), timezone=zone, holidays=holidays))
    between = [first + timedelta(days=more) for more in range(1, (last - first).days + 1)]
    assert sum(map(works, between)) == days
    assert works(last)
    assert due_ms(begins, Due(days + 1, 0), timezone=zone, holidays=holidays) > due_ms(
        begins, Due(days, 1), timezone=zone, holidays=holidays
    )
