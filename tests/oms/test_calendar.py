"""A lane's calendar: opening hours, batches, holidays, and what they add up to."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain import calendar as calendar_module
from oms.domain import calendar_batches, calendar_hours
from oms.domain.calendar import HORIZON_MS, Calendar, CalendarError, lane_calendar
from oms.domain.calendar_base import BLOCK_MS, KEPT_BLOCKS
from oms.domain.calendar_hours import window_ms
from oms.domain.opening_hours import Window, clock, read_hours
from tests.oms.clocks import DAY_MS, HOUR_MS, MINUTE_MS, ZONES, iso, ms

NEW_YORK = "America/New_York"
BERLIN = "Europe/Berlin"


def made(
    open: str | None = None,  # noqa: A002 - the plan's key
    *,
    batch: str | None = None,
    holidays: str | None = None,
    zone: str = "UTC",
) -> Calendar:
    calendar = lane_calendar(timezone=zone, open=open, batch_at=batch, holidays=holidays)
    assert calendar is not None
    return calendar


def opening(calendar: Calendar, at: str) -> str:
    """Return the next opening on the calendar's own clock."""
    return iso(calendar.next_opening_ms(ms(at)), calendar.zone.key)


def closing(calendar: Calendar, at: str) -> str | None:
    closes = calendar.closes_at_ms(ms(at))
    return None if closes is None else iso(closes, calendar.zone.key)


def test_office_hours() -> None:
    office = made("Mon-Fri 08:00-17:00", zone=NEW_YORK)
    assert opening(office, "2026-11-24T22:30Z") == "2026-11-25T08:00-05:00"
    assert opening(office, "2026-11-28T15:00Z") == "2026-11-30T08:00-05:00"
    assert opening(office, "2026-11-25T15:00Z") == "2026-11-25T10:00-05:00"
    assert closing(office, "2026-11-25T15:00Z") == "2026-11-25T17:00-05:00"
    assert closing(office, "2026-11-24T22:30Z") is None


def test_a_window_holds_its_beginning_and_not_its_end() -> None:
    office = made("daily 08:00-17:00")
    begins, ends = ms("2026-11-25T08:00Z"), ms("2026-11-25T17:00Z")
    assert [office.is_open(at) for at in (begins - 1, begins, ends - 1, ends)] == [False, True, True, False]
    assert office.next_opening_ms(ends) == begins + DAY_MS


def test_a_lane_without_any_rule_or_open_all_week_has_no_calendar() -> None:
    for hours in (None, "daily", "Mon-Sun 00:00-24:00", "daily 12:00-12:01,12:01-12:00", "Mon-Sat; Sun 00:00-24:00"):
        assert lane_calendar(timezone="UTC", open=hours, batch_at=None, holidays=None) is None
    for hours in (
        "Mon-Sat",
        "daily 00:00-23:59",
        "daily 00:01-24:00",
        "daily 12:00-11:59",
        "Mon-Fri; Sat-Sun 01:00-24:00",
    ):
        made(hours)


def test_windows_that_touch_or_overlap_are_one() -> None:
    lane = made("Mon 08:00-12:00,12:00-14:00,13:00-18:00; Mon 20:00-24:00; Tue 00:00-02:00")
    assert closing(lane, "2026-11-23T09:00Z") == "2026-11-23T18:00+00:00"
    assert closing(lane, "2026-11-23T21:00Z") == "2026-11-24T02:00+00:00"


def test_a_night_shift() -> None:
    night = made("Fri 22:00-06:00")
    assert opening(night, "2026-11-27T21:59Z") == "2026-11-27T22:00+00:00"
    assert closing(night, "2026-11-28T05:59Z") == "2026-11-28T06:00+00:00"
    assert opening(night, "2026-11-28T06:00Z") == "2026-12-04T22:00+00:00"
    assert closing(made("Sun 22:00-06:00"), "2026-11-30T03:00Z") == "2026-11-30T06:00+00:00"


