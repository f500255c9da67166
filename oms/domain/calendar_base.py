"""What every lane's calendar answers, and the blocks that it works its openings out in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Generic, TypeVar
from zoneinfo import ZoneInfo

from oms.domain.local_time import DAY_MS, shown_moment

HORIZON_MS = 3_653 * DAY_MS
"""Ten years: what does not open within them never does, and no stall clock runs for longer."""
BLOCK_MS = 28 * DAY_MS
BLOCKS_IN_HORIZON = HORIZON_MS // BLOCK_MS + 2
"""So many that ten years from anywhere in a block end in the last of those after it."""
KEPT_BLOCKS = 400
"""Blocks that a calendar keeps in memory; with one more it starts anew."""

_EPOCH_DAY = date(1970, 1, 1)
_BEFORE = timedelta(days=3)
_DAYS = BLOCK_MS // DAY_MS + 5

T = TypeVar("T")


class Calendar(ABC):
    """When a lane hands out work. Immutable; threads may share it; a question costs about a microsecond.

    Moments and amounts are milliseconds, moments since the epoch. Two calendars of the same rule are equal.

    Attributes:
        zone: the timezone on whose clock it goes.
        text: the rule in a few words, such as ``Mon-Fri 08:00-17:00 (America/New_York)``.
    """

    def __init__(self, zone: ZoneInfo, text: str, holidays: str | None) -> None:
        self.zone = zone
        self.text = f"{text}{'' if holidays is None else f', except on holidays of {holidays}'} ({zone.key})"

    @abstractmethod
    def next_opening_ms(self, at_ms: int) -> int:
        """Return the earliest moment from ``at_ms`` on at which work may be handed out.

        Inside a window that is ``at_ms`` itself. Of a batch lane it is the next batch's time, which itself counts.

        Raises:
            CalendarError: there is none within ten years. ``lane_calendar`` refuses a calendar that never opens.
        """

    @abstractmethod
    def closes_at_ms(self, at_ms: int) -> int | None:
        """Return when the window ends that ``at_ms`` is in: the first moment at which the lane is closed.

        None when it never ends (within ten years), when ``at_ms`` is in no window, and of a batch lane: what a batch
        has opened stays open.
        """

    def is_open(self, at_ms: int) -> bool:
        """Tell whether a task that is queued at ``at_ms`` may be handed out at once.

        Of a batch lane that is so at the very moment of a batch only. In between, the lane still hands out what an
        earlier batch has opened, and a new task waits for the next one: whether a task of a batch lane waits is told by
        its ``available_at``, not by this.
        """
        return self.next_opening_ms(at_ms) == at_ms

    @abstractmethod
    def add_open_ms(self, from_ms: int, amount_ms: int) -> int:
        """Return the first moment at which the lane has been open for ``amount_ms`` since ``from_ms``.

        At most ten years after ``from_ms``; for no amount, ``from_ms`` itself. Of a batch lane, time runs from the
        first batch at or after ``from_ms`` on, and does not stop again.
        """

    @abstractmethod
    def open_ms_between(self, a_ms: int, b_ms: int) -> int:
        """Return for how long the lane is open from ``a_ms`` to ``b_ms``, as ``add_open_ms`` counts; never negative."""

    def describe(self, at_ms: int) -> str:
        """Return the rule and what comes next: ``Mon-Fri 08:00-17:00 (UTC); opens Wed 2026-11-25 08:00``."""
        return f"{self.text}; {self._what_is_next(at_ms)}"

    @abstractmethod
    def _what_is_next(self, at_ms: int) -> str: ...

    def _shown(self, at_ms: int) -> str:
        return shown_moment(at_ms, self.zone)

    @abstractmethod
    def _rule(self) -> tuple[object, ...]: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Calendar) and type(self) is type(other) and self._rule() == other._rule()

    def __hash__(self) -> int:
        return hash(self._rule())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text}>"


class Blocks(Generic[T]):
    """What a calendar has worked out, by block: the n-th is from ``n * BLOCK_MS`` on, and each is made once.

    Two threads may make the same block at once; they make the same, and one of the two is kept.
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._kept: dict[int, T] = {}

    def __getitem__(self, number: int) -> T:
        block = self._kept.get(number)
        if block is None:
            block = self._make(number)
            if len(self._kept) >= KEPT_BLOCKS:
                self._kept = {}
            self._kept[number] = block
        return block

    def after(self, number: int) -> Iterator[tuple[int, T]]:
        """Yield the blocks of the next ten years with their numbers."""
        for later in range(number + 1, number + 1 + BLOCKS_IN_HORIZON):
            yield later, self[later]


def local_days(number: int) -> Iterator[date]:
    """Yield every local day of which a window or a batch can be in a block, whatever the timezone, and a few more."""
    first = _EPOCH_DAY + timedelta(days=number * (BLOCK_MS // DAY_MS)) - _BEFORE
    return (first + timedelta(days=more) for more in range(_DAYS))
