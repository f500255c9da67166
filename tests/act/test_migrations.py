"""From release to release: the code before runs on the schema after, and no event is touched on the way."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from act.contract import entry_bytes, leaf_hash
from act.domain.posted import read_posted
from act.ledger import append
from act.storage.store import MIGRATIONS, open_store
from act.storage.tables import SCHEMA_REVISION
from act.writer import Appended
from hmskit.migrate import following, upgrade, works_with
from tests.act.support import array, check_ledger, opened, plain_job
from tests.database import Database
from tests.databases import NewDatabase

# What the code of act_0001 writes and reads: frozen here, as a process of that release still runs it.
COLUMNS = (
    "idx", "received_us", "stream", "seq", "event_id", "ts_ms", "entity", "status", "job_id", "lane", "plan",
    "plan_version", "reference", "task_id", "activity", "attempt", "worker", "actor", "detail", "extra", "leaf_hash",
    "entry",
)  # fmt: skip
ADD_EVENT = f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"
ADD_HEAD = "INSERT INTO heads (stream, seq) VALUES (:stream, :seq)"
MOVE_HEAD = "UPDATE heads SET seq = :seq WHERE stream = :stream"
ADD_BLOCK = """
    INSERT INTO blocks (block, min_ts_ms, max_ts_ms)
    SELECT 0, min(ts_ms), max(ts_ms) FROM events WHERE idx BETWEEN 0 AND 1023
"""
READS = (
    "SELECT max(idx) FROM events",
    "SELECT stream, seq FROM heads WHERE stream IN ('JOB-1', 'JOB-2')",
    "SELECT seq, idx, entry, leaf_hash FROM events WHERE stream = 'JOB-1' AND seq BETWEEN 1 AND 9",
    f"SELECT {', '.join(COLUMNS[:20])} FROM events WHERE stream = 'JOB-1' AND seq > 0 ORDER BY seq LIMIT 1000",
    "SELECT idx FROM events WHERE lane = 'clerk' AND status = 'done' AND idx BETWEEN 0 AND 9 ORDER BY idx LIMIT 9",
    "SELECT min(lane) FROM events WHERE lane > ''",
    "SELECT block FROM blocks WHERE block BETWEEN 0 AND 9 AND max_ts_ms >= 0 AND min_ts_ms > 9 ORDER BY block",
    "SELECT version_num FROM alembic_version",
)


def old_append(tx: Connection, raws: list[bytes], *, idx: int) -> None:
    """Append a new stream's events with the statements of act_0001."""
    for number, event in enumerate(read_posted(array(raws))):
        row: dict[str, Any] = {**event.facts, "received_us": 7, **_bytes_of(event.raw), "idx": idx + number}
        tx.execute(text(ADD_EVENT), row)
        tx.execute(text(ADD_HEAD if event.seq == 1 else MOVE_HEAD), {"stream": event.stream, "seq": event.seq})


def _bytes_of(raw: bytes) -> dict[str, bytes]:
    entry = entry_bytes(7, raw)
    return {"entry": entry, "leaf_hash": leaf_hash(entry)}


def test_the_statements_of_the_release_before_run_on_this_schema(url: str) -> None:
    with opened(url) as store:
        with store.writer.begin() as tx:
            store.lock_appends(tx)
            append(tx, [read_posted(array(plain_job("JOB-1")))], now_us=7)
        with store.writer.begin() as tx:
            old_append(tx, plain_job("JOB-2", lane="clerk"), idx=5)
        assert check_ledger(store) == [*plain_job("JOB-1"), *plain_job("JOB-2", lane="clerk")]
        with store.writer.begin() as tx:
            tx.execute(text(ADD_BLOCK))
            for statement in READS:
                assert tx.execute(text(statement)).all(), statement


def test_a_ledger_of_the_first_release_goes_on_as_it_is(database: Database) -> None:
    engine = create_engine(database.url)
    upgrade(engine, MIGRATIONS, to="act_0001")
    with engine.begin() as tx:
        old_append(tx, plain_job("JOB-1"), idx=0)
    engine.dispose()
    before = database.rows("SELECT * FROM events ORDER BY idx")
    with opened(database.url) as store:
        with store.writer.begin() as tx:
            store.lock_appends(tx)
            (outcome,) = append(tx, [read_posted(array(plain_job("JOB-1") + plain_job("JOB-2")))], now_us=8)
        assert isinstance(outcome, Appended)
        assert [index for index, *_ in outcome.places] == list(range(10))
        assert check_ledger(store) == plain_job("JOB-1") + plain_job("JOB-2")
    assert database.rows("SELECT * FROM events WHERE idx < 5 ORDER BY idx") == before


def test_this_code_runs_on_the_next_releases_schema_and_leaves_it_alone(new_database: NewDatabase) -> None:
    database = new_database("act")
    newer = following(SCHEMA_REVISION)
    database.rows(f"UPDATE alembic_version SET version_num = '{newer}'")
    for migrate in (True, False):
        open_store(database.url, migrate=migrate).close()
    assert database.rows("SELECT version_num FROM alembic_version") == [(newer,)]


@pytest.mark.parametrize(
    ("revision", "works"),
    [("act_0007", True), ("act_0008", True), ("act_0006", False), ("act_0009", False), (None, False)],
)
def test_a_release_works_with_its_own_schema_and_the_next(revision: str | None, works: bool) -> None:
    assert works_with(revision, own="act_0007") is works
    assert following("act_0099") == "act_0100"
