"""Expand, then contract: a release's schema works with the release before it, and the other way about."""

from __future__ import annotations

import concurrent.futures

import pytest
from sqlalchemy import create_engine, text

from hmskit.errors import CannotOpenError
from hmskit.migrate import following, upgrade
from oms.sequencer.complete import Complete, complete
from oms.sequencer.pull import Pull, pull
from oms.sequencer.start import Start, Started, start
from oms.sequencer.wishes import TaskAnswer
from oms.storage.store import MIGRATIONS, open_store
from oms.storage.tables import SCHEMA_REVISION
from tests.databases import Databases, NewDatabase
from tests.oms.support import SINGLE, Clock, Tower

# What the first release's code ran, in its own columns.
OLD_INSERT_JOB = (
    "INSERT INTO jobs (job_id, plan, plan_version, reference, state, priority, input, position, seq, hmac_key, error, "
    "created_at, updated_at) VALUES (:n, 'single', 1, :reference, 'running', 0, '{}', 0, 3, NULL, NULL, 1, 1)"
)
OLD_INSERT_TASK = (
    "INSERT INTO tasks (task_id, job_id, position, activity, lane, status, ready, attempt, failures, token, ended_by, "
    "worker, priority, lease_sec, created_at, available_at, lease_expires_at, error, error_type, output_hmac, output, "
    "progress, note) VALUES (:n, :n, 0, 'only', 'only', 'running', true, 1, 0, 'tk', NULL, NULL, 0, 300, 1, 1, 9, "
    "NULL, NULL, NULL, NULL, NULL, NULL)"
)
OLD_INSERT_EVENT = "INSERT INTO outbox (stream, seq, body, created_at, delivered) VALUES (:stream, 1, :body, 1, false)"
OLD_UPDATE_JOB = "UPDATE jobs SET state = 'done', position = 1, seq = 5, error = NULL, updated_at = 7 WHERE job_id = :n"


def run_old_code(url: str, *, number: int) -> None:
    """Start a job, and take it to its end, as the release before did."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(OLD_INSERT_JOB), {"n": number, "reference": f"OLD-{number}"})
        connection.execute(text(OLD_INSERT_TASK), {"n": number})
        connection.execute(text(OLD_INSERT_EVENT), {"stream": f"JOB-{number}", "body": b"{}"})
        connection.execute(text(OLD_UPDATE_JOB), {"n": number})
        assert connection.execute(text("SELECT count(*) FROM jobs WHERE state = 'done'")).scalar_one() == 1
    engine.dispose()


def test_the_release_before_runs_on_the_newest_schema(new_database: NewDatabase) -> None:
    database = new_database("oms")
    run_old_code(database.url, number=900_001)
    store = open_store(database.url, may_migrate=False)
    try:
        tower = Tower(store, Clock())
        tower.put_plan(SINGLE)
        (started,) = tower.run(start, Start("single", "T-1", {}, 0))
        ((task,),) = tower.run(pull, Pull(lane="only", limit=1))
        assert isinstance(started, Started)
        assert task.job_id == started.job_id
        (answer,) = tower.run(complete, Complete(task.task_id, {}, token=task.token))
        assert isinstance(answer, TaskAnswer)
        assert answer.job_state == "done"
    finally:
        store.close()


def test_what_the_first_release_wrote_is_brought_along(new_database: NewDatabase) -> None:
    database = new_database()
    engine = create_engine(database.url)
    upgrade(engine, MIGRATIONS, to="0001")
    engine.dispose()
    run_old_code(database.url, number=1)
    open_store(database.url).close()
    assert database.rows("SELECT state, updated_at, finished_at FROM jobs") == [("done", 7, 7)]
    assert database.rows("SELECT version_num FROM alembic_version") == [(SCHEMA_REVISION,)]


def test_this_code_runs_on_the_next_releases_schema_and_leaves_it_alone(new_database: NewDatabase) -> None:
    database = new_database("oms")
    newer = following(SCHEMA_REVISION)
    database.rows(f"UPDATE alembic_version SET version_num = '{newer}'")
    for may_migrate in (True, False):
        store = open_store(database.url, may_migrate=may_migrate)
        assert store.is_ready() is None
        store.close()
    assert database.rows("SELECT version_num FROM alembic_version") == [(newer,)]
    database.rows("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CannotOpenError, match="newer than this release"):
        open_store(database.url)


def test_towers_that_start_together_bring_the_schema_up_once(databases: Databases) -> None:
    with databases.lend("postgres") as database, concurrent.futures.ThreadPoolExecutor(4) as threads:

        def open_and_close(_number: int) -> str | None:
            store = open_store(database.url)
            try:
                return store.is_ready()
            finally:
                store.close()

        assert list(threads.map(open_and_close, range(4))) == [None] * 4
