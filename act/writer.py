"""The one thread that writes the ledger: group commit.

Batches that arrive while the last commit is on its way to disk share the next one, so that many small posts cost one
fsync. Each is still all or nothing on its own: what is appended is decided in memory before a byte is written, and a
batch that is refused leaves the others alone. Nobody is answered before the commit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from act.domain.errors import ActError, UnavailableError
from act.domain.posted import Posted
from act.storage.store import Store
from hmskit.database import may_run_again

T = TypeVar("T")

MAX_GROUP_EVENTS = 5_000
"""Where a group ends: a transaction that is much larger would make its first batch wait for too many others."""
MAX_WAITING_EVENTS = 20_000
"""Past this many, a post is told to come again: memory has an end, and so has the patience of who posted."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one batch, now that it is on disk.

    Attributes:
        places: per event, in the batch's order: its index, whether it was appended now (otherwise the ledger had
            it), and its leaf hash.
        size: the ledger's size after it.
        streams: those that have grown.
    """

    places: list[tuple[int, bool, bytes]]
    size: int
    streams: frozenset[str]


Outcome = Appended | ActError
Append = Callable[[Connection, Sequence[Sequence[Posted]]], list[Outcome]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    batch: Sequence[Posted]
    answer: asyncio.Future[Appended]


@dataclass(frozen=True, slots=True)
class _Apart:
    """Something else for the writing connection, in a transaction of its own."""

    verb: Callable[[Connection], Any]
    answer: asyncio.Future[Any]


class _CommitFailedError(Exception):
    """A COMMIT that was not answered, or answered with the error ``cause``."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


class Writer:
    """Runs batches in groups, one transaction each, in a thread of its own.

    Args:
        store: its writing connection belongs to this thread.
        append: the verb; it decides and writes for many batches, in order, one outcome each.
        on_commit: called in the event loop after each commit, with what was appended.
    """

    def __init__(self, store: Store, append: Append, *, on_commit: Callable[[Sequence[Appended]], None]) -> None:
        self._store = store
        self._append = append
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[_Waiting | _Apart | None] = queue.SimpleQueue()
        self._waiting_events = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="act-writer", daemon=True)
        self._is_stopping = False

    @property
    def is_alive(self) -> bool:
        """Tell whether batches are being taken."""
        return self._thread.is_alive() and not self._is_stopping

    def start(self) -> None:
        """Start the thread; answers are given in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Commit what waits, answer it, and end the thread."""
        self._is_stopping = True
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    async def run(self, batch: Sequence[Posted]) -> Appended:
        """Append the batch; return once it is on disk.

        Raises:
            ActError: it was refused, or cannot be taken now; nothing of it was appended.
        """
        if self._loop is None or not self.is_alive:
            raise UnavailableError("ACT is stopping: post it again once it is back.")
        if self._waiting_events + len(batch) > MAX_WAITING_EVENTS:
            raise UnavailableError("More events are waiting for the disk than ACT keeps in memory: post it again.")
        waiting = _Waiting(batch, self._loop.create_future())
        self._waiting_events += len(batch)
        self._queue.put(waiting)
        return await waiting.answer

    async def run_apart(self, verb: Callable[[Connection], T]) -> T:
        """Run ``verb(tx)`` in a transaction of its own, before the next group; return once it is on disk.

        Raises:
            UnavailableError: the writer is stopping, or its database is gone.
            DBAPIError: as the database gave it.
        """
        if self._loop is None or not self.is_alive:
            raise UnavailableError("ACT is stopping.")
        apart = _Apart(verb, self._loop.create_future())
        self._queue.put(apart)
        result: T = await apart.answer
        return result

    def _work(self) -> None:
        """Take groups until told to stop. The thread's own function."""
        assert self._loop is not None
        more = True
        while more:
            group, more = self._next_group()
            if group:
                outcomes = self._commit([waiting.batch for waiting in group])
                self._loop.call_soon_threadsafe(self._give_answers, group, outcomes)

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """Wait for a batch; return it with those that wait behind it, and False once told to stop."""
        group: list[_Waiting] = []
        size = 0
        item = self._queue.get()
        while item is not None:
            if isinstance(item, _Apart):
                self._commit_apart(item)
            else:
                group.append(item)
                size += len(item.batch)
            if size >= MAX_GROUP_EVENTS:
                return group, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, batches: Sequence[Sequence[Posted]]) -> list[Outcome | Exception]:
        """Append and commit the batches in one transaction; one outcome each, whatever happens."""
        what = "Nothing was appended."
        try:
            return list(self._transaction(batches))
        except _CommitFailedError as failed:
            error, what = failed.cause, "Whether it was appended is not known: post it again, and see."
        except Exception as failed:  # noqa: BLE001 - it is answered or logged below
            error = failed
        why = error.detail if isinstance(error, UnavailableError) else self._store.why_unavailable(error)
        if why is not None:
            log.warning("append_unavailable", why=why, batches=len(batches))
            return [UnavailableError(f"{why[:1].upper()}{why[1:]}. {what}") for _ in batches]
        if len(batches) == 1:
            return [error]
        # One of them is bad in a way that the rules did not foresee: alone, it fails alone.
        log.error("append_group_failed", batches=len(batches), exc_info=error)
        return [outcome for batch in batches for outcome in self._commit([batch])]

    def _transaction(self, batches: Sequence[Sequence[Posted]]) -> list[Outcome]:
        """Append and commit the batches in one transaction.

        Where another transaction was in the way, or the connection broke, it is run once more on a new one: nothing
        of it was kept, so long as it had not come to its COMMIT.

        Raises:
            _CommitFailedError: it failed at the COMMIT, and may have been kept.
            Exception: it failed before, and nothing was kept.
        """
        try:
            return self._run_once(batches)
        except DBAPIError as error:
            if not may_run_again(error):
                raise
            log.info("append_runs_again", why=self._store.why_unavailable(error), batches=len(batches))
        return self._run_once(batches)

    def _run_once(self, batches: Sequence[Sequence[Posted]]) -> list[Outcome]:
        self._refuse_if_lost()
        is_committing = False
        try:
            with self._store.writer.begin() as connection:
                outcomes = self._append(connection, batches)
                self._refuse_if_lost()
                is_committing = True
        except Exception as error:
            # The connection may be in any state, its rollback may have failed too: the next batch gets a new one.
            self._store.writer.dispose()
            if is_committing:
                raise _CommitFailedError(error) from error
            raise
        return outcomes

    def _commit_apart(self, apart: _Apart) -> None:
        assert self._loop is not None
        try:
            self._refuse_if_lost()
            with self._store.writer.begin() as connection:
                result = apart.verb(connection)
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._store.writer.dispose()  # as after an append that failed
            self._loop.call_soon_threadsafe(_answer, apart.answer, None, error)
        else:
            self._loop.call_soon_threadsafe(_answer, apart.answer, result, None)

    def _refuse_if_lost(self) -> None:
        lost = self._store.lost()
        if lost is not None:
            raise UnavailableError(lost)

    def _give_answers(self, group: Sequence[_Waiting], outcomes: Sequence[Outcome | Exception]) -> None:
        """Answer who waits. Runs in the loop; who has gone away gets no answer, and its batch stands all the same."""
        for waiting, outcome in zip(group, outcomes, strict=True):
            self._waiting_events -= len(waiting.batch)
            if waiting.answer.done():
                continue
            if isinstance(outcome, Appended):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)
        self._on_commit([outcome for outcome in outcomes if isinstance(outcome, Appended)])


def _answer(answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    """Answer who waits, unless it has gone away. Runs in the loop."""
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
