"""What the services do until the power goes, and what must be there when it is back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError

from act.contract import event_bytes
from act.domain.posted import Posted, read_posted
from act.ledger import append
from act.storage import store as act_store
from act.storage.tables import events
from act.verify import BadLedgerError, verify
from act.writer import Appended
from hmskit.errors import CannotOpenError
from oms.domain.errors import OmsError
from oms.sequencer.complete import Complete, complete
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.start import Start, Started, start
from oms.storage import store as oms_store
from oms.storage.tables import jobs
from tests.act.support import array, plain_job
from tests.faults.disk import PowerCutError
from tests.oms.fold import check_agrees, check_attempts, check_places, fold
from tests.oms.support import RENEWAL, Clock, Tower, event_rows, writer_engine


class DamagedError(Exception):
    """What is there is not a state that the service was ever in."""


class Work(Protocol):
    """A service on one database, over any number of power cuts."""

    def make(self, url: str) -> None:
        """Make the database, with power."""

    def run_until_cut(self, url: str, *, synchronous: str | None) -> None:
        """Work until the power goes; note what was acknowledged. ``synchronous``: other than the product's own."""

    @property
    def acknowledged(self) -> int:
        """How much was acknowledged so far: events, or starts and completes."""

    def count_lost(self, url: str) -> int:
        """Return how much of what was acknowledged is not there.

        Raises:
            DamagedError: what is there is no state that the service was ever in.
        """


def _set_synchronous(engine: Engine, synchronous: str | None) -> None:
    if synchronous is not None:  # not inside a transaction, where SQLite refuses it
        engine.raw_connection().cursor().execute(f"PRAGMA synchronous={synchronous}")


