"""Fixtures of OMS's tests. Whatever touches the database takes ``database_url``, so that it runs on every database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from oms.storage.store import Store, open_store
from tests.oms.support import CHECKED, RENEWAL, SINGLE, Clock, Tower


@pytest.fixture(autouse=True, scope="session")
def plain_logs() -> None:
    """Log tracebacks without the frames' variables: to print those takes a second each."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    assert request.param == "sqlite"
    return f"sqlite:///{tmp_path / 'oms.db'}"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An open, empty database."""
    opened = open_store(database_url)
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
