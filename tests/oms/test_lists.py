"""The lists of jobs and tasks: what a filter asks for, every row once, and no page dearer for what lies behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from oms.domain.errors import InvalidInputError
from oms.sequencer.complete import Complete, complete
from oms.sequencer.lists import JobFilter, TaskFilter, jobs_page, tasks_page
from oms.sequencer.start import Start, start
from oms.storage.store import Store, open_store
from tests.database import KINDS
from tests.databases import Databases
from tests.oms.support import CHECKED, RENEWAL, SINGLE, START_MS, Clock, Tower, steps_of, tidy

Page = dict[str, Any]


def job_pages(
    store: Store, wanted: JobFilter, *, limit: int, now_ms: int = 0, between: Callable[[], None] = lambda: None
) -> list[list[str]]:
    """Read all pages of jobs; do something between them."""

    def read(connection: Connection, cursor: str | None) -> Page:
        return jobs_page(connection, wanted, limit=limit, cursor=cursor, now_ms=now_ms)

    return _pages(store, read, "job_id", between)


def task_pages(
    store: Store, wanted: TaskFilter, *, limit: int, now_ms: int = 0, between: Callable[[], None] = lambda: None
) -> list[list[str]]:
    """Read all pages of tasks; do something between them."""

    def read(connection: Connection, cursor: str | None) -> Page:
        return tasks_page(connection, wanted, limit=limit, cursor=cursor, now_ms=now_ms)

    return _pages(store, read, "task_id", between)


def _pages(
    store: Store, read: Callable[[Connection, str | None], Page], key: str, between: Callable[[], None]
) -> list[list[str]]:
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        with store.reading() as connection:
            page = read(connection, cursor)
        pages.append([item[key] for item in page["items"]])
        cursor = page["next_cursor"]
        if cursor is None:
            return pages
        between()


@dataclass
class Town:
    """A town hall on a long day: sixty jobs of three plans, a second apart, in all states. Nobody changes it.

    Attributes:
        store: where it is.
        now_ms: what time it is.
        jobs: all jobs, newest first, each as it is shown.
        tasks: all tasks, oldest first, each as it is shown in the list.
    """

    store: Store
    now_ms: int
    jobs: list[dict[str, Any]]
    tasks: list[dict[str, Any]]

    def age_sec(self, row: dict[str, Any]) -> float:
        return self.now_ms / 1000 - datetime.fromisoformat(row["created_at"]).timestamp()


@pytest.fixture(scope="module", params=KINDS)
def town(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Town]:
    with databases.lend(request.param, "oms") as database:
        store = open_store(database.url)
        tower = fill_town(Tower(store, Clock()))
        yield Town(store, tower.clock(), *_all(tower))
        store.close()


def fill_town(tower: Tower) -> Tower:
    for document in (RENEWAL, CHECKED, SINGLE):
        tower.put_plan(document)
    for number in range(20):
        for plan in ("renewal", "checked", "single"):
            tower.clock.advance(1)
            tower.start(plan, f"T-{number % 10}-{number // 10 if plan != 'single' else number}")
    for lane, count in (("extract", 25), ("only", 12), ("verify", 8)):
        for place, task in enumerate(tower.pull(lane, count)):
            tower.clock.advance(1)
            if place % 4 == 0:
                tower.fail(task, retryable=False)
            elif place % 4 != 1:
                tower.complete(task, {"score": place})
    tower.reroute("TASK-60", "elsewhere")
    return tower


def _all(tower: Tower) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return all jobs, newest first, and all tasks, oldest first, each as it is shown."""
    jobs = [tower.job(f"JOB-{number}") for number in range(60, 0, -1)]
    tasks = [{**task, "reference": job["reference"]} for job in jobs for task in job["tasks"]]
    return jobs, sorted(tasks, key=lambda task: int(task["task_id"].removeprefix("TASK-")))


ages = st.sampled_from([None, None, 0, 1, 30.5, 64, 1e6, 1e10])


