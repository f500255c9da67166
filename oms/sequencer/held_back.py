"""Who waits in a lane that holds work back is woken when it lets go of it: a slot is free, or a rate's time has come.

What a tower knows of it is what its own pulls were told. That is enough: a pull that waits because of a cap was told
so here. On PostgreSQL a slot may be freed at another tower, too: `neighbours` looks for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from oms.storage.transaction import Transaction

MAX_LANES = 10_000
ALL_WHO_WAIT = 1_000
"""How many pulls look when a rate lets more through: who came together then goes on together."""


class HeldBack:
    """The lanes that have held work back from a pull of this tower.

    Args:
        wake: called in the loop: so many tasks may be ready in these lanes.
    """

    def __init__(self, wake: Callable[[Mapping[str, int]], None]) -> None:
        self._wake = wake
        self._lanes: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def wake_freed(self, tx: Transaction) -> None:
        """Count the slots that ``tx`` has freed as ready tasks, where pulls may wait for them. From any thread."""
        for lane, count in tx.freed.items():
            if lane in self._lanes:
                tx.woken[lane] += count

    def note(self, tx: Transaction) -> dict[str, float]:
        """Note what the pulls of ``tx`` were told; return in how many seconds which lanes open. From any thread."""
        if len(self._lanes) > MAX_LANES:
            self._lanes.clear()
        self._lanes -= tx.let_through
        self._lanes |= tx.held_back.keys()
        return {lane: (at - tx.now_ms) / 1000 for lane, at in tx.held_back.items() if at is not None}

    def open_in(self, seconds: Mapping[str, float]) -> None:
        """Wake who waits in these lanes after so many seconds. Called in the loop."""
        loop = asyncio.get_running_loop()
        for lane, sec in seconds.items():
            earlier = self._timers.get(lane)
            if earlier is None or earlier.when() > loop.time() + sec:
                if earlier is not None:
                    earlier.cancel()
                self._timers[lane] = loop.call_later(sec, self._open, lane)

    def _open(self, lane: str) -> None:
        del self._timers[lane]
        self._wake({lane: ALL_WHO_WAIT})

    def close(self) -> None:
        """Wake nobody any more. Called in the loop."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
