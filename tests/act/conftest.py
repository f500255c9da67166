"""Fixtures of ACT's tests.

Whatever touches the database takes ``url``, ``store`` or ``fresh_url``, so that it runs on every database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from act.storage.store import Store, open_store


@pytest.fixture(params=["sqlite"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Make the URL of another empty database of the same kind at each call."""
    assert request.param == "sqlite"
    numbers = count()
    return lambda: f"sqlite:///{tmp_path / f'act{next(numbers)}.db'}"


@pytest.fixture
def url(fresh_url: Callable[[], str]) -> str:
    """The URL of an empty database."""
    return fresh_url()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An open, empty ledger database."""
    opened = open_store(url, migrate=True)
    yield opened
    opened.close()