@settings(max_examples=60, deadline=None)
@given(
    plan=st.sampled_from([None, "renewal", "single", "nobody_knows"]),
    state=st.sampled_from([None, "queued", "running", "done", "failed", "paused"]),
    reference=st.sampled_from([None, None, "T-1-0", "T-5-1", "T-0"]),
    older_than_sec=ages,
    limit=st.sampled_from([1, 2, 7, 59, 60, 61]),
)
def test_a_filter_of_jobs_gives_the_jobs_that_it_asks_for_newest_first(  # noqa: PLR0917 - Hypothesis names them
    town: Town, plan: str | None, state: str | None, reference: str | None, older_than_sec: float | None, limit: int
) -> None:
    wanted = JobFilter(plan=plan, state=state, reference=reference, older_than_sec=older_than_sec)
    pages = job_pages(town.store, wanted, limit=limit, now_ms=town.now_ms)
    expected = [
        job["job_id"]
        for job in town.jobs
        if plan in (None, job["plan"])
        and state in (None, job["state"])
        and reference in (None, job["reference"])
        and (older_than_sec is None or town.age_sec(job) >= older_than_sec - 1e-6)
    ]
    assert [job_id for page in pages for job_id in page] == expected
    assert all(len(page) == limit for page in pages[:-1])


@settings(max_examples=80, deadline=None)
@given(
    lane=st.sampled_from([None, "extract", "verify", "only", "elsewhere", "nowhere"]),
    status=st.sampled_from([None, "queued", "running", "done", "failed", "cancelled"]),
    job=st.sampled_from([None, None, None, "JOB-1", "JOB-3", "JOB-77", "TASK-1"]),
    plan=st.sampled_from([None, None, "renewal", "single"]),
    reference=st.sampled_from([None, None, "T-1-0", "T-0"]),
    older_than_sec=ages,
    limit=st.sampled_from([1, 3, 50, 1000]),
)
def test_a_filter_of_tasks_gives_the_tasks_that_it_asks_for_oldest_first(  # noqa: PLR0917 - Hypothesis names them
    town: Town,
    lane: str | None,
    status: str | None,
    job: str | None,
    plan: str | None,
    reference: str | None,
    older_than_sec: float | None,
    limit: int,
) -> None:
    wanted = TaskFilter(
        lane=lane, status=status, job=job, plan=plan, reference=reference, older_than_sec=older_than_sec
    )
    pages = task_pages(town.store, wanted, limit=limit, now_ms=town.now_ms)
    expected = [
        task["task_id"]
        for task in town.tasks
        if lane in (None, task["lane"])
        and status in (None, task["status"])
        and job in (None, task["job_id"])
        and plan in (None, task["plan"])
        and reference in (None, task["reference"])
        and (older_than_sec is None or town.age_sec(task) >= older_than_sec - 1e-6)
    ]
    assert [task_id for page in pages for task_id in page] == expected


def test_the_town_has_something_of_everything(town: Town) -> None:
    """The two tests above would agree on empty lists."""
    jobs, tasks = town.jobs, town.tasks
    assert {job["state"] for job in jobs} == {"queued", "running", "done", "failed"}
    assert {task["status"] for task in tasks} == {"queued", "running", "done", "failed"}
    assert {task["lane"] for task in tasks} == {"extract", "verify", "print", "only", "elsewhere"}


# While rows are added.


def test_every_job_that_was_there_comes_once_while_others_are_added(tower: Tower) -> None:
    tower.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(25)))
    added = iter(range(1_000))

    def add() -> None:
        tower.run(start, *(Start("single", f"U-{next(added)}", {}, 0) for _ in range(3)))

    pages = job_pages(tower.store, JobFilter(), limit=4, between=add)
    assert [job_id for page in pages for job_id in page] == [f"JOB-{number}" for number in range(25, 0, -1)]


