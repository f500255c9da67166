"""What the sweep's parts have in common: how much one takes on, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field

from oms.storage.set_aside import Key, LeftAlone


@dataclass(frozen=True, slots=True)
class Fired:
    """A schedule that fired.

    Attributes:
        plan: whose job it starts.
        reference: of that job.
        fire_at: for which moment, RFC 3339.
        refused: why there is no such job; None where there is.
    """

    plan: str
    reference: str
    fire_at: str
    refused: str | None


@dataclass(slots=True)
class Portion:
    """How much of what is due a transaction takes on.

    Attributes:
        without: whose things are left alone: jobs by number; of schedules, plans by id.
        limit: how many rows at most; None: as many as a batch of the kind has.
        taken: whose things it takes on: noted before anything is done about them.
    """

    without: list[Key]
    limit: int | None = None
    taken: list[Key] = field(default_factory=list)

    def at_most(self, batch: int) -> int:
        """Return how many rows to take on, of a kind that comes in batches of up to ``batch``."""
        return batch if self.limit is None else min(batch, self.limit)


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found.

    Attributes:
        expired: attempts that were taken back.
        stalled: tasks that had been queued for too long.
        schedules: those whose time had come.
        fired: timers that were due in jobs.
        more: a batch was full: there may be more to do at once.
        next_due_ms: when something will be due again; None when nothing will.
        tried_again: what had been left alone and no longer was.
    """

    expired: int = 0
    stalled: int = 0
    schedules: list[Fired] = field(default_factory=list)
    fired: int = 0
    more: bool = False
    next_due_ms: int | None = None
    tried_again: tuple[LeftAlone, ...] = ()

    def __add__(self, other: Swept) -> Swept:
        """Return what was found in all; when something will be due again, the later one knows."""
        return Swept(
            expired=self.expired + other.expired,
            stalled=self.stalled + other.stalled,
            schedules=self.schedules + other.schedules,
            fired=self.fired + other.fired,
            more=self.more or other.more,
            next_due_ms=other.next_due_ms,
            tried_again=self.tried_again + other.tried_again,
        )
