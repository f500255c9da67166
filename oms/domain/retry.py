"""When a failed attempt is tried again."""

from __future__ import annotations

from dataclasses import dataclass

DAY_SEC = 86_400.0
BOUNDS: dict[str, tuple[float, float]] = {
    "attempts": (1, 1000),
    "backoff_sec": (0.0, 30 * DAY_SEC),
    "backoff_factor": (1.0, 100.0),
    "max_backoff_sec": (0.0, 365 * DAY_SEC),
    "jitter": (0.0, 1.0),
}
"""The least and the greatest value of each field, both allowed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an activity is tried, and how long a task waits in between.

    Attributes:
        attempts: attempts in all, the first one too: 1 means that nothing is tried again.
        backoff_sec: the wait after the first failure.
        backoff_factor: each further wait is so many times the one before.
        max_backoff_sec: no wait is longer.
        jitter: the share of a wait that chance may take off, so that tasks that failed together come back apart.

    Raises:
        ValueError: a field is outside ``BOUNDS``.
    """

    attempts: int = 3
    backoff_sec: float = 30.0
    backoff_factor: float = 1.0
    max_backoff_sec: float = 3600.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least:g} to {most:g}, not {value!r}")


DEFAULT_POLICY = RetryPolicy()


def retry_at_ms(policy: RetryPolicy, *, failures: int, now_ms: int, random_unit: float) -> int | None:
    """Return when a task that has just failed is available again, or None when its attempts are used up.

    The wait is ``min(backoff_sec * backoff_factor ** (failures - 1), max_backoff_sec) * (1 - jitter * random_unit)``
    seconds, rounded to milliseconds: never longer than ``max_backoff_sec``, and with ``jitter`` 1 anything from nothing
    to the whole wait.

    Args:
        policy: the step's.
        failures: attempts that failed or expired, this one included; from 1.
        now_ms: the time of the failure, milliseconds since the epoch.
        random_unit: a random number from 0 to 1.

    Raises:
        ValueError: ``failures`` or ``random_unit`` is out of range.
    """
    if failures < 1:
        raise ValueError(f"failures counts this one too, so it is at least 1, not {failures}")
    if not 0.0 <= random_unit <= 1.0:
        raise ValueError(f"random_unit is from 0 to 1, not {random_unit}")
    if failures >= policy.attempts:
        return None
    wait_sec = _backoff_sec(policy, failures) * (1.0 - policy.jitter * random_unit)
    return now_ms + round(wait_sec * 1000)


def _backoff_sec(policy: RetryPolicy, failures: int) -> float:
    """Return the wait before jitter. A power too large for a float is beyond any maximum."""
    try:
        power = float(policy.backoff_factor) ** (failures - 1)
    except OverflowError:
        return policy.max_backoff_sec if policy.backoff_sec else 0.0
    return min(policy.backoff_sec * power, policy.max_backoff_sec)
