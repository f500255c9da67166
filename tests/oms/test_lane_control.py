"""The rules of caps: the strictest holds, no more than a rate in any window, and room opens at the right moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oms.domain.lane_control import Caps, HandOuts, caps_of, room_for, window_begins_ms
from oms.domain.plan import Plan, Rate
from oms.domain.plan_reader import parse_plan

rates = st.builds(Rate, tasks=st.integers(1, 6), per_sec=st.integers(1, 6))


def plan(number: int, *lanes: dict[str, object]) -> Plan:
    return parse_plan({"id": f"p{number}", "lanes": list(lanes), "sequence": [lanes[0]["id"]]})


def test_the_smallest_counts_of_all_plans_hold() -> None:
    plans = [
        plan(1, {"id": "a", "max_running": 3, "rate": {"tasks": 10, "per_sec": 60}}, {"id": "b"}),
        plan(2, {"id": "a", "max_running": 2, "rate": {"tasks": 1, "per_sec": 1}}),
        plan(3, {"id": "a"}, {"id": "c", "rate": {"tasks": 5, "per_sec": 2}}),
    ]
    assert caps_of(plans) == {"a": Caps(2, ((1, 1), (10, 60))), "c": Caps(None, ((5, 2),))}
    assert not caps_of([plan(1, {"id": "b"})])


def is_within(times: list[int], rate: Rate) -> bool:
    """Whether no ``per_sec`` seconds, both ends included, hold more than ``tasks`` of the times."""
    return all(
        later - earlier > rate.per_sec * 1000 for earlier, later in zip(times, times[rate.tasks :], strict=False)
    )


@given(st.lists(rates, min_size=1, max_size=5), st.lists(st.integers(0, 15_000), max_size=30).map(sorted))
def test_what_the_kept_rates_admit_all_of_them_admit(given_rates: list[Rate], times: list[int]) -> None:
    kept = caps_of(plan(number, _lane(rate)) for number, rate in enumerate(given_rates))["a"].rates
    assert {Rate(*pair) for pair in kept} <= set(given_rates), "none is made up"
    every = all(is_within(times, rate) for rate in given_rates)
    assert all(is_within(times, Rate(*pair)) for pair in kept) == every


def _lane(rate: Rate) -> dict[str, object]:
    return {"id": "a", "rate": {"tasks": rate.tasks, "per_sec": rate.per_sec}}


def recent(times: list[int], rate: tuple[int, int], now_ms: int) -> HandOuts:
    since = window_begins_ms(rate[1], now_ms=now_ms)
    counted = sorted((at for at in times if at >= since), reverse=True)[: rate[0]]
    return HandOuts(len(counted), min(counted, default=None))


@given(
    st.lists(rates, min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from([0, 1, 300, 999, 1000, 1001, 2500]), st.integers(1, 8)), max_size=30),
)
def test_whoever_hands_out_no_more_than_there_is_room_for_keeps_every_rate(
    given_rates: list[Rate], asked: list[tuple[int, int]]
) -> None:
    """Also: at the moment at which it says that it opens there is room, and a millisecond before there is none."""
    caps = caps_of(plan(number, _lane(rate)) for number, rate in enumerate(given_rates))["a"]
    times: list[int] = []
    now_ms = 0

    def room_at(moment_ms: int) -> int:
        room = room_for(caps, running=0, handed_out=[recent(times, rate, moment_ms) for rate in caps.rates])
        return room.admits(1_000)

    for waited_ms, wanted in asked:
        now_ms += waited_ms
        room = room_for(caps, running=0, handed_out=[recent(times, rate, now_ms) for rate in caps.rates])
        times += [now_ms] * room.admits(wanted)
        if room.opens_at is not None:
            assert room.tasks == 0
            assert room_at(room.opens_at - 1) == 0
            assert room_at(room.opens_at) > 0
    assert all(is_within(times, rate) for rate in given_rates)


@given(st.integers(1, 5), st.integers(0, 7), st.integers(0, 9))
def test_no_more_run_than_may(most: int, running: int, wanted: int) -> None:
    room = room_for(Caps(most), running=running, handed_out=[])
    assert room.admits(wanted) == max(0, min(wanted, most - running))
    assert room.is_full == (running >= most)
    assert room.opens_at is None, "no time ends it"
