"""`oms copy`: move a site to another database, say from SQLite to PostgreSQL, or back.

Both services are stopped meanwhile. A SQLite file's lock sees to that; on PostgreSQL a tower that runs is found by
its lease, and whatever was written all the same by the check at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from sqlalchemy import Connection, func, make_url, select
from sqlalchemy.exc import ArgumentError

from hmskit import copying
from hmskit.copying import CannotCopyError, Digest, Side
from hmskit.copying_meter import CopyMeter
from oms.storage.numbers import last_numbers, set_last_numbers
from oms.storage.store import Store, open_store
from oms.storage.tables import (
    blocks,
    branches,
    durations,
    jobs,
    lane_controls,
    lane_counts,
    leases,
    outbox,
    plans,
    schedules,
    signals,
    stopped_streams,
    tasks,
    timers,
    workers,
)

TABLES = (
    plans,
    jobs,
    tasks,
    branches,
    blocks,
    signals,
    timers,
    schedules,
    outbox,
    stopped_streams,
    workers,
    lane_counts,
    lane_controls,
    durations,
)
"""All that a site is. Numbers go apart, for each kind of database keeps them its own way; leases end with towers, and
when tasks were handed out counts for moments only."""


def run_copy(source_url: str, target_url: str, console: Console) -> dict[str, Digest]:
    """Copy a database, or go on with a copy that was not finished; return what each table of the copy holds.

    Args:
        source_url: the database to copy; its schema is up to date.
        target_url: an empty database, or none yet; or an unfinished copy of the same source.
        console: where progress is shown.

    Raises:
        CannotOpenError: one of them cannot be opened.
        CannotCopyError: the copy cannot be made, or differs; the message says what to do.
        UnavailableError: one of them does not answer now; the copy can go on later.
    """
    _check_urls(source_url, target_url)
    with _opened(source_url, may_migrate=False) as source_store, _opened(target_url) as target_store:
        source, target = _side(source_store), _side(target_store)
        _check_stopped(source_store)
        _check_stopped(target_store)
        done = copying.begin(
            source, target, TABLES, is_new=lambda connection: not any(last_numbers(connection).values())
        )
        digests = _copy_tables(source, target, CopyMeter(console), done)
        with source.reading() as connection:
            numbers = last_numbers(connection)
        with target.writing() as connection:
            set_last_numbers(connection, numbers)
            copying.end(connection)
        return digests


def _copy_tables(source: Side, target: Side, meter: CopyMeter, done: int) -> dict[str, Digest]:
    totals = {table.name: copying.count_rows(source, table) for table in TABLES}
    total = sum(totals.values())
    digests = {}
    with meter:
        meter.begin("copying", total=total, done=done)
        for table in TABLES:
            copying.copy_rows(source, target, table, on_rows=meter.advance)
            meter.say(f"copied {table.name}: {totals[table.name]:,} rows")
        meter.begin("checking", total=2 * total)
        for table in TABLES:
            expected = copying.digest_rows(source, table, on_rows=meter.advance)
            found = copying.digest_rows(target, table, on_rows=meter.advance)
            if found != expected:
                raise CannotCopyError(
                    f"table {table.name} differs: {expected.rows:,} rows with SHA-256 {expected.sha256} in "
                    f"{source.name}, {found.rows:,} rows with {found.sha256} in {target.name}. Something wrote to one "
                    "of them meanwhile: stop the services, empty the copy and start again"
                )
            digests[table.name] = found
            meter.say(f"checked {table.name}: {found.rows:,} rows, SHA-256 {found.sha256}")
    return digests


def _check_urls(source_url: str, target_url: str) -> None:
    with suppress(ArgumentError):  # open_store says it
        source = make_url(source_url)
        if source == make_url(target_url):
            raise CannotCopyError("both names are the same database")
        if source.get_backend_name() == "sqlite" and source.database and not Path(source.database).exists():
            raise CannotCopyError(f"there is no database {source.database}")


def _check_stopped(store: Store) -> None:
    if not store.is_shared:
        return
    with store.reading() as connection:
        until = connection.execute(select(func.max(leases.c.expires_at))).scalar_one()
        if until is not None and until > store.dialect.now_ms(connection):
            raise CannotCopyError(
                f"a tower runs on {store.name}: stop it (one that was killed is missed within a minute)"
            )


@contextmanager
def _opened(url: str, *, may_migrate: bool = True) -> Iterator[Store]:
    store = open_store(url, may_migrate=may_migrate, writers=1)
    try:
        yield store
    finally:
        store.close()


def _side(store: Store) -> Side:
    @contextmanager
    def writing() -> Iterator[Connection]:
        with store.connect_writer() as connection, store.begin(connection) as tx:
            yield tx.connection

    url = store.url
    name = str(Path(url.database).absolute()) if not store.is_shared and url.database else store.name
    return Side(name=name, reading=store.reading, writing=writing)
