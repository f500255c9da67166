"""When a job will be done: a range, read off what finished jobs of its plan took from where it stands.

The rule in short. Take the finished jobs that once stood where this one stands, and for at least as long; the newer,
the more they count. Let each of them go its way to its end once more, beginning now: through today's queues, and the
lanes' opening hours. The range is from the 20th to the 80th percentile of the ends. docs/eta.md says how good that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from oms.domain.eta_history import History, Place, Visit
from oms.domain.eta_lane import MIN_KNOWN, LaneNow

LOW, HIGH = 0.2, 0.8
MIN_JOBS = 30
"""An estimate out of fewer finished jobs is none."""
HALF_LIFE_JOBS = 100
"""Of so many jobs that have finished since, a job counts half."""
MAX_REPLAYS = 200
"""So many ways are gone again at most; more say hardly more."""
MAX_REPLAYS_WITH_HOURS = 60
"""Where lanes have opening hours, a way costs several times as much."""
FREE_LANE = LaneNow()


class Phase(StrEnum):
    """What a job does where it stands. ``between``: nothing of it is queued or running; it waits for something."""

    QUEUED = "queued"
    RUNNING = "running"
    BETWEEN = "between"


class Likeness(StrEnum):
    """In what the finished jobs were like this one, the closest first."""

    ROUND = "round"
    LANE = "lane"
    ACTIVITY = "activity"
    QUEUE = "queue"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job stands. Times are milliseconds since the epoch.

    Attributes:
        phase: what it does there.
        activity: that is queued or running; where nothing is, the last one that was done, and None before the first.
        lane: of that activity's task; None where there is none.
        since_ms: when the task was first queued, when its attempt was handed out, or since when nothing is.
        round: how often the job has been at that activity, this time included.
        ahead: how many tasks of its lane come before it.
        not_before_ms: when a queued task is available at the earliest.
    """

    phase: Phase
    activity: str | None
    lane: str | None
    since_ms: int
    round: int = 1
    ahead: int = 0
    not_before_ms: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a job will be done, as far as can be told. Times are milliseconds since the epoch.

    Attributes:
        low_ms: the 20th percentile.
        median_ms: the 50th.
        high_ms: the 80th.
        jobs: out of how many finished jobs.
        likeness: in what they were like this one.
        standing: where this one stands.
    """

    low_ms: int
    median_ms: int
    high_ms: int
    jobs: int
    likeness: Likeness
    standing: Standing


def forecast(
    history: History,
    standing: Standing,
    lanes: Mapping[str, LaneNow],
    *,
    now_ms: int,
    random_unit: Callable[[], float],
) -> Forecast | None:
    """Return when a job will be done, or None when fewer than `MIN_JOBS` finished jobs say something about it.

    Pure, and its cost is bounded: some milliseconds, however long the history is.

    Args:
        history: of the job's plan.
        standing: where it stands.
        lanes: the lanes of the plan as they are now; one that is missing has no hours, and no queue.
        now_ms: milliseconds since the epoch.
        random_unit: gives random numbers from 0 up to 1; seeded by the job, the same job gets the same answer.
    """
    here = lanes.get(standing.lane or "", FREE_LANE)
    elapsed_ms = _elapsed_ms(standing, here, now_ms)
    found = _alike(history, standing, elapsed_ms, here)
    if found is None:
        return None
    likeness, alike = found
    has_hours = any(lane.hours is not None for lane in lanes.values())
    drawn = _draw(alike, MAX_REPLAYS_WITH_HOURS if has_hours else MAX_REPLAYS, random_unit)
    own = history.at(standing.activity) if likeness is Likeness.TIME else ()
    replay = _Replay(standing, lanes, likeness, own, elapsed_ms=elapsed_ms, now_ms=now_ms, random_unit=random_unit)
    ends = [(replay.end_ms(place), weight) for place, weight in drawn]
    low_ms, median_ms, high_ms = percentiles(ends, (LOW, 0.5, HIGH))
    jobs = len({place.age for place in alike})
    return Forecast(round(low_ms), round(median_ms), round(high_ms), jobs, likeness, standing)


def latest(forecasts: Sequence[Forecast | None]) -> Forecast | None:
    """Return the forecast for a job that stands in several places at once: it ends with its slowest branch.

    None where the end cannot be told of one of them.
    """
    known = [one for one in forecasts if one is not None]
    if not known or len(known) < len(forecasts):
        return None
    return max(known, key=lambda one: (one.median_ms, one.high_ms))


def percentiles(weighted: Sequence[tuple[float, float]], shares: Sequence[float]) -> list[float]:
    """Return the values below which the given shares of the next value's chances are.

    Of n values with the same weight the i-th lowest has the next one below it with a chance of ``i / (n + 1)``: so a
    range out of a few values is wide enough. Weights count as so many values as would be as uncertain.

    Args:
        weighted: at least one (value, weight), in any order.
        shares: from 0 to 1, in rising order.
    """
    ordered = sorted(weighted)
    total = sum(weight for _, weight in ordered)
    whole = total + sum(weight * weight for _, weight in ordered) / total
    results: list[float] = []
    values = iter(ordered)
    value, weight = next(values)
    position, below, below_position = weight / whole, value, weight / whole
    for share in shares:
        while position < share:
            upper = next(values, None)
            if upper is None:
                below, below_position = value, position
                break
            below, below_position = value, position
            value, weight = upper
            position += weight / whole
        span = position - below_position
        part = (share - below_position) / span if span > 0 else 1.0
        results.append(below + (value - below) * min(1.0, max(0.0, part)))
    return results


def _elapsed_ms(standing: Standing, here: LaneNow, now_ms: int) -> int:
    if standing.phase is Phase.QUEUED:
        return here.waited_ms(standing.since_ms, now_ms)
    if standing.phase is Phase.RUNNING:
        return here.worked_ms(standing.since_ms, now_ms)
    return max(0, now_ms - standing.since_ms)


def _alike(
    history: History, standing: Standing, elapsed_ms: int, here: LaneNow
) -> tuple[Likeness, Sequence[Place]] | None:
    """Return the places of the finished jobs that are most alike, if those are enough.

    A place counts only where that job stood for as long as this one has until now: what was over sooner is no guide.
    Where the wait can be told from the queue, it does not matter how long others waited.
    """
    phase = standing.phase
    at = history.at(standing.activity)
    by_queue = phase is Phase.QUEUED and here.drains
    if by_queue and here.always_looks:
        as_long: Sequence[Place] = at
    else:
        as_long = [place for place in at if _stood_for(place, phase, elapsed_ms)]
    in_lane = [place for place in as_long if place.visit is None or standing.lane in (None, place.visit.lane)]
    in_round = [place for place in in_lane if place.round == standing.round]
    for likeness, places in ((Likeness.ROUND, in_round), (Likeness.LANE, in_lane), (Likeness.ACTIVITY, as_long)):
        if _is_enough(places):
            return likeness, places
    if by_queue and _is_enough(at):
        return Likeness.QUEUE, at
    if len(at) < MIN_KNOWN:
        return None
    anywhere = [place for place in history.places if _stood_for(place, phase, elapsed_ms)]
    return (Likeness.TIME, anywhere) if _is_enough(anywhere) else None


def _stood_for(place: Place, phase: Phase, elapsed_ms: int) -> bool:
    if phase is Phase.BETWEEN:
        return place.gap_ms > elapsed_ms  # where the next was queued at once, no job was ever seen in between
    if place.visit is None:
        return False
    return (place.visit.wait_ms if phase is Phase.QUEUED else place.visit.work_ms) >= elapsed_ms


def _is_enough(places: Sequence[Place]) -> bool:
    return len(places) >= MIN_JOBS and len({place.age for place in places}) >= MIN_JOBS


def _draw(places: Sequence[Place], most: int, random_unit: Callable[[], float]) -> list[tuple[Place, float]]:
    """Return the places with their weights; of more than ``most`` so many, each as likely as its weight."""
    weighted = [(place, 0.5 ** (place.age / HALF_LIFE_JOBS)) for place in places]
    if len(weighted) <= most:
        return weighted
    step = sum(weight for _, weight in weighted) / most
    drawn: list[tuple[Place, float]] = []
    # One draw out of each of so many equal parts: old and new places come in their true proportion.
    until, goal = 0.0, step * random_unit()
    for place, weight in weighted:
        until += weight
        while goal < until:
            drawn.append((place, 1.0))
            goal += step
    return drawn


class _Replay:
    """Lets the ways of finished jobs be gone once more, from where this job stands now."""

    def __init__(
        self,
        standing: Standing,
        lanes: Mapping[str, LaneNow],
        likeness: Likeness,
        own: Sequence[Place],
        *,
        elapsed_ms: int,
        now_ms: int,
        random_unit: Callable[[], float],
    ) -> None:
        self._standing = standing
        self._lanes = lanes
        self._here = lanes.get(standing.lane or "", FREE_LANE)
        self._likeness = likeness
        self._own = own
        self._elapsed_ms = elapsed_ms
        self._now_ms = now_ms
        self._random_unit = random_unit
        self._free_at_ms: dict[str, int] = {}

    def end_ms(self, place: Place) -> int:
        """Return when this job will be done if it goes on as that one did.

        One that was somewhere else for as long tells only how long this one still stands; what comes then is told by
        one that was at this activity, for however long.
        """
        then = self._own[int(self._random_unit() * len(self._own))] if self._own else place
        if self._standing.phase is Phase.BETWEEN:
            return self._rest(then, self._now_ms, place.gap_ms - self._elapsed_ms)
        assert place.visit is not None
        assert then.visit is not None
        if self._standing.phase is Phase.QUEUED:
            begin_ms = self._begin_ms(max(0, self._wait_ms(place.visit) - self._elapsed_ms))
            work_ms = self._taken(self._here.work_ms, then.visit, then.visit.work_ms)
        else:
            begin_ms = self._now_ms
            longer = [known for known in self._here.work_ms if known >= self._elapsed_ms]
            work_ms = max(0, self._taken(longer, then.visit, place.visit.work_ms) - self._elapsed_ms)
        return self._rest(then, self._here.after_work_ms(begin_ms, work_ms), then.gap_ms)

    def _wait_ms(self, visit: Visit) -> int:
        return visit.wait_ms if self._own else self._taken(self._here.wait_ms, visit, visit.wait_ms)

    def _taken(self, known_ms: Sequence[int], visit: Visit, visit_ms: int) -> int:
        """Return what a visit took; where it was in another lane, by chance what was taken in this one, if known."""
        if visit.lane == self._standing.lane or len(known_ms) < MIN_KNOWN:
            return visit_ms
        return known_ms[int(self._random_unit() * len(known_ms))]

    def _begin_ms(self, wait_ms: float) -> int:
        """Return when a queued task begins that would still wait for ``wait_ms``, if all were as it was then."""
        here, standing = self._here, self._standing
        from_ms = max(self._now_ms, standing.not_before_ms)
        if here.is_batched:
            if standing.not_before_ms <= self._now_ms:
                return from_ms + round(wait_ms)  # its batch has come
            from_ms = max(from_ms, here.opening_ms(self._now_ms, ahead=standing.ahead))
        elif here.drains:
            queue_ms = here.queue_ms(standing.ahead, self._random_unit)
            if here.always_looks:
                wait_ms = queue_ms + here.pick_up_ms()
            elif self._likeness is Likeness.QUEUE:
                wait_ms = queue_ms
            else:
                wait_ms = max(wait_ms, queue_ms)
        return here.after_wait_ms(from_ms, wait_ms)

    def _rest(self, place: Place, at_ms: int, gap_ms: int) -> int:
        """Return when the job is done that leaves ``place`` at ``at_ms``."""
        at_ms += gap_ms
        for number in range(place.next_leg, len(place.legs)):
            leg = place.legs[number]
            if number > place.next_leg:
                at_ms += leg.gap_ms
            visit = leg.visit
            lane = self._lanes.get(visit.lane)
            if lane is None:
                at_ms += visit.wait_ms + visit.work_ms
            else:
                if visit.lane not in self._free_at_ms:
                    self._free_at_ms[visit.lane] = lane.free_at_ms(self._now_ms)
                begin_ms = max(lane.after_wait_ms(at_ms, visit.wait_ms), self._free_at_ms[visit.lane])
                at_ms = lane.after_work_ms(begin_ms, visit.work_ms)
        return at_ms + (place.tail_ms if place.next_leg < len(place.legs) else 0)
