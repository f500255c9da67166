"""SQLite as a durable store for one process: one connection writes, others read.

Its limits, and what is done about them:

* One writer at a time: a service has one writing connection, in one thread, and begins with ``BEGIN IMMEDIATE``.
* WAL-reset bug (3.7.0 to 3.51.2, https://sqlite.org/wal.html#walresetbug): two connections that write or
  checkpoint at the same moment could corrupt the file. Only the writing connection checkpoints, and a lock file
  keeps a second process from opening a second one.
* ``synchronous=NORMAL`` loses acknowledged commits in a power cut; ``FULL`` syncs the WAL on every commit.
* A database file that is deleted while it is open goes on taking commits that nobody will ever read again:
  `FileGuard` notices.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from hmskit.errors import CannotOpenError
from hmskit.prepared import Prepared

OLDEST_VERSION = (3, 35, 0)
"""The first with RETURNING."""
WAL_RESET_FIXED = (3, 51, 3)

BUSY_TIMEOUT_MS = 5_000
CACHE_KIB = 32 * 1024
# Past this size a checkpointed WAL is cut back, so that one large burst does not occupy the disk for ever.
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024

_PASSING = {
    sqlite3.SQLITE_BUSY: "another process holds the database's lock",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk answers with errors",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_READONLY: "the database file cannot be written to",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}


# For each NULL and each blob of a row the driver looks for somebody who turns it into what SQLite takes, by attributes
# that are not there: that costs ten times what binding a number does. They are what SQLite takes, and stay as they are.
_NO_OTHER_VALUE: dict[None, None] = {}
sqlite3.register_adapter(type(None), _NO_OTHER_VALUE.get)
sqlite3.register_adapter(bytes, bytes)


class FileGuard:
    """Holds the lock of a database file, and notices when the file is no longer the one that was opened.

    Raises:
        CannotOpenError: the folder cannot be written to, or another process has the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lock_path = path.with_name(path.name + ".lock")
        if not path.parent.is_dir():
            raise CannotOpenError(f"the folder {path.parent} does not exist: create it, or name another database")
        try:
            self._lock = lock_path.open("a+")
        except OSError as error:
            raise CannotOpenError(
                f"cannot write in {path.parent}: {error.strerror}; give this user the folder, or name another database"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise CannotOpenError(
                f"another process uses {path} ({_holder(lock_path)}): stop it, or name another database; a "
                "SQLite file is one process's alone"
            ) from None
        except OSError as error:
            self._lock.close()
            raise CannotOpenError(
                f"cannot lock {lock_path}: {error.strerror}; name a database on a local disk"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"pid {os.getpid()}")
        self._lock.flush()
        self._inode: int | None = None

    def opened(self) -> None:
        """Remember which file was opened."""
        self._inode = self._path.stat().st_ino

    def is_gone(self) -> bool:
        """Tell whether the opened file was deleted or replaced. One ``stat``: cheap enough for every commit."""
        try:
            return os.stat(self._path).st_ino != self._inode  # noqa: PTH116 - four times faster than Path.stat
        except OSError:  # gone, or its folder is
            return True

    def close(self) -> None:
        """Give the lock back."""
        self._lock.close()


def _holder(lock_path: Path) -> str:
    try:
        return lock_path.read_text() or "unknown process"
    except OSError:
        return "unknown process"


def database_path(url: URL) -> Path:
    """Return the file that a ``sqlite:///`` URL names.

    Raises:
        CannotOpenError: it names none: a database in memory would lose everything at the end.
    """
    if not url.database or url.database == ":memory:":
        raise CannotOpenError("a database in memory keeps nothing: name a file, such as sqlite:///oms.db")
    return Path(url.database).absolute()


def check_version() -> str | None:
    """Return a warning about this Python's SQLite, or None.

    Raises:
        CannotOpenError: it is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise CannotOpenError(f"this Python has SQLite {sqlite3.sqlite_version}; {oldest} or newer is needed")
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED:
        return (
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (fixed in 3.51.3). It needs two connections that "
            "write or checkpoint at once; this service has one. Open the file with other tools only for reading."
        )
    return None


def writer_engine(url: URL, *, overwrites: bool = False) -> Engine:
    """Return an engine of one connection, that of the writing thread; the only one that checkpoints.

    Args:
        url: of the file.
        overwrites: what is deleted or replaced is overwritten with zeros: nothing of it stays in the file's free space.

    Raises:
        CannotOpenError: the file is no database or cannot be opened.
    """
    engine = create_engine(
        url,
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
        hide_parameters=True,  # an error's text goes into the log, and the values are the citizens'
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: object) -> None:
        try:
            _prepare(connection)
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            connection.execute(f"PRAGMA journal_size_limit={JOURNAL_LIMIT_BYTES}")
        except sqlite3.DatabaseError as error:
            raise CannotOpenError(f"cannot use {url.database}: {error}") from None
        if mode != "wal":
            raise CannotOpenError(f"{url.database} cannot keep a write-ahead log (its file system lacks it)")
        connection.execute("PRAGMA synchronous=FULL")
        if overwrites:
            connection.execute("PRAGMA secure_delete=ON")

    _begin_with(engine, "BEGIN IMMEDIATE")
    return engine


def empty_wal(connection: sqlite3.Connection, *, wait_ms: int) -> bool:
    """Bring everything from the write-ahead log into the file, and cut the log to nothing; tell whether it is done.

    What a commit replaced stands in the log until then. It takes no transaction of the connection, and waits up to
    ``wait_ms`` for readers who still need the log; where they need it longer, the log stays.
    """
    connection.execute(f"PRAGMA busy_timeout={wait_ms}")
    try:
        is_busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:  # the disk is full, or answers with errors
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    return is_busy == 0


def reader_engine(url: URL, *, connections: int = 4) -> Engine:
    """Return an engine whose connections can only read; each transaction sees one moment of the database."""
    # mode=rw makes no file: one that was taken away must not come back as an empty database.
    name = f"file:{quote(str(database_path(url)))}?mode=rw"
    engine = create_engine(
        url,
        creator=lambda: sqlite3.connect(name, uri=True, check_same_thread=False),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: object) -> None:
        _prepare(connection)
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")

    _begin_with(engine, "BEGIN")
    return engine


def _prepare(connection: sqlite3.Connection) -> None:
    # The driver's own implicit transactions are off: SQLAlchemy's begin event says which kind begins.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute("PRAGMA temp_store=MEMORY")


def _begin_with(engine: Engine, statement: str) -> None:
    # Prepared: SQLAlchemy's own way to run a text costs several times what SQLite needs to begin.
    begin = Prepared(text(statement), [])

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        begin.rows(connection)


def why_unavailable(error: DBAPIError) -> str | None:
    """Return why the database cannot take it now, in words; None where the statement itself is at fault."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        return None
    return _PASSING.get(code & 0xFF)  # the low byte is the primary code
