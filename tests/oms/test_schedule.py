"""A plan's schedules: when a cron fires, what a missed fire leaves, and the reference of the job it starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.calendar_error import CalendarError
from oms.domain.schedule import MAX_LENGTH, Schedule, check_reference
from tests.oms.clocks import DAY_MS, HOUR_MS, MINUTE_MS, ZONES, iso, ms

BERLIN = "Europe/Berlin"


def fires(cron: str, after: str, count: int = 3, zone: str = "UTC") -> list[str]:
    found = []
    schedule, at = Schedule(cron, zone), ms(after)
    for _ in range(count):
        at = schedule.next_fire_ms(at)
        found.append(iso(at, zone))
    return found


def test_a_cron_goes_by_the_zones_clock() -> None:
    assert fires("30 2 * * *", "2026-10-24T12:00Z", zone=BERLIN) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
        "2026-10-27T02:30+01:00",
    ]
    assert fires("30 2 * * *", "2026-03-28T12:00Z", 2, BERLIN) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 9 * * MON-FRI", ["2026-11-20T09:00", "2026-11-23T09:00", "2026-11-24T09:00"]),
        ("0 9 1,15 * *", ["2026-12-01T09:00", "2026-12-15T09:00", "2027-01-01T09:00"]),
        ("*/20 9 * * *", ["2026-11-20T09:00", "2026-11-20T09:20", "2026-11-20T09:40"]),
        ("0 0 L * *", ["2026-11-30T00:00", "2026-12-31T00:00", "2027-01-31T00:00"]),
        ("0 0 LW * *", ["2026-11-30T00:00", "2026-12-31T00:00", "2027-01-29T00:00"]),
        ("0 0 * * mon#1", ["2026-12-07T00:00", "2027-01-04T00:00", "2027-02-01T00:00"]),
        ("0 0 * * 5L", ["2026-11-27T00:00", "2026-12-25T00:00", "2027-01-29T00:00"]),
        ("0 0 13 * FRI", ["2026-11-27T00:00", "2026-12-04T00:00", "2026-12-11T00:00"]),  # either, as in Debian
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
    ],
)
def test_what_a_cron_can_say(cron: str, expected: list[str]) -> None:
    assert [fire.removesuffix("+00:00") for fire in fires(cron, "2026-11-20T08:00Z")] == expected


def test_the_moment_itself_is_not_the_next_fire() -> None:
    schedule = Schedule("0 3 * * *", "UTC")
    three = ms("2026-11-22T03:00Z")
    assert schedule.next_fire_ms(three - 1) == three
    assert schedule.next_fire_ms(three) == three + DAY_MS


def test_an_outage_leaves_one_fire_to_make_up() -> None:
    schedule = Schedule("0 3 * * *", "UTC")
    three = ms("2026-11-22T03:00Z")
    assert schedule.missed(three - 5 * DAY_MS, three + HOUR_MS) == three
    assert schedule.missed(three - 1, three) == three  # the end counts, the beginning does not
    assert schedule.missed(three, three + DAY_MS - 1) is None
    assert schedule.missed(three + HOUR_MS, three) is None
    assert schedule.missed(three + 500, three + 500) is None


def test_a_fire_has_the_local_date_in_its_reference() -> None:
    schedule = Schedule("30 0 * * *", "Asia/Kolkata")
    fire = schedule.next_fire_ms(ms("2026-11-21T12:00Z"))
    assert iso(fire) == "2026-11-21T19:00+00:00"
    assert schedule.local_date(fire) == "2026-11-22"
    assert schedule.render_reference("NIGHTLY-{date}", fire) == "NIGHTLY-2026-11-22"
    assert schedule.render_reference("{date}/{date}", fire) == "2026-11-22/2026-11-22"
    assert schedule.render_reference("ONCE", fire) == "ONCE"


@pytest.mark.parametrize(
    ("template", "offset", "message"),
    [
        ("N-{dat}", 2, 'a reference knows only {date}, the fire\'s local date; found "{dat}"; did you mean "{date}"?'),
        ("N-{date}-{time}", 9, 'found "{time}"'),
        ("N-{", 2, 'found "{"'),
        ("N-}", 2, 'found "}"'),
        ("{{date}}", 0, 'found "{"'),
        ("{}", 0, 'found "{}"'),
        ("{date!r}", 0, 'found "{date!r}"'),
    ],
)
def test_a_reference_with_other_braces_is_refused(template: str, offset: int, message: str) -> None:
    with pytest.raises(CalendarError) as refused:
        check_reference(template)
    assert (refused.value.key, refused.value.offset) == ("reference", offset)
    assert message in refused.value.message


def test_a_reference_that_can_be_rendered_is_passed() -> None:
    assert [check_reference(text) for text in ("N-{date}", "ONCE", "{date}{date}")] == [
        "N-{date}",
        "ONCE",
        "{date}{date}",
    ]


@pytest.mark.parametrize(
    ("cron", "offset", "message"),
    [
        ("", 0, "a cron has five fields: minute, hour, day of the month, month, day of the week; found 0"),
        ("0 3 * *", 0, "found 4"),
        ("0 0 3 * * *", 0, "found 6"),
        ("@daily", 0, 'found "@daily"; write 0 0 * * *'),
        ("nightly", 0, 'found "nightly"'),
        ("60 3 * * *", 0, 'the minute is 0 to 59, with commas, - and /; found "60"'),
        ("0  24 * * *", 3, 'the hour is 0 to 23, with commas, - and /; found "24"'),
        ("0 3 0 * *", 4, 'the day of the month is 1 to 31, L or LW, with commas, - and /; found "0"'),
        ("0 3 * JANUARY *", 6, 'found "JANUARY"; did you mean "JAN"?'),
        ("0 3 * * MO", 8, 'found "MO"; did you mean "MON"?'),
        ("0 3 * * FRI-MON", 8, 'found "FRI-MON"'),
        ("*/0 3 * * *", 0, 'found "*/0"'),
        ("*/90 * * * *", 0, "the minute has 60 values, so that a step of 90 is too long"),
        ("0 3 30 2 *", 4, '"0 3 30 2 *" never fires: there is no such day'),
        ("0 3 31 4,6 *", 4, "never fires"),
        ("0 3 */28 2 MON#2", 4, "never fires"),
        ("9" * MAX_LENGTH, 0, "found"),
        (f"{'9' * 190} * * * *", 0, "the minute is 0 to 59"),
        ("0 " * MAX_LENGTH, 0, "a cron has at most 200 characters; found 400"),
        ("\u0661 3 * * *", 0, "the minute is 0 to 59"),
    ],
)
def test_a_cron_that_cannot_be_read_or_never_fires_is_refused_at_its_field(
    cron: str, offset: int, message: str
) -> None:
    with pytest.raises(CalendarError) as refused:
        Schedule(cron, "UTC")
    assert (refused.value.key, refused.value.offset) == ("cron", offset)
    assert message in refused.value.message


def test_an_unknown_timezone_is_refused() -> None:
    with pytest.raises(CalendarError, match='no timezone "Europe/Berlni"; did you mean "Europe/Berlin"') as refused:
        Schedule("0 3 * * *", "Europe/Berlni")
    assert refused.value.key == "timezone"


@given(st.text(alphabet="0123456789*/,-#LWMONFRIJAN @", max_size=30) | st.text(max_size=30))
def test_any_text_is_a_cron_or_refused_inside_itself(text: str) -> None:
    try:
        Schedule(text, "UTC")
    except CalendarError as error:
        refused = error
    else:
        return
    assert 0 <= refused.offset <= len(text)


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    pair = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    return (
        st.just("*")
        | number.map(str)
        | pair
        | st.lists(number, min_size=2, max_size=3).map(lambda all_: ",".join(map(str, all_)))
    )


CRONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join)
MOMENTS = st.integers(ms("2024-01-01T00:00Z"), ms("2031-01-01T00:00Z"))


@given(cron=CRONS, zone=st.sampled_from(ZONES), at=MOMENTS, more=st.integers(0, 3 * DAY_MS))
def test_next_and_missed_agree(cron: str, zone: str, at: int, more: int) -> None:
    schedule = Schedule(cron, zone)
    fire = schedule.next_fire_ms(at)
    assert fire > at
    assert fire % MINUTE_MS == 0
    assert schedule.next_fire_ms(fire - 1) == fire
    assert schedule.missed(at, fire - 1) is None
    assert schedule.missed(at, fire) == fire
    latest = schedule.missed(at, fire + more)
    assert latest is not None
    assert fire <= latest <= fire + more < schedule.next_fire_ms(latest)
    assert schedule.next_fire_ms(at + more) >= fire
