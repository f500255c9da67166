"""Learning what jobs and tasks take, and telling when a job will be done, on both kinds of database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update
from structlog.testing import capture_logs

from act.contract import format_time_ms
from oms.domain.errors import ConflictError, UnavailableError
from oms.domain.eta import MIN_JOBS
from oms.domain.eta_history import MAX_JOBS, PastJob, Visit
from oms.domain.task import Task
from oms.sequencer import estimates as estimates_module
from oms.sequencer import learn as learn_module
from oms.sequencer.complete import Complete, complete
from oms.sequencer.estimates import Estimates, Kept
from oms.sequencer.learn import KEEP_MS, OVERLAP_MS, Completed, Lessons, learn, learn_for_ever, learn_once
from oms.sequencer.pull import LeasedTask
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.signal import Signal, signal
from oms.sequencer.start import Start, start
from oms.sequencer.views import job_view
from oms.sequencer.wishes import TaskAnswer
from oms.storage.experience import MAX_SAMPLES, Samples, Way, add_samples, add_ways, samples_of, tasks_ahead, ways_of
from oms.storage.store import open_store
from oms.storage.tables import durations, lane_controls, tasks, ways
from oms.storage.tasks import task_of_row
from tests.database import Database
from tests.databases import postgres_only
from tests.oms.support import LIMIT_SEC, Clock, Site, Tower, in_loop, running, steps_of, tidy, until, working

SEC, MINUTE, HOUR = 1_000, 60_000, 3_600_000
PRINTING: dict[str, Any] = {
    "id": "printing",
    "lanes": ["extract", {"id": "plant", "kind": "vendor", "title": "Printing"}],
    "sequence": ["extract", {"activity": "print", "lane": "plant"}],
}


@pytest.fixture
def plant(tower: Tower) -> Tower:
    tower.put_plan(PRINTING)
    return tower


def run_jobs(tower: Tower, count: int, *, prefix: str = "P") -> list[TaskAnswer]:
    """Run jobs to their ends: 10 s in a queue and a minute of work, an hour in the plant's queue and a day of work."""
    answers = []
    tower.run(start, *(Start("printing", f"{prefix}-{number}", {}, 0) for number in range(count)))
    for lane, wait_sec, work_sec in (("extract", 10, 60), ("plant", 3600, 86_400)):
        tower.clock.advance(wait_sec)
        leased = tower.pull(lane, count)
        assert len(leased) == count
        tower.clock.advance(work_sec)
        answers += done(tower, leased)
    return answers


def done(tower: Tower, leased: Sequence[LeasedTask]) -> list[TaskAnswer]:
    answers = tower.run(complete, *(Complete(task.task_id, {}, task.token) for task in leased))
    assert all(isinstance(answer, TaskAnswer) for answer in answers)
    return [answer for answer in answers if isinstance(answer, TaskAnswer)]


def learned(tower: Tower, answers: Sequence[TaskAnswer] = (), *, since_ms: int = 0) -> int:
    """Run a round of learning; return from when the next would go on."""

    async def run() -> int:
        completed = Completed()
        completed.add(answers)
        async with working(tower) as writer:
            return await learn_once(tower.store, writer, completed, since_ms=since_ms)

    return asyncio.run(run())


def estimates_of(tower: Tower) -> Estimates:
    return Estimates(tower.store.dialect, tower.store.plans)


def eta(tower: Tower, job_id: str, estimates: Estimates | None = None) -> dict[str, Any] | None:
    known = estimates or estimates_of(tower)
    with tower.store.reading() as connection:
        found: dict[str, Any] | None = job_view(connection, job_id, eta=known.at(tower.clock()))["eta"]
    return found


def at(clock: Clock, sec: float) -> str:
    return format_time_ms(clock() + round(sec * 1000))


def test_below_thirty_finished_jobs_nothing_is_said(plant: Tower) -> None:
    learned(plant, run_jobs(plant, MIN_JOBS - 1))
    job_id = plant.start("printing", "mine").job_id
    assert eta(plant, job_id) is None
    assert eta(plant, plant.start("single", "other").job_id) is None


