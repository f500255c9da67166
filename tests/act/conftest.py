"""Fixtures of ACT's tests.

Whatever touches the database takes ``url``, ``store`` or ``lend_url``, so that it runs on every database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from act.keys import Keys, make_keys
from act.storage.store import Store, open_store
from tests.database import Kind
from tests.databases import Databases, NewDatabase

LendUrl = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """The URL of an empty ledger database: it has the schema."""
    return new_database("act").url


@pytest.fixture
def blank_url(new_database: NewDatabase) -> str:
    """The URL of a database without anything in it."""
    return new_database().url


@pytest.fixture
def lend_url(databases: Databases, database_kind: Kind) -> LendUrl:
    """Lend the URL of another empty ledger database of the same kind at each call."""

    @contextmanager
    def lend() -> Iterator[str]:
        with databases.lend(database_kind, "act") as database:
            yield database.url

    return lend


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A log's keys."""
    return make_keys(tmp_path / "act.key", name="log.example/act")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An open, empty ledger database."""
    opened = open_store(url, migrate=True)
    yield opened
    opened.close()
