"""`oms copy`: everything arrives, once, from either kind of database to either; whatever is interrupted goes on."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Table, insert, select
from typer.testing import CliRunner

from hmskit import copying, copying_meter
from hmskit.copying import CannotCopyError
from hmskit.errors import CannotOpenError
from oms import copy as copy_module
from oms.cli import cli
from oms.copy import TABLES, run_copy
from oms.sequencer.complete import Complete, complete
from oms.sequencer.deliver import StopStream
from oms.sequencer.deliver import stop_streams as stop
from oms.sequencer.purge import Purge, purge
from oms.sequencer.start import Start, start
from oms.storage.numbers import last_numbers
from oms.storage.store import open_store
from oms.storage.tables import (
    batches,
    blocks,
    branches,
    durations,
    hand_outs,
    jobs,
    lane_controls,
    lane_turns,
    leases,
    metadata,
    outbox,
    schedules,
    sequences,
    signals,
    tasks,
    timers,
    ways,
)
from tests.database import KINDS, Database, Kind, Schema
from tests.databases import Databases
from tests.oms.retained import faults_of
from tests.oms.support import CHECKED, LIMIT_SEC, SINGLE, Clock, Tower
from tests.oms.test_retention import hand_over
from tests.spawner import ROOT, run, spawn

NewOne = Callable[..., Database]
BLOCK = {"job_id": 1, "path": "1", "scope": "", "kind": "parallel", "state": "running", "since": 1}
BRANCH = {"job_id": 1, "path": "1.0", "block": "1", "number": 0, "name": "ä", "scope": "", "state": "running"}
ROWS_OF_BLOCKS: list[tuple[Table, dict[str, Any]]] = [
    (blocks, {**BLOCK, "total": 2, "wanted": 2, "begun": 2, "done": 0, "failed": 0}),
    (branches, {**BRANCH, "position": 0}),
    (signals, {"job_id": 1, "name": "answered", "data": "{}", "created_at": 1}),
    (timers, {"due_at": 2**40, "job_id": 1, "path": "1", "kind": "wait"}),
    (
        schedules,
        {"plan": "single", "number": 0, "cron": "0 6 * * *", "timezone": "UTC", "reference": "R", "next_at": 2**40},
    ),
    (batches, {"lane": "print", "opened_at": 2**40, "taken": 3}),
    (lane_controls, {"lane": "only", "paused_at": 1, "seq": 1}),
    (lane_turns, {"lane": "only"}),
    (hand_outs, {"lane": "only", "at": 1}),
    (
        durations,
        {"plan": "single", "activity": "a", "lane": "a", "wait_ms": "[]", "work_ms": "[]"}
        | {"samples": 0, "updated_at": 1},
    ),
    (ways, {"job_id": 1, "plan": "single", "finished_at": 1, "way": "[]"}),
]
ODD = "Straße №1 \U0001f4ee \u2028 'quoted' %s :name"


@pytest.fixture(params=KINDS)
def source_kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture(params=KINDS)
def target_kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def new(databases: Databases) -> Iterator[NewOne]:
    """Make databases of any kind."""
    with ExitStack() as lent:

        def lend(kind: Kind, migrated_by: Schema | None = None) -> Database:
            return lent.enter_context(databases.lend(kind, migrated_by))

        yield lend


def fill(database: Database, *, count: int = 30) -> None:
    """Make a site with something in every table: jobs in every state, odd characters, a stopped stream."""
    store = open_store(database.url, writers=1)
    tower = Tower(store, Clock())
    tower.put_plan(SINGLE)
    tower.put_plan(CHECKED)
    tower.put_plan({**SINGLE, "retry_policy": {"attempts": 7}})
    tower.run(start, *(Start("single", f"{ODD}-{number}", {"name": ODD}, number % 3) for number in range(count)))
    tower.run(start, *(Start("checked", f"T-{number}", {}, 0) for number in range(count)))
    leased = tower.pull("only", count // 2, worker=ODD)
    tower.run(complete, *(Complete(task.task_id, {"text": ODD, "number": 0.1}, task.token) for task in leased))
    for task in tower.pull("only", 3, worker="w"):
        tower.fail(task, f"{ODD}\n", retryable=False)
    for task in tower.pull("extract", 3, worker="w"):
        tower.complete(task, {"score": 3})
    with tower.transaction() as tx:
        for lane in ("a", "B", "ä", "Z", "_", "é", "e"):  # each database sorts these its own way
            tx.seen_workers.append((lane, "w", 1))
            tx.counts[lane] = [1, 0]
            tx.counts[lane + "-"] = [-1, 0]
        for table, row in ROWS_OF_BLOCKS:
            tx.connection.execute(insert(table), row)
    hand_over(tower, limit=count)
    tower.run(stop, StopStream("JOB-7", "JOB-7.1", "fork", ODD))
    store.close()


def copy(source: Database, target: Database) -> dict[str, copying.Digest]:
    return run_copy(source.url, target.url, Console(file=io.StringIO()))


def contents(database: Database) -> dict[str, Any]:
    """Return every row of every table that is copied, and the numbers."""
    store = open_store(database.url)
    with store.reading() as connection:
        found: dict[str, Any] = {
            table.name: sorted(tuple(row) for row in connection.execute(select(table))) for table in TABLES
        }
        found["numbers"] = last_numbers(connection)
    store.close()
    return found


# Everything arrives.


def test_every_table_is_copied_or_left_on_purpose() -> None:
    assert {*TABLES, sequences, leases} == set(metadata.tables.values())


def test_everything_arrives_and_the_site_goes_on_with_new_numbers(
    new: NewOne, source_kind: Kind, target_kind: Kind
) -> None:
    source, target = new(source_kind, "oms"), new(target_kind)
    fill(source)
    before = contents(source)
    digests = copy(source, target)
    assert contents(target) == before == contents(source)
    assert {name: digest.rows for name, digest in digests.items()} == {name: len(before[name]) for name in digests}
    assert all(digest.rows for digest in digests.values()), "each table had something"

    tower = Tower(open_store(target.url, writers=1), Clock())
    with tower.store.reading() as connection:
        assert not copying.is_unfinished(connection)
    started = tower.start("single", "new")
    assert int(started.job_id.removeprefix("JOB-")) > max(row[0] for row in before["jobs"])
    assert hand_over(tower) > 0
    tower.run(purge, Purge(keep_ms=-1))
    with tower.store.reading() as connection:
        assert max(connection.execute(select(outbox.c.id)).scalars()) > max(row[0] for row in before["outbox"])
        tasks_now = set(connection.execute(select(tasks.c.task_id)).scalars())
    assert max(tasks_now) > max(row[0] for row in before["tasks"])
    tower.store.close()


def test_a_copy_of_a_copy_on_the_other_database_is_the_original(new: NewOne) -> None:
    first, second, third = new("sqlite", "oms"), new("postgres"), new("sqlite")
    fill(first)
    assert copy(first, second) == copy(second, third)
    assert contents(first) == contents(third)


def test_numbers_of_what_has_left_do_not_come_again(new: NewOne, source_kind: Kind, target_kind: Kind) -> None:
    source, target = new(source_kind, "oms"), new(target_kind)
    tower = Tower(open_store(source.url, writers=1), Clock())
    tower.put_plan(SINGLE)
    tower.start("single")
    tower.complete(tower.pull_one("only"))
    hand_over(tower)
    (purged,) = tower.run(purge, Purge(keep_ms=0))
    assert purged.jobs == 1
    tower.store.close()
    copy(source, target)
    tower = Tower(open_store(target.url, writers=1), Clock())
    assert tower.start("single").job_id == "JOB-2"
    with tower.store.reading() as connection:
        assert min(connection.execute(select(outbox.c.id)).scalars()) == 6
    tower.store.close()


def test_a_database_that_sorts_in_a_language_is_copied_and_checked_all_the_same(new: NewOne) -> None:
    source, target, back = new("sqlite", "oms"), new("postgres", "oms"), new("sqlite")
    fill(source)
    languages = target.rows("SELECT collname FROM pg_collation WHERE collprovider = 'i' ORDER BY collname LIMIT 1")
    if not languages:
        pytest.skip("this server knows no languages")
    target.rows(f'ALTER TABLE lane_counts ALTER lane TYPE varchar(100) COLLATE "{languages[0][0]}"')
    target.rows("INSERT INTO lane_counts VALUES ('B', 0, 0, 0), ('a', 0, 0, 0)")
    assert target.rows("SELECT lane FROM lane_counts ORDER BY lane") == [("a",), ("B",)]
    target.rows("DELETE FROM lane_counts")
    assert copy(source, target) == copy(target, back)
    assert contents(back) == contents(source)


def test_an_empty_site_can_be_copied(new: NewOne, source_kind: Kind, target_kind: Kind) -> None:
    source, target = new(source_kind, "oms"), new(target_kind)
    copy(source, target)
    assert contents(target) == contents(source)
    tower = Tower(open_store(target.url, writers=1), Clock())
    tower.put_plan(SINGLE)
    assert tower.start("single").job_id == "JOB-1"
    tower.store.close()


def test_a_text_with_u0000_arrives_without_it(new: NewOne) -> None:
    """SQLite keeps it in an error's message; PostgreSQL has no such character."""
    source, target = new("sqlite", "oms"), new("postgres", "oms")
    fill(source)
    with contextlib.closing(open_store(source.url)) as store, store.connect_writer() as connection, connection.begin():
        connection.execute(jobs.update().where(jobs.c.job_id == 1).values(error="a\0b"))
    copy(source, target)
    assert target.rows("SELECT error FROM jobs WHERE job_id = 1") == [("a\N{REPLACEMENT CHARACTER}b",)]


