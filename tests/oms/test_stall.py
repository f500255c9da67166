"""The stall clock, against a clock that is looked at minute by minute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oms.domain.calendar import Calendar, lane_calendar
from oms.domain.stall import Pause, StallClock
from tests.oms.hours import NEW_YORK, at

MINUTE_MS = 60_000
HOURS = ("Mon-Fri 08:00-17:00", "Mon-Sun 22:00-06:00", "Sat 10:00-12:00")
BEGIN_MS = at("2025-10-31 05:00")  # the clocks go back two days later


def calendar(text: str | None) -> Calendar | None:
    if text is None:
        return None
    return lane_calendar(timezone=NEW_YORK, open=text, batch_at=None, holidays=None)


@st.composite
def disjoint(draw: st.DrawFn) -> list[Pause]:
    edges = sorted(draw(st.sets(st.integers(0, 3_000), max_size=6)))
    moments = [BEGIN_MS + edge * MINUTE_MS for edge in edges]
    return list(zip(moments[::2], moments[1::2], strict=False))


@given(
    hours=st.sampled_from([None, *HOURS]),
    begins=st.integers(0, 1_000),
    stall_min=st.integers(1, 700),
    looks=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    pauses=disjoint(),
)
def test_it_counts_the_minutes_in_which_the_lane_is_open_and_not_paused(
    hours: str | None, begins: int, stall_min: int, looks: list[int], pauses: list[Pause]
) -> None:
    """However often it is looked at and set anew on the way, it says the same as counting minute by minute."""
    lane = calendar(hours)
    clock = StallClock(lane)
    now = since = BEGIN_MS + begins * MINUTE_MS
    ends_at = clock.ends_at_ms(since, stall_min * MINUTE_MS)
    counted = 0
    for look in looks:
        for _ in range(look):
            is_paused = any(start <= now < end for start, end in pauses)
            counted += not is_paused and (lane is None or lane.is_open(now))
            now += MINUTE_MS
        over = [(start, min(end, now)) for start, end in pauses if start < now]
        left = clock.left_ms(since, ends_at, now, over)
        assert left == (stall_min - counted) * MINUTE_MS
        if left <= 0:
            return
        since, ends_at = now, clock.ends_at_ms(now, left)


def test_nothing_is_counted_before_it_begins() -> None:
    clock = StallClock(None)
    assert clock.counted_ms(5_000, 4_000) == 0
    assert clock.left_ms(5_000, 8_000, 4_000, [(1_000, 2_000)]) == 3_000
