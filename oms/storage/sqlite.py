"""All that is SQLite's own in OMS. The limits of the engine itself: ``hmskit.sqlite``."""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import URL, Connection, bindparam, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from hmskit import sqlite
from hmskit.errors import CannotOpenError
from hmskit.prepared import Prepared
from oms.storage.database import Database
from oms.storage.statements import add_counts, claim, see_worker
from oms.storage.tables import sequences
from oms.storage.transaction import Dialect, Transaction, at_places, in_list, in_rows, job_is_free

SCRUB_WAIT_MS = 250
"""For how long the writing thread waits for readers who stand in the way of it: everybody else waits with it."""


@compiles(in_list, "sqlite")
def _in_list(element: in_list, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, parameter = element.clauses
    values = f"SELECT value FROM json_each({compiler.process(parameter, **options)})"  # noqa: S608 - compiled SQL
    return f"{compiler.process(column, **options)} IN ({values})"


@compiles(at_places, "sqlite")
def _at_places(element: at_places, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    # Of a pair of columns that is IN a list, SQLite would look for the first along the index, and read all of it.
    job, path, parameter = element.clauses
    table, colon = job.table.name, "instr(place.value, ':')"
    places = f"json_each({compiler.process(parameter, **options)}) AS place CROSS JOIN {table} AS there"
    is_here = (
        f"there.{job.name} = CAST(substr(place.value, 1, {colon} - 1) AS INTEGER) "
        f"AND there.{path.name} = substr(place.value, {colon} + 1)"
    )
    return f"{table}.rowid IN (SELECT there.rowid FROM {places} ON {is_here})"  # noqa: S608 - compiled SQL


@compiles(job_is_free, "sqlite")
def _job_is_free(_element: job_is_free, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401
    return "1"


@compiles(in_rows, "sqlite")
def _in_rows(element: in_rows, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, rows = element.clauses
    return f"{compiler.process(column, **options)} IN {compiler.process(rows, **options)}"


_LAST_NUMBER = Prepared(select(sequences.c.value).where(sequences.c.name == bindparam("this_name")), ["this_name"])
_KEEP_NUMBER = Prepared(
    update(sequences).where(sequences.c.name == bindparam("this_name")).values(value=bindparam("last")),
    ["last", "this_name"],
)


def _now_ms(_connection: Connection) -> int:
    return time.time_ns() // 1_000_000


def _next_number(tx: Transaction, name: str) -> int:
    """Count on from the last number, which is read once and written with everything else at the flush."""
    if name not in tx.last_numbers:
        tx.last_numbers[name] = _LAST_NUMBER.rows(tx.connection, name)[0][0]
    tx.last_numbers[name] += 1
    return tx.last_numbers[name]


def _keep_numbers(tx: Transaction) -> None:
    _KEEP_NUMBER.many(tx.connection, [(number, name) for name, number in tx.last_numbers.items()])
    tx.last_numbers.clear()


SQLITE = Dialect(
    is_shared=False,
    now_ms=_now_ms,
    next_number=_next_number,
    keep_numbers=_keep_numbers,
    add_counts=add_counts(insert),
    see_worker=see_worker(insert),
    claim=claim(random_text="lower(hex(randomblob(16)))"),
    end_stuck=lambda _connection: 0,
    list_parameter=json.dumps,
)


def open_file(url: URL) -> Database:
    """Open the database file, or make an empty one.

    Raises:
        CannotOpenError: it cannot be used; the message says why and what to do.
    """
    path = sqlite.database_path(url)
    warning = sqlite.check_version()
    guard = sqlite.FileGuard(path)
    writer = sqlite.writer_engine(url, overwrites=True)
    try:
        with writer.connect() as connection:
            _scrub(connection)  # whoever was killed right after an erasure's commit left its log behind
        guard.opened()
    except BaseException as error:
        writer.dispose()
        guard.close()
        if isinstance(error, DBAPIError):
            raise CannotOpenError(
                f"The database cannot be opened: {sqlite.why_unavailable(error) or error.orig}"
            ) from error
        raise
    return Database(
        url=url,
        name=str(url.database),
        writer=writer,
        reader=sqlite.reader_engine(url),
        writers=1,
        dialect=SQLITE,
        guard=guard,
        warning=warning,
        scrub=_scrub,
    )


def _scrub(connection: Connection) -> bool:
    driver = connection.connection.driver_connection
    assert driver is not None
    return sqlite.empty_wal(driver, wait_ms=SCRUB_WAIT_MS)