def test_pages_are_small_in_rows_and_in_bytes(monkeypatch: Any) -> None:
    rows = [(number, "x" * number) for number in range(1, 8)]
    monkeypatch.setattr(copying, "PAGE_ROWS", 3)
    monkeypatch.setattr(copying, "PAGE_BYTES", 11)
    assert [[row[0] for row in page] for page in copying._pages(iter(rows))] == [[1, 2, 3], [4, 5, 6], [7]]
    monkeypatch.setattr(copying, "PAGE_BYTES", 6)
    assert [[row[0] for row in page] for page in copying._pages(iter(rows))] == [[1, 2, 3], [4, 5], [6], [7]]
    assert list(copying._pages(iter([]))) == []


# Interrupted.


class Killed(BaseException):
    """The process is gone."""


def kill_after(pages: int, monkeypatch: Any) -> None:
    """Let the copy end after so many pages, as a kill would end it."""
    advance = copying_meter.CopyMeter.advance
    done: list[None] = []

    def die(meter: Any, rows: int) -> None:
        advance(meter, rows)
        done.append(None)
        if len(done) == pages:
            raise Killed

    monkeypatch.setattr(copying_meter.CopyMeter, "advance", die)


@pytest.mark.parametrize("pages", [1, 12, 30])
def test_a_killed_copy_goes_on_behind_its_last_page(
    new: NewOne, source_kind: Kind, target_kind: Kind, monkeypatch: Any, pages: int
) -> None:
    source, target = new(source_kind, "oms"), new(target_kind, "oms")
    fill(source)
    monkeypatch.setattr(copying, "PAGE_ROWS", 20)
    with monkeypatch.context() as patch:
        kill_after(pages, patch)
        with pytest.raises(Killed):
            copy(source, target)
    store = open_store(target.url)
    with store.reading() as connection:
        assert copying.is_unfinished(connection)
    store.close()
    assert CliRunner().invoke(cli, ["migrate", "--database-url", target.url]).exit_code == 1
    said = io.StringIO()
    run_copy(source.url, target.url, Console(file=said))
    assert "goes on after" in said.getvalue()
    assert contents(target) == contents(source)


