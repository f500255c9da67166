"""What holds a lane back: a manager's pause, and its caps: how many tasks run at once, how fast they are handed out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oms.domain.plan import Plan, Rate


@dataclass(frozen=True, slots=True)
class Caps:
    """The caps of a lane, each of which holds.

    Attributes:
        max_running: how many of its tasks may run at once; None: any number.
        rates: at most so many hand-outs, in any so many seconds: pairs of both, the longest time last.
    """

    max_running: int | None = None
    rates: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.max_running is not None or bool(self.rates)


NO_CAPS = Caps()


@dataclass(slots=True)
class LaneControl:
    """What holds a lane back now. Times are milliseconds since the epoch.

    Attributes:
        lane: its name.
        paused_at: since when it hands out nothing; None while it is not paused.
        paused_by: who paused it, where that was said.
        pause_reason: and why.
        seq: the place of the last event in the lane's stream.
        caps: of the plans in force.
    """

    lane: str
    paused_at: int | None = None
    paused_by: str | None = None
    pause_reason: str | None = None
    seq: int = 0
    caps: Caps = field(default=NO_CAPS)

    @property
    def is_needed(self) -> bool:
        """Whether it says anything; the count of events must go on where it stopped, however long that was ago."""
        return self.paused_at is not None or self.seq > 0 or bool(self.caps)


@dataclass(frozen=True, slots=True)
class HandOuts:
    """The hand-outs of a lane that count for one of its rates now.

    Attributes:
        count: how many.
        oldest_ms: when the oldest of them was; None where there are none.
    """

    count: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Room:
    """How many tasks a lane may hand out now.

    Attributes:
        tasks: how many; None: any number.
        is_full: the lane has as many running as it may.
        opens_at: where there is no room for its rates: when there is again.
    """

    tasks: int | None
    is_full: bool = False
    opens_at: int | None = None

    def admits(self, wanted: int) -> int:
        """Return how many of ``wanted`` may be handed out."""
        return wanted if self.tasks is None else min(wanted, self.tasks)


def caps_of(plans: Iterable[Plan]) -> dict[str, Caps]:
    """Return the caps of every lane that has any: all that the plans give it, so that the strictest holds."""
    most: dict[str, int] = {}
    rates: dict[str, list[Rate]] = {}
    for plan in plans:
        for lane in plan.lanes:
            if lane.max_running is not None:
                most[lane.id] = min(lane.max_running, most.get(lane.id, lane.max_running))
            if lane.rate is not None:
                rates.setdefault(lane.id, []).append(lane.rate)
    return {lane: Caps(most.get(lane), _strictest(rates.get(lane, ()))) for lane in most.keys() | rates.keys()}


def _strictest(rates: Iterable[Rate]) -> tuple[tuple[int, int], ...]:
    """Leave out the rates that follow from another: fewer hand-outs in a time that is no shorter."""
    kept: list[tuple[int, int]] = []
    for per_sec, tasks in sorted({(rate.per_sec, rate.tasks) for rate in rates}, key=lambda pair: (-pair[0], pair[1])):
        if all(tasks < others for others, _ in kept):
            kept.append((tasks, per_sec))
    return tuple(reversed(kept))


def window_begins_ms(per_sec: int, *, now_ms: int) -> int:
    """Return the earliest moment whose hand-outs still count at ``now_ms`` for a rate.

    Times are cut to milliseconds: two whose difference is just ``per_sec`` may be a part of a millisecond closer.
    """
    return now_ms - per_sec * 1000


def room_for(caps: Caps, *, running: int, handed_out: Sequence[HandOuts]) -> Room:
    """Return how many tasks a lane with these caps may hand out.

    Args:
        caps: of the lane.
        running: how many of its tasks are in workers' hands, counted at least up to ``max_running``.
        handed_out: for each of the rates in turn, the hand-outs that count.
    """
    rooms: list[int] = []
    opens_at: int | None = None
    for (tasks, per_sec), recent in zip(caps.rates, handed_out, strict=True):
        rooms.append(max(0, tasks - recent.count))
        if recent.count >= tasks:
            assert recent.oldest_ms is not None
            opens_at = max(opens_at or 0, recent.oldest_ms + per_sec * 1000 + 1)
    is_full = caps.max_running is not None and running >= caps.max_running
    if caps.max_running is not None:
        rooms.append(max(0, caps.max_running - running))
    return Room(min(rooms, default=None), is_full=is_full, opens_at=opens_at)
