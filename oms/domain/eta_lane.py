"""A lane as an estimate sees it: its hours, who works in it now, and how long its queue takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from oms.domain.plan import LaneKind, Rate

MAX_OPENINGS = 400
"""How many batches ahead an estimate looks at most."""
DRAWN_AHEAD = 8
"""Of the tasks ahead so many are drawn; the others take as long as these on average."""
PICK_UP_SHARE = 0.2
"""What is short among a lane's waits is the time until somebody looks, without a queue."""
MIN_KNOWN = 5
"""Fewer times say nothing of a lane."""


class Hours(Protocol):
    """When a lane hands out work. Moments are milliseconds since the epoch."""

    def next_opening_ms(self, at_ms: int) -> int:
        """Return the earliest moment from ``at_ms`` on at which work may be handed out."""

    def add_open_ms(self, from_ms: int, amount_ms: int) -> int:
        """Return the moment at which the lane has been open for ``amount_ms`` since ``from_ms``."""

    def open_ms_between(self, a_ms: int, b_ms: int) -> int:
        """Return for how long the lane is open from ``a_ms`` to ``b_ms``."""


@dataclass(frozen=True, slots=True)
class LaneNow:
    """A lane at this moment.

    Attributes:
        kind: who works in it.
        queued: how many tasks wait in it.
        running: how many are being worked on.
        workers: how many workers were seen polling.
        wait_ms: for how long its last tasks of the plan were queued, in the lane's open time, the newest last.
        work_ms: how long they took; likewise, where people work.
        hours: when it hands out work; None: always.
        is_batched: it hands out in batches at its openings, rather than for as long as it is open.
        batch_max: how many tasks a batch holds at most; None: all that wait.
        max_running: how many may be worked on at once; None: any number.
        rate: how fast they are handed out at most.
    """

    kind: LaneKind = LaneKind.MACHINE
    queued: int = 0
    running: int = 0
    workers: int = 0
    wait_ms: Sequence[int] = ()
    work_ms: Sequence[int] = ()
    hours: Hours | None = None
    is_batched: bool = False
    batch_max: int | None = None
    max_running: int | None = None
    rate: Rate | None = None

    @property
    def works_in_hours(self) -> bool:
        """Whether work stops when the lane closes: people go home; what a machine or a vendor has, goes on."""
        return self.kind is LaneKind.HUMAN and not self.is_batched

    @property
    def hands(self) -> int:
        """How many tasks are worked on at once: by as many as were seen, or more where one takes several."""
        hands = max(self.workers, self.running)
        return hands if self.max_running is None else min(hands, self.max_running)

    @property
    def drains(self) -> bool:
        """Whether it can be told from its queue when it comes to a task. A vendor takes what it takes when it comes."""
        return self.kind is not LaneKind.VENDOR and self.hands > 0 and len(self.work_ms) >= MIN_KNOWN

    @property
    def always_looks(self) -> bool:
        """Whether its queue alone tells when it comes to a task: machines look all the time, people when they do."""
        return self.drains and self.kind is LaneKind.MACHINE

    def queue_ms(self, ahead: int, random_unit: Callable[[], float]) -> float:
        """Return how long ``ahead`` tasks keep the lane from the next, in its open time; chance draws what they take.

        The lane must be one that ``drains``.
        """
        drawn = min(ahead, DRAWN_AHEAD)
        if not drawn:
            return 0.0
        known = self.work_ms
        total_ms = sum(known[int(random_unit() * len(known))] for _ in range(drawn))
        by_work_ms = total_ms / drawn * ahead / self.hands
        by_rate_ms = 0.0 if self.rate is None else ahead * self.rate.per_sec * 1000 / self.rate.tasks
        return max(by_work_ms, by_rate_ms)

    def pick_up_ms(self) -> int:
        """Return how long a task waits without a queue."""
        waits = sorted(self.wait_ms)
        return waits[int(PICK_UP_SHARE * len(waits))] if waits else 0

    def free_at_ms(self, now_ms: int) -> int:
        """Return when what is queued now will have been handed out; ``now_ms`` where that cannot be told."""
        if self.is_batched:
            return self.opening_ms(now_ms, ahead=self.queued)
        if not (self.queued and self.drains):
            return now_ms
        mean_ms = sum(self.work_ms) / len(self.work_ms)
        by_rate_ms = 0.0 if self.rate is None else self.rate.per_sec * 1000 / self.rate.tasks
        return self.after_wait_ms(now_ms, self.queued * max(mean_ms / self.hands, by_rate_ms))

    def opening_ms(self, at_ms: int, *, ahead: int) -> int:
        """Return the batch in which a task is, with so many tasks before it."""
        assert self.hours is not None
        opening_ms = self.hours.next_opening_ms(at_ms)
        more = 0 if self.batch_max is None else min(ahead // self.batch_max, MAX_OPENINGS)
        for _ in range(more):
            opening_ms = self.hours.next_opening_ms(opening_ms + 1)
        return opening_ms

    def after_wait_ms(self, from_ms: int, wait_ms: float) -> int:
        """Return when a task begins that is queued at ``from_ms``, after so much open time."""
        if self.hours is None:
            return from_ms + round(wait_ms)
        return self.hours.add_open_ms(self.hours.next_opening_ms(from_ms), round(wait_ms))

    def after_work_ms(self, from_ms: int, work_ms: float) -> int:
        """Return when a task ends that begins at ``from_ms``."""
        if self.hours is None or not self.works_in_hours:
            return from_ms + round(work_ms)
        return self.hours.add_open_ms(from_ms, round(work_ms))

    def waited_ms(self, from_ms: int, to_ms: int) -> int:
        """Return how much of a time in the queue counts: all, or what the lane was open."""
        return max(0, to_ms - from_ms) if self.hours is None else self.hours.open_ms_between(from_ms, to_ms)

    def worked_ms(self, from_ms: int, to_ms: int) -> int:
        """Return how much of the time of an attempt counts, likewise."""
        if self.hours is None or not self.works_in_hours:
            return max(0, to_ms - from_ms)
        return self.hours.open_ms_between(from_ms, to_ms)