def test_a_page_and_its_progress_stand_or_fall_together(
    new: NewOne, source_kind: Kind, target_kind: Kind, monkeypatch: Any
) -> None:
    source, target = new(source_kind, "oms"), new(target_kind, "oms")
    fill(source)
    monkeypatch.setattr(copying, "PAGE_ROWS", 20)
    with monkeypatch.context() as patch:
        side = copy_module._side
        pages: list[None] = []

        def dying_side(store: Any) -> Any:
            made = side(store)

            @contextlib.contextmanager
            def writing() -> Iterator[Any]:
                with made.writing() as connection:
                    yield connection
                    pages.append(None)
                    if len(pages) == 8:
                        raise Killed

            return copying.Side(made.name, made.reading, writing)

        patch.setattr(copy_module, "_side", dying_side)
        with pytest.raises(Killed):
            copy(source, target)
    copy(source, target)
    assert contents(target) == contents(source)


def test_a_copy_survives_sigkill(new: NewOne, target_kind: Kind) -> None:
    source, target = new("sqlite", "oms"), new(target_kind, "oms")
    fill(source, count=2_000)
    arguments = ("oms", "copy", "--from", source.url, "--to", target.url)
    with Path(os.devnull).open("wb") as nowhere:
        process = spawn(*arguments, cwd=ROOT, env=os.environ, stdout=nowhere, stderr=nowhere)
    ends = time.monotonic() + LIMIT_SEC
    while not target.count("tasks"):
        assert time.monotonic() < ends, "the copy did not come to the tasks"
        assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    again = run(*arguments, cwd=ROOT, env=os.environ, limit_sec=60)
    assert again.returncode == 0, again.stderr
    assert b"goes on after" in again.stderr
    assert b"checked outbox" in again.stderr
    assert contents(target) == contents(source)


