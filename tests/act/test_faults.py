"""The disk, the file and our own code fail: nothing acknowledged is lost, nothing is half done, and it recovers.

Each point of failure is tried twice: failed and not persisted, and failed but persisted anyway (the answer was lost).
Either way the sender posts the same batch again, and afterwards the ledger is as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy import event as hook
from structlog.testing import capture_logs

from act import writer as writer_module
from act.ledger import append
from act.storage.store import Store
from act.storage.tables import BLOCK_EVENTS
from hmskit import prepared
from tests.act.support import (
    Act,
    check_ledger,
    event,
    passing_error,
    plain_job,
    run,
    running,
    sqlite_error,
    sqlite_file,
    wrapped,
)
from tests.databases import sqlite_only

QUIET_SEC = 60.0
"""Between looks for what others appended, so long that no look of the service's own meets a fault meant for a call."""
FIRST = [*plain_job("JOB-1"), *plain_job("JOB-2")]
SECOND = [FIRST[4], *plain_job("JOB-3"), event("JOB-2", 6, entity="job", status="erased")]


@contextmanager
def failing_commit(engine: Engine, *, persisted: bool, error: Exception | None = None) -> Iterator[None]:
    """Fail the next commit, before or after the database has done it."""
    dialect = engine.dialect
    real = dialect.do_commit

    def fail(connection: Any) -> None:
        dialect.do_commit = real  # type: ignore[method-assign]
        if persisted:
            real(connection)
        raise error or passing_error(engine)

    dialect.do_commit = fail  # type: ignore[method-assign,assignment]
    yield
    assert dialect.do_commit is real, "the fault never came"


@contextmanager
def failing_statement(
    engine: Engine, starts_with: str, *, persisted: bool, error: Exception | None = None
) -> Iterator[None]:
    """Fail the next statement of that kind, before or after the database has run it."""
    came = False

    def fail(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        nonlocal came
        if statement.startswith(starts_with) and not came:
            came = True
            raise wrapped(error or passing_error(engine))

    run_prepared = prepared._run

    def run_or_fail(connection: Connection, sql: str, *rest: Any, **named: Any) -> Any:
        if connection.engine is not engine:  # the service's own looks at the same moment are none of its business
            return run_prepared(connection, sql, *rest, **named)
        if not persisted:
            fail(connection, None, sql)
        rows = run_prepared(connection, sql, *rest, **named)
        if persisted:
            fail(connection, None, sql)
        return rows

    name = "after_cursor_execute" if persisted else "before_cursor_execute"
    hook.listen(engine, name, fail)
    # What runs on the driver's cursor passes by SQLAlchemy's events.
    prepared._run = run_or_fail
    try:
        yield
    finally:
        prepared._run = run_prepared
        hook.remove(engine, name, fail)
    assert came, "the fault never came"


# PostgreSQL's driver sends BEGIN with the first statement, which takes the lock.
BEGINS = {"sqlite": "BEGIN", "postgresql": "SELECT append_lock"}
Fault = Callable[[Engine, bool], Any]
FAULTS: dict[str, Fault] = {
    "begin": lambda engine, persisted: failing_statement(engine, BEGINS[engine.dialect.name], persisted=persisted),
    "size": lambda engine, persisted: failing_statement(engine, "SELECT max", persisted=persisted),
    "heads": lambda engine, persisted: failing_statement(engine, "SELECT heads", persisted=persisted),
    "kept": lambda engine, persisted: failing_statement(engine, "SELECT events", persisted=persisted),
    "events": lambda engine, persisted: failing_statement(engine, "INSERT INTO events", persisted=persisted),
    "new heads": lambda engine, persisted: failing_statement(engine, "INSERT INTO heads", persisted=persisted),
    "moved heads": lambda engine, persisted: failing_statement(engine, "UPDATE heads", persisted=persisted),
    "commit": lambda engine, persisted: failing_commit(engine, persisted=persisted),
}


@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "persisted-anyway"])
@pytest.mark.parametrize("point", FAULTS)
def test_a_fault_at_any_point_is_a_503_and_posting_again_sets_it_right(url: str, point: str, persisted: bool) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            receipts = (await act.append(*FIRST))["results"]
            with FAULTS[point](act.store.writer, persisted):
                answer = await act.post(*SECOND)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            known = "Whether it was appended is not known" if point == "commit" else "Nothing was appended"
            assert known in answer.json()["detail"]
            is_there = point == "commit" and persisted
            assert check_ledger(act.store) == (FIRST + SECOND[1:] if is_there else FIRST)

            again = await act.append(*SECOND)
            assert (again["accepted"], again["duplicates"]) == ((0, 7) if is_there else (6, 1))
            assert again["size"] == 16
            assert check_ledger(act.store) == FIRST + SECOND[1:]
            # Whatever was answered before, and whatever is answered from now on, is the same receipt.
            assert again["results"][0] == {**receipts[4], "outcome": "duplicate"}
            for batch, results in ((FIRST, receipts), (SECOND, again["results"])):
                once_more = await act.append(*batch)
                assert once_more["results"] == [{**result, "outcome": "duplicate"} for result in results]

    run(scenario())


