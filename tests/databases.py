"""Databases for tests: a fresh one of each kind, SQLite and PostgreSQL.

A test takes ``new_database`` and makes what it needs, or ``database`` (one, empty), and so runs once on each kind; one
that is about SQLite or PostgreSQL alone is marked `sqlite_only` or `postgres_only`. The
schema is made once in each process and copied after that, so that a fresh database costs some milliseconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from tests.database import KINDS, Database, Kind, Schema, migrate
from tests.postgres_databases import PostgresDatabases
from tests.postgres_server import find_server

sqlite_only = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""For tests of what only SQLite has: its file, its locks, its errors."""
postgres_only = pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)
"""For tests of what only PostgreSQL has: writers at the same time, sessions that are ended."""


class NewDatabase(Protocol):
    """Makes databases of one kind; they go with the test."""

    def __call__(self, migrated_by: Schema | None = None) -> Database:
        """Return a fresh database: empty, or with a service's newest schema and only the rows that this makes."""


class Databases:
    """The databases of a test run, for tests that need many of them (a state machine): lend one, and give it back."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self._sqlite = SqliteDatabases(folder)
        self._request = request

    def lend(self, kind: Kind, migrated_by: Schema | None = None) -> AbstractContextManager[Database]:
        """Give a fresh database until the end of the block."""
        if kind == "sqlite":
            return self._sqlite.lend(migrated_by)
        postgres: PostgresDatabases = self._request.getfixturevalue("postgres_databases")
        return postgres.lend(migrated_by)


class SqliteDatabases:
    """Databases in files, each in a folder of its own, below one that goes with the test run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        self._templates: dict[Schema, Path] = {}

    @contextmanager
    def lend(self, migrated_by: Schema | None) -> Iterator[Database]:
        """Give a fresh database; its folder is removed at the end of the block."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        path = folder / f"{migrated_by or 'database'}.db"
        if migrated_by is not None:
            shutil.copyfile(self._template(migrated_by), path)
        yield Database("sqlite", f"sqlite:///{path}")
        shutil.rmtree(folder)

    def _template(self, schema: Schema) -> Path:
        if schema not in self._templates:
            path = self._folder / f"{schema}.db"
            migrate(f"sqlite:///{path}", schema)
            assert not path.with_name(f"{path.name}-wal").exists(), "the schema is not in the file that is copied"
            self._templates[schema] = path
        return self._templates[schema]


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[PostgresDatabases]:
    """Databases on the PostgreSQL server of the test run."""
    databases = PostgresDatabases(find_server())
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """All databases of the test run."""
    return Databases(tmp_path_factory.mktemp("databases"), request)


@pytest.fixture(params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of database in turn."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def new_database(databases: Databases, database_kind: Kind) -> Iterator[NewDatabase]:
    """Make databases of one kind, as many as the test wants."""
    with ExitStack() as lent:
        yield lambda migrated_by=None: lent.enter_context(databases.lend(database_kind, migrated_by))


@pytest.fixture
def database(new_database: NewDatabase) -> Database:
    """An empty database: not even a schema."""
    return new_database()
