"""Read a ledger's entries for the full check, each checked by itself; on several cores where there are many.

That an entry says what its row says needs no other entry, and is nearly all of the work. Pages come back in order.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from act.domain.audit import Page, check_rows
from act.storage import checks
from act.storage.checks import PAGE
from act.storage.entries import size_of
from act.storage.readonly import reading
from hmskit.database import CannotOpenError

WORTH_IT = 50_000
"""From so many entries on: a process takes half a second to start, in which another one checks as many as that."""
MAX_PROCESSES = 16
AHEAD = 3
"""How many pages each process is ahead of what is put together."""

_resources = ExitStack()
_tx: Connection | None = None


def pages_of(tx: Connection) -> Generator[Page]:
    """Yield all entries, page by page, checked in this process."""
    yield from _serially(tx, first=None)


def pages_on_cores(tx: Connection, database: str, *, processes: int, worth_it: int = WORTH_IT) -> Generator[Page]:
    """Yield all entries, page by page, checked in several processes; in this one where that is not worth it.

    Whatever cannot be read there is read again here, so that it is said in one way.

    Args:
        tx: a reader's transaction; what it sees ends the check.
        database: the same, as `reading` takes it, for the processes to open.
        processes: how many may be started.
        worth_it: with fewer entries than this, none is started.
    """
    done, size = 0, size_of(tx)
    if processes > 1 and size >= worth_it and not checks.is_before_all(tx):
        for page in _in_processes(database, size=size, processes=processes):
            done += len(page.leaf_hashes)
            yield page
    yield from _serially(tx, first=done or None)


def cores() -> int:
    """Return how many processes this one may run at once."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MAX_PROCESSES)


def _serially(tx: Connection, *, first: int | None) -> Iterator[Page]:
    done = first or 0
    for rows in checks.event_rows(tx) if first is None else checks.event_rows(tx, first):
        page = check_rows(rows, first=done)
        done += len(rows)
        yield page


def _in_processes(database: str, *, size: int, processes: int) -> Iterator[Page]:
    """Yield pages, in order, until one cannot be read there."""
    # Not by fork: this process has threads, and an open database, which SQLite forbids to take along.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_open, initargs=(database,))
    waiting: deque[Future[Page | None]] = deque()
    firsts = iter(range(0, size, PAGE))
    try:
        while True:
            while len(waiting) < processes * AHEAD and (first := next(firsts, None)) is not None:
                waiting.append(pool.submit(_check, first, min(first + PAGE, size)))
            if not waiting:
                return
            page = waiting.popleft().result()
            if page is None:
                return
            yield page
    except BrokenProcessPool:
        return  # one was killed, or could not start
    finally:
        pool.shutdown(cancel_futures=True)


def _open(database: str) -> None:
    """In a process of its own: open the ledger once."""
    global _tx  # noqa: PLW0603 - what a pool's processes keep can only be kept so
    _tx = _resources.enter_context(reading(database))


def _check(first: int, end: int) -> Page | None:
    """In a process of its own: check the entries ``[first, end)``; None where they cannot be read, or are too few."""
    assert _tx is not None
    try:
        rows = checks.rows_between(_tx, first, end)
    except (DBAPIError, UnicodeDecodeError, CannotOpenError):
        return None
    return check_rows(rows, first=first) if len(rows) == end - first else None