# Refused.


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_a_copy_that_differs_is_found_and_stays_unfinished(
    new: NewOne, source_kind: Kind, target_kind: Kind, monkeypatch: Any, change: str
) -> None:
    source, target = new(source_kind, "oms"), new(target_kind, "oms")
    fill(source)
    statements = {
        "more": "INSERT INTO workers (lane, worker, last_seen) VALUES ('x', 'y', 1)",
        "less": "DELETE FROM outbox WHERE id = 3",
        "other": "UPDATE tasks SET progress = 0.25 WHERE task_id = 2",
    }
    say = copying_meter.CopyMeter.say

    def tamper(meter: Any, line: str) -> None:
        say(meter, line)
        if line.startswith("copied lane_counts"):
            store = target if source.kind == "sqlite" else source
            store.rows(statements[change])

    with monkeypatch.context() as patch:
        patch.setattr(copying_meter.CopyMeter, "say", tamper)
        with pytest.raises(CannotCopyError, match=r"table \w+ differs: .* start again"):
            copy(source, target)
    store = open_store(target.url)
    with store.reading() as connection:
        assert copying.is_unfinished(connection)
    store.close()


def test_a_target_that_holds_something_is_refused(new: NewOne, source_kind: Kind, target_kind: Kind) -> None:
    source, target = new(source_kind, "oms"), new(target_kind, "oms")
    fill(source)
    store = open_store(target.url)
    Tower(store, Clock()).put_plan(SINGLE)
    store.close()
    with pytest.raises(CannotCopyError, match="not empty"):
        copy(source, target)
    assert target.count("jobs") == 0


def test_a_complete_copy_is_not_copied_to_again(new: NewOne, target_kind: Kind) -> None:
    source, target = new("sqlite", "oms"), new(target_kind, "oms")
    fill(source)
    copy(source, target)
    with pytest.raises(CannotCopyError, match="not empty"):
        copy(source, target)


