"""An estimate in words: for the citizen, how long it takes; for whoever asks why, where it comes from."""

from __future__ import annotations

from oms.domain.eta import Forecast, Likeness, Phase
from oms.domain.eta_lane import LaneNow

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
MONTH_MS = 30 * DAY_MS
UNITS = (
    (MINUTE_MS, "minute", 10, 1),
    (MINUTE_MS, "minute", 60, 5),
    (HOUR_MS, "hour", 36, 1),
    (DAY_MS, "day", 14, 1),
    (7 * DAY_MS, "week", 12, 1),
    (MONTH_MS, "month", 24, 1),
)
"""Each: the unit's length and name, up to how many of it are said, and in which steps."""
YEAR_MS = 12 * MONTH_MS

_ALIKE = {
    Likeness.ROUND: "that were at {at} for as long",
    Likeness.LANE: "that were at {at} for as long",
    Likeness.ACTIVITY: "that were at {at} for as long, in whatever lane",
    Likeness.QUEUE: "that were at {at}",
    Likeness.TIME: "that were at any activity for as long (too few were at {at})",
}


def label(title: str, forecast: Forecast, *, now_ms: int) -> str:
    """Return what a citizen is told: ``Printing — ETA 5 days``. It names the range's far end, rounded up."""
    return f"{title} — ETA {rounded_up(forecast.high_ms - now_ms)}"


def rounded_up(span_ms: int) -> str:
    """Return a time as people say it, never less than it is: ``under a minute``, ``25 minutes``, ``5 days``."""
    if span_ms < MINUTE_MS:
        return "under a minute"
    for unit_ms, name, most, step in UNITS:
        count = -(-span_ms // (unit_ms * step)) * step
        if count <= most:
            return _counted(count, name)
    return _counted(-(-span_ms // YEAR_MS), "year")


def method(forecast: Forecast, lane: LaneNow | None) -> str:
    """Return in one sentence where an estimate comes from.

    Args:
        forecast: the estimate.
        lane: the lane in which its task is queued or running; None where there is none.
    """
    standing = forecast.standing
    if standing.phase is not Phase.BETWEEN:
        at = str(standing.activity)
    elif standing.activity is None:
        at = "their start"
    else:
        at = f"the wait after {standing.activity}"
    alike = _ALIKE[forecast.likeness].format(at=at)
    if standing.phase is Phase.QUEUED and lane is not None and lane.always_looks:
        alike = alike.replace(" for as long", "")
    parts = [f"{_counted(forecast.jobs, 'finished job')} of this plan {alike}"]
    if standing.phase is Phase.QUEUED and lane is not None:
        parts.append(
            f"{_counted(standing.ahead, 'task')} ahead and {_counted(lane.workers, 'worker')} seen in its lane"
        )
    if lane is not None and lane.hours is not None:
        parts.append("the lane's hours")
    return f"20th to 80th percentile from {', '.join(parts)}; newer jobs count more."


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count:,} {name}s"
