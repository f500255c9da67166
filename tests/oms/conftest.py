"""Fixtures of OMS's tests. Whatever touches the database takes one of these, so that it runs on every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from oms.storage import postgres
from oms.storage.store import Store, open_store
from tests.database import Database
from tests.databases import NewDatabase
from tests.oms.support import CHECKED, RENEWAL, SINGLE, Clock, Site, Tower


@pytest.fixture(autouse=True, scope="session")
def plain_logs() -> None:
    """Log tracebacks without the frames' variables: to print those takes a second each."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture(autouse=True, scope="package")
def single_numbers() -> Iterator[None]:
    """Let PostgreSQL give numbers one by one: a handful leaves holes, and tests call jobs by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "MAX_NUMBERS_AT_ONCE", 1)
        yield


@pytest.fixture
def oms_database(new_database: NewDatabase) -> Database:
    """A database of each kind, with the newest schema and nothing else."""
    return new_database("oms")


@pytest.fixture
def site(tmp_path: Path, oms_database: Database) -> Site:
    """A folder and a database of each kind for a service."""
    return Site(tmp_path, oms_database)


@pytest.fixture
def store(oms_database: Database) -> Iterator[Store]:
    """An open database with one writer, so that what a test does one after the other stays so."""
    opened = open_store(oms_database.url, writers=1)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    """A clock that the test sets."""
    return Clock()


@pytest.fixture
def tower(store: Store, clock: Clock) -> Tower:
    """The verbs on the store, with the common plans in force."""
    tower = Tower(store, clock)
    for document in (RENEWAL, CHECKED, SINGLE):
        tower.put_plan(document)
    return tower
