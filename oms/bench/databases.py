"""Where the services under measurement keep their data: SQLite files, or databases on a PostgreSQL server."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

Service = Literal["oms", "act"]


class Databases:
    """Gives every service under measurement a database of its own; a context's end drops those on a server.

    Args:
        oms_url: a PostgreSQL server where this user may make databases; None: a SQLite file.
        act_url: the same for ACT.

    Raises:
        ValueError: a URL is none of PostgreSQL's.
    """

    def __init__(self, oms_url: str | None = None, act_url: str | None = None) -> None:
        self._servers = {"oms": oms_url, "act": act_url}
        self._made: list[tuple[str, str]] = []
        for name, url in self._servers.items():
            if url is not None and not _is_postgres(url):
                raise ValueError(
                    f"--{name}-database-url takes a server, such as postgresql+psycopg://user:password@host/postgres"
                )

    def url(self, service: Service, folder: Path) -> str:
        """Return the URL of a new database."""
        server = self._servers[service]
        if server is None:
            return f"sqlite:///{folder / service}.db"
        name = f"hms_bench_{service}_{secrets.token_hex(4)}"
        with _administering(server) as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        self._made.append((server, name))
        return make_url(server).set(database=name).render_as_string(hide_password=False)

    def describe(self) -> dict[str, str]:
        """Return what each service's data is kept in."""
        found = {}
        for name, server in self._servers.items():
            if server is None:
                found[name] = "SQLite, synchronous=FULL"
            else:
                with _administering(server) as connection:
                    found[name] = "PostgreSQL " + str(connection.execute(text("SHOW server_version")).scalar_one())
        return found

    def close(self) -> None:
        """Drop the databases that were made."""
        for server, name in self._made:
            with _administering(server) as connection:
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        self._made.clear()


@contextmanager
def _administering(server: str) -> Generator[Connection]:
    engine = create_engine(server, isolation_level="AUTOCOMMIT", hide_parameters=True)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        where = make_url(server).render_as_string(hide_password=True)
        raise ValueError(f"{where} cannot be used: {str(error.orig).strip().splitlines()[0]}") from None
    finally:
        engine.dispose()


def _is_postgres(url: str) -> bool:
    try:
        return make_url(url).get_backend_name() == "postgresql"
    except ArgumentError:
        return False
