"""Jobs that the release before began, amid their sequences, are worked on by this one.

``rows_of_0002.jsonl`` is what that release left in its tables (schema 0002, before plans had blocks) after ten jobs
were worked on: a line for each row. It is kept as it was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert

from hmskit.migrate import upgrade
from oms.sequencer.complete import Complete, complete
from oms.storage.numbers import set_last_numbers
from oms.storage.store import MIGRATIONS, open_store
from oms.storage.tables import metadata
from tests.database import Database
from tests.databases import NewDatabase
from tests.oms.fold import check_agrees, check_attempts, check_places, fold
from tests.oms.retained import faults_of
from tests.oms.support import START_MS, Clock, Tower, event_rows
from tests.oms.walk import Walker

ROWS = [json.loads(line) for line in (Path(__file__).parent / "rows_of_0002.jsonl").read_text().splitlines()]
JOBS = [f"JOB-{number}" for number in range(1, 11)]
LANES = ("extract", "verify", "print", "only", "elsewhere")
TOKEN_OF_TASK_12 = next(row["token"] for table, row in ROWS if table == "tasks" and row["task_id"] == 12)


def write(database: Database) -> None:
    """Write the rows as that release did: of the columns that are new it knew nothing."""
    engine = create_engine(database.url)
    with engine.begin() as connection:
        for name, row in ROWS:
            values = dict(row)
            for column, made in (("body", str.encode), ("hmac_key", bytes.fromhex)):
                if column in values:
                    values[column] = made(values[column])
            connection.execute(insert(metadata.tables[name]), values)
    engine.dispose()


def before_the_update(new_database: NewDatabase) -> Database:
    database = new_database()
    engine = create_engine(database.url)
    upgrade(engine, MIGRATIONS, to="0002")
    engine.dispose()
    write(database)
    return database


def beside_this_release(new_database: NewDatabase) -> Database:
    database = new_database("oms")
    write(database)
    return database


@pytest.fixture(params=[before_the_update, beside_this_release], ids=lambda made: made.__name__)
def w(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Walker]:
    """A tower of this release on the rows, written before the schema was brought up to date, or after."""
    made: Callable[[NewDatabase], Database] = request.param
    store = open_store(made(new_database).url, writers=1)
    try:
        with store.connect_writer() as connection, connection.begin():
            set_last_numbers(connection, {"job": 10, "task": 14, "event": 56})
        yield Walker(store, Clock(START_MS + 2_000))
    finally:
        store.close()


def check_events(w: Tower) -> None:
    """Check that the events of both releases together keep the rules, and say what the tables say."""
    rows = event_rows(w.store)
    check_places(rows)
    told = fold(row.body for row in rows)
    check_attempts(told)
    check_agrees(told, {name: w.job(name) for name in JOBS})
    with w.store.reading() as connection:
        assert faults_of(connection) == []


def work_off(w: Tower) -> None:
    """Do all that comes up, until nothing does."""
    for _ in range(10):
        for lane in LANES:
            tasks = w.pull(lane, 20)
            w.run(complete, *(Complete(task.task_id, {"score": 1}, task.token) for task in tasks))
        w.clock.advance(30)
        w.sweep()


def statuses(w: Tower, job_id: str) -> list[tuple[str, str, int]]:
    return [(task["activity"], task["status"], task["attempt"]) for task in w.job(job_id)["tasks"]]


def test_it_stands_as_it_stood(w: Walker) -> None:
    assert [w.state(job_id) for job_id in JOBS] == [
        "running", "running", "running", "failed", "running", "queued", "running", "running", "failed", "done",
    ]  # fmt: skip
    assert all(w.job(job_id)["blocks"] == [] for job_id in JOBS)
    lanes = {name: (lane["queued"], lane["running"]) for name, lane in w.lanes().items()}
    assert (lanes["extract"], lanes["verify"], lanes["elsewhere"]) == ((3, 1), (1, 1), (1, 0))
    check_events(w)


def test_every_job_goes_on_to_its_end(w: Walker) -> None:
    w.one(complete, Complete("TASK-12", {"by": "its old token"}, TOKEN_OF_TASK_12))
    w.retry("TASK-4")
    w.reroute("TASK-14", "elsewhere")
    w.reroute("TASK-6", "extract")
    work_off(w)
    assert {job_id: w.state(job_id) for job_id in JOBS} == dict.fromkeys(JOBS, "done")
    assert w.job("JOB-1")["outputs"] == {"extract": {"a": 1}, "verify": {"score": 1}, "print": {"score": 1}}
    assert w.job("JOB-2")["outputs"]["verify"] == {"by": "its old token"}
    renewed = [("verify", "done", 1), ("print", "done", 1)]
    assert statuses(w, "JOB-3") == [("extract", "done", 2), *renewed], "it waited for its next attempt"
    assert statuses(w, "JOB-4") == [("extract", "done", 2), *renewed], "it was retried"
    assert statuses(w, "JOB-5") == [("extract", "done", 2), *renewed], "its lease ran out"
    assert statuses(w, "JOB-8") == [("extract", "done", 1), ("file", "done", 1)], "verify was skipped before"
    assert statuses(w, "JOB-9") == [("extract", "done", 1), ("verify", "done", 2), ("file", "done", 1)]
    check_events(w)


def test_what_that_release_could_not_do_is_done_with_its_jobs_too(w: Walker) -> None:
    w.job_id = "JOB-1"
    w.pause()
    assert w.pull("verify", 10) == []
    w.resume()
    for w.job_id, activity in (("JOB-10", "only"), ("JOB-9", "extract")):
        w.restart(activity)
    w.skip("TASK-4", {"seen": True})
    w.cancel("JOB-2")
    work_off(w)
    assert {job_id: w.state(job_id) for job_id in JOBS} == dict.fromkeys(JOBS, "done") | {"JOB-2": "cancelled"}
    assert statuses(w, "JOB-10") == [("only", "done", 1), ("only", "done", 1)]
    assert w.job("JOB-4")["outputs"]["extract"] == {"seen": True}
    assert [name for name, _, _ in statuses(w, "JOB-9")] == ["extract", "verify", "extract", "verify", "file"]
