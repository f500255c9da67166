"""A job with blocks leaves with every row that is its own, and takes none of another's."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select

from oms.sequencer.purge import Purge, purge
from oms.storage.store import Store
from oms.storage.tables import jobs, metadata, outbox, timers, ways
from tests.oms.support import Clock
from tests.oms.test_retention import hand_over
from tests.oms.walk import Walker, act, plan, walker

KEEP_MS = 1_000
OF_A_JOB = [table for table in metadata.sorted_tables if "job_id" in table.c and table is not ways]
"""All tables with rows of a job, but for `ways`: it tells estimates what the last jobs went through, and no value."""
LETTER = plan(act("write", "c"), id="letter")
EVERY_BLOCK = plan(
    {"parallel": {"x": [act("left")], "y": [act("right", "b")]}},
    {"id": "pages", "for_each": "input.pages", "as": "page", "do": [act("scan", undo=[act("shred", "b")])]},
    {"repeat": [act("draft")], "until": "outputs.draft.ok", "max_rounds": 2},
    {"choose": [{"when": "outputs.draft.ok", "do": [act("file")]}]},
    {"id": "answer", "wait": {"signal": "answered", "timeout_sec": 900, "on_timeout": "continue"}},
    {"id": "letters", "plan": "letter", "input": {}},
    {"id": "later", "wait": {"for_sec": 600}},
    act("end"),
)


@pytest.fixture
def w(store: Store, clock: Clock) -> Walker:
    made = walker(store, clock)
    made.put_plan(LETTER)
    return made


def up_to_the_last_wait(w: Walker, reference: str) -> str:
    """Start a job, and do all up to the wait before its end."""
    w.go(EVERY_BLOCK, {"pages": ["p1", "p2"]}, reference)
    w.signal("answered", {"yes": True}, "S-1")
    for activity, output in (("left", {}), ("right", {}), ("scan", {}), ("scan", {}), ("draft", {"ok": True})):
        w.do(activity, output)
    w.do("file")
    w.do("write", job_id=child_of(w))
    w.settle()
    assert w.job(w.job_id)["blocks"][0]["kind"] == "wait"
    return w.job_id


def child_of(w: Walker) -> str:
    with w.store.reading() as connection:
        parent = int(w.job_id.removeprefix("JOB-"))
        number = connection.execute(select(jobs.c.job_id).where(jobs.c.parent_job == parent)).scalar_one()
    return f"JOB-{number}"


def rows_by_job(store: Store) -> dict[int, dict[str, list[Any]]]:
    """Return all rows of all jobs, by job and table; events, too."""
    found: dict[int, dict[str, list[Any]]] = {}
    with store.reading() as connection:
        for table in OF_A_JOB:
            for row in connection.execute(select(table).order_by(*table.primary_key)):
                found.setdefault(row.job_id, {}).setdefault(table.name, []).append(tuple(row))
        for row in connection.execute(select(outbox).order_by(outbox.c.id)):
            number = int(row.stream.removeprefix("JOB-"))
            found.setdefault(number, {}).setdefault("outbox", []).append(tuple(row))
    return found


def test_a_job_leaves_with_all_its_rows_and_with_no_other_jobs(w: Walker, clock: Clock) -> None:
    first = up_to_the_last_wait(w, "T-1")
    first_child = child_of(w)
    w.later(600)
    assert w.do("end").job_state == "done"
    up_to_the_last_wait(w, "T-2")
    # One that was just being looked at when its wait ended; the sweep would take it.
    stray = {"due_at": clock() + 10**9, "job_id": 1, "path": "4", "kind": "wait"}
    with w.transaction() as tx:
        tx.connection.execute(insert(timers), stray)
    hand_over(w)
    clock.advance(KEEP_MS / 1000)
    before = rows_by_job(w.store)
    assert (first, first_child, sorted(before)) == ("JOB-1", "JOB-2", [1, 2, 3, 4])
    assert before[1].keys() == {*(table.name for table in OF_A_JOB), "outbox"}, "it has something of everything"
    assert before[3].keys() == before[1].keys()

    (purged,) = w.run(purge, Purge(KEEP_MS))
    assert purged.jobs == 3, "both letters are done, too"
    after = rows_by_job(w.store)
    assert after == {3: before[3]}
    w.later(600)
    w.do("end")
    assert w.state() == "done"


def test_a_job_that_was_cancelled_amid_its_blocks_leaves_whole(w: Walker, clock: Clock) -> None:
    up_to_the_last_wait(w, "T-1")
    w.cancel()
    for _ in range(2):
        w.do("shred")
    assert w.state() == "cancelled"
    hand_over(w)
    clock.advance(KEEP_MS / 1000)
    (purged,) = w.run(purge, Purge(KEEP_MS))
    assert (purged.jobs, rows_by_job(w.store)) == (2, {})