def test_holidays_close_the_windows_that_begin_on_them() -> None:
    office = made("Mon-Fri 08:00-17:00", holidays="US", zone=NEW_YORK)
    assert opening(office, "2026-11-25T22:30Z") == "2026-11-27T08:00-05:00"  # over Thanksgiving
    assert opening(office, "2027-12-30T22:30Z") == "2028-01-03T08:00-05:00"  # New Year's Day is observed on Friday
    night = made("daily 22:00-06:00", holidays="DE", zone=BERLIN)  # 1 May 2026 is a Friday
    assert closing(night, "2026-04-30T23:00Z") == "2026-05-01T06:00+02:00"  # the shift of the evening before goes on
    assert opening(night, "2026-05-01T10:00Z") == "2026-05-02T22:00+02:00"


def test_holidays_are_days_of_the_plans_timezone() -> None:
    lane = made(holidays="NZ", zone="Pacific/Auckland")
    assert closing(lane, "2026-12-24T00:00Z") == "2026-12-25T00:00+13:00"
    assert opening(lane, "2026-12-24T12:00Z") == "2026-12-27T00:00+13:00"


def test_a_part_of_a_country_has_holidays_of_its_own() -> None:
    day = "2026-03-31T12:00Z"  # Cesar Chavez Day
    assert opening(made("daily 08:00-17:00", holidays="US-CA"), day) == "2026-04-01T08:00+00:00"
    assert opening(made("daily 08:00-17:00", holidays="US"), day) == "2026-03-31T12:00+00:00"


def test_a_stretch_ends_when_the_next_holiday_begins_however_far_that_is() -> None:
    lane = made(holidays="US", zone=NEW_YORK)
    assert closing(lane, "2026-02-17T12:00Z") == "2026-05-25T00:00-04:00"
    assert lane.describe(ms("2026-02-17T12:00Z")).endswith("open until Mon 2026-05-25 00:00")


def test_what_has_no_holiday_within_ten_years_never_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar_hours, "is_holiday", lambda _, day: day < date(2025, 1, 1))
    lane = calendar_hours.HoursCalendar(ZoneInfo("UTC"), read_hours("daily"), "US")
    assert lane.closes_at_ms(ms("2026-01-01T00:00Z")) is None
    assert lane.describe(ms("2026-01-01T00:00Z")) == "daily, except on holidays of US (UTC); open"
    assert lane.next_opening_ms(ms("2020-01-01T00:00Z")) == ms("2025-01-01T00:00Z")


def test_a_batch_is_open_at_its_time_only() -> None:
    vendor = made(batch="03:00", zone=NEW_YORK)
    three = ms("2026-11-25T08:00Z")
    assert [vendor.is_open(at) for at in (three - 1, three, three + 1)] == [False, True, False]
    assert vendor.next_opening_ms(three) == three
    assert vendor.next_opening_ms(three + 1) == three + DAY_MS
    assert vendor.closes_at_ms(three) is None


def test_several_batches_a_day_in_any_order() -> None:
    vendor = made(batch="15:00, 3:00")
    assert opening(vendor, "2026-11-25T03:01Z") == "2026-11-25T15:00+00:00"
    assert opening(vendor, "2026-11-25T15:01Z") == "2026-11-26T03:00+00:00"


def test_a_batch_with_hours_comes_on_the_days_on_which_its_time_is_inside() -> None:
    assert opening(made("Mon-Fri", batch="03:00"), "2026-11-27T03:01Z") == "2026-11-30T03:00+00:00"
    assert opening(made("Fri 22:00-06:00", batch="03:00"), "2026-11-24T00:00Z") == "2026-11-28T03:00+00:00"
    both = made("Mon-Fri 08:00-17:00; Sat 08:00-12:00", batch="09:00, 16:00")
    assert opening(both, "2026-11-28T09:01Z") == "2026-11-30T09:00+00:00"
    assert opening(both, "2026-11-27T09:01Z") == "2026-11-27T16:00+00:00"


