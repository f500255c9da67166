"""What finished jobs of a plan went through: where each stood, for how long, and what came after.

Estimates are read off these (``oms.domain.eta``). A job that ran in branches is followed backwards from its end: the
activity that ended last, the one whose end queued that, and so on. What stood beside this chain delayed nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

MAX_JOBS = 400
MAX_VISITS = 4_000
"""A history is of so many of the newest finished jobs, and of so many activities in them, at most."""
MAX_VISITS_OF_A_JOB = 40


@dataclass(frozen=True, slots=True)
class Visit:
    """An activity that a finished job went through.

    Attributes:
        activity: its name.
        lane: where it was done.
        queued_ms: when it was first queued, milliseconds since the job's start.
        ended_ms: when it was done, likewise.
        wait_ms: for how long it was queued, until its last attempt began; where the lane has opening hours, only these
            count.
        work_ms: how long the last attempt took; where people work in a lane with opening hours, only these count.
    """

    activity: str
    lane: str
    queued_ms: int
    ended_ms: int
    wait_ms: int
    work_ms: int


@dataclass(frozen=True, slots=True)
class PastJob:
    """A job that is done.

    Attributes:
        finished_at_ms: when, milliseconds since the epoch.
        length_ms: from its start to its end.
        visits: what it went through, in the order in which they ended.
    """

    finished_at_ms: int
    length_ms: int
    visits: tuple[Visit, ...]


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of the way to a job's end: nothing queued for ``gap_ms`` (a timer, a signal), then a visit."""

    gap_ms: int
    visit: Visit


@dataclass(frozen=True, slots=True)
class Place:
    """Where a finished job once stood: at an activity, or behind it.

    Attributes:
        age: how many jobs have finished since that one.
        visit: of the activity; None: at the job's start, before any.
        round: how often the job was at that activity, this time included.
        gap_ms: how long after the visit nothing was queued that the end waited for.
        legs: the chain of the job, all of it.
        next_leg: where in ``legs`` the way goes on.
        tail_ms: what came after the last leg.
    """

    age: int
    visit: Visit | None
    round: int
    gap_ms: int
    legs: tuple[Leg, ...]
    next_leg: int
    tail_ms: int


def newest(jobs: Sequence[PastJob]) -> list[PastJob]:
    """Return the newest of ``jobs`` that a history keeps, the oldest first.

    Of a job that went through very many activities (a list of items) `MAX_VISITS_OF_A_JOB` count: of each activity the
    first and the last, then the latest of all.
    """
    kept: list[PastJob] = []
    visits = 0
    for job in sorted(jobs, key=_finish, reverse=True):
        some = PastJob(job.finished_at_ms, job.length_ms, thinned(job.visits))
        visits += len(some.visits)
        if len(kept) == MAX_JOBS or visits > MAX_VISITS:
            break
        kept.append(some)
    return kept[::-1]


class History:
    """The places of the newest finished jobs of a plan. Immutable.

    Args:
        jobs: in any order.
    """

    def __init__(self, jobs: Sequence[PastJob]) -> None:
        self.places: list[Place] = []
        self._by_activity: dict[str | None, list[Place]] = defaultdict(list)
        kept = newest(jobs)
        self.jobs = len(kept)
        for age, job in enumerate(reversed(kept)):
            for place in _places(job, age):
                self.places.append(place)
                self._by_activity[None if place.visit is None else place.visit.activity].append(place)

    def at(self, activity: str | None) -> Sequence[Place]:
        """Return the places at an activity, those of the newest job first; None: at the jobs' starts."""
        return self._by_activity.get(activity, ())


def _finish(job: PastJob) -> int:
    return job.finished_at_ms


def thinned(visits: tuple[Visit, ...]) -> tuple[Visit, ...]:
    """Return the visits that count, in order. What is left out becomes time in which nothing was queued."""
    if len(visits) <= MAX_VISITS_OF_A_JOB:
        return visits
    last = {visit.activity: index for index, visit in enumerate(visits)}
    first = {visit.activity: index for index, visit in reversed(list(enumerate(visits)))}
    ends = sorted({*first.values(), *last.values()})
    others = [index for index in range(len(visits)) if index not in set(ends)]
    room = max(0, MAX_VISITS_OF_A_JOB - len(ends))
    kept = sorted(ends + others[len(others) - room :])[-MAX_VISITS_OF_A_JOB:]
    return tuple(visits[index] for index in kept)


def _places(job: PastJob, age: int) -> list[Place]:
    visits = sorted(job.visits, key=_end)
    chain = _chain(visits)
    legs: list[Leg] = []
    before_ms = 0
    for index in chain:
        legs.append(Leg(visits[index].queued_ms - before_ms, visits[index]))
        before_ms = visits[index].ended_ms
    whole, tail_ms = tuple(legs), job.length_ms - before_ms
    first_gap_ms = whole[0].gap_ms if whole else job.length_ms
    places = [Place(age, None, 1, first_gap_ms, whole, 0, tail_ms)]
    queued = [leg.visit.queued_ms for leg in whole]
    rounds: dict[str, int] = defaultdict(int)
    for index, visit in enumerate(visits):
        rounds[visit.activity] += 1
        # Visits without a length may share a moment: what came later in the order, came later.
        goes_on = max(bisect_left(queued, visit.ended_ms), bisect_right(chain, index))
        until_ms = queued[goes_on] if goes_on < len(whole) else job.length_ms
        gap_ms = until_ms - visit.ended_ms
        places.append(Place(age, visit, rounds[visit.activity], gap_ms, whole, goes_on, tail_ms))
    return places


def _end(visit: Visit) -> int:
    return visit.ended_ms


def _chain(visits: Sequence[Visit]) -> list[int]:
    """Return the indexes of the visits, ordered by their ends, that the job's end waited for, in order."""
    ends = [visit.ended_ms for visit in visits]
    chain: list[int] = []
    index = len(visits) - 1
    while index >= 0:
        chain.append(index)
        index = min(index, bisect_right(ends, visits[index].queued_ms)) - 1
    return chain[::-1]