@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "persisted-anyway"])
def test_a_fault_while_a_block_is_summed_up(url: str, persisted: bool) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            first = [event(f"JOB-{number}", 1) for number in range(BLOCK_EVENTS - 1)]
            for at in range(0, len(first), 400):
                await act.append(*first[at : at + 400])
            last = event("JOB-LAST", 1)
            with failing_statement(act.store.writer, "INSERT INTO blocks", persisted=persisted):
                assert (await act.post(last)).status_code == 503
            assert check_ledger(act.store) == first
            await act.append(last)
            assert check_ledger(act.store) == [*first, last]

    run(scenario())


@sqlite_only
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (sqlite3.SQLITE_FULL, "disk is full"),
        (sqlite3.SQLITE_BUSY, "lock"),
        (sqlite3.SQLITE_IOERR_FSYNC, "disk answers with errors"),
        (sqlite3.SQLITE_READONLY, "cannot be written"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
    ],
)
def test_the_answer_says_what_is_wrong(url: str, code: int, says: str) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            with failing_commit(act.store.writer, persisted=False, error=sqlite_error(code)):
                answer = await act.post(*FIRST)
            assert answer.status_code == 503
            assert says in answer.json()["detail"]
            await act.append(*FIRST)

    run(scenario())


def test_all_that_shared_the_failed_commit_are_told_so(url: str) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            with failing_commit(act.store.writer, persisted=False):
                answers = await asyncio.gather(*(act.post(*plain_job(f"JOB-{number}")) for number in range(30)))
            failed = [answer for answer in answers if answer.status_code != 200]
            assert failed
            assert {answer.status_code for answer in failed} == {503}
            assert len(check_ledger(act.store)) == 5 * (30 - len(failed))

    run(scenario())


