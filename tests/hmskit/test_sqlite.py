"""SQLite as a durable store: what its connections may, what keeps others out, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from hmskit import sqlite
from hmskit.database import CannotOpenError
from hmskit.sqlite import (
    FileGuard,
    check_version,
    database_path,
    reader_engine,
    why_unavailable,
    writer_engine,
)


def test_nulls_and_blobs_are_kept_as_they_are_and_not_searched_for() -> None:
    values = (None, b"", b"\0\xff", "", 0)
    connection = sqlite3.connect(":memory:")
    assert connection.execute("SELECT ?, ?, ?, ?, ?", values).fetchone() == values
    connection.close()
    for kind in (type(None), bytes):
        assert (kind, sqlite3.PrepareProtocol) in sqlite3.adapters


def test_the_writer_syncs_every_commit_and_the_readers_cannot_write(tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path / 'x.db'}")
    writer, reader = writer_engine(url), reader_engine(url)
    with writer.begin() as tx:
        tx.execute(text("CREATE TABLE t (n INTEGER)"))
        pragmas = {
            name: tx.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "wal_autocheckpoint")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "busy_timeout": sqlite.BUSY_TIMEOUT_MS,
        "wal_autocheckpoint": 1000,
    }
    with reader.begin() as tx:
        assert tx.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar_one() == 0
        with pytest.raises(DBAPIError, match="readonly"):
            tx.execute(text("INSERT INTO t VALUES (1)"))
    reader.dispose()
    writer.dispose()


def test_a_reading_transaction_sees_one_moment(tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path / 'x.db'}")
    writer, reader = writer_engine(url), reader_engine(url)
    with writer.begin() as tx:
        tx.execute(text("CREATE TABLE t (n INTEGER)"))
    with reader.begin() as reading:
        count = text("SELECT count(*) FROM t")
        assert reading.execute(count).scalar_one() == 0
        with writer.begin() as tx:
            tx.execute(text("INSERT INTO t VALUES (1)"))
        assert reading.execute(count).scalar_one() == 0
    with reader.begin() as reading:
        assert reading.execute(count).scalar_one() == 1
    reader.dispose()
    writer.dispose()


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    """One that was taken away must not come back as an empty database."""
    odd = tmp_path / "100% odd?.db"
    reader = reader_engine(make_url("sqlite://").set(database=str(odd)))
    with pytest.raises(DBAPIError, match="unable to open"):
        reader.connect()
    assert not odd.exists()
    reader.dispose()


def test_the_writer_takes_the_lock_when_it_begins(tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path / 'x.db'}")
    writer = writer_engine(url)
    with writer.begin():
        other = sqlite3.connect(tmp_path / "x.db", timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    writer.dispose()


def test_a_rolled_back_transaction_leaves_nothing(tmp_path: Path) -> None:
    writer = writer_engine(make_url(f"sqlite:///{tmp_path / 'x.db'}"))
    with writer.begin() as tx:
        tx.execute(text("CREATE TABLE t (n INTEGER)"))
    with pytest.raises(DBAPIError), writer.begin() as tx:  # noqa: PT012 - the second fails, after the first
        tx.execute(text("INSERT INTO t VALUES (1)"))
        tx.execute(text("INSERT INTO no_such_table VALUES (1)"))
    with writer.begin() as tx:
        assert tx.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    writer.dispose()


def test_the_guard_notices_that_the_file_is_gone_or_another(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"")
    guard = FileGuard(path)
    guard.opened()
    assert not guard.is_gone()
    path.write_bytes(b"more")
    assert not guard.is_gone(), "growing is no replacing"
    other = tmp_path / "y.db"
    other.write_bytes(b"")
    other.replace(path)
    assert guard.is_gone()
    path.unlink()
    assert guard.is_gone()
    guard.close()


ATTEMPT = """
import sys, pathlib
from hmskit.database import CannotOpenError
from hmskit.sqlite import FileGuard
try:
    FileGuard(pathlib.Path(sys.argv[1]))
except CannotOpenError as error:
    sys.exit(str(error))
"""


def test_the_guard_keeps_a_second_process_out_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    attempt = [
        sys.executable,
        "-c",
        ATTEMPT,
        str(path),
    ]
    guard = FileGuard(path)
    refused = subprocess.run(attempt, capture_output=True, text=True, check=False, timeout=20)
    assert refused.returncode == 1
    assert f"pid {os.getpid()}" in refused.stderr
    guard.close()
    assert subprocess.run(attempt, check=False, timeout=20).returncode == 0


def test_the_guard_says_what_is_wrong_with_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CannotOpenError, match="does not exist"):
        FileGuard(tmp_path / "no" / "x.db")
    (tmp_path / "x.db.lock").mkdir()
    with pytest.raises(CannotOpenError, match="cannot write"):
        FileGuard(tmp_path / "x.db")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (sqlite3.SQLITE_FULL, "full"),
        (sqlite3.SQLITE_BUSY, "lock"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "lock"),
        (sqlite3.SQLITE_LOCKED, "locked"),
        (sqlite3.SQLITE_IOERR_FSYNC, "errors"),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, "cannot be opened"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "written"),
        (sqlite3.SQLITE_NOMEM, "memory"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, None),
        (sqlite3.SQLITE_ERROR, None),
        (sqlite3.SQLITE_CORRUPT, None),
        (None, None),
    ],
)
def test_which_errors_pass(code: int | None, says: str | None) -> None:
    error = sqlite3.OperationalError("x")
    if code is not None:
        error.sqlite_errorcode = code
    why = why_unavailable(OperationalError("statement", {}, error))
    assert why is None if says is None else says in (why or "")


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        ((3, 34, 1), "refused"),
        ((3, 35, 0), "warned"),
        ((3, 40, 1), "warned"),
        ((3, 51, 2), "warned"),
        ((3, 51, 3), "fine"),
        ((3, 54, 0), "fine"),
    ],
)
def test_versions(version: tuple[int, int, int], outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    monkeypatch.setattr(sqlite3, "sqlite_version", ".".join(map(str, version)))
    if outcome == "refused":
        with pytest.raises(CannotOpenError, match=r"3\.34\.1"):
            check_version()
        return
    warning = check_version()
    assert (warning is not None) == (outcome == "warned")
    assert warning is None or "WAL-reset" in warning


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_path(make_url("sqlite:///x.db")) == tmp_path / "x.db"
    assert database_path(make_url("sqlite:////var/x.db")) == Path("/var/x.db")
    for nothing in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(CannotOpenError, match="memory"):
            database_path(make_url(nothing))


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"a letter" * 200)
    engine = writer_engine(make_url(f"sqlite:///{tmp_path / 'x.db'}"))
    with pytest.raises(CannotOpenError, match="not a database"):
        engine.connect()
    engine.dispose()
