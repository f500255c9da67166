"""Windows, batches and crons through every change of the clocks from 2024 to 2030 in fifteen zones.

What opens when is held against the model of ``clocks``. Ten of the zones are the ones that a release is promised for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise, product
from typing import cast
from zoneinfo import ZoneInfo

import pytest

from oms.domain.calendar import Calendar, lane_calendar
from oms.domain.calendar_hours import window_ms
from oms.domain.opening_hours import DAY_MIN, Window, clock
from oms.domain.schedule import Schedule
from tests.oms.clocks import ASKED, DAY, DAY_MS, HOUR_MS, MINUTE, MINUTE_MS, ZONES, Switch, iso, ms, switches

TIMES = (*range(0, 300, 15), 480, *range(1290, DAY_MIN, 15))
"""Minutes after midnight: the hours in which clocks change, and a plain one."""
LENGTHS = (1, 30, 90, 540, 1410)
AWKWARD = (
    *("00:00-00:30", "23:30-24:00", "22:00-02:30", "02:00-03:00", "02:15-02:45", "01:30-03:30", "02:30-10:00"),
    *("08:00-17:00", "00:00-23:30", "23:45-00:15", "00:15-00:45,01:15-01:45,02:05-02:10,02:20-02:25,03:00-03:30"),
)


def open_from(calendar: Calendar, from_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """Walk a calendar as a lane does: from opening to closing to the next opening."""
    at = calendar.next_opening_ms(from_ms)
    while at < until_ms:
        closes = calendar.closes_at_ms(at)
        assert closes is not None
        assert closes > at
        yield at, closes
        at = calendar.next_opening_ms(closes)


def modelled(switch: Switch, day: datetime, start: int, end: int) -> tuple[int, int]:
    """Return when a window opens and closes, minutes after a midnight, by the model."""
    opens, closes = switch.comes_ms(day + start * MINUTE), switch.comes_ms(day + end * MINUTE)
    return opens, closes if closes > opens else opens + (end - start) * MINUTE_MS


def union(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for opens, closes in sorted(stretches):
        if merged and opens <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(closes, merged[-1][1])
        else:
            merged.append((opens, closes))
    return merged


def pairs(text: str) -> list[tuple[int, int]]:
    """Return ``02:00-03:00,...`` in minutes after midnight."""
    found = []
    for window in text.split(","):
        start, end = (int(part[:2]) * 60 + int(part[3:]) for part in window.split("-"))
        found.append((start, end if end > start else end + DAY_MIN))
    return found


def test_the_zones_have_changes_of_every_kind() -> None:
    changes = [switch.change for zone in ZONES for switch in switches(zone)]
    assert len(changes) > 150
    assert {-60, -30, 30, 60} <= {change // MINUTE for change in changes}
    assert sum(1 for zone in ASKED for switch in switches(zone) if switch.change) >= 85


@pytest.mark.parametrize("zone", ZONES)
def test_any_window_opens_at_the_first_minute_of_its_time_and_never_closes_before(zone: str) -> None:
    for switch in switches(zone):
        for day, start, length in product(switch.midnights(1), TIMES, LENGTHS):
            window = Window(day.weekday(), start, start + length)
            found = window_ms(window, day.date(), ZoneInfo(zone))
            assert found == modelled(switch, day, start, start + length), (str(switch), day, window)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", AWKWARD)
def test_a_daily_window_opens_once_on_every_day(zone: str, hours: str) -> None:
    calendar = lane_calendar(timezone=zone, open=f"daily {hours}", batch_at=None, holidays=None)
    assert calendar is not None
    for switch in switches(zone):
        days = switch.midnights(3)
        expected = union(modelled(switch, day, *window) for day in days for window in pairs(hours))
        found = list(open_from(calendar, expected[0][0], expected[-1][1]))
        assert found == expected, str(switch)
        swallowed = switch.change > timedelta() and len(pairs(hours)) > 1  # the clock may jump over two of a day's
        if hours != "00:00-23:30" and not swallowed:
            assert len(found) == len(days) * len(pairs(hours)), str(switch)


@pytest.mark.parametrize("zone", ZONES)
def test_is_open_and_the_sums_agree_with_the_windows_at_every_minute_of_a_change(zone: str) -> None:
    calendar = lane_calendar(timezone=zone, open="daily 22:00-01:30,02:10-02:50", batch_at=None, holidays=None)
    assert calendar is not None
    for switch in switches(zone):
        open_ms = 0
        start = switch.at_ms - 5 * HOUR_MS
        for at in range(start, switch.at_ms + 5 * HOUR_MS, MINUTE_MS):
            assert calendar.open_ms_between(start, at) == open_ms, (str(switch), iso(at, zone))
            opens, closes = calendar.next_opening_ms(at), calendar.closes_at_ms(at)
            assert calendar.is_open(at) == (opens == at) == (closes is not None)
            if calendar.is_open(at):
                open_ms += MINUTE_MS
                assert calendar.add_open_ms(start, open_ms) == at + MINUTE_MS
            assert closes is None or closes > at


@pytest.mark.parametrize("zone", ZONES)
def test_an_all_day_lane_with_a_free_sunday_closes_and_opens_at_midnight(zone: str) -> None:
    calendar = lane_calendar(timezone=zone, open="Mon-Sat", batch_at=None, holidays=None)
    assert calendar is not None
    for switch in switches(zone):
        monday = next(day for day in switch.midnights(3) if day.weekday() == 0)
        for opens, closes in [(monday, monday + 6 * DAY), (monday - 7 * DAY, monday - DAY)]:
            inside = switch.comes_ms(opens + 60 * MINUTE)
            assert calendar.closes_at_ms(inside) == switch.comes_ms(closes), str(switch)
            assert calendar.next_opening_ms(switch.comes_ms(opens) - 1) == switch.comes_ms(opens), str(switch)


@pytest.mark.parametrize("zone", ZONES)
def test_a_batch_comes_once_on_every_day(zone: str) -> None:
    for at in TIMES:
        calendar = lane_calendar(timezone=zone, open=None, batch_at=clock(at), holidays=None)
        assert calendar is not None
        for switch in switches(zone):
            expected = [switch.comes_ms(day + at * MINUTE) for day in switch.midnights(2)]
            found = [calendar.next_opening_ms(expected[0])]
            while found[-1] < expected[-1]:
                found.append(calendar.next_opening_ms(found[-1] + 1))
            assert found == expected, (str(switch), clock(at))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("cron", "times"),
    [
        *((f"{minute} {hour} * * *", [hour * 60 + minute]) for hour, minute in [(0, 0), (0, 30), (2, 20), (23, 30)]),
        ("30 * * * *", range(30, DAY_MIN, 60)),
        ("*/15 0-4,22,23 * * *", [*range(0, 300, 15), *range(1320, DAY_MIN, 15)]),
        ("*/20 2 * * *", (120, 140, 160)),
        ("10,50 1-3 * * *", (70, 110, 130, 170, 190, 230)),
    ],
)
def test_a_cron_fires_once_for_each_local_time_that_matches(zone: str, cron: str, times: Iterable[int]) -> None:
    schedule = Schedule(cron, zone)
    for switch in switches(zone):
        local = [day + at * MINUTE for day in switch.midnights(2) for at in times]
        expected = sorted({switch.comes_ms(wall) for wall in local})
        found = [expected[0]]
        while found[-1] < expected[-1]:
            found.append(schedule.next_fire_ms(found[-1]))
        assert found == expected, str(switch)
        if switch.change <= timedelta():
            assert len(found) == len(local)
        for at in range(switch.at_ms - 3 * HOUR_MS, switch.at_ms + 3 * HOUR_MS, 45 * MINUTE_MS):
            latest = max(fire for fire in expected if fire <= at)
            assert schedule.missed(expected[0] - 1, at) == latest, (str(switch), iso(at, zone))
            assert schedule.missed(latest, at) is None
            assert schedule.missed(latest - 1, at) == latest
            assert schedule.next_fire_ms(at) == min(fire for fire in expected if fire > at)


def test_what_the_clock_jumps_over_opens_at_the_jump() -> None:
    jump = ms("2026-03-29T01:00Z")
    for hours, closes in [("02:30-10:00", "10:00+02:00"), ("02:00-02:30", "03:30+02:00"), ("01:00-02:30", None)]:
        calendar = cast(
            "Calendar", lane_calendar(timezone="Europe/Berlin", open=f"daily {hours}", batch_at=None, holidays=None)
        )
        assert calendar.is_open(jump) == (closes is not None)
        if closes is not None:
            assert calendar.closes_at_ms(jump) == ms(f"2026-03-29T{closes}")
        assert calendar.is_open(jump - 1) == (closes is None)


def test_what_comes_twice_opens_once_and_spans_the_second_time() -> None:
    first, second = ms("2026-10-25T02:30+02:00"), ms("2026-10-25T02:30+01:00")
    calendar = lane_calendar(timezone="Europe/Berlin", open="daily 02:30-03:30", batch_at=None, holidays=None)
    assert calendar is not None
    assert list(open_from(calendar, first - HOUR_MS, second)) == [(first, ms("2026-10-25T03:30+01:00"))]
    short = lane_calendar(timezone="Europe/Berlin", open="daily 02:00-02:30", batch_at=None, holidays=None)
    assert short is not None
    assert short.closes_at_ms(first - 1) == first
    assert not short.is_open(second - 1)


def test_a_day_that_a_zone_left_out_is_made_up_at_its_end() -> None:
    """Samoa went from Thursday, 29 December 2011 to Saturday, 31 December."""
    calendar = lane_calendar(timezone="Pacific/Apia", open="daily 08:00-09:00", batch_at=None, holidays=None)
    assert calendar is not None
    found = open_from(calendar, ms("2011-12-29T00:00-10:00"), ms("2012-01-01T00:00+14:00"))
    assert [(iso(opens, "Pacific/Apia"), closes - opens) for opens, closes in found] == [
        ("2011-12-29T08:00-10:00", HOUR_MS),
        ("2011-12-31T00:00+14:00", HOUR_MS),
        ("2011-12-31T08:00+14:00", HOUR_MS),
    ]


@pytest.mark.parametrize("zone", ASKED)
def test_seven_years_have_as_many_openings_as_days(zone: str) -> None:
    calendar = lane_calendar(timezone=zone, open="daily 02:10-02:40", batch_at=None, holidays=None)
    assert calendar is not None
    start, end = (ms(f"{year}-01-01T12:00Z") for year in (2024, 2031))
    found = list(open_from(calendar, start, end))
    assert len(found) == (end - start) // DAY_MS
    assert all(later - earlier > 22 * HOUR_MS for (earlier, _), (later, _) in pairwise(found))