def test_a_bad_batch_of_a_group_fails_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours, in one batch only: the others of its commit are taken, and the thread goes on."""

    def sometimes(tx: Any, batches: Any, *, now_us: int) -> Any:
        outcomes = append(tx, batches, now_us=now_us)
        if any(posted.stream == "JOB-13" for batch in batches for posted in batch):
            raise RuntimeError("a fault of ours")
        return outcomes

    monkeypatch.setattr("act.ledger.append", sometimes)

    async def scenario() -> None:
        async with running(url, raises=False) as act:
            answers = await asyncio.gather(*(act.post(*plain_job(f"JOB-{number}")) for number in range(30)))
            assert [answer.status_code for answer in answers] == [500 if number == 13 else 200 for number in range(30)]
            assert answers[13].json()["code"] == "internal-error"
            assert "a fault of ours" not in answers[13].text
            assert len(check_ledger(act.store)) == 29 * 5
            await act.append(*plain_job("JOB-99"))

    with capture_logs() as logs:
        run(scenario())
    assert any(entry["event"] == "unexpected_error" for entry in logs)


@sqlite_only
@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
def test_a_file_that_is_gone_takes_nothing_more(url: str, how: str, tmp_path: Path) -> None:
    """Its commits would succeed, and nobody would ever read them again."""

    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            await act.append(*FIRST)
            path = sqlite_file(act.store.writer)
            if how == "deleted":
                path.unlink()
            elif how == "moved":
                path.rename(tmp_path / "elsewhere.db")
            else:
                other = tmp_path / "other.db"
                other.write_bytes(path.read_bytes())
                other.replace(path)
            answer = await act.post(*SECOND)
            assert answer.status_code == 503
            assert "deleted or replaced" in answer.json()["detail"]
            ready = await act.http.get("/readyz")
            assert ready.status_code == 503
            assert "deleted or replaced" in ready.json()["detail"]
            assert (await act.http.get("/healthz")).status_code == 200
            assert how != "deleted" or not path.exists(), "a new, empty ledger would look like a healthy one"

    run(scenario())


@sqlite_only
def test_a_file_that_goes_while_no_connection_is_open_is_not_made_anew(url: str) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            await act.append(*FIRST)
            with failing_commit(act.store.writer, persisted=False):
                assert (await act.post(*SECOND)).status_code == 503
            path = sqlite_file(act.store.writer)
            path.unlink()
            assert (await act.post(*SECOND)).status_code == 503
            assert not path.exists()

    run(scenario())


def test_a_rollback_that_fails_too_does_not_stop_what_comes_later(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            await act.append(*FIRST)

            def fail(_connection: object) -> None:
                raise passing_error(act.store.writer)

            with monkeypatch.context() as patch, failing_commit(act.store.writer, persisted=False):
                patch.setattr(act.store.writer.dialect, "do_rollback", fail)
                assert (await act.post(*SECOND)).status_code == 503
            await act.append(*SECOND)
            assert check_ledger(act.store) == FIRST + SECOND[1:]

    run(scenario())


def test_after_a_fault_the_next_batch_gets_a_new_connection(url: str) -> None:
    """After a failed sync nobody knows what the old one still believes to be on disk."""

    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            opened: list[object] = []
            hook.listen(act.store.writer, "connect", lambda connection, _: opened.append(connection))
            await act.append(*FIRST)
            assert not opened
            with failing_commit(act.store.writer, persisted=False):
                assert (await act.post(*SECOND)).status_code == 503
            await act.append(*SECOND)
            assert len(opened) == 1

    run(scenario())


@sqlite_only
def test_a_full_database_refuses_and_goes_on_when_there_is_room(url: str) -> None:
    """SQLite's own limit stands for the disk's: the same error, at the same places."""
    limit_pages: list[int] = []

    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:

            @hook.listens_for(act.store.writer, "begin")
            def limit(connection: Any) -> None:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {limit_pages[0] if limit_pages else 2**30}")

            await act.append(*FIRST)
            with act.store.reader.begin() as tx:
                pages_now: int = tx.exec_driver_sql("PRAGMA page_count").scalar_one()
            limit_pages.append(pages_now + 3)
            taken: list[bytes] = list(FIRST)
            answers: list[httpx.Response] = []
            for number in range(10, 60):
                raws = [event(f"JOB-{number}", seq, detail={"x": "y" * 500}) for seq in range(1, 4)]
                answers.append(await act.post(*raws))
                taken += raws if answers[-1].status_code == 200 else []
            assert {answer.status_code for answer in answers} == {200, 503}
            assert "disk is full" in answers[-1].json()["detail"]
            assert check_ledger(act.store) == taken
            assert len(await act.rows("limit=1000")) == len(taken), "reading goes on"

            limit_pages.clear()
            await act.append(*SECOND)
            assert check_ledger(act.store) == taken + SECOND[1:]

    run(scenario())


@sqlite_only
def test_another_programs_lock_is_waited_out_and_then_a_503(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmskit.sqlite.BUSY_TIMEOUT_MS", 50)

    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            await act.append(*FIRST)
            other = sqlite3.connect(sqlite_file(act.store.writer), isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            answer = await act.post(*SECOND)
            assert answer.status_code == 503
            assert "lock" in answer.json()["detail"]
            assert len(await act.rows()) == len(FIRST)
            other.execute("ROLLBACK")
            other.close()
            await act.append(*SECOND)
            assert check_ledger(act.store) == FIRST + SECOND[1:]

    run(scenario())


def test_reads_that_fail_are_a_503(url: str) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            await act.append(*FIRST)
            for path in ("/stream", "/stream?job=JOB-1", "/stream?view=latest", "/jobs/JOB-1", "/readyz"):
                with failing_statement(act.store.reader, "SELECT", persisted=False):
                    answer = await act.http.get(path)
                assert answer.status_code == 503, path
                assert answer.headers["content-type"] == "application/problem+json"
            assert (await act.http.get("/readyz")).status_code == 200

    run(scenario())


def test_a_clock_that_runs_backwards_changes_no_order(url: str) -> None:
    ticks = iter(range(2 * 10**15, 0, -(10**12)))

    async def scenario() -> None:
        async with running(url, clock=lambda: next(ticks)) as act:
            for raw in FIRST:
                await act.append(raw)
            assert check_ledger(act.store) == FIRST
            received = [row["received_at"] for row in await act.rows()]
            assert received == sorted(received, reverse=True)

    run(scenario())


@sqlite_only
def test_durable_before_the_answer(store: Store) -> None:
    """The writing connection syncs at every commit; without it a power cut loses what was acknowledged."""
    with store.writer.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def test_p5_the_answer_comes_after_the_commit(url: str) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            dialect = act.store.writer.dialect
            real, held = dialect.do_commit, asyncio.Event()
            loop = asyncio.get_running_loop()
            go_on = os.pipe()

            def hold(connection: Any) -> None:
                loop.call_soon_threadsafe(held.set)
                os.read(go_on[0], 1)
                real(connection)

            dialect.do_commit = hold  # type: ignore[method-assign,assignment]
            try:
                post = asyncio.create_task(act.post(*FIRST))
                await asyncio.wait_for(held.wait(), 10)
                await _settle(act)
                assert not post.done(), "answered before the commit"
                assert act.ledger.size == 0
            finally:
                dialect.do_commit = real  # type: ignore[method-assign]
                os.write(go_on[1], b"x")
            assert (await post).status_code == 200
            for end in go_on:
                os.close(end)

    run(scenario())


async def _settle(act: Act) -> None:
    """Let everything that can happen, happen: other requests go through meanwhile."""
    for _ in range(5):
        assert (await act.http.get("/healthz")).status_code == 200


def test_a_group_has_an_end(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(writer_module, "MAX_GROUP_EVENTS", 10)
    groups: list[int] = []

    def measured(tx: Any, batches: Any, *, now_us: int) -> Any:
        groups.append(sum(len(batch) for batch in batches))
        return append(tx, batches, now_us=now_us)

    monkeypatch.setattr("act.ledger.append", measured)

    async def scenario() -> None:
        async with running(url, poll_sec=QUIET_SEC) as act:
            await asyncio.gather(*(act.append(*plain_job(f"JOB-{number}")) for number in range(20)))
            assert len(check_ledger(act.store)) == 100

    run(scenario())
    assert sum(groups) == 100
    assert max(groups) == 10