def test_a_job_is_told_when_it_will_be_done_at_each_of_its_places(plant: Tower, clock: Clock) -> None:
    learned(plant, run_jobs(plant, MIN_JOBS))
    job_id = plant.start("printing", "mine").job_id
    known = estimates_of(plant)
    whole_sec = 10 + 60 + 3600 + 86_400
    assert eta(plant, job_id, known) == {
        "low": at(clock, whole_sec),
        "high": at(clock, whole_sec),
        "label": "extract — ETA 26 hours",
        "method": "20th to 80th percentile from 30 finished jobs of this plan that were at extract for as long, "
        "0 tasks ahead and 0 workers seen in its lane; newer jobs count more.",
        "as_of": at(clock, 0),
    }
    clock.advance(4)
    task = plant.pull_one("extract")
    clock.advance(20)
    running_now = eta(plant, job_id, known)
    assert running_now is not None
    assert running_now["high"] == at(clock, 40 + 3600 + 86_400)
    plant.complete(task)
    clock.advance(1800)
    in_the_plant = eta(plant, job_id, known)
    assert in_the_plant is not None
    assert (in_the_plant["low"], in_the_plant["label"]) == (at(clock, 1800 + 86_400), "Printing — ETA 25 hours")
    plant.complete(plant.pull_one("plant"))
    assert eta(plant, job_id, known) is None  # it is done


def test_the_tasks_ahead_and_the_workers_seen_count(plant: Tower, clock: Clock) -> None:
    learned(plant, run_jobs(plant, MIN_JOBS))
    plant.run(start, *(Start("printing", f"before-{number}", {}, 0) for number in range(60)))
    job_id = plant.start("printing", "mine").job_id
    with plant.transaction() as tx:
        tx.seen_workers += [("extract", f"w{number}", clock()) for number in range(3)]
        tx.seen_workers += [("extract", "gone", clock() - 3_600_000)]
    found = eta(plant, job_id)
    assert found is not None
    assert "60 tasks ahead and 3 workers seen" in found["method"]
    # Three work off twenty minutes each; then it is picked up as soon as the others were.
    assert found["low"] == found["high"] == at(clock, 20 * 60 + 10 + 60 + 3600 + 86_400)


def test_a_rerouted_task_takes_what_is_taken_in_its_new_lane(plant: Tower, clock: Clock) -> None:
    learned(plant, run_jobs(plant, MIN_JOBS))
    for number in range(10):
        plant.start("printing", f"by-hand-{number}")
        leased = plant.pull_one("extract")
        plant.release(leased)
        plant.run(reroute, Reroute(leased.task_id, "by hand"))
        clock.advance(7200)
        task = plant.pull_one("by hand")
        clock.advance(600)
        learned(plant, done(plant, [task]))
    job_id = plant.start("printing", "mine").job_id
    (task_id,) = [task["task_id"] for task in plant.job(job_id)["tasks"]]
    plant.run(reroute, Reroute(task_id, "by hand"))
    found = eta(plant, job_id)
    assert found is not None
    assert found["low"] == found["high"] == at(clock, 7200 + 600 + 3600 + 86_400)
    assert "in whatever lane" in found["method"]