def test_every_task_comes_once_while_others_are_added_and_taken(tower: Tower) -> None:
    tower.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(25)))
    added = iter(range(12))

    def change() -> None:
        for number in (next(added, None),):
            if number is not None:
                tower.start("single", f"U-{number}")
        for task in tower.pull("only", 2):
            tower.complete(task)

    pages = task_pages(tower.store, TaskFilter(), limit=4, between=change)
    seen = [task_id for page in pages for task_id in page]
    assert seen == [f"TASK-{number}" for number in range(1, len(seen) + 1)]
    assert len(seen) >= 25


def test_who_comes_of_age_between_two_pages_is_not_lost(tower: Tower, clock: Clock) -> None:
    """Jobs are listed newest first, so that what has become old enough since lies before the cursor, or behind it."""
    for number in range(10):
        tower.start("single", f"T-{number}")
        clock.advance(1)
    first = job_pages(tower.store, JobFilter(older_than_sec=3), limit=3, now_ms=clock())
    assert first == [["JOB-8", "JOB-7", "JOB-6"], ["JOB-5", "JOB-4", "JOB-3"], ["JOB-2", "JOB-1"]]


@pytest.mark.parametrize("cursor", ["x", "0", "-1", "1.5", "\u0661", "9" * 30])
def test_a_cursor_that_is_none_of_ours_is_refused(town: Town, cursor: str) -> None:
    with town.store.reading() as connection:
        with pytest.raises(InvalidInputError):
            jobs_page(connection, JobFilter(), limit=5, cursor=cursor, now_ms=0)
        with pytest.raises(InvalidInputError):
            tasks_page(connection, TaskFilter(), limit=5, cursor=cursor, now_ms=0)


# What it costs.


STEPS = {"sqlite": 1_500, "postgresql": 150}
"""What a page of ten may cost."""


@pytest.fixture(scope="module", params=KINDS)
def crowd(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Tower]:
    """Two thousand jobs, most of them done."""
    with databases.lend(request.param, "oms") as database:
        store = open_store(database.url)
        yield fill_crowd(Tower(store, Clock(START_MS)))
        store.close()


def fill_crowd(tower: Tower) -> Tower:
    tower.put_plan(SINGLE)
    for hundred in range(20):
        tower.clock.advance(10)
        tower.run(start, *(Start("single", f"T-{hundred}-{number}", {}, 0) for number in range(100)))
        if hundred < 18:
            tower.run(complete, *(Complete(task.task_id, {}, task.token) for task in tower.pull("only", 99)))
    tidy(tower.store)
    return tower


@pytest.mark.parametrize(
    "wanted",
    [JobFilter(), JobFilter(state="queued"), JobFilter(plan="single"), JobFilter(older_than_sec=100)],
    ids=["all", "a state", "a plan", "old ones"],
)
def test_a_page_of_jobs_costs_the_same_wherever_it_is(crowd: Tower, wanted: JobFilter) -> None:
    def cost(cursor: str | None) -> int:
        with crowd.store.reading() as connection:
            return steps_of(
                connection, lambda: jobs_page(connection, wanted, limit=10, cursor=cursor, now_ms=crowd.clock())
            )

    assert cost("1000") < 2 * cost(None) + STEPS[crowd.store.url.get_backend_name()] / 5


@pytest.mark.parametrize(
    "wanted",
    [TaskFilter(), TaskFilter(lane="only", status="queued"), TaskFilter(status="queued"), TaskFilter(job="JOB-1999")],
    ids=["all", "a lane's queue", "a status", "a job"],
)
def test_a_page_of_tasks_costs_little_whatever_else_there_is(crowd: Tower, wanted: TaskFilter) -> None:
    for cursor in (None, "1850"):
        with crowd.store.reading() as connection:
            cost = steps_of(
                connection,
                lambda cursor=cursor: tasks_page(  # type: ignore[misc]
                    connection, wanted, limit=10, cursor=cursor, now_ms=crowd.clock()
                ),
            )
        assert cost < STEPS[crowd.store.url.get_backend_name()], cursor
