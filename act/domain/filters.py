"""What a reader of the ledger wants to see."""

from __future__ import annotations

from dataclasses import dataclass

from act.domain.entry import Entry


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries; a filter that is None or empty lets all pass.

    Attributes:
        job: one job's events only.
        stream: one stream's events only: a job's by its name, or a lane's own (``LANE-<lane>``).
        lanes: events in one of these lanes.
        statuses: events with one of these statuses.
        since_ms: event times from this one on, milliseconds since the epoch.
        until_ms: event times before this one.
    """

    job: str | None = None
    lanes: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    stream: str | None = None

    @property
    def one_stream(self) -> str | None:
        """The one stream that is wanted; None: all of them."""
        return self.stream if self.job is None else self.job

    @property
    def is_timed(self) -> bool:
        """Tell whether the events' times matter."""
        return self.since_ms is not None or self.until_ms is not None

    def admits(self, entry: Entry) -> bool:
        """Tell whether the entry is wanted."""
        return (
            (self.job is None or entry.job_id == self.job)
            and (not self.lanes or entry.lane in self.lanes)
            and (not self.statuses or entry.status in self.statuses)
            and (self.since_ms is None or entry.ts_ms >= self.since_ms)
            and (self.until_ms is None or entry.ts_ms < self.until_ms)
        )