def test_a_target_that_gave_numbers_is_refused(new: NewOne, target_kind: Kind) -> None:
    source, target = new("sqlite", "oms"), new(target_kind, "oms")
    target.rows(
        "UPDATE sequences SET value = 3" if target.kind == "sqlite" else "SELECT nextval('job_numbers')",
    )
    with pytest.raises(CannotCopyError, match="used before"):
        copy(source, target)


def test_an_unfinished_copy_of_another_source_is_refused(new: NewOne, target_kind: Kind, monkeypatch: Any) -> None:
    source, other, target = new("sqlite", "oms"), new("sqlite", "oms"), new(target_kind, "oms")
    fill(source)
    with monkeypatch.context() as patch:
        kill_after(2, patch)
        with pytest.raises(Killed):
            copy(source, target)
    with pytest.raises(CannotCopyError, match="unfinished copy of another"):
        copy(other, target)
    copy(source, target)


def test_a_source_that_a_service_uses_is_refused(new: NewOne, source_kind: Kind) -> None:
    source, target = new(source_kind, "oms"), new("sqlite")
    store = open_store(source.url)
    with store.connect_writer() as connection, store.begin(connection) as tx:
        values = {"name": "relay", "holder": "tower", "expires_at": tx.now_ms + 5_000}
        tx.connection.execute(insert(leases), values)
    with pytest.raises((CannotCopyError, CannotOpenError), match=r"another process uses|a tower runs"):
        copy(source, target)
    store.close()


def test_a_source_that_is_not_there_is_not_made(tmp_path: Path, new: NewOne) -> None:
    url = f"sqlite:///{tmp_path / 'nowhere.db'}"
    result = CliRunner().invoke(cli, ["copy", "--from", url, "--to", new("sqlite").url])
    assert result.exit_code == 1
    assert "there is no database" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_not_copied_onto_itself(new: NewOne) -> None:
    source = new("sqlite", "oms")
    with pytest.raises(CannotCopyError, match="the same database"):
        copy(source, source)


def test_a_source_of_an_older_release_is_left_as_it_is(new: NewOne) -> None:
    source, target = new("sqlite", "oms"), new("sqlite")
    source.rows("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(CannotOpenError, match="oms migrate"):
        copy(source, target)
    assert source.rows("SELECT version_num FROM alembic_version") == [("0001",)]


def test_a_row_that_the_target_does_not_take_is_named(new: NewOne) -> None:
    source, target = new("sqlite", "oms"), new("postgres", "oms")
    fill(source)
    source.rows(f"UPDATE plans SET file = '{'x' * 600}'")
    with pytest.raises(CannotCopyError, match=r"rows of plans .* too long"):
        copy(source, target)


# Shown.


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(new: NewOne) -> None:
    source = new("sqlite", "oms")
    fill(source)
    bar, lines = io.StringIO(), io.StringIO()
    run_copy(source.url, new("sqlite", "oms").url, Console(file=bar, force_terminal=True, width=200))
    run_copy(source.url, new("sqlite", "oms").url, Console(file=lines, force_terminal=False))
    assert "━" in bar.getvalue()
    assert "\x1b" not in lines.getvalue()
    assert [line.split()[:2] for line in lines.getvalue().splitlines()] == [
        *(["copied", f"{table.name}:"] for table in TABLES),
        *(["checked", f"{table.name}:"] for table in TABLES),
    ]


def test_the_command_says_when_it_is_done(new: NewOne, target_kind: Kind) -> None:
    source, target = new("sqlite", "oms"), new(target_kind)
    fill(source)
    result = CliRunner().invoke(cli, ["copy", "--from", source.url, "--to", target.url])
    assert result.exit_code == 0, result.output
    assert "complete and checked" in result.output
    store = open_store(target.url)
    with store.reading() as connection:
        assert [fault for fault in faults_of(connection) if "counts" not in fault] == []
    store.close()
