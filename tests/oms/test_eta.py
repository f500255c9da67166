"""The estimate of a job's end, as pure rules."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.calendar import lane_calendar
from oms.domain.eta import (
    MAX_REPLAYS,
    MIN_JOBS,
    Forecast,
    Likeness,
    Phase,
    Standing,
    forecast,
    latest,
    percentiles,
)
from oms.domain.eta_history import (
    MAX_JOBS,
    MAX_VISITS,
    MAX_VISITS_OF_A_JOB,
    History,
    PastJob,
    Place,
    Visit,
    newest,
)
from oms.domain.eta_lane import Hours, LaneNow
from oms.domain.eta_words import label, method, rounded_up
from oms.domain.plan import LaneKind, Rate

SEC, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOW = 20_000 * DAY
"""A midnight, UTC."""


@dataclass(frozen=True)
class OfficeHours:
    """Open from 08:00 to 16:00 each day, UTC."""

    opens: int = 8 * HOUR
    closes: int = 16 * HOUR

    def next_opening_ms(self, at_ms: int) -> int:
        day, time = divmod(at_ms, DAY)
        if time < self.opens:
            return day * DAY + self.opens
        return at_ms if time < self.closes else (day + 1) * DAY + self.opens

    def add_open_ms(self, from_ms: int, amount_ms: int) -> int:
        while amount_ms > 0:
            from_ms = self.next_opening_ms(from_ms)
            left = from_ms // DAY * DAY + self.closes - from_ms
            if amount_ms <= left:
                return from_ms + amount_ms
            amount_ms -= left
            from_ms += left
        return from_ms

    def open_ms_between(self, a_ms: int, b_ms: int) -> int:
        return sum(
            max(0, min(b_ms, day * DAY + self.closes) - max(a_ms, day * DAY + self.opens))
            for day in range(a_ms // DAY, b_ms // DAY + 1)
        )


@dataclass(frozen=True)
class Nightly:
    """A batch at 03:00 each day, UTC."""

    def next_opening_ms(self, at_ms: int) -> int:
        return -(-(at_ms - 3 * HOUR) // DAY) * DAY + 3 * HOUR

    def add_open_ms(self, from_ms: int, amount_ms: int) -> int:
        return self.next_opening_ms(from_ms) + amount_ms

    def open_ms_between(self, a_ms: int, b_ms: int) -> int:
        return max(0, b_ms - self.next_opening_ms(a_ms))


def straight_job(*tasks: tuple[str, str, int, int], finished_at_ms: int = NOW) -> PastJob:
    """Return a job that did (activity, lane, wait, work) one after the other."""
    visits: list[Visit] = []
    at_ms = 0
    for activity, lane, wait_ms, work_ms in tasks:
        end_ms = at_ms + wait_ms + work_ms
        visits.append(Visit(activity, lane, at_ms, end_ms, wait_ms, work_ms))
        at_ms = end_ms
    return PastJob(finished_at_ms, at_ms, tuple(visits))


def jobs(make: Callable[[int], Sequence[tuple[str, str, int, int]]], *, count: int = MIN_JOBS) -> History:
    return History([straight_job(*make(number), finished_at_ms=NOW + number) for number in range(count)])


def foretell(
    history: History, standing: Standing, lanes: dict[str, LaneNow] | None = None, *, now_ms: int = NOW, seed: int = 1
) -> Forecast | None:
    unit = random.Random(seed).random
    return forecast(history, standing, lanes or {}, now_ms=now_ms, random_unit=unit)


def known(found: Forecast | None) -> Forecast:
    assert found is not None
    assert found.low_ms <= found.median_ms <= found.high_ms
    return found


def queued(activity: str, lane: str, *, since_ms: int = NOW, ahead: int = 0, round: int = 1) -> Standing:  # noqa: A002
    return Standing(Phase.QUEUED, activity, lane, since_ms, round=round, ahead=ahead)


def running(activity: str, lane: str, *, since_ms: int = NOW) -> Standing:
    return Standing(Phase.RUNNING, activity, lane, since_ms)


def test_fewer_than_thirty_finished_jobs_say_nothing() -> None:
    def way(number: int) -> list[tuple[str, str, int, int]]:
        return [("scan", "machines", 5 * SEC, MINUTE)]

    assert foretell(jobs(way, count=MIN_JOBS - 1), queued("scan", "machines")) is None
    found = known(foretell(jobs(way), queued("scan", "machines")))
    assert (found.low_ms, found.high_ms, found.jobs) == (NOW + 65 * SEC, NOW + 65 * SEC, MIN_JOBS)
    assert foretell(jobs(way), queued("scam", "machines")) is None


def test_one_job_that_was_there_thirty_times_is_one_job() -> None:
    history = jobs(lambda _: [("scan", "machines", SEC, SEC)] * 35, count=1)
    assert foretell(history, queued("scan", "machines")) is None


def test_the_range_is_the_middle_sixty_percent_of_what_others_took() -> None:
    history = jobs(lambda number: [("scan", "machines", 0, number * MINUTE)], count=99)
    found = known(foretell(history, queued("scan", "machines")))
    # The newest ones, which took the longest here, count more.
    assert NOW + 20 * MINUTE < found.low_ms < NOW + 35 * MINUTE
    assert NOW + 50 * MINUTE < found.median_ms < NOW + 65 * MINUTE
    assert NOW + 80 * MINUTE < found.high_ms < NOW + 88 * MINUTE


def test_what_is_over_sooner_is_no_guide_for_what_takes_long() -> None:
    history = jobs(lambda number: [("scan", "machines", 0, MINUTE if number % 2 else DAY)], count=80)
    fresh = known(foretell(history, running("scan", "machines")))
    assert fresh.low_ms == NOW + MINUTE
    assert fresh.high_ms == NOW + DAY
    late = known(foretell(history, running("scan", "machines", since_ms=NOW - 10 * MINUTE)))
    assert late.low_ms == late.high_ms == NOW - 10 * MINUTE + DAY


def test_what_no_other_has_waited_for_is_not_foretold() -> None:
    history = jobs(lambda _: [("scan", "machines", 0, DAY)])
    assert foretell(history, running("scan", "machines", since_ms=NOW - 2 * DAY)) is None


def test_a_branch_counts_as_often_as_it_was_taken() -> None:
    def way(number: int) -> list[tuple[str, str, int, int]]:
        check = [("check", "clerks", HOUR, HOUR)] if number % 10 == 0 else []
        return [("scan", "machines", 0, MINUTE), *check, ("print", "plant", 0, MINUTE)]

    found = known(foretell(jobs(way, count=100), queued("scan", "machines")))
    assert found.low_ms == found.high_ms == NOW + 2 * MINUTE
    often = History([straight_job(*way(number if number % 2 else 0)) for number in range(100)])
    found = known(foretell(often, queued("scan", "machines")))
    assert found.high_ms == NOW + 2 * MINUTE + 2 * HOUR


def test_newer_jobs_count_more() -> None:
    history = jobs(lambda number: [("scan", "machines", 0, HOUR if number < 200 else MINUTE)], count=400)
    assert known(foretell(history, queued("scan", "machines"))).median_ms == NOW + MINUTE


def test_a_later_round_is_foretold_from_later_rounds() -> None:
    history = jobs(lambda _: [("draft", "writers", 0, DAY), ("draft", "writers", 0, HOUR)])
    assert known(foretell(history, queued("draft", "writers"))).median_ms == NOW + DAY + HOUR
    found = known(foretell(history, queued("draft", "writers", round=2)))
    assert (found.median_ms, found.likeness) == (NOW + HOUR, Likeness.ROUND)
    third = known(foretell(history, queued("draft", "writers", round=3)))
    assert third.likeness is Likeness.LANE
    assert third.low_ms == NOW + HOUR
    assert third.high_ms == NOW + DAY + HOUR


def test_a_job_between_activities_waits_for_what_others_waited_for() -> None:
    visits = (Visit("ask", "desk", 0, MINUTE, 0, MINUTE), Visit("file", "desk", 3 * DAY, 3 * DAY + HOUR, 0, HOUR))
    history = History([PastJob(NOW + number, 4 * DAY, visits) for number in range(MIN_JOBS)])
    waiting = Standing(Phase.BETWEEN, "ask", None, NOW - DAY)
    assert known(foretell(history, waiting)).median_ms == NOW - DAY - MINUTE + 4 * DAY
    unseen = Standing(Phase.BETWEEN, "appeal", None, NOW)
    assert foretell(history, unseen) is None
    # Those that went on at once, or sooner than this one, were never seen to wait there for as long.
    quick = [straight_job(("ask", "desk", 0, MINUTE), ("file", "desk", 0, HOUR), finished_at_ms=NOW + 99)] * 200
    mixed = History([PastJob(NOW + number, 4 * DAY, visits) for number in range(MIN_JOBS)] + quick)
    found = known(foretell(mixed, waiting))
    assert (found.jobs, found.low_ms, found.likeness) == (MIN_JOBS, NOW - DAY - MINUTE + 4 * DAY, Likeness.ROUND)
    at_once = known(foretell(mixed, replace(waiting, since_ms=NOW)))
    assert (at_once.jobs, at_once.low_ms) == (MIN_JOBS, NOW - MINUTE + 4 * DAY)
    at_end = Standing(Phase.BETWEEN, "file", None, NOW - HOUR)
    assert known(foretell(history, at_end)).median_ms == NOW - HOUR + DAY - HOUR


def test_tasks_ahead_are_worked_off_by_the_workers_seen() -> None:
    history = jobs(lambda _: [("scan", "machines", 0, MINUTE), ("print", "plant", HOUR, 0)])
    lane = LaneNow(workers=2, wait_ms=[SEC] * 10, work_ms=[MINUTE] * 10)
    found = known(foretell(history, queued("scan", "machines", ahead=40), {"machines": lane}))
    assert found.low_ms == found.high_ms == NOW + 20 * MINUTE + SEC + MINUTE + HOUR
    nobody = known(foretell(history, queued("scan", "machines", ahead=40), {"machines": replace(lane, workers=0)}))
    assert nobody.high_ms == NOW + MINUTE + HOUR  # what others waited is all that is known
    many = replace(lane, workers=1, running=20)  # one worker that takes twenty at a time
    assert known(foretell(history, queued("scan", "machines", ahead=40), {"machines": many})).high_ms == (
        NOW + 2 * MINUTE + SEC + MINUTE + HOUR
    )
    capped = replace(lane, max_running=1)
    found = known(foretell(history, queued("scan", "machines", ahead=40), {"machines": capped}))
    assert found.high_ms == NOW + 40 * MINUTE + SEC + MINUTE + HOUR
    slow = replace(lane, rate=Rate(tasks=1, per_sec=120))
    found = known(foretell(history, queued("scan", "machines", ahead=40), {"machines": slow}))
    assert found.high_ms == NOW + 80 * MINUTE + SEC + MINUTE + HOUR


def test_people_are_not_expected_sooner_than_they_ever_came() -> None:
    history = jobs(lambda _: [("check", "clerks", 2 * HOUR, MINUTE)])
    clerks = LaneNow(LaneKind.HUMAN, workers=2, work_ms=[MINUTE] * 10)
    assert known(foretell(history, queued("check", "clerks"), {"clerks": clerks})).high_ms == NOW + 2 * HOUR + MINUTE
    found = known(foretell(history, queued("check", "clerks", ahead=600), {"clerks": clerks}))
    assert found.high_ms == NOW + 5 * HOUR + MINUTE
    # Longer than anybody ever waited: the queue alone tells.
    late = queued("check", "clerks", since_ms=NOW - DAY, ahead=60)
    found = known(foretell(history, late, {"clerks": clerks}))
    assert (found.high_ms, found.likeness) == (NOW + 31 * MINUTE, Likeness.QUEUE)


def test_a_queue_further_on_delays_those_that_come_before_it_is_worked_off() -> None:
    history = jobs(lambda _: [("scan", "machines", 0, MINUTE), ("check", "clerks", 0, MINUTE)])
    clerks = LaneNow(LaneKind.HUMAN, queued=120, workers=1, work_ms=[MINUTE] * 10)
    found = known(foretell(history, running("scan", "machines"), {"clerks": clerks}))
    assert found.high_ms == NOW + 2 * HOUR + MINUTE
    found = known(foretell(history, running("scan", "machines"), {"clerks": replace(clerks, queued=0)}))
    assert found.high_ms == NOW + 2 * MINUTE


REAL_HOURS = lane_calendar(timezone="UTC", open="Mon-Sun 08:00-16:00", batch_at=None, holidays=None)
REAL_BATCH = lane_calendar(timezone="UTC", open=None, batch_at="03:00", holidays=None)


@pytest.mark.parametrize("hours", [OfficeHours(), REAL_HOURS], ids=["simple", "calendar"])
def test_people_wait_and_work_in_their_hours_only(hours: Hours) -> None:
    history = jobs(lambda _: [("scan", "machines", 0, MINUTE), ("check", "clerks", HOUR, 9 * HOUR)])
    clerks = LaneNow(LaneKind.HUMAN, hours=hours)
    evening = NOW + 17 * HOUR
    scanning = running("scan", "machines", since_ms=evening)
    found = known(foretell(history, scanning, {"clerks": clerks}, now_ms=evening))
    assert found.low_ms == found.high_ms == NOW + 2 * DAY + 10 * HOUR
    machines = replace(clerks, kind=LaneKind.MACHINE)
    found = known(foretell(history, scanning, {"clerks": machines}, now_ms=evening))
    assert found.high_ms == NOW + DAY + 18 * HOUR  # what a machine has begun, it does not put down
    # At noon it has waited for four hours, of which the others waited for one, and then worked.
    late = queued("check", "clerks", since_ms=NOW)
    assert foretell(history, late, {"clerks": clerks}, now_ms=NOW + 12 * HOUR) is None
    found = known(foretell(history, late, {"clerks": clerks}, now_ms=NOW + 8 * HOUR + MINUTE))
    assert found.high_ms == NOW + DAY + 10 * HOUR


@pytest.mark.parametrize("hours", [Nightly(), REAL_BATCH], ids=["simple", "calendar"])
def test_a_batch_takes_so_many_and_the_rest_the_next_one(hours: Hours) -> None:
    history = jobs(lambda _: [("print", "plant", HOUR, 2 * DAY)])
    plant = LaneNow(LaneKind.VENDOR, hours=hours, is_batched=True, batch_max=100, workers=1, work_ms=[DAY] * 10)
    at_noon = NOW + 12 * HOUR
    batch = NOW + DAY + 3 * HOUR
    for ahead, nights in ((0, 0), (99, 0), (100, 1), (250, 2)):
        standing = replace(queued("print", "plant", since_ms=at_noon, ahead=ahead), not_before_ms=batch)
        found = known(foretell(history, standing, {"plant": plant}, now_ms=at_noon))
        assert found.low_ms == found.high_ms == batch + nights * DAY + HOUR + 2 * DAY
    in_batch = replace(queued("print", "plant", since_ms=at_noon, ahead=40), not_before_ms=batch)
    found = known(foretell(history, in_batch, {"plant": plant}, now_ms=batch + MINUTE))
    assert found.high_ms == batch + HOUR + 2 * DAY
    # For one that is on its way there, the queue of today fills the next batches.
    on_its_way = jobs(lambda _: [("scan", "machines", 0, MINUTE), ("print", "plant", 0, 0)])
    for waiting, nights in ((0, 0), (250, 2)):
        lanes = {"plant": replace(plant, queued=waiting)}
        found = known(foretell(on_its_way, running("scan", "machines", since_ms=at_noon), lanes, now_ms=at_noon))
        assert found.high_ms == batch + nights * DAY


def test_a_backoff_is_waited_for() -> None:
    history = jobs(lambda _: [("scan", "machines", SEC, MINUTE)])
    standing = replace(queued("scan", "machines"), not_before_ms=NOW + HOUR)
    assert known(foretell(history, standing)).low_ms == NOW + HOUR + SEC + MINUTE


def test_in_another_lane_it_takes_what_it_takes_there() -> None:
    history = jobs(lambda _: [("scan", "machines", 0, MINUTE), ("print", "plant", 0, HOUR)])
    clerks = LaneNow(LaneKind.HUMAN, wait_ms=[HOUR] * 10, work_ms=[2 * HOUR] * 10)
    found = known(foretell(history, queued("scan", "clerks"), {"clerks": clerks}))
    assert (found.high_ms, found.likeness) == (NOW + 4 * HOUR, Likeness.ACTIVITY)
    unknown = {"clerks": replace(clerks, wait_ms=[], work_ms=[])}
    assert known(foretell(history, queued("scan", "clerks"), unknown)).high_ms == NOW + MINUTE + HOUR


def test_too_few_at_this_activity_then_all_that_stood_for_as_long() -> None:
    def way(number: int) -> list[tuple[str, str, int, int]]:
        appeal = [("appeal", "board", HOUR, HOUR), ("file", "desk", 0, MINUTE)] if number % 10 == 0 else []
        return [("scan", "machines", 2 * DAY, 3 * DAY), *appeal]

    # Others tell how much longer it stands there, those of its own kind what comes then.
    found = known(foretell(jobs(way, count=100), running("appeal", "board", since_ms=NOW - DAY)))
    assert (found.likeness, found.median_ms) == (Likeness.TIME, NOW + 2 * DAY + MINUTE)
    found = known(foretell(jobs(way, count=100), queued("appeal", "board", since_ms=NOW - DAY)))
    assert (found.likeness, found.median_ms) == (Likeness.TIME, NOW + DAY + HOUR + MINUTE)
    assert foretell(jobs(way, count=40), running("appeal", "board", since_ms=NOW - DAY)) is None  # too few to tell


def test_a_job_in_several_branches_ends_with_the_slowest() -> None:
    history = jobs(lambda _: [("scan", "machines", 0, MINUTE)])
    quick, slow = (
        known(foretell(history, queued("scan", "machines", since_ms=NOW + at), now_ms=NOW + at)) for at in (0, HOUR)
    )
    assert latest([slow, quick]) is slow
    assert latest([quick, None]) is None
    assert latest([]) is None


def test_the_same_job_gets_the_same_answer() -> None:
    history = jobs(lambda number: [("scan", "machines", number * SEC, number * MINUTE)], count=MAX_JOBS)
    lanes = {"machines": LaneNow(workers=1, work_ms=list(range(1000, 9000, 1000)))}
    answers = {foretell(history, queued("scan", "machines", ahead=3), lanes, seed=seed) for seed in (7, 7, 7)}
    assert len(answers) == 1
    assert foretell(history, queued("scan", "machines", ahead=3), lanes, seed=8) not in answers


def test_the_cost_has_a_bound() -> None:
    drawn: list[float] = []
    chance = random.Random(1)

    def unit() -> float:
        drawn.append(chance.random())
        return drawn[-1]

    history = jobs(lambda number: [("scan", "machines", 0, number)] * 10, count=MAX_JOBS)
    lanes = {"machines": LaneNow(workers=1, work_ms=[MINUTE] * 10)}
    standing = queued("scan", "machines", ahead=10**9)
    assert forecast(history, standing, lanes, now_ms=NOW, random_unit=unit) is not None
    assert len(drawn) <= MAX_REPLAYS * 9 + 10


def test_a_history_is_of_the_newest_jobs_and_thins_out_long_ones() -> None:
    many = [straight_job(("scan", "m", 0, SEC), finished_at_ms=number) for number in range(MAX_JOBS + 50)]
    assert [job.finished_at_ms for job in newest(many[::-1])] == list(range(50, MAX_JOBS + 50))
    tasks = [("first", "m", 0, SEC), *[("item", "m", SEC, SEC)] * 1000, ("last", "m", 0, SEC)]
    long_job = straight_job(*tasks)
    (kept,) = newest([long_job])
    assert len(kept.visits) == MAX_VISITS_OF_A_JOB
    assert [visit.activity for visit in kept.visits[:3]] == ["first", "item", "item"]
    assert kept.visits[-1] == long_job.visits[-1]
    assert kept.visits[1] == long_job.visits[1]
    assert kept.length_ms == long_job.length_ms
    assert len(newest([long_job] * MAX_JOBS)) == MAX_VISITS // MAX_VISITS_OF_A_JOB


spans = st.integers(0, 1000)


@st.composite
def branched_jobs(draw: st.DrawFn) -> PastJob:
    """Return a job whose visits are queued at any end of an earlier one (or a little later), in any overlap."""
    visits: list[Visit] = []
    for number in range(draw(st.integers(0, 12))):
        ends = [0, *[visit.ended_ms for visit in visits]]
        queued_ms = draw(st.sampled_from(ends)) + draw(st.sampled_from([0, 0, 7]))
        wait_ms, work_ms = draw(st.one_of(st.just((0, 0)), st.tuples(spans, spans)))
        activity = draw(st.sampled_from("abc"))
        visits.append(Visit(activity, f"lane{number}", queued_ms, queued_ms + wait_ms + work_ms, wait_ms, work_ms))
    length_ms = max([visit.ended_ms for visit in visits], default=0) + draw(spans)
    return PastJob(NOW, length_ms, tuple(sorted(visits, key=lambda visit: visit.ended_ms)))


@given(job=branched_jobs())
def test_from_wherever_a_job_stood_its_way_leads_to_its_end(job: PastJob) -> None:
    for place in History([job]).places:
        at_ms = 0 if place.visit is None else place.visit.ended_ms
        at_ms += place.gap_ms
        assert place.gap_ms >= 0
        assert all(leg.visit is not place.visit for leg in place.legs[place.next_leg :])
        for number, leg in enumerate(place.legs[place.next_leg :]):
            at_ms += leg.gap_ms if number else 0
            assert leg.gap_ms >= 0
            assert leg.visit.queued_ms == at_ms
            at_ms += leg.visit.wait_ms + leg.visit.work_ms
        assert at_ms + (place.tail_ms if place.next_leg < len(place.legs) else 0) == job.length_ms


@given(job=branched_jobs(), seed=st.integers(0, 9))
def test_a_job_that_goes_as_all_others_did_ends_when_they_did(job: PastJob, seed: int) -> None:
    history = History([replace(job, finished_at_ms=NOW + number) for number in range(MIN_JOBS)])
    rounds: dict[str, int] = {}
    for visit in job.visits:
        rounds[visit.activity] = rounds.get(visit.activity, 0) + 1
        standing = queued(visit.activity, visit.lane, round=rounds[visit.activity])
        found = known(foretell(history, standing, seed=seed))
        assert found.low_ms == found.high_ms == NOW + job.length_ms - visit.queued_ms


@given(
    waits=st.lists(st.tuples(spans, spans), min_size=MIN_JOBS, max_size=60),
    ahead=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    workers=st.integers(1, 20),
    kind=st.sampled_from(LaneKind),
    elapsed=spans,
)
def test_more_tasks_ahead_never_end_it_sooner_and_more_workers_never_later(
    waits: list[tuple[int, int]], ahead: tuple[int, int], workers: int, kind: LaneKind, elapsed: int
) -> None:
    history = jobs(lambda number: [("scan", "here", *waits[number])], count=len(waits))
    lane = LaneNow(kind, workers=workers, wait_ms=[5, 1, 9], work_ms=[500] * 7)

    def ends(its_lane: LaneNow, before: int) -> Forecast | None:
        standing = queued("scan", "here", ahead=before, since_ms=NOW - elapsed)
        return foretell(history, standing, {"here": its_lane})

    found = ends(lane, ahead[0])
    longer, sooner = ends(lane, sum(ahead)), ends(replace(lane, workers=workers + 1), ahead[0])
    assert (found is None) == (longer is None) == (sooner is None)
    if found is not None and longer is not None and sooner is not None:
        assert found.low_ms >= NOW
        assert found.low_ms <= longer.low_ms
        assert found.high_ms <= longer.high_ms
        assert sooner.low_ms <= found.low_ms
        assert sooner.high_ms <= found.high_ms


@given(
    weighted=st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0.01, 1.0)), min_size=1, max_size=50),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=5).map(sorted),
)
def test_percentiles_are_in_order_and_inside_what_was_seen(
    weighted: list[tuple[float, float]], shares: list[float]
) -> None:
    found = percentiles(weighted, shares)
    assert found == sorted(found)
    values = [value for value, _ in weighted]
    assert min(values) <= found[0]
    assert found[-1] <= max(values)


def test_of_n_values_the_ith_has_the_next_below_it_with_a_chance_of_i_in_n_and_one() -> None:
    weighted = [(float(value), 0.3) for value in range(9, 0, -1)]
    assert percentiles(weighted, [0.05, 0.1, 0.2, 0.25, 0.8, 0.95, 0.99]) == pytest.approx([1, 1, 2, 2.5, 8, 9, 9])
    assert percentiles([(4.0, 1.0)], [0.2, 0.8]) == [4.0, 4.0]


def test_a_range_out_of_few_values_has_the_next_in_it_as_often_as_it_says() -> None:
    chance = random.Random(4)
    inside = 0
    for _ in range(4000):
        *seen, truth = (chance.lognormvariate(0, 2) for _ in range(MIN_JOBS + 1))
        low, high = percentiles([(value, 1.0) for value in seen], [0.2, 0.8])
        inside += low <= truth <= high
    assert 0.58 < inside / 4000 < 0.62


@pytest.mark.parametrize(
    ("span_ms", "words"),
    [
        (-5, "under a minute"),
        (59_999, "under a minute"),
        (MINUTE, "1 minute"),
        (MINUTE + 1, "2 minutes"),
        (11 * MINUTE, "15 minutes"),
        (60 * MINUTE, "60 minutes"),
        (61 * MINUTE, "2 hours"),
        (36 * HOUR, "36 hours"),
        (37 * HOUR, "2 days"),
        (int(4.2 * DAY), "5 days"),
        (15 * DAY, "3 weeks"),
        (85 * DAY, "3 months"),
        (3 * 360 * DAY, "3 years"),
    ],
)
def test_a_time_in_words_is_never_less_than_it_is(span_ms: int, words: str) -> None:
    assert rounded_up(span_ms) == words


@given(span_ms=st.integers(0, 10_000 * DAY), more_ms=st.integers(0, 100 * DAY))
def test_a_longer_time_has_no_shorter_words(span_ms: int, more_ms: int) -> None:
    units = {"minute": MINUTE, "hour": HOUR, "day": DAY, "week": 7 * DAY, "month": 30 * DAY, "year": 360 * DAY}

    def meant_ms(words: str) -> int:
        if words == "under a minute":
            return MINUTE
        count, name = words.split()
        return int(count) * units[name.rstrip("s")]

    assert span_ms <= meant_ms(rounded_up(span_ms)) <= meant_ms(rounded_up(span_ms + more_ms))


def test_the_label_and_the_method() -> None:
    history = jobs(lambda _: [("print", "plant", HOUR, 4 * DAY)], count=31)
    found = known(foretell(history, queued("print", "plant", ahead=1)))
    assert label("Printing", found, now_ms=NOW) == "Printing — ETA 5 days"
    lane = LaneNow(LaneKind.VENDOR, workers=2, hours=OfficeHours())
    assert method(found, lane) == (
        "20th to 80th percentile from 31 finished jobs of this plan that were at print for as long, 1 task ahead and "
        "2 workers seen in its lane, the lane's hours; newer jobs count more."
    )
    machines = LaneNow(workers=1, work_ms=[1] * 5)
    assert method(found, machines).startswith(
        "20th to 80th percentile from 31 finished jobs of this plan that were at print, 1 task ahead and 1 worker seen"
    )
    between = replace(found, standing=Standing(Phase.BETWEEN, "print", None, NOW), likeness=Likeness.TIME)
    assert method(between, None) == (
        "20th to 80th percentile from 31 finished jobs of this plan that were at any activity for as long (too few "
        "were at the wait after print); newer jobs count more."
    )
    assert "were at their start for" in method(replace(found, standing=Standing(Phase.BETWEEN, None, None, NOW)), None)


def test_a_place_tells_the_first_visit_from_the_start() -> None:
    (start, first) = History([straight_job(("scan", "m", SEC, SEC))]).places
    assert start == Place(0, None, 1, 0, first.legs, 0, 0)
    assert (first.round, first.gap_ms, first.next_leg) == (1, 0, 1)