def test_the_lanes_hours_count(tower: Tower, clock: Clock) -> None:
    tower.put_plan(
        {
            "id": "printing",
            "timezone": "America/New_York",
            "lanes": ["extract", {"id": "plant", "kind": "human", "open": "Mon-Fri 08:00-17:00"}],
            "sequence": ["extract", {"activity": "print", "lane": "plant"}],
        }
    )

    def new_york(text: str) -> int:
        return round(datetime.fromisoformat(f"{text}-05:00").timestamp() * 1000)

    tower.run(start, *(Start("printing", f"P-{number}", {}, 0) for number in range(MIN_JOBS)))
    answers = []
    # Half an hour in the clerks' queue, of that a quarter in the evening; an hour of work.
    for lane, begin, end in (
        ("extract", "2025-11-24T16:45", "2025-11-24T16:45"),
        ("plant", "2025-11-25T08:15", "2025-11-25T09:15"),
    ):
        clock.now_ms = new_york(begin)
        tower.sweep()  # which moves on what the evening left
        leased = tower.pull(lane, MIN_JOBS)
        clock.now_ms = new_york(end)
        answers += done(tower, leased)
    learned(tower, answers)
    with tower.store.reading() as connection:
        assert samples_of(connection, "printing")["plant"] == Samples([HOUR // 2] * MIN_JOBS, [HOUR] * MIN_JOBS)
    clock.now_ms = new_york("2025-11-28T16:00")  # a Friday
    job_id = tower.start("printing", "mine").job_id
    tower.complete(tower.pull_one("extract"))
    found = eta(tower, job_id)
    assert found is not None
    assert found["low"] == found["high"] == format_time_ms(new_york("2025-12-01T08:30"))
    assert "the lane's hours" in found["method"]


def test_a_job_that_is_held_is_told_nothing(plant: Tower) -> None:
    learned(plant, run_jobs(plant, MIN_JOBS))
    job_id = plant.start("printing", "mine").job_id
    elsewhere = {"lane": "plant", "paused_at": 1, "seq": 1}
    with plant.transaction() as tx:
        tx.connection.execute(insert(lane_controls), [elsewhere])
    assert eta(plant, job_id) is not None
    with plant.transaction() as tx:
        tx.connection.execute(insert(lane_controls), [{**elsewhere, "lane": "extract"}])
    assert eta(plant, job_id) is None
    with plant.transaction() as tx:
        tx.connection.execute(update(lane_controls).values(paused_at=None))
    assert eta(plant, job_id) is not None
    plant.fail(plant.pull_one("extract"), retryable=False)
    assert eta(plant, job_id) is None


def test_learning_goes_on_where_it_was_and_learns_nothing_twice(plant: Tower, clock: Clock) -> None:
    answers = run_jobs(plant, 4)
    since_ms = learned(plant, answers)
    assert since_ms == clock() - OVERLAP_MS
    run_jobs(plant, 2, prefix="Q")
    clock.advance(3600)
    assert learned(plant, since_ms=since_ms) == clock() - 3_600_000 - OVERLAP_MS
    learned(plant, since_ms=0)
    with plant.store.reading() as connection:
        assert len(ways_of(connection, "printing")) == 6
        (way, *_) = ways_of(connection, "printing")
        samples = samples_of(connection, "printing")
    day = 86_400 * SEC
    visits = (
        Visit("extract", "extract", 0, 70 * SEC, 10 * SEC, MINUTE),
        Visit("print", "plant", 70 * SEC, 70 * SEC + HOUR + day, HOUR, day),
    )
    assert way == PastJob(clock() - HOUR, 70 * SEC + HOUR + day, visits)
    # Only the first ones were completed here.
    assert samples == {"extract": Samples([10 * SEC] * 4, [MINUTE] * 4), "plant": Samples([HOUR] * 4, [day] * 4)}


def test_attempts_that_failed_are_a_part_of_the_wait(plant: Tower, clock: Clock) -> None:
    plant.start("printing", "twice")
    clock.advance(5)
    plant.fail(plant.pull_one("extract"))
    clock.advance(100)
    plant.sweep()
    task = plant.pull_one("extract")
    clock.advance(7)
    done(plant, [task])
    last = plant.pull_one("plant")
    done(plant, [last])
    learned(plant)
    with plant.store.reading() as connection:
        (way,) = ways_of(connection, "printing")
    assert way.visits[0] == Visit("extract", "extract", 0, 112 * SEC, 105 * SEC, 7 * SEC)


def test_what_an_older_release_did_has_no_times_and_teaches_nothing(plant: Tower) -> None:
    answers = run_jobs(plant, 2)
    with plant.transaction() as tx:
        tx.connection.execute(update(tasks).where(tasks.c.job_id == 1).values(started_at=None, ended_at=None))
    learned(plant, answers)
    with plant.store.reading() as connection:
        assert len(ways_of(connection, "printing")) == 1
        assert samples_of(connection, "printing")["plant"].work_ms == [86_400 * SEC]


def test_only_jobs_that_are_done_teach(plant: Tower) -> None:
    plant.start("printing", "fails")
    plant.fail(plant.pull_one("extract"), retryable=False)
    learned(plant)
    with plant.store.reading() as connection:
        assert ways_of(connection, "printing") == []


def test_a_plan_that_floods_leaves_room_for_the_others(plant: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.start("single", "rare")
    done(plant, plant.pull("only"))
    run_jobs(plant, 8)

    def counts() -> list[int]:
        learned(plant)
        with plant.store.reading() as connection:
            return [len(ways_of(connection, plan)) for plan in ("printing", "single")]

    monkeypatch.setattr(learn_module, "MAX_JOBS", 3)
    assert counts() == [2, 1]
    assert counts() == [5, 1]
    monkeypatch.setattr(learn_module, "MAX_EVENTS", 10)  # a job has eight
    assert counts() == [6, 1]
    monkeypatch.setattr(learn_module, "MAX_OF_A_PLAN", 0)
    assert counts() == [6, 1]


def past(number: int, activity: str = "scan") -> PastJob:
    return PastJob(number, 5, (Visit(activity, "é", 0, 5, 2, 3),))


def test_ways_and_samples_are_bounded_and_age(tower: Tower) -> None:
    with tower.transaction() as tx:
        add_ways(tx, [Way(number, "many", past(number)) for number in range(1, MAX_JOBS + 21)])
        add_ways(tx, [Way(9_999, "other", past(5))])
        for number in range(3):
            add_samples(tx, {("many", "scan", "é"): Samples([number] * 90, [number] * 90)})
    with tower.store.reading() as connection:
        kept = ways_of(connection, "many")
        assert [job.finished_at_ms for job in kept] == list(range(MAX_JOBS + 20, 20, -1))
        assert connection.execute(select(func.count()).select_from(ways)).scalar_one() == MAX_JOBS + 1
        waits = samples_of(connection, "many")["é"].wait_ms
        assert waits == [0] * 20 + [1] * 90 + [2] * 90
        assert len(waits) == MAX_SAMPLES
        assert connection.execute(select(durations.c.samples)).scalar_one() == 270
    added_at = tower.clock()
    tower.clock.advance((KEEP_MS - 1) / 1000)
    tower.run(learn, Lessons(ways=[Way(10_000, "many", past(added_at))], forget=True))
    with tower.store.reading() as connection:
        assert len(ways_of(connection, "many")) == 1
        assert samples_of(connection, "many")
    tower.clock.advance(0.001)
    tower.run(learn, Lessons(forget=True))
    with tower.store.reading() as connection:
        assert ways_of(connection, "many") == []
        assert samples_of(connection, "many") == {}


@postgres_only
def test_towers_add_up_and_do_not_wait_for_each_other(oms_database: Database, clock: Clock) -> None:
    first, second = (Tower(open_store(oms_database.url), clock) for _ in range(2))
    try:
        place = ("many", "scan", "é")
        first.run(learn, Lessons({place: Samples([1], [1])}, [Way(1, "many", past(7))]))
        second.run(learn, Lessons({place: Samples([2], [2])}, [Way(1, "many", past(3)), Way(2, "many", past(2))]))
        with first.transaction() as tx:
            add_samples(tx, {place: Samples([3], [3])})
            second.run(learn, Lessons({place: Samples([4], [4])}))  # lost: it is not worth a wait
        with first.store.reading() as connection:
            assert samples_of(connection, "many")["é"].work_ms == [1, 2, 3]
            assert [job.finished_at_ms for job in ways_of(connection, "many")] == [7, 2]
    finally:
        first.store.close()
        second.store.close()


def test_what_is_noted_of_completed_tasks_is_bounded_and_told_once() -> None:
    completed = Completed()
    failed = ConflictError("no")
    completed.add([TaskAnswer("TASK-1", "done", "JOB-1", "done"), failed, TaskAnswer("TASK-2", "queued", "JOB-1", "x")])
    assert completed.take() == [1]
    completed.add([TaskAnswer("TASK-1", "done", "JOB-1", "done"), TaskAnswer("TASK-3", "done", "JOB-1", "done")])
    assert completed.take() == [3]
    assert completed.take() == []
    for number in range(1, 10_000, 2):
        completed.add([TaskAnswer(f"TASK-{number + more}", "done", "JOB-1", "done") for more in (0, 1)])
    taken = completed.take()
    assert len(taken) == learn_module.MAX_NOTED
    assert taken[:2] == [9_999, 10_000]
    assert completed.take() == []


@in_loop
async def test_learning_outlives_what_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[bool] = []
    faults: list[Exception] = [UnavailableError("The database is away."), RuntimeError("a fault of ours")]

    async def learn_badly(*_args: object, since_ms: int, forget: bool) -> int:
        rounds.append(forget)
        if faults:
            raise faults.pop()
        await asyncio.sleep(0)
        return since_ms

    monkeypatch.setattr(learn_module, "learn_once", learn_badly)
    nothing: Any = None
    with capture_logs() as logs:
        task = asyncio.create_task(
            learn_for_ever(nothing, nothing, Completed(), now_ms=lambda: 10**12, interval_sec=0.001)
        )
        await until(lambda: len(rounds) > 4, what="more rounds")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [entry["event"] for entry in logs] == ["learning_failed"]
    assert rounds[:4] == [True, True, True, False]  # what was to be forgotten, is tried again


def test_a_history_is_read_again_only_when_a_job_was_added(plant: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(estimates_module, "MAX_PLANS_KEPT", 2)
    marks = {"a": 1, "b": 1, "c": 1}
    kept = Kept(lambda _connection, plan: marks[plan], lambda _connection, plan: read.append(plan) or plan)  # type: ignore[func-returns-value]
    with plant.store.reading() as connection:
        for plan in ("a", "a", "b", "a", "c", "a", "b"):
            assert kept.of(connection, plan) == plan
        assert read == ["a", "b", "c", "b"]
        marks["b"] = 2
        kept.of(connection, "b")
        assert read[-2:] == ["b", "b"]
    learned(plant, run_jobs(plant, MIN_JOBS))
    job_id = plant.start("printing", "mine").job_id
    known = estimates_of(plant)
    first = eta(plant, job_id, known)
    learned(plant, run_jobs_past(plant, job_id))
    second = eta(plant, plant.start("printing", "mine, too").job_id, known)
    assert first is not None
    assert second is not None
    assert ("30 finished jobs" in first["method"], "32 finished jobs" in second["method"]) == (True, True)


def run_jobs_past(tower: Tower, waiting: str) -> list[TaskAnswer]:
    """Run two more jobs that overtake the one that waits."""
    tower.run(start, *(Start("printing", f"Q-{number}", {}, 5) for number in range(2)))
    answers = []
    for lane in ("extract", "plant"):
        tower.clock.advance(60)
        leased = tower.pull(lane, 2)
        assert all(task.job_id != waiting for task in leased)
        answers += done(tower, leased)
    return answers


def queued(tower: Tower, lane: str) -> list[Task]:
    with tower.store.reading() as connection:
        rows = connection.execute(select(tasks).where(tasks.c.lane == lane, tasks.c.status == "queued"))
        return [task_of_row(row) for row in rows]


def test_tasks_ahead_are_those_that_a_pull_gives_first(plant: Tower, clock: Clock) -> None:
    chance = random.Random(6)
    for number in range(40):
        plant.start("single", f"T-{number}", priority=chance.randrange(3))
        plant.start("printing", f"O-{number}", priority=9)
        clock.advance(chance.choice([0, 0, 1]))
    with plant.store.reading() as connection:
        ahead = {task.name: tasks_ahead(connection, task) for task in queued(plant, "only")}
    assert ahead == {task.task_id: place for place, task in enumerate(plant.pull("only", 100))}


def test_of_a_batch_those_that_were_there_first_are_ahead(plant: Tower, clock: Clock) -> None:
    plant.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(6)))
    plant.start("printing", "elsewhere")
    waiting = tasks.c.task_id != 3
    with plant.transaction() as tx:
        tx.connection.execute(update(tasks).where(waiting).values(ready=False, available_at=clock() + HOUR))
        tx.connection.execute(update(tasks).where(tasks.c.task_id == 1).values(available_at=clock() + 2 * HOUR))
    with plant.store.reading() as connection:
        assert [tasks_ahead(connection, task) for task in sorted(queued(plant, "only"), key=_number)] == [
            0,
            0,
            0,
            1,
            2,
            3,
        ]


def test_a_batch_with_a_limit_is_waited_for_until_it_comes_and_gives_what_is_first_in_its_order(
    plant: Tower, clock: Clock
) -> None:
    nightly = {"id": "plant", "kind": "vendor", "batch": {"at": "03:00", "max": 2}}
    plant.put_plan({**PRINTING, "id": "nightly", "lanes": [PRINTING["lanes"][0], nightly]})
    answers: list[TaskAnswer] = []
    for night in range(MIN_JOBS // 2):
        plant.run(start, *(Start("nightly", f"N-{night}-{number}", {}, 0) for number in range(2)))
        answers += done(plant, plant.pull("extract", 2))
        clock.advance(86_400)
        answers += done(plant, plant.pull("plant", 2))
    learned(plant, answers)
    plant.run(start, *(Start("nightly", f"mine-{number}", {}, number % 2) for number in range(4)))
    done(plant, leased := plant.pull("extract", 4))
    with plant.store.reading() as connection:
        ahead = {task.job_id: tasks_ahead(connection, task) for task in queued(plant, "plant")}
    assert [ahead[int(task.job_id.removeprefix("JOB-"))] for task in leased] == [0, 1, 2, 3]
    found = [eta(plant, task.job_id) for task in leased]
    assert all(one is not None for one in found)
    assert [one["high"] for one in found if one is not None] == [at(clock, days * 86_400) for days in (1, 1, 2, 2)]


def _number(task: Task) -> int:
    return task.task_id


def test_to_count_those_ahead_costs_the_same_whatever_is_behind(plant: Tower) -> None:
    def cost() -> int:
        tidy(plant.store)
        first = min(queued(plant, "only"), key=_number)
        with plant.store.reading() as connection:
            tasks_ahead(connection, first)  # prepared
            return steps_of(connection, lambda: tasks_ahead(connection, first))

    plant.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(100)))
    few = cost()
    plant.run(start, *(Start("single", f"U-{number}", {}, 0) for number in range(2_000)))
    assert cost() <= few * 1.5 + 10


@in_loop
async def test_the_service_learns_and_tells(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn_module, "LEARN_EVERY_SEC", 0.01)
    clock = Clock()
    async with running(site, plans=[PRINTING], clock=clock) as service:
        await service.post("/start", [{"plan": "printing", "reference": f"T-{number}"} for number in range(MIN_JOBS)])
        for lane in ("extract", "plant"):
            clock.advance(60)
            leased = await service.get("/pull", lane=lane, max=100)
            clock.advance(600)
            await service.post("/complete", [{"task_id": task["task_id"], "token": task["token"]} for task in leased])
        job_id = (await service.post("/start", {"plan": "printing", "reference": "mine"}))["job_id"]

        found = None
        for _ in range(round(LIMIT_SEC / 0.01)):
            if (found := (await service.get(f"/jobs/{job_id}"))["eta"]) is not None:
                break
            await asyncio.sleep(0.01)
        assert found is not None
        assert found["low"] == found["high"] == at(clock, 2 * 660)
        assert found["label"] == "extract — ETA 25 minutes"
        with service.store.reading() as connection:
            assert samples_of(connection, "printing")["extract"].work_ms == [600 * SEC] * MIN_JOBS


ASKING: dict[str, Any] = {
    "id": "asking",
    "lanes": ["desk"],
    "sequence": [
        {"activity": "ask", "lane": "desk"},
        {"wait": {"signal": "answered"}},
        {"parallel": {"fee": [{"activity": "charge", "lane": "desk"}], "file": [{"activity": "file", "lane": "desk"}]}},
    ],
}


def test_a_job_in_blocks_is_told_too(tower: Tower, clock: Clock) -> None:
    tower.put_plan(ASKING)
    jobs = [tower.start("asking", f"T-{number}").job_id for number in range(MIN_JOBS)]

    def ask() -> None:
        clock.advance(60)
        done(tower, tower.pull("desk", 100))

    ask()
    clock.advance(2 * 86_400)
    for job_id in jobs:
        tower.one(signal, Signal(job_id, "answered", {}))
    leased = sorted(tower.pull("desk", 100), key=lambda task: task.activity)
    assert len(leased) == 2 * MIN_JOBS
    for activity, hours in (("charge", 1), ("file", 5)):
        clock.advance(hours * 3600)
        done(tower, [task for task in leased if task.activity == activity])
    learned(tower)
    mine = tower.start("asking", "mine").job_id
    ask()
    clock.advance(86_400)
    waiting = eta(tower, mine)
    assert waiting is not None
    assert waiting["low"] == waiting["high"] == at(clock, 86_400 + 6 * 3600)
    assert waiting["label"] == "Waiting — ETA 30 hours"
    assert "that were at the wait after ask for as long" in waiting["method"]
    tower.one(signal, Signal(mine, "answered", {}))
    branched = eta(tower, mine)
    assert branched is not None
    assert (branched["low"], branched["label"]) == (at(clock, 6 * 3600), "charge — ETA 6 hours")
    first = min(tower.pull("desk", 2), key=lambda task: task.activity)
    done(tower, [first])
    alone = eta(tower, mine)
    assert alone is not None
    assert alone["label"] == "file — ETA 6 hours"
    assert "at file for as long" in alone["method"]