class ActWork:
    """ACT takes events of some jobs at once, in groups of batches; what a cut interrupts is posted again."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._source = _events(dice)
        self._taken: list[bytes] = []
        self._under_way: list[list[Posted]] = []

    def make(self, url: str) -> None:
        act_store.open_store(url, migrate=True).close()

    def run_until_cut(self, url: str, *, synchronous: str | None) -> None:
        with suppress(PowerCutError), closing(act_store.open_store(url, migrate=False)) as store:
            _set_synchronous(store.writer, synchronous)
            while True:
                self._append_some(store)

    def _append_some(self, store: act_store.Store) -> None:
        if not self._under_way:
            self._under_way = [
                read_posted(array(next(self._source) for _ in range(self._dice.randint(1, 20))))
                for _ in range(self._dice.randint(1, 3))
            ]
        with store.writer.begin() as tx:
            store.lock_appends(tx)
            outcomes = append(tx, self._under_way, now_us=1_763_820_309_000_000 + len(self._taken))
        # Here a client is answered 200: from now on it must be there, whatever happens.
        for batch, outcome in zip(self._under_way, outcomes, strict=True):
            assert isinstance(outcome, Appended), outcome
            self._taken += [event.raw for event, place in zip(batch, outcome.places, strict=True) if place[1]]
        self._under_way = []

    @property
    def acknowledged(self) -> int:
        return len(self._taken)

    def count_lost(self, url: str) -> int:
        try:
            store = act_store.open_store(url, migrate=False)
        except (CannotOpenError, DBAPIError) as error:
            raise DamagedError(f"the ledger cannot be opened: {error}") from error
        try:
            with store.reader.begin() as tx:
                verify(tx, keys=[], on_progress=lambda *_: None)
                found = [event_bytes(row.entry) for row in tx.execute(select(events.c.entry).order_by(events.c.idx))]
        except (BadLedgerError, DBAPIError) as error:
            raise DamagedError(f"act verify: {error}") from error
        finally:
            store.close()
        under_way = [event.raw for batch in self._under_way for event in batch]
        known = set(self._taken)
        news = [raw for raw in under_way if raw not in known]
        if found in (self._taken, self._taken + news):
            self._taken = found
            return 0
        if found == self._taken[: len(found)]:
            return len(self._taken) - len(found)
        raise DamagedError("the ledger has part of a transaction, or other events than it took")


def _events(dice: random.Random) -> Iterator[bytes]:
    """Yield the events of endlessly many jobs, some at a time."""
    open_jobs: list[Iterator[bytes]] = []
    number = 0
    while True:
        while len(open_jobs) < 5:
            number += 1
            open_jobs.append(iter(plain_job(f"JOB-{number}")))
        job = dice.choice(open_jobs)
        raw = next(job, None)
        if raw is None:
            open_jobs.remove(job)
        else:
            yield raw


class OmsWork:
    """OMS starts jobs, hands tasks out and takes outputs; starts and completes that a cut interrupts come again."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._clock = Clock()
        self._started: dict[str, str] = {}
        self._held: dict[str, LeasedTask] = {}
        self._completed: set[str] = set()
        self._under_way: list[Start | Complete] = []
        self._references = 0

    def make(self, url: str) -> None:
        store = oms_store.open_store(url)
        Tower(store, self._clock).put_plan(RENEWAL)
        store.close()

    def run_until_cut(self, url: str, *, synchronous: str | None) -> None:
        with suppress(PowerCutError), closing(oms_store.open_store(url, may_migrate=False)) as store:
            _set_synchronous(writer_engine(store), synchronous)
            tower = Tower(store, self._clock)
            while True:
                self._do_some(tower)

    def _do_some(self, tower: Tower) -> None:
        if not self._under_way:
            kind = self._dice.choice(("start", "pull", "complete"))
            if kind == "pull":
                (leased,) = tower.run(pull, Pull(self._dice.choice(RENEWAL["sequence"]), self._dice.randint(1, 5)))
                self._held |= {task.task_id: task for task in leased}
                return
            self._under_way = self._starts() if kind == "start" else self._completes()
        answers: list[Any] = []
        with tower.transaction() as tx:
            answers += start(tx, [wish for wish in self._under_way if isinstance(wish, Start)])
            answers += complete(tx, [wish for wish in self._under_way if isinstance(wish, Complete)])
        # Here the clients are answered 200.
        for wish, answer in zip(self._under_way, answers, strict=True):
            assert not isinstance(answer, OmsError), answer
            if isinstance(wish, Start):
                assert isinstance(answer, Started)
                self._started[answer.job_id] = wish.reference
            else:
                self._completed.add(wish.task_id)
                del self._held[wish.task_id]
        self._under_way = []

    def _starts(self) -> list[Start | Complete]:
        count = self._dice.randint(1, 4)
        self._references += count
        return [Start("renewal", f"T-{self._references - n}", {"n": n}, priority=50) for n in range(count)]

    def _completes(self) -> list[Start | Complete]:
        chosen = self._dice.sample(sorted(self._held), min(len(self._held), 4))
        return [Complete(task_id, {"of": task_id}, token=self._held[task_id].token) for task_id in chosen]

    @property
    def acknowledged(self) -> int:
        return len(self._started) + len(self._completed)

    def count_lost(self, url: str) -> int:
        try:
            store = oms_store.open_store(url, may_migrate=False)
        except (CannotOpenError, OmsError, DBAPIError) as error:
            raise DamagedError(f"OMS's database cannot be opened: {error}") from error
        try:
            return self._count_lost(store)
        except (DBAPIError, OmsError, AssertionError) as error:
            raise DamagedError(f"OMS's database: {error}") from error
        finally:
            store.close()

    def _count_lost(self, store: oms_store.Store) -> int:
        with store.reading() as tx:
            faults = [row[0] for row in tx.execute(text("PRAGMA integrity_check"))]
            assert faults == ["ok"], faults
            ids = tx.execute(select(jobs.c.job_id)).scalars().all()
        tower = Tower(store, self._clock)
        views = {name: tower.job(name) for name in (f"JOB-{number}" for number in ids)}
        rows = event_rows(store)
        check_places(rows)
        told = fold(row.body for row in rows)
        check_attempts(told)
        check_agrees(told, views)
        kept = {name: view["reference"] for name, view in views.items()}
        tasks = {task["task_id"]: task for view in views.values() for task in view["tasks"]}
        done = {name for name, task in tasks.items() if task["status"] == "done"}
        lost = sum(1 for name, reference in self._started.items() if kept.get(name) != reference)
        lost += len(self._completed - done)
        return lost + sum(1 for name in self._held if name not in tasks or tasks[name]["attempt"] < 1)


def database_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{path}"
