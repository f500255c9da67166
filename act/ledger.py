"""The ledger's verbs: append and stream, and the open ledger that runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress, repeat
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from act.domain.entry import Entry
from act.domain.errors import ActError, ForkError, NotFoundError, UnavailableError
from act.domain.filters import Filters
from act.domain.fold import JobFold
from act.domain.order import Kept, Place, is_new
from act.domain.posted import Posted
from act.followers import Followers
from act.forks import Forks
from act.storage.entries import (
    Row,
    add_events,
    close_blocks,
    event_rows,
    growth_since,
    heads_of,
    kept_in,
    move_heads,
    size_of,
)
from act.storage.forks import add_fork, count_forks
from act.storage.pages import has_job, has_stream, job_page, latest, ledger_page, seq_at
from act.storage.store import Store
from act.storage.tables import SCHEMA_REVISION
from act.storage.tree import catch_up, grown, write_growth
from act.writer import Appended, Outcome, Writer
from hmskit.migrate import schema_revision, works_with
from hmskit.prepared import in_one_go

P = ParamSpec("P")
T = TypeVar("T")

Clock = Callable[[], int]
"""Returns microseconds since the epoch."""

PAGE = 1_000
"""How many entries are read at once."""

LOOK_AROUND_EVERY_SEC = 5.0
"""How often it is looked what became of other processes."""

log = structlog.get_logger(__name__)


def system_clock() -> int:
    """Return the machine's time, microseconds since the epoch."""
    return time.time_ns() // 1000


def append(tx: Connection, batches: Sequence[Sequence[Posted]], *, now_us: int) -> list[Outcome]:
    """Append each batch, or refuse it, as if they came one after the other; one outcome each.

    One read for all, the append rule in memory, then one write per table: a batch that is refused has appended
    nothing, so it needs no savepoint; a fork is kept, beside the ledger. All of it stands or falls with ``tx``, which
    the caller commits.
    """
    size_before = size_of(tx)
    known = heads_of(tx, {event.stream for batch in batches for event in batch})
    heads = dict(known)
    kept: dict[Place, Kept] = kept_in(
        tx,
        [
            (event.stream, event.seq)
            for batch in batches
            for event in batch
            if event.stream in known and event.seq <= known[event.stream]
        ],
    )
    rows: list[Row] = []
    outcomes: list[Outcome] = []
    for batch in batches:
        try:
            news = is_new(batch, heads=heads, kept=kept)
        except ActError as error:
            outcomes.append(error)
            if isinstance(error, ForkError):
                add_fork(tx, error, now_us=now_us)
            continue
        first = size_before + len(rows)
        taken = list(compress(batch, news))
        more, leaves = event_rows(taken, first=first, received_us=now_us)
        rows += more
        grown_to = {event.stream: event.seq for event in taken}
        heads.update(grown_to)
        if len(batches) == 1 and len(taken) == len(batch):  # nobody will ask what stands in these places
            places = list(zip(range(first, first + len(taken)), repeat(True), leaves))
        else:
            for index, (event, leaf) in enumerate(zip(taken, leaves, strict=True), start=first):
                kept[event.stream, event.seq] = Kept(index, event.raw, leaf)
            places = _places(batch, news, kept)
        outcomes.append(Appended(places, size_before + len(rows), frozenset(grown_to)))
    if rows:
        growth = grown(tx, [leaf for *_, leaf, _ in rows], size_before=size_before)
        with in_one_go(tx):
            add_events(tx, rows)
            move_heads(tx, dict(heads.items() - known.items()), known=known)
            write_growth(tx, growth)
        close_blocks(tx, size_before=size_before, size=size_before + len(rows))
    return outcomes


def _places(batch: Sequence[Posted], news: Sequence[bool], kept: Mapping[Place, Kept]) -> list[tuple[int, bool, bytes]]:
    return [
        (has.index, new, has.leaf_hash)
        for event, new in zip(batch, news, strict=True)
        for has in (kept[event.stream, event.seq],)
    ]


