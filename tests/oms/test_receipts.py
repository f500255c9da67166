"""What OMS holds against the ledger: how a job stands at its last event, and ACT's receipt for each event."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from sqlalchemy import event as hook

from act.contract import Receipt
from oms.domain.errors import InvalidInputError, NotFoundError
from oms.sequencer.deliver import Delivered, Rewind, deliver, rewind_streams
from oms.sequencer.purge import Purge, purge
from oms.sequencer.receipts import receipts_view
from oms.storage.outbox import pending_events
from oms.storage.store import Store
from tests.oms.api_client import Client, serving
from tests.oms.support import Clock, Site, Tower, event_rows


def receipts(store: Store, job_id: str, limit: int = 1000, cursor: str | None = None) -> dict[str, object]:
    with store.reading() as connection:
        return receipts_view(connection, job_id, limit=limit, cursor=cursor)


def acknowledge(tower: Tower, count: int, *, first: int = 40) -> None:
    """Let ACT have the next events, at the ledger's indexes from ``first`` on."""
    with tower.store.reading() as connection:
        waiting = pending_events(connection, limit=count)
    given = [
        (event, Receipt(f"{event.stream}.{event.seq}", first + place, "appended", f"{place + 1:064x}"))
        for place, event in enumerate(waiting)
    ]
    tower.run(deliver, Delivered(given))


def test_it_shows_the_job_and_each_events_receipt(tower: Tower, store: Store) -> None:
    tower.start("renewal", "T-1", {"name": "not for auditors"})
    tower.pull_one("extract")
    acknowledge(tower, 2)
    bodies = [row.body for row in event_rows(store)]
    assert receipts(store, "JOB-1") == {
        "job_id": "JOB-1",
        "state": "running",
        "seq": 3,
        "tasks": [
            {"task_id": "TASK-1", "activity": "extract", "lane": "extract", "status": "running", "attempt": 1},
        ],
        "items": [
            {
                "event_id": f"JOB-1.{seq}",
                "event_sha256": hashlib.sha256(bodies[seq - 1]).hexdigest(),
                "delivered": seq < 3,
                "index": 39 + seq if seq < 3 else None,
                "leaf_hash": f"{seq:064x}" if seq < 3 else None,
            }
            for seq in (1, 2, 3)
        ],
        "next_cursor": None,
    }


def test_what_is_sent_again_keeps_its_receipt(tower: Tower, store: Store) -> None:
    tower.start("single", "T-1")
    acknowledge(tower, 2)
    tower.run(rewind_streams, Rewind("JOB-1", 2))
    items = receipts(store, "JOB-1")["items"]
    assert [(item["delivered"], item["index"]) for item in items] == [(True, 40), (False, 41)]  # type: ignore[attr-defined]


def test_pages_follow_each_other_without_a_gap(tower: Tower, store: Store) -> None:
    tower.start("renewal", "T-1")
    tower.start("renewal", "T-2")
    for _ in range(2):
        tower.release(tower.pull_one("extract"))
    found: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = receipts(store, "JOB-1", limit=2, cursor=cursor)
        found += [item["event_id"] for item in page["items"]]  # type: ignore[attr-defined]
        cursor = page["next_cursor"]  # type: ignore[assignment]
        if cursor is None:
            break
    assert found == [f"JOB-1.{seq}" for seq in range(1, 7)]


def test_all_of_it_is_one_moment(tower: Tower, store: Store) -> None:
    """A job that moves while it is read would not add up."""
    tower.start("single", "T-1")
    moved = False

    def move(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal moved
        if not moved and "FROM tasks" in statement:  # the job is read
            moved = True
            tower.pull_one("only")

    engine = store._database.reader
    hook.listen(engine, "before_cursor_execute", move)
    view = receipts(store, "JOB-1")
    hook.remove(engine, "before_cursor_execute", move)
    assert moved
    assert (view["seq"], view["state"]) == (2, "queued")
    assert [task["status"] for task in view["tasks"]] == ["queued"]  # type: ignore[attr-defined]
    assert len(view["items"]) == 2  # type: ignore[arg-type]
    assert receipts(store, "JOB-1")["seq"] == 3


@pytest.mark.parametrize("name", ["JOB-2", "JOB-01", "TASK-1", "LANE-only", ""])
def test_an_unknown_job_is_not_found(tower: Tower, store: Store, name: str) -> None:
    tower.start("single", "T-1")
    with pytest.raises(NotFoundError):
        receipts(store, name)


def test_a_cursor_of_somewhere_else_is_refused(tower: Tower, store: Store) -> None:
    tower.start("single", "T-1")
    with pytest.raises(InvalidInputError, match="next_cursor"):
        receipts(store, "JOB-1", cursor="x")


def test_they_are_kept_for_as_long_as_the_job(tower: Tower, store: Store, clock: Clock) -> None:
    tower.start("single", "T-1")
    tower.complete(tower.pull_one("only"))
    acknowledge(tower, 100)
    clock.advance(10)
    tower.run(purge, Purge(keep_ms=20_000))
    assert len(receipts(store, "JOB-1")["items"]) == 5  # type: ignore[arg-type]
    clock.advance(20)
    tower.run(purge, Purge(keep_ms=20_000))
    with pytest.raises(NotFoundError):
        receipts(store, "JOB-1")


@pytest.fixture
def oms(site: Site) -> Iterator[Client]:
    with serving(site) as client:
        yield client


def test_the_call(oms: Client) -> None:
    oms.start(plan="single")
    first = oms.get("/jobs/JOB-1/receipts", limit=1)
    assert [item["event_id"] for item in first["items"]] == ["JOB-1.1"]
    second = oms.get("/jobs/JOB-1/receipts", cursor=first["next_cursor"])
    assert [item["event_id"] for item in second["items"]] == ["JOB-1.2"]
    assert oms.http.get("/jobs/JOB-9/receipts").status_code == 404
    assert oms.http.get("/jobs/JOB-1/receipts?limit=0").status_code == 422
