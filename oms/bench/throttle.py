"""A steady rate for a load that must not be as much as the service can take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

MAX_DEBT_SEC = 1.0
"""After a stall of the service, this much of what was missed is made up; more would be a flood of its own."""


class Throttle:
    """Lets callers go on at a steady rate, all of them together.

    Args:
        per_sec: turns per second; None: as fast as they come.
        clock: seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        per_sec: float | None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._interval_sec = None if per_sec is None else 1 / per_sec
        self._clock = clock
        self._sleep = sleep
        self._next = float("-inf")

    async def turn(self) -> None:
        """Return when the caller may go on."""
        if self._interval_sec is None:
            return
        now = self._clock()
        at = max(self._next, now - MAX_DEBT_SEC) if self._next > float("-inf") else now
        self._next = at + self._interval_sec
        if at > now:
            await self._sleep(at - now)
