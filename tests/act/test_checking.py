"""A large ledger is checked in several processes, and what they find is what one finds."""

from __future__ import annotations

import runpy
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import pytest

from act import checking
from act.checking import pages_of, pages_on_cores
from act.domain.audit import Finding, Page, check_rows
from act.storage.readonly import reading
from tests.act.support import opened
from tests.act.test_signer import JOBS, damage
from tests.act.test_storage import put
from tests.database import Database
from tests.databases import NewDatabase, sqlite_only

PAGE = 50


@pytest.fixture
def database(new_database: NewDatabase) -> Database:
    database = new_database("act")
    with opened(database.url) as store:
        put(store, JOBS)
    return database


def joined(pages: Iterable[Page]) -> Page:
    """Put pages together, up to the first finding."""
    whole = Page([], [], [])
    for page in pages:
        whole = Page(
            whole.leaf_hashes + page.leaf_hashes, whole.places + page.places, whole.times + page.times, page.finding
        )
        if page.finding is not None:
            break
    return whole


def in_processes(database: Database, monkeypatch: pytest.MonkeyPatch, *, alone: int = 0) -> Page:
    """Check in two processes; ``alone``: how many pages this one may check."""
    checked_here = 0

    def counted(rows: Iterable[Mapping[str, Any]], *, first: int) -> Page:
        nonlocal checked_here
        checked_here += 1
        return check_rows(rows, first=first)

    monkeypatch.setattr(checking, "PAGE", PAGE)
    monkeypatch.setattr(checking, "check_rows", counted)
    with reading(database.url) as tx:
        whole = joined(pages_on_cores(tx, database.url, processes=2, worth_it=1))
        monkeypatch.setattr(checking, "check_rows", check_rows)
        assert whole == joined(pages_of(tx))
    assert checked_here <= alone, "the others did not do it"
    return whole


def test_several_processes_find_what_one_finds(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = in_processes(database, monkeypatch)
    assert (len(whole.leaf_hashes), whole.finding) == (300, None)
    damage(database, "UPDATE events SET lane = 'x' WHERE idx >= 177")
    finding = in_processes(database, monkeypatch).finding
    assert finding is not None
    assert finding.index == 177


def test_what_they_cannot_read_is_read_again_in_this_process(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(database, "DELETE FROM events WHERE idx = 177")
    whole = in_processes(database, monkeypatch, alone=1)
    assert whole.finding == Finding(177, "an entry is missing: the next one in the database has the index 178")


@sqlite_only
def test_a_row_in_front_of_the_first_is_found(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(database)
    with closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE events SET idx = -1 WHERE idx = 299")
    whole = in_processes(database, monkeypatch, alone=1)
    assert whole.finding == Finding(0, "an entry is missing: the next one in the database has the index -1")


def test_processes_that_cannot_work_hold_nothing_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PAGE", PAGE)
    with reading(database.url) as tx:
        whole = joined(pages_on_cores(tx, "there is none", processes=2, worth_it=1))
        assert whole == joined(pages_of(tx))
        assert len(whole.leaf_hashes) == 300


def test_a_small_ledger_starts_none(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(checking, "ProcessPoolExecutor", start)
    with reading(database.url) as tx:
        assert len(joined(pages_on_cores(tx, database.url, processes=2)).leaf_hashes) == 300
    assert 1 <= checking.cores() <= checking.MAX_PROCESSES


@pytest.mark.parametrize("service", ["act", "oms"])
def test_what_imports_the_command_does_not_run_it(service: str) -> None:
    """As a process does that the command has started."""
    runpy.run_module(f"{service}.__main__", run_name="__mp_main__")
