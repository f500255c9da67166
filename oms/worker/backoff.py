"""How long to wait before the next try."""

from __future__ import annotations

import random

FIRST_SEC = 0.2
MOST_SEC = 10.0
_MOST_DOUBLINGS = 10


def backoff_sec(tries: int, *, most_sec: float = MOST_SEC) -> float:
    """Return a random wait between 0 and a bound that doubles with every failed try (full jitter).

    Workers that lost the same OMS at the same moment must not all come back at the same moment.

    Args:
        tries: how many have failed before, from 0.
        most_sec: the bound's bound.
    """
    bound_sec = min(most_sec, FIRST_SEC * 2 ** min(tries, _MOST_DOUBLINGS))
    return random.uniform(0, bound_sec)  # noqa: S311 - spreads load, keeps no secret


def jittered_sec(seconds: float) -> float:
    """Return something between a half and one and a half of ``seconds``."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, keeps no secret