def last_index(tx: Connection) -> int:
    """Return the index of the newest event; -1 where the ledger is empty."""
    return size_of(tx) - 1


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of the ledger, oldest first.

    Attributes:
        entries: those that the filters admit.
        position: where the next page begins; see `start`.
        is_last: there was no more when it was read.
    """

    entries: list[Entry]
    position: int
    is_last: bool


def start(tx: Connection, filters: Filters, *, after: int) -> int:
    """Return the position that comes after the index ``after`` (-1: the beginning), for `stream`.

    A position is the last thing seen: of a job its ``seq``, of the whole ledger the index. Either way what comes
    later has a higher one, so that a reader who goes on from it misses nothing and sees nothing twice.

    Raises:
        NotFoundError: the ledger has no event of the job, or of the stream.
    """
    name = filters.one_stream
    if name is None:
        return after
    if not (has_stream(tx, name) if filters.job is None else has_job(tx, name)):
        what = "a stream" if filters.job is None else "a job"
        raise NotFoundError(f"The ledger has no event of {what} {name!r}. Ask OMS whether its events are waiting.")
    return seq_at(tx, name, after=after) if after >= 0 else 0


def stream(tx: Connection, filters: Filters, *, position: int, count: int, last: int | None = None) -> Page:
    """Return the next page after ``position``: at most ``count`` entries.

    Args:
        tx: a reader's transaction.
        filters: which entries.
        position: from `start`, or of the page before.
        count: how many are read; with filters on a job, fewer may be in the page although it is not the last.
        last: the index that the whole ledger ends with; None: what it ends with now.
    """
    if filters.one_stream is not None:
        read = job_page(tx, filters.one_stream, after_seq=position, count=count)
        return Page(
            [entry for entry in read if filters.admits(entry)],
            read[-1].seq if read else position,
            len(read) < count,
        )
    end = last_index(tx) if last is None else last
    page = ledger_page(tx, filters, after=position, last=end, count=count)
    if len(page) == count:
        return Page(page, page[-1].idx, is_last=False)
    return Page(page, max(end, position), is_last=True)


def stream_latest(tx: Connection, filters: Filters, *, after: int) -> list[Entry]:
    """Return the newest entry of each lane and status after the index ``after``, oldest first.

    The entries without a lane (a job's own) count as one lane.

    Raises:
        NotFoundError: the ledger has no event of the job.
    """
    if filters.job is None:
        return latest(tx, filters, after=after)
    newest: dict[tuple[str | None, str], Entry] = {}
    position, is_last = start(tx, filters, after=after), False
    while not is_last:
        page = stream(tx, filters, position=position, count=PAGE)
        newest.update(((entry.lane, entry.status), entry) for entry in page.entries)
        position, is_last = page.position, page.is_last
    return sorted(newest.values(), key=lambda entry: entry.idx)


def job_state(tx: Connection, job_id: str) -> dict[str, Any]:
    """Return the state that the job's events add up to.

    Raises:
        NotFoundError: the ledger has no event of the job.
    """
    filters = Filters(job=job_id)
    fold = JobFold(job_id)
    position, is_last = start(tx, filters, after=-1), False
    while not is_last:
        page = stream(tx, filters, position=position, count=PAGE)
        fold.take(page.entries)
        position, is_last = page.position, page.is_last
    return fold.body()


class Ledger:
    """The open ledger. Appends go through one writing thread, reads through a few reading ones.

    Belongs to one event loop, from `open` to `close`.

    Args:
        store: the open database; `close` closes it.
        clock: gives an event's time of receipt.
        max_followers: how many live streams there may be.
        poll_sec: how often another process's appends are looked for.
    """

    def __init__(
        self, store: Store, *, clock: Clock = system_clock, max_followers: int = 500, poll_sec: float = 0.1
    ) -> None:
        self._store = store
        self._clock = clock
        self._poll_sec = poll_sec
        self._readers = ThreadPoolExecutor(store.readers, thread_name_prefix="act-reader")
        self._writer = Writer(store, self._append_now, on_commit=self._note_growth)
        self._poller: asyncio.Task[None] | None = None
        self.schema = SCHEMA_REVISION
        self.followers = Followers(max_followers)
        self.size = self._noticed = self._read(size_of)
        self.forks = Forks(self._read(count_forks))

    async def open(self) -> None:
        """Start the threads."""
        self._writer.start()
        self._poller = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Commit and answer what waits, then close the database."""
        self.followers.stop()
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller
        await self._writer.stop()
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self._store.close)

    async def append(self, batch: Sequence[Posted]) -> Appended:
        """Append the batch, all of it or nothing; return once it is on disk.

        Raises:
            ForkError: the ledger has other bytes in an event's place.
            GapError: an earlier event is missing.
            UnavailableError: it cannot be taken now.
        """
        try:
            return await self._writer.run(batch)
        except ForkError as error:
            self.forks.note(error)
            with suppress(UnavailableError):
                self.forks.recorded = await self.read(count_forks)
            raise

    async def read(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        """Run ``verb(tx, ...)`` in a reading thread; it sees one moment of the ledger.

        Raises:
            UnavailableError: the database cannot answer now.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: self._read(verb, *args, **named))

    async def write(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        """Run ``verb(tx, ...)`` in the writing thread, in a transaction of its own; return once it is on disk.

        For what is not an append, and small: appends wait for it.

        Raises:
            UnavailableError: the database cannot take it now.
        """
        try:
            return await self._writer.run_apart(lambda tx: verb(tx, *args, **named))
        except DBAPIError as error:
            raise self._unavailable(error) from error

    async def grow_tree(self, *, count: int) -> int:
        """Add at most ``count`` events to a tree that is behind the ledger; return how many are left.

        Raises:
            UnavailableError: the database cannot take it now.
        """

        def grow(tx: Connection) -> int:
            self._store.lock_appends(tx)
            return catch_up(tx, count=count)

        return await self.write(grow)

    def now_ms(self) -> int:
        """Return ACT's time, milliseconds since the epoch."""
        return self._clock() // 1000

    async def not_ready(self) -> str | None:
        """Return why the service cannot do its work now; None when it can."""
        if not self._writer.is_alive:
            return "ACT is starting or stopping"
        lost = self._store.lost()
        if lost is not None:
            return lost
        try:
            revision = await self.read(schema_revision)
        except UnavailableError as error:
            return error.detail
        if not works_with(revision, own=SCHEMA_REVISION):
            return f"the database's schema is at {revision}, and {SCHEMA_REVISION} is needed: run `act migrate`"
        return None

    def _read(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        try:
            with self._store.reader.begin() as tx:
                return verb(tx, *args, **named)
        except ActError:
            raise
        except Exception as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> UnavailableError:
        """Return what to raise where the database cannot answer now.

        Raises:
            Exception: the error itself, where the statement is at fault.
        """
        why = self._store.why_unavailable(error)
        if why is None:
            raise error
        return UnavailableError(f"{why[:1].upper()}{why[1:]}.")

    def _append_now(self, tx: Connection, batches: Sequence[Sequence[Posted]]) -> list[Outcome]:
        self._store.lock_appends(tx)
        return append(tx, batches, now_us=self._clock())

    def _note_growth(self, appended: Sequence[Appended]) -> None:
        """Wake who follows what this process has just appended."""
        first = next((index for outcome in appended for index, new, _ in outcome.places if new), None)
        if first is None:
            return
        size = appended[-1].size
        if first <= self._noticed:  # otherwise another process's events are in between: the next look is for them
            self._noticed = max(self._noticed, size)
        self.size = max(self.size, size)
        self.followers.wake({stream for outcome in appended for stream in outcome.streams})

    async def _look_around(self) -> None:
        """Look what became of other processes: forks that they refused, and locks that they hold for ever."""
        self.forks.recorded = await self.read(count_forks)
        ended = await self.read(self._store.end_stuck)
        if ended:
            log.warning("stuck_sessions_ended", sessions=ended, detail="an ACT stands still with the append's lock")

    async def _poll(self) -> None:
        """Notice what another process appended: this one's own commits have woken the followers already."""
        is_failing = False
        look_around_at = 0.0
        while True:
            await asyncio.sleep(self._poll_sec)
            try:
                size, streams = await self.read(growth_since, self._noticed)
                if time.monotonic() >= look_around_at:
                    await self._look_around()
                    look_around_at = time.monotonic() + LOOK_AROUND_EVERY_SEC
            except Exception as error:
                if not is_failing and isinstance(error, UnavailableError):
                    log.warning("poll_failed", why=error.detail)
                elif not is_failing:
                    log.exception("poll_failed")
                is_failing = True
                continue
            is_failing = False
            if size > self._noticed:
                self._noticed = size
                self.size = max(self.size, size)
                self.followers.wake(streams)
