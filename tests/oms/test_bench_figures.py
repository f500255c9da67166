"""The benchmark's arithmetic: quantiles, ratios in turns, the throttle, verdicts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.contract import EVENT, MAX_BATCH_EVENTS
from oms.bench.context import caught_up_share, with_rates
from oms.bench.figures import in_turns, median_of, noise_of, quantile, quantiles, ratio_of
from oms.bench.fill import EVENTS_PER_JOB, JOBS_PER_POST, job_events
from oms.bench.plans import plan_files
from oms.bench.soak import growth
from oms.bench.targets import verdicts
from oms.bench.throttle import MAX_DEBT_SEC, Throttle
from oms.bench.throughput import Contestant, figures_of
from oms.storage.plan_files import read_plan
from tests.oms.support import in_loop


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_one_of_the_values_and_has_its_share_below(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) <= share * len(values)


def test_quantiles() -> None:
    assert quantiles(list(range(100, 0, -1))) == {"p50": 51, "p95": 96, "p99": 100, "count": 100}
    assert quantiles([]) == {"p50": None, "p95": None, "p99": None, "count": 0}
    assert median_of([None, 3.0, 1.0]) == 2.0
    assert median_of([None]) is None


def test_what_is_compared_runs_in_turns() -> None:
    called: list[str] = []

    def run(name: str) -> int:
        called.append(name)
        return len(called)

    assert in_turns(3, lambda: run("no-op"), lambda: run("ours")) == [[1, 3, 5], [2, 4, 6]]
    assert called == ["no-op", "ours"] * 3


def test_a_ratio_is_made_within_each_round() -> None:
    # The machine was three times slower in the second round: the ratio does not see it.
    ratio = ratio_of([900.0, 330.0, 1_000.0], [1_000.0, 300.0, 1_000.0])
    assert ratio == {"median": 1.0, "min": 0.9, "max": pytest.approx(1.1), "rounds": [0.9, pytest.approx(1.1), 1.0]}
    assert ratio_of([None, 1.0], [1.0, 0.0]) == {"median": None, "min": None, "max": None, "rounds": [None, None]}


def test_a_round_is_noisy_where_either_of_its_runs_was() -> None:
    ours: list[dict[str, Any]] = [{"other_cores": cores} for cores in (0.01, 0.05, None)]
    noop: list[dict[str, Any]] = [{"other_cores": cores} for cores in (0.16, 0.15, None)]
    assert noise_of(ours, noop) == {
        "other_cores": [0.16, 0.15, None],
        "noisy": [True, False, False],
        "noisy_rounds": 1,
    }


def a_run(*, requests: int, seconds: float = 2.0, settle_sec: float = 0.0) -> dict[str, Any]:
    return with_rates(
        {
            "seconds": seconds,
            "requests": requests,
            "activities": requests // 2,
            "jobs": 0,
            "bad": 0,
            "empty": 0,
            "settle_sec": settle_sec,
            "caught_up_share": caught_up_share(seconds, settle_sec),
            "client_cores": 0.1,
            "other_cores": 0.0,
            "cores": {"oms": 0.9},
            "rss_mib": {"oms": 100.0},
            "cpu_us_per_activity": {"oms": 200.0},
            "latency_ms": {"pull": {"p50": float(requests), "p95": 2.0, "p99": 3.0}},
        }
    )


def test_the_figures_of_a_contestant() -> None:
    one = Contestant("x", "mixed", 32, "activities")
    runs = [a_run(requests=count, settle_sec=settle) for count, settle in ((4_000, 0.0), (8_000, 2.0), (6_000, 0.0))]
    figures = figures_of(one, runs, [a_run(requests=2_000)] * 3)
    assert figures["ratio"]["rounds"] == [1.0, 2.0, 1.5]
    assert figures["ratio_caught_up"]["rounds"] == [1.0, 1.0, 1.5]
    assert figures["kept_up"] is False
    assert (figures["per_sec"], figures["requests_per_sec"], figures["noop_per_sec"]) == (1_500, 3_000, 1_000)
    assert figures["latency_ms"]["pull"]["p50"] == 6_000
    assert figures["cores"] == {"oms": 0.9, "act": None}


def test_a_ledger_that_falls_behind_makes_a_rate_smaller() -> None:
    assert caught_up_share(4.0, 0.19) == 1.0
    assert caught_up_share(40.0, 1.9) == 1.0
    assert caught_up_share(4.0, 4.0) == 0.5


def test_memory_that_grows_is_seen() -> None:
    assert growth([1.0, 50.0, 100.0, 100.0, 100.0, 100.0]) == 1.0
    assert growth([1.0, 50.0, 100.0, 100.0, 150.0, 150.0]) == 1.5
    assert growth([None] * 6) is None


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@in_loop
async def test_a_throttle_gives_turns_at_its_rate() -> None:
    clock = Clock()
    throttle = Throttle(20.0, clock=lambda: clock.now, sleep=clock.sleep)
    turns = []
    for _ in range(5):
        await throttle.turn()
        turns.append(clock.now)
    assert turns[0] == 100.0
    assert [later - earlier for earlier, later in pairwise(turns)] == [pytest.approx(0.05)] * 4


@in_loop
async def test_a_throttle_makes_up_for_a_stall_but_not_for_a_long_one() -> None:
    clock = Clock()
    throttle = Throttle(10.0, clock=lambda: clock.now, sleep=clock.sleep)
    await throttle.turn()
    clock.now += 60.0
    stalled_until = clock.now
    at_once = 0
    while clock.now == stalled_until:
        at_once += 1
        await throttle.turn()
    assert at_once == pytest.approx(MAX_DEBT_SEC * 10.0 + 1, abs=1.5)


@in_loop
async def test_without_a_rate_nobody_waits() -> None:
    clock = Clock()
    throttle = Throttle(None, clock=lambda: clock.now, sleep=clock.sleep)
    for _ in range(3):
        await throttle.turn()
    assert clock.now == 100.0


def test_the_ledger_is_filled_with_events_that_act_takes() -> None:
    events = [EVENT.validate_json(raw) for raw in job_events(7, 1_700_000_000_000)]
    assert [event.seq for event in events] == list(range(1, EVENTS_PER_JOB + 1))
    assert {event.data.job_id for event in events} == {"JOB-7"}
    assert [event.data.status for event in events][-2:] == ["done", "done"]
    assert JOBS_PER_POST * EVENTS_PER_JOB <= MAX_BATCH_EVENTS


def test_its_plans_can_be_loaded() -> None:
    for text in plan_files():
        assert len(read_plan(text, file="bench").steps) == 3


def test_what_was_not_measured_has_no_verdict() -> None:
    found = verdicts({})
    assert found
    assert {(verdict.measured, verdict.met) for verdict in found} == {(None, None)}


def test_verdicts() -> None:
    ratio = {"median": 0.9}
    results = {
        "throughput": {
            "mixed_32": {"ratio_caught_up": ratio, "latency_ms": {"pull": {"p99": 15.1}}},
            "batches": {"ratio_caught_up": ratio},
        },
        "handoff": {"start_to_pull_ms": {"p50": 2.0, "p99": 9.0}, "complete_to_next_ms": {"p50": 2.0, "p99": 8.0}},
        "parked": {"parked": 1_000, "quiet_oms_cores": 0.01, "start_to_pull_ms": {"p50": 2.3}},
        "catch_up": {"events_per_sec": 499.0, "hour_of_outage_minutes": None},
        "idle": {"rss_mib": {"oms": 151.0, "act": 80.0}},
    }
    met = {verdict.what: verdict.met for verdict in verdicts(results) if verdict.met is not None}
    assert met == {
        "mixed load, 32 connections: requests/s to the no-op's, ledger caught up": False,
        "batches of 100, 4 connections: activities/s to the no-op's requests/s, ledger caught up": True,
        "pull p99 under the mixed load, 32 connections": False,
        "a parked pull's answer after the start, little load: p50": True,
        "a parked pull's answer after the start, little load: p99": False,
        "a parked pull's answer after the complete before it, little load: p50": True,
        "a parked pull's answer after the complete before it, little load: p99": True,
        "1,000 parked pulls: OMS's share of a core": True,
        "1,000 parked pulls: median answer to that with 3": True,
        "an hour's outage at 500 events/s, caught up beside normal load": False,
        "OMS: memory idle": False,
        "ACT: memory idle": True,
    }