def test_a_batch_is_left_out_on_a_holiday() -> None:
    assert opening(made(batch="03:00", holidays="US"), "2026-11-25T12:00Z") == "2026-11-27T03:00+00:00"
    # 3:00 in a night shift is of the evening before: Thanksgiving's shift falls out, Wednesday's does not.
    night = made("daily 22:00-06:00", batch="03:00", holidays="US")
    assert opening(night, "2026-11-25T12:00Z") == "2026-11-26T03:00+00:00"
    assert opening(night, "2026-11-26T03:01Z") == "2026-11-28T03:00+00:00"


def test_a_batch_that_the_clock_jumps_over_comes_though_its_window_ends_there() -> None:
    vendor = made("daily 01:00-02:45", batch="02:30", zone=BERLIN)
    assert opening(vendor, "2026-03-29T00:59Z") == "2026-03-29T03:00+02:00"


def test_two_batches_that_the_clock_jumps_over_are_one() -> None:
    vendor = made(batch="02:10, 02:30", zone=BERLIN)
    assert opening(vendor, "2026-03-29T00:00Z") == "2026-03-29T03:00+02:00"
    assert opening(vendor, "2026-03-29T01:01Z") == "2026-03-30T02:10+02:00"


@pytest.mark.parametrize(
    ("keys", "key", "offset", "message"),
    [
        ({"timezone": "Europe/Berlni"}, "timezone", 0, 'no timezone "Europe/Berlni"; did you mean "Europe/Berlin"?'),
        ({"timezone": "europe/berlin"}, "timezone", 0, 'did you mean "Europe/Berlin"?'),
        ({"timezone": "Asia/Kolkatta"}, "timezone", 0, 'did you mean "Asia/Kolkata"?'),
        ({"timezone": "Kolkata"}, "timezone", 0, 'did you mean "Asia/Kolkata"?'),
        ({"timezone": "US/Berlin"}, "timezone", 0, 'did you mean "Europe/Berlin"?'),
        ({"timezone": "utc"}, "timezone", 0, 'did you mean "UTC"?'),
        ({"timezone": ""}, "timezone", 0, 'no timezone ""; expected an IANA name such as "Europe/Berlin"'),
        ({"timezone": "../../etc/passwd"}, "timezone", 0, "expected an IANA name"),
        ({"timezone": "America"}, "timezone", 0, 'no timezone "America"'),
        ({"timezone": "localtime"}, "timezone", 0, 'no timezone "localtime"'),
        ({"open": "Mon-Fri 8-17"}, "open", 8, 'expected a time from 00:00 to 23:59; found "8"'),
        ({"batch_at": "3 am"}, "batch", 0, 'expected a time from 00:00 to 23:59; found "3 am"'),
        ({"batch_at": ""}, "batch", 0, 'expected a time from 00:00 to 23:59; found ""'),
        ({"batch_at": "03:00, 24:00"}, "batch", 7, "24:00 is only an end; a start at midnight is 00:00"),
        ({"batch_at": "03:00, 3:00"}, "batch", 7, "the batch at 03:00 is given twice"),
        ({"batch_at": ",".join(clock(at) for at in range(101))}, "batch", 600, "at most 100 batches a day"),
        (
            {"open": "Mon-Fri 8:00-17:00", "batch_at": "09:00,  03:00"},
            "batch",
            8,
            "the batch at 03:00 is outside the lane's hours Mon-Fri 08:00-17:00: it never opens",
        ),
        ({"open": "daily 08:00-17:00", "batch_at": "17:00"}, "batch", 0, "is outside the lane's hours"),
        ({"holidays": "us"}, "holidays", 0, 'there is no holiday calendar "us"; did you mean "US"?'),
        ({"holidays": "XX"}, "holidays", 0, 'no holiday calendar "XX"'),
        ({"holidays": ""}, "holidays", 0, 'expected a country such as "US" or a part of one such as "US-CA"'),
        ({"holidays": "US-California"}, "holidays", 3, 'have no part "California"; did you mean "US-CA"?'),
        ({"holidays": "US-"}, "holidays", 3, 'holidays of US have no part ""; expected one of AK, AL,'),
        ({"holidays": "IS-1"}, "holidays", 3, 'holidays of IS have no part "1"; expected "IS"'),
    ],
)
def test_what_cannot_be_used_is_refused_at_its_place(keys: dict[str, str], key: str, offset: int, message: str) -> None:
    every: dict[str, str | None] = {"timezone": "UTC", "open": None, "batch_at": None, "holidays": None}
    with pytest.raises(CalendarError) as refused:
        lane_calendar(**{**every, **keys})  # type: ignore[arg-type]
    assert (refused.value.key, refused.value.offset) == (key, offset)
    assert message in refused.value.message


