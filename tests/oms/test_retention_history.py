"""After any history, what has left had ended, was old and was told in full; what is kept fits together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from act.contract import Receipt
from oms.domain.errors import OmsError
from oms.domain.task import FINISHED, JobState
from oms.sequencer import purge as purge_module
from oms.sequencer.complete import Complete, complete
from oms.sequencer.deliver import Delivered, ResumeStreams, Rewind, StopStream, deliver, resume, rewind_streams
from oms.sequencer.deliver import stop_streams as stop
from oms.sequencer.fail import Fail, fail
from oms.sequencer.purge import Forget, Place, Purge, forget, purge
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.retry import Retry, retry
from oms.sequencer.start import Start, start
from oms.storage.outbox import pending_events, stopped
from oms.storage.retention import FinishedJob
from oms.storage.store import open_store
from oms.storage.tables import jobs, outbox
from tests.database import Kind
from tests.databases import Databases
from tests.oms.retained import faults_of
from tests.oms.support import Clock, Tower

KEEP_MS = 10_000
PLAN: dict[str, Any] = {
    "id": "short",
    "lanes": ["a", "b"],
    "sequence": ["a", {"activity": "b", "when": "input.long"}],
    "retry_policy": {"attempts": 2, "backoff_sec": 0},
}

numbers = st.integers(1, 6)
steps = st.one_of(
    st.tuples(st.just("start"), numbers, st.booleans()),
    st.tuples(st.just("work"), st.sampled_from("abc"), st.sampled_from(["done", "done", "failed", "hopeless", "kept"])),
    st.tuples(st.just("work"), st.sampled_from("aab"), st.just("done")),
    st.tuples(st.just("retry"), numbers),
    st.tuples(st.just("reroute"), numbers, st.sampled_from("abc")),
    st.tuples(st.just("tell"), st.sampled_from([1, 3, 100, 100])),
    st.tuples(st.just("stop"), numbers),
    st.tuples(st.just("resume")),
    st.tuples(st.just("rewind"), numbers, st.integers(1, 6)),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 4, 10, 20])),
    st.tuples(st.just("purge")),
    st.tuples(st.just("purge")),
    st.tuples(st.just("together"), numbers),
    st.tuples(st.just("forget")),
)


class History:
    """OMS and what ACT has of it."""

    def __init__(self, tower: Tower) -> None:
        self.tower = tower
        self.got: dict[str, int] = {}
        self.left: set[str] = set()

    def do(self, step: Sequence[Any]) -> None:
        """Do a step; check what is true after each, and of the jobs that left in it."""
        before = self.facts()
        getattr(self, step[0])(*step[1:])
        after = self.facts()
        gone = before.keys() - after.keys()
        assert not gone or step[0] in ("purge", "together")
        for name in gone:
            state, updated_at, seq, undelivered, is_stopped = before[name]
            assert state in FINISHED, name
            assert updated_at <= self.tower.clock() - KEEP_MS, name
            assert self.got[name] == seq, f"{name}: ACT has {self.got[name]} of {seq} events"
            assert not undelivered, name
            assert not is_stopped, name
        assert not self.left & after.keys(), "a number came again"
        self.left |= gone
        with self.tower.store.reading() as connection:
            assert faults_of(connection) == []

    def facts(self) -> dict[str, tuple[str, int, int, bool, bool]]:
        """Return of each job its state, last change, number of events, and whether ACT lacks one or refuses it."""
        with self.tower.store.reading() as connection:
            undelivered = set(connection.execute(select(outbox.c.stream).where(~outbox.c.delivered)).scalars())
            refused = {stream.stream for stream in stopped(connection)}
            return {
                name: (JobState(row.state), row.updated_at, row.seq, name in undelivered, name in refused)
                for row in connection.execute(select(jobs))
                for name in [f"JOB-{row.job_id}"]
            }

    def start(self, number: int, is_long: bool) -> None:
        self.tower.run(start, Start("short", f"T-{number}", {"long": is_long}, 0))

    def work(self, lane: str, how: str) -> None:
        for task in self.tower.pull(lane, limit=2):
            if how == "done":
                self.tower.run(complete, Complete(task.task_id, {}, task.token))
            elif how != "kept":
                self.tower.run(fail, Fail(task.task_id, "error", "", retryable=how == "failed", token=task.token))

    def retry(self, number: int) -> None:
        self.tower.run(retry, Retry(f"TASK-{number}"))

    def reroute(self, number: int, lane: str) -> None:
        self.tower.run(reroute, Reroute(task_id=f"TASK-{number}", new_lane=lane))

    def tell(self, limit: int) -> None:
        with self.tower.store.reading() as connection:
            events = pending_events(connection, limit=limit)
        for event in events:
            last = self.got.get(event.stream, 0)
            assert event.seq <= last + 1, f"{event.stream}: {event.seq} follows {last}"
            self.got[event.stream] = max(last, event.seq)
        receipts = [Receipt(id="x", index=event.id, outcome="appended", leaf_hash="00" * 32) for event in events]
        self.tower.run(deliver, Delivered(list(zip(events, receipts, strict=True))))

    def stop(self, number: int) -> None:
        if f"JOB-{number}" in self.facts():
            self.tower.run(stop, StopStream(f"JOB-{number}", f"JOB-{number}.1", "fork", ""))

    def resume(self) -> None:
        self.tower.run(resume, ResumeStreams())

    def rewind(self, number: int, seq: int) -> None:
        self.tower.run(rewind_streams, Rewind(f"JOB-{number}", seq))

    def wait(self, sec: float) -> None:
        self.tower.clock.advance(sec)

    def purge(self) -> None:
        place: Place | None = Place()
        while place is not None:
            (purged,) = self.tower.run(purge, Purge(KEEP_MS, after=place))
            place = purged.more

    def together(self, number: int) -> None:
        """All of these come in one transaction, as they may through the writer."""
        with self.tower.transaction() as tx:
            answers: list[Any] = [
                *retry(tx, [Retry(f"TASK-{number}")]),
                *purge(tx, [Purge(KEEP_MS)]),
                *reroute(tx, [Reroute(task_id=f"TASK-{number + 1}", new_lane="a")]),
                *start(tx, [Start("short", f"T-{number}", {"long": True}, 0)]),
                *forget(tx, [Forget()]),
                *purge(tx, [Purge(KEEP_MS)]),
            ]
        assert all(isinstance(answer, OmsError) or answer for answer in answers)

    def forget(self) -> None:
        self.tower.run(forget, Forget())


def run_history(databases: Databases, kind: Kind, history: Sequence[Sequence[Any]]) -> set[str]:
    """Do the steps on a fresh database; return which jobs left."""
    with databases.lend(kind, "oms") as database:
        store = open_store(database.url, writers=1)
        try:
            tower = Tower(store, Clock())
            tower.put_plan(PLAN)
            oms = History(tower)
            for step in history:
                oms.do(step)
            return oms.left
        finally:
            store.close()


@given(history=st.lists(steps, min_size=10, max_size=50))
@settings(
    max_examples=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
def test_after_any_history_and_purge_what_is_kept_fits_together(
    databases: Databases, database_kind: Kind, history: list[tuple[Any, ...]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(purge_module, "BATCH_JOBS", 2)
        run_history(databases, database_kind, history)


USUAL: list[tuple[Any, ...]] = [
    ("start", 1, False),
    ("start", 2, False),
    ("start", 3, True),
    ("work", "a", "done"),
    ("work", "a", "hopeless"),
    ("tell", 100),
    ("wait", 20),
]


def test_a_usual_history_has_jobs_that_leave(databases: Databases, database_kind: Kind) -> None:
    assert run_history(databases, database_kind, [*USUAL, ("purge",)]) == {"JOB-1", "JOB-2", "JOB-3"}


@pytest.mark.parametrize("blind", ["to what ACT has", "to the state"])
def test_the_checks_see_a_purge_that_takes_too_much(databases: Databases, database_kind: Kind, blind: str) -> None:
    """The negative control: without one of its own checks the purge is caught."""
    with pytest.MonkeyPatch.context() as patch:
        if blind == "to what ACT has":
            patch.setattr(purge_module, "undelivered_jobs", lambda _tx, _ids: set())
            history = [*USUAL, ("rewind", 1, 2), ("purge",)]
        else:
            patch.setattr(purge_module, "finished_jobs", _all_jobs)
            history = [*USUAL, ("retry", 3), ("tell", 100), ("wait", 20), ("purge",)]
        with pytest.raises(AssertionError):
            run_history(databases, database_kind, history)


def _all_jobs(tx: Any, **_: Any) -> list[FinishedJob]:
    rows = tx.connection.execute(select(jobs.c.job_id, jobs.c.seq)).all()
    return [FinishedJob(0, row.job_id, "done", row.seq) for row in rows]
