"""When a failed attempt is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.retry import BOUNDS, DEFAULT_POLICY, RetryPolicy, retry_at_ms

NOW_MS = 1_763_800_000_000


def wait_sec(policy: RetryPolicy, failures: int, random_unit: float = 0.0) -> float | None:
    at_ms = retry_at_ms(policy, failures=failures, now_ms=NOW_MS, random_unit=random_unit)
    return None if at_ms is None else (at_ms - NOW_MS) / 1000


def test_the_default_tries_three_times_thirty_seconds_apart() -> None:
    assert RetryPolicy(3, 30.0, 1.0, 3600.0, 0.0) == DEFAULT_POLICY
    assert [wait_sec(DEFAULT_POLICY, failures) for failures in (1, 2, 3, 4)] == [30.0, 30.0, None, None]


def test_one_attempt_means_no_retry() -> None:
    assert wait_sec(RetryPolicy(attempts=1), 1) is None


def test_the_wait_grows_by_its_factor_up_to_its_maximum() -> None:
    policy = RetryPolicy(attempts=7, backoff_sec=10, backoff_factor=2, max_backoff_sec=60)
    assert [wait_sec(policy, failures) for failures in range(1, 8)] == [10, 20, 40, 60, 60, 60, None]


def test_jitter_takes_a_share_off() -> None:
    policy = RetryPolicy(backoff_sec=100, jitter=0.2)
    assert [wait_sec(policy, 1, unit) for unit in (0.0, 0.5, 1.0)] == [100, 90, 80]
    assert wait_sec(RetryPolicy(backoff_sec=100, jitter=1), 1, 1.0) == 0


def test_waits_are_rounded_to_milliseconds() -> None:
    assert wait_sec(RetryPolicy(backoff_sec=0.0014), 1) == 0.001


def test_a_power_beyond_any_number_is_the_maximum() -> None:
    policy = RetryPolicy(attempts=1000, backoff_sec=1, backoff_factor=100, max_backoff_sec=7200)
    assert wait_sec(policy, 999) == 7200
    assert wait_sec(RetryPolicy(attempts=1000, backoff_sec=0, backoff_factor=100), 999) == 0


@pytest.mark.parametrize("name", BOUNDS)
def test_every_field_has_bounds(name: str) -> None:
    least, most = BOUNDS[name]
    for value in (least, most):
        assert getattr(RetryPolicy(**{name: value}), name) == value  # type: ignore[arg-type]
    for value in (least - 1, most + 1, float("nan")):
        with pytest.raises(ValueError, match=name):
            RetryPolicy(**{name: value})  # type: ignore[arg-type]


def test_nonsense_from_the_caller_is_refused() -> None:
    with pytest.raises(ValueError, match="failures"):
        retry_at_ms(DEFAULT_POLICY, failures=0, now_ms=0, random_unit=0)
    with pytest.raises(ValueError, match="random_unit"):
        retry_at_ms(DEFAULT_POLICY, failures=1, now_ms=0, random_unit=1.1)


def numbers(name: str) -> st.SearchStrategy[float]:
    return st.floats(*BOUNDS[name])


POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 1000),
    backoff_sec=numbers("backoff_sec"),
    backoff_factor=numbers("backoff_factor"),
    max_backoff_sec=numbers("max_backoff_sec"),
    jitter=numbers("jitter"),
)


@given(policy=POLICIES, failures=st.integers(1, 1100), random_unit=st.floats(0, 1))
def test_a_retry_comes_within_its_bounds_and_only_while_attempts_are_left(
    policy: RetryPolicy, failures: int, random_unit: float
) -> None:
    wait = wait_sec(policy, failures, random_unit)
    full = wait_sec(policy, failures)
    assert (wait is None) == (failures >= policy.attempts) == (full is None)
    if wait is not None and full is not None:
        assert full * (1 - policy.jitter) - 0.001 <= wait <= full <= policy.max_backoff_sec + 0.001


@given(policy=POLICIES, failures=st.integers(1, 1000), random_unit=st.floats(0, 1))
def test_a_later_failure_never_waits_less(policy: RetryPolicy, failures: int, random_unit: float) -> None:
    wait, longer = (wait_sec(policy, count, random_unit) for count in (failures, failures + 1))
    assert longer is None or (wait is not None and wait <= longer)