@pytest.mark.parametrize("batch", [None, "03:00"])
def test_what_only_holidays_keep_closed_for_ten_years_is_refused(
    batch: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (calendar_hours, calendar_batches):
        monkeypatch.setattr(module, "is_holiday", lambda _, day: day.weekday() == 6)
    calendar_module._calendar.cache_clear()
    with pytest.raises(CalendarError, match="every opening is on a holiday of AD: it never opens") as refused:
        made("Sun", batch=batch, holidays="AD")
    assert refused.value.key == "holidays"
    calendar_module._calendar.cache_clear()


@pytest.mark.parametrize(
    ("calendar", "at", "phrase"),
    [
        (
            made("Mon-Fri 8:00-17:00", zone=NEW_YORK),
            "2026-11-24T22:30Z",
            "Mon-Fri 08:00-17:00 (America/New_York); opens Wed 2026-11-25 08:00",
        ),
        (
            made("Mon-Fri 08:00-17:00", holidays="US-CA", zone=NEW_YORK),
            "2026-11-25T15:00Z",
            "Mon-Fri 08:00-17:00, except on holidays of US-CA (America/New_York); open until Wed 2026-11-25 17:00",
        ),
        (made(batch="03:00, 15:00"), "2026-11-24T22:30Z", "batch at 03:00, 15:00 (UTC); next Wed 2026-11-25 03:00"),
        (
            made("Mon-Fri", batch="02:30", holidays="DE", zone=BERLIN),
            "2026-03-28T22:30Z",
            "batch at 02:30 within Mon-Fri, except on holidays of DE (Europe/Berlin); next Mon 2026-03-30 02:30",
        ),
    ],
)
def test_describe_says_the_rule_and_what_comes_next(calendar: Calendar, at: str, phrase: str) -> None:
    assert calendar.describe(ms(at)) == phrase


def test_calendars_of_one_rule_are_equal_and_shared() -> None:
    assert made("Mon-Fri 08:00-17:00") is made("Mon-Fri 08:00-17:00")
    assert made("Mon-Fri 8:00-17:00") == made("Mon-Fri 08:00-17:00")
    assert hash(made("Mon-Fri 8:00-17:00")) == hash(made("Mon-Fri 08:00-17:00"))
    assert made("Mon-Fri 08:00-17:00") != made("Mon-Fri 08:00-17:00", zone=BERLIN)
    assert made("Mon-Fri") != made("Mon-Fri", holidays="US") != made("Mon-Fri", batch="03:00", holidays="US")
    assert repr(made("Mon-Fri")) == "<HoursCalendar Mon-Fri (UTC)>"


def test_the_stall_clock_stands_still_outside_the_hours() -> None:
    office = made("Mon-Fri 08:00-17:00")
    friday = ms("2026-11-27T16:00Z")
    assert iso(office.add_open_ms(friday, HOUR_MS)) == "2026-11-27T17:00+00:00"
    assert iso(office.add_open_ms(friday, HOUR_MS + 1000)) == "2026-11-30T08:00+00:00"  # and a second
    assert iso(office.add_open_ms(ms("2026-11-28T00:00Z"), 9 * HOUR_MS)) == "2026-11-30T17:00+00:00"
    assert office.add_open_ms(friday, 0) == friday
    assert office.open_ms_between(friday, ms("2026-11-30T09:00Z")) == 2 * HOUR_MS
    assert office.open_ms_between(ms("2026-11-30T09:00Z"), friday) == 0


def test_the_stall_clock_of_a_batch_runs_from_the_next_batch_on() -> None:
    vendor = made(batch="03:00")
    queued = ms("2026-11-24T10:00Z")
    assert iso(vendor.add_open_ms(queued, 30 * HOUR_MS)) == "2026-11-26T09:00+00:00"
    assert vendor.add_open_ms(queued, 0) == queued
    assert vendor.open_ms_between(queued, ms("2026-11-25T02:00Z")) == 0
    assert vendor.open_ms_between(queued, ms("2026-11-26T09:00Z")) == 30 * HOUR_MS


def test_a_stall_clock_that_would_run_for_ages_runs_out_after_ten_years() -> None:
    rare = made("Sun 00:00-00:01")
    start = ms("2026-11-24T10:00Z")
    assert rare.add_open_ms(start, 365 * DAY_MS) == start + HORIZON_MS
    assert made(batch="03:00").add_open_ms(start, 2 * HORIZON_MS) == start + HORIZON_MS
    for days in range(30):  # whatever the last minutes' place in their block
        begins = start + days * DAY_MS
        reached = rare.open_ms_between(begins, begins + HORIZON_MS)
        assert rare.add_open_ms(begins, reached) <= begins + HORIZON_MS
        assert rare.add_open_ms(begins, reached + MINUTE_MS) == begins + HORIZON_MS


@pytest.mark.parametrize("zone", ["Etc/GMT+12", "Pacific/Pago_Pago", "UTC", "Pacific/Kiritimati"])
def test_nothing_is_lost_where_two_blocks_meet(zone: str) -> None:
    for closed in range(0, 1440, 30):  # half an hour a day
        lane = made(f"daily {clock((closed + 30) % 1440)}-{clock(closed)}", zone=zone)
        for start in range(700 * BLOCK_MS, 703 * BLOCK_MS, BLOCK_MS):
            full = lane.open_ms_between(start, start + BLOCK_MS)
            assert full == 28 * 23.5 * HOUR_MS
            end = lane.add_open_ms(start, full)
            assert end in (start + BLOCK_MS, start + BLOCK_MS - HOUR_MS // 2)
            closes = lane.closes_at_ms(start + BLOCK_MS - 1)
            assert closes is None or start + BLOCK_MS <= closes < start + BLOCK_MS + DAY_MS


def test_a_calendar_that_is_asked_about_all_times_does_not_grow_for_ever() -> None:
    office = made("Mon-Fri 08:00-17:00", zone="Asia/Kolkata")
    assert isinstance(office, calendar_hours.HoursCalendar)
    for block in range(KEPT_BLOCKS + 50):
        office.next_opening_ms(block * BLOCK_MS)
    assert len(office._blocks._kept) <= KEPT_BLOCKS


# Any calendar at any time.

CLOCKS = st.integers(0, 1439)


@st.composite
def hours_texts(draw: st.DrawFn) -> str:
    groups = []
    for _ in range(draw(st.integers(1, 3))):
        days = draw(st.sampled_from(["daily", "Mon", "Tue-Thu", "Sat,Sun", "Fri-Mon", "Mon,Wed,Fri"]))
        windows = draw(st.lists(st.tuples(CLOCKS, CLOCKS).filter(lambda pair: pair[0] != pair[1]), max_size=3))
        groups.append(f"{days} {','.join(f'{clock(start)}-{clock(end)}' for start, end in windows)}".strip())
    return "; ".join(groups)


ZONE_NAMES = st.sampled_from(ZONES)
HOLIDAYS = st.sampled_from([None, None, "US", "DE-BY", "NZ"])
MOMENTS = st.integers(ms("2024-01-01T00:00Z"), ms("2031-01-01T00:00Z")) | st.builds(
    lambda block, more: block * BLOCK_MS + more,
    st.integers(ms("2024-01-01T00:00Z") // BLOCK_MS, ms("2031-01-01T00:00Z") // BLOCK_MS),
    st.integers(-DAY_MS, DAY_MS),
)
HOURS_CALENDARS = st.builds(
    lambda open, zone, holidays: lane_calendar(timezone=zone, open=open, batch_at=None, holidays=holidays),  # noqa: A006
    hours_texts(),
    ZONE_NAMES,
    HOLIDAYS,
).filter(lambda calendar: calendar is not None)
BATCH_CALENDARS = st.builds(
    lambda times, zone, holidays: made(batch=", ".join(map(clock, times)), zone=zone, holidays=holidays),
    st.lists(CLOCKS, min_size=1, max_size=3, unique=True),
    ZONE_NAMES,
    HOLIDAYS,
)
CALENDARS = cast("st.SearchStrategy[Calendar]", st.one_of(HOURS_CALENDARS, BATCH_CALENDARS))


@given(calendar=CALENDARS, at=MOMENTS, more=st.integers(0, 40 * DAY_MS))
def test_the_next_opening_is_monotone_and_idempotent_and_closing_comes_after(
    calendar: Calendar, at: int, more: int
) -> None:
    opens = calendar.next_opening_ms(at)
    assert opens >= at
    assert calendar.next_opening_ms(opens) == opens
    assert calendar.is_open(opens)
    assert calendar.next_opening_ms(at + more) >= opens
    if opens > at:
        assert calendar.next_opening_ms(opens - 1) == opens
        assert not calendar.is_open(at + (opens - at) * more // (40 * DAY_MS + 1))
    closes = calendar.closes_at_ms(at)
    if closes is not None:
        assert closes > at == opens
        assert calendar.is_open(closes - 1)
        assert not calendar.is_open(closes)


@given(calendar=CALENDARS, at=MOMENTS, amount=st.integers(0, 20 * DAY_MS))
def test_adding_open_time_and_measuring_it_agree(calendar: Calendar, at: int, amount: int) -> None:
    end = calendar.add_open_ms(at, amount)
    assert calendar.open_ms_between(at, end) == amount
    assert amount == 0 or calendar.open_ms_between(at, end - 1) < amount
    assert end - at >= amount


@given(calendar=HOURS_CALENDARS, a=MOMENTS, b=MOMENTS, c=MOMENTS)
def test_open_time_adds_up(calendar: Calendar, a: int, b: int, c: int) -> None:
    a, b, c = sorted((a, b, c))
    assert calendar.open_ms_between(a, b) + calendar.open_ms_between(b, c) == calendar.open_ms_between(a, c)
    assert 0 <= calendar.open_ms_between(a, b) <= b - a


@given(text=hours_texts(), zone=ZONE_NAMES, at=MOMENTS)
def test_it_is_open_inside_a_window_and_nowhere_else(text: str, zone: str, at: int) -> None:
    calendar = lane_calendar(timezone=zone, open=text, batch_at=None, holidays=None)
    today = datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).date()
    stretches = [
        window_ms(window, day, ZoneInfo(zone))
        for day in (today + timedelta(days=days) for days in (-2, -1, 0, 1))
        for window in read_hours(text).windows
        if window.weekday == day.weekday()
    ]
    assert (calendar is None or calendar.is_open(at)) == any(opens <= at < closes for opens, closes in stretches)


def test_a_window_is_exactly_as_long_as_it_says_on_a_plain_day() -> None:
    opens, closes = window_ms(Window(2, 480, 1020), date(2026, 11, 25), ZoneInfo(NEW_YORK))
    assert (iso(opens, NEW_YORK), closes - opens) == ("2026-11-25T08:00-05:00", 9 * HOUR_MS)
