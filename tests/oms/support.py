"""What OMS's tests share: a clock, plans, a driver of the verbs, a running service, and readers of the outbox."""

from __future__ import annotations

import asyncio
import functools
import json
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

import httpx
import pytest
from fastapi import FastAPI
from psycopg import errors
from sqlalchemy import Connection, Engine, select, text

from act.client import LedgerClient
from oms.app import create_app
from oms.config import Settings
from oms.domain.errors import OmsError
from oms.domain.plan_reader import parse_plan
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.load_plans import LoadedVersion, PutPlan, put_plans
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.reroute import Reroute, Rerouted, reroute
from oms.sequencer.retry import Retry, retry
from oms.sequencer.service import Service
from oms.sequencer.start import Start, Started, start
from oms.sequencer.sweep import Sweep, sweep
from oms.sequencer.swept import Swept
from oms.sequencer.views import job_view, lanes_view, task_view
from oms.sequencer.wishes import TaskAnswer
from oms.sequencer.writer import Verb, Writer
from oms.storage.store import Store, open_store
from oms.storage.tables import outbox
from oms.storage.transaction import Transaction
from tests.database import Database, connect

P = ParamSpec("P")
W = TypeVar("W")
R = TypeVar("R")

START_MS = 1_763_820_309_123
LIMIT_SEC = 10.0
"""How long a test waits for what must come; it polls, and goes on at once when it has come."""

RENEWAL: dict[str, Any] = {
    "id": "renewal",
    "lanes": [{"id": "extract", "lease_sec": 60}, {"verify": "human"}, {"id": "print", "kind": "vendor"}],
    "sequence": ["extract", "verify", "print"],
    "retry_policy": {"attempts": 3, "backoff_sec": 30},
}
"""Three steps, and nothing special."""

CHECKED: dict[str, Any] = {
    "id": "checked",
    "lanes": [{"id": "extract", "lease_sec": 60}, {"verify": "human"}],
    "sequence": [
        {
            "activity": "extract",
            "output_schema": {
                "type": "object",
                "required": ["score"],
                "properties": {"score": {"type": "number"}},
            },
        },
        {"activity": "verify", "when": "outputs.extract.score < 5"},
        {"activity": "file", "lane": "extract"},
    ],
    "retry_policy": {"attempts": 2, "backoff_sec": 0},
}
"""A schema, a step that may be skipped, and a second activity on the first lane."""

SINGLE: dict[str, Any] = {"id": "single", "lanes": ["only"], "sequence": ["only"]}
"""One activity."""


class Clock:
    """A clock that goes only when it is told to; call it for milliseconds since the epoch."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, sec: float) -> None:
        """Let time pass."""
        self.now_ms += round(sec * 1000)


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def writer_engine(store: Store) -> Engine:
    """Return the engine of the connections that write."""
    return store._database.writer


def break_next_commit(store: Store, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Let the next commit fail, before or after everything is on disk."""
    dialect = writer_engine(store).dialect
    commit = dialect.do_commit

    def fail_once(connection: Any) -> None:
        monkeypatch.setattr(dialect, "do_commit", commit)
        if after:
            commit(connection)
        if dialect.name == "postgresql":
            raise errors.IoError("could not fsync file")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    monkeypatch.setattr(dialect, "do_commit", fail_once)


def steps_of(connection: Connection, statement: Callable[[], object]) -> int:
    """Count what statements cost, on a database that nobody else uses.

    Returns:
        On SQLite the steps of its machine; on PostgreSQL the rows and index entries that were read.
    """
    if connection.dialect.name == "postgresql":
        before = connection.execute(_READ).scalar_one()
        statement()
        return int(connection.execute(_READ).scalar_one() - before)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    driver.set_progress_handler(count, 1)
    statement()
    driver.set_progress_handler(None, 0)
    return steps


_READ = text(
    "SELECT sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid))"
    " FROM pg_class WHERE relnamespace = 'public'::regnamespace"
)


def tidy(store: Store) -> None:
    """Let PostgreSQL forget old rows and count those there are, as it does by itself after a minute."""
    if store.is_shared:
        with connect(store.url) as session:
            session.execute("VACUUM ANALYZE")


async def until(condition: Callable[[], object], *, what: str) -> None:
    """Wait until ``condition`` holds, or fail after `LIMIT_SEC` saying what did not come."""
    ends = time.monotonic() + LIMIT_SEC
    while not condition():
        assert time.monotonic() < ends, f"did not come within {LIMIT_SEC} s: {what}"
        await asyncio.sleep(0.002)


async def turns(count: int = 5) -> None:
    """Let everything that is ready in the loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


def event_rows(store: Store, stream: str | None = None) -> list[Any]:
    """Return the outbox's rows, in the order of their ids."""
    statement = select(outbox).order_by(outbox.c.id)
    if stream is not None:
        statement = statement.where(outbox.c.stream == stream)
    with store.reading() as connection:
        return list(connection.execute(statement))


def events(store: Store, stream: str | None = None) -> list[dict[str, Any]]:
    """Return the outbox's events, in the order of their ids."""
    return [json.loads(row.body) for row in event_rows(store, stream)]


def told(store: Store, stream: str | None = None) -> list[tuple[str, str]]:
    """Return what the events say in short: what changed, and how."""
    return [(event["type"].split(".")[1], event["data"]["status"]) for event in events(store, stream)]


@dataclass
class Tower:
    """OMS without HTTP and without threads: each call is one transaction on the store."""

    store: Store
    clock: Clock

    def run(self, verb: Verb[W, R], *wishes: W) -> list[R]:
        """Run a verb on a batch of wishes; return the answers and refusals."""
        with self.transaction() as tx:
            return list(verb(tx, wishes))

    def one(self, verb: Verb[W, R | OmsError], wish: W) -> R:
        """Run a verb on one wish; raise what it was refused with."""
        (answer,) = self.run(verb, wish)
        if isinstance(answer, OmsError):
            raise answer
        return answer

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction; it is committed at the end of the block."""
        with self.store.connect_writer() as connection, self.store.begin(connection, now_ms=self.clock()) as tx:
            yield tx

    def put_plan(self, document: dict[str, Any]) -> LoadedVersion:
        """Put a plan in force."""
        return self.one(put_plans, PutPlan(parse_plan(document)))

    def start(
        self, plan: str = "renewal", reference: str = "T-1", data: dict[str, Any] | None = None, priority: int = 0
    ) -> Started:
        return self.one(start, Start(plan=plan, reference=reference, input=data or {}, priority=priority))

    def pull(self, lane: str, limit: int = 1, worker: str | None = None) -> list[LeasedTask]:
        (leased,) = self.run(pull, Pull(lane=lane, limit=limit, worker=worker))
        return leased

    def pull_one(self, lane: str, worker: str | None = None) -> LeasedTask:
        (task,) = self.pull(lane, worker=worker)
        return task

    def complete(self, task: LeasedTask, output: dict[str, Any] | None = None) -> TaskAnswer:
        return self.one(complete, Complete(task_id=task.task_id, output=output or {}, token=task.token))

    def fail(self, task: LeasedTask, message: str = "no luck", *, retryable: bool = True) -> TaskAnswer:
        return self.one(
            fail,
            Fail(task_id=task.task_id, error_type="error", message=message, retryable=retryable, token=task.token),
        )

    def release(self, task: LeasedTask) -> TaskAnswer:
        return self.one(release, Release(task_id=task.task_id, token=task.token))

    def reroute(self, task_id: str, new_lane: str) -> Rerouted:
        return self.one(reroute, Reroute(task_id=task_id, new_lane=new_lane))

    def retry(self, task_id: str) -> TaskAnswer:
        return self.one(retry, Retry(task_id=task_id))

    def sweep(self) -> Swept:
        (swept,) = self.run(sweep, Sweep())
        return swept

    def job(self, job_id: str) -> dict[str, Any]:
        with self.store.reading() as connection:
            return job_view(connection, job_id)

    def task(self, task_id: str) -> dict[str, Any]:
        with self.store.reading() as connection:
            return task_view(connection, task_id)

    def lanes(self) -> dict[str, dict[str, Any]]:
        with self.store.reading() as connection:
            items = lanes_view(connection, self.store.plans, now_ms=self.clock())["items"]
        return {item["lane"]: item for item in items}


@asynccontextmanager
async def working(tower: Tower) -> AsyncIterator[Writer]:
    """Run a writer on the tower's store; it is stopped at the end."""
    writer = Writer(tower.store, now_ms=tower.clock, on_recorded=lambda: None)
    writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


class Hold:
    """A verb that keeps the writer busy until it is let go, so that what comes meanwhile shares a transaction."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._entered = threading.Event()
        self._free = threading.Event()

    async def __aenter__(self) -> Self:
        def hold(_tx: Transaction, wishes: Sequence[None]) -> list[None]:
            self._entered.set()
            assert self._free.wait(LIMIT_SEC), "nobody let the writer go"
            return list(wishes)

        self._held = asyncio.ensure_future(self._writer.run_each(hold, [None]))
        await until(self._entered.is_set, what="the writer took the hold")
        return self

    async def __aexit__(self, *_: object) -> None:
        await turns()  # what was asked for meanwhile is in the queue now
        self._free.set()
        await self._held


Fault = Callable[["ScriptedLedger", list[bytes]], httpx.Response]


class ScriptedLedger:
    """ACT as its contract says, and the faults that a test puts into its script.

    Attributes:
        streams: the events that it has, by stream, in order.
        batches: the ids of each batch that came, whether taken or not.
        script: what happens to the next batches, instead of being taken.
        is_up: False refuses every connection.
    """

    def __init__(self) -> None:
        self.streams: dict[str, list[bytes]] = defaultdict(list)
        self.places: dict[str, int] = {}
        self.batches: list[list[str]] = []
        self.script: list[Fault] = []
        self.is_up = True

    def client(self) -> LedgerClient:
        """Return a client of this ledger."""
        return LedgerClient("http://act", transport=httpx.MockTransport(self.handle))

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        if not self.is_up:
            raise httpx.ConnectError("nobody listens", request=request)
        if request.url.path == "/healthz":
            return httpx.Response(200, json={})
        batch = [json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() for event in _list(request)]
        self.batches.append([json.loads(event)["id"] for event in batch])
        if self.script:
            return self.script.pop(0)(self, batch)
        return self.take(batch)

    def take(self, batch: Sequence[bytes]) -> httpx.Response:
        """Take all events of a batch, or none."""
        before = {stream: len(known) for stream, known in self.streams.items()}
        results = []
        for raw in batch:
            event = json.loads(raw)
            stream, _, seq = event["id"].rpartition(".")
            known = self.streams[stream]
            outcome = "duplicate"
            if int(seq) == len(known) + 1:
                outcome = "appended"
                known.append(raw)
                self.places.setdefault(event["id"], len(self.places))
            elif int(seq) > len(known):
                self._undo(before)
                return problem(409, "gap", event_id=event["id"], expected_seq=len(known) + 1)
            elif known[int(seq) - 1] != raw:
                self._undo(before)
                return problem(409, "fork", event_id=event["id"])
            place = self.places[event["id"]]
            results.append({"id": event["id"], "index": place, "outcome": outcome, "leaf_hash": f"{place:064x}"})
        return httpx.Response(200, json={"results": results})

    def _undo(self, before: dict[str, int]) -> None:
        for stream, known in self.streams.items():
            for raw in known[before.get(stream, 0) :]:
                del self.places[json.loads(raw)["id"]]
            del known[before.get(stream, 0) :]


def _list(request: httpx.Request) -> list[Any]:
    batch = json.loads(request.content)
    assert isinstance(batch, list)
    return batch


def problem(status: int, code: str, **more: Any) -> httpx.Response:
    """Return a refusal of ACT's."""
    return httpx.Response(status, json={"code": code, "detail": f"refused: {code}", **more})


def refuse(status: int, code: str, **more: Any) -> Fault:
    """Return the fault that a batch is refused."""
    return lambda _ledger, _batch: problem(status, code, **more)


def lose_reply(ledger: ScriptedLedger, batch: list[bytes]) -> httpx.Response:
    """The batch is taken, and the answer is lost on its way."""
    ledger.take(batch)
    raise httpx.ReadTimeout("no answer came")


@dataclass
class Running:
    """A running service in this process, and a client of it."""

    app: FastAPI
    http: httpx.AsyncClient
    store: Store
    clock: Clock

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    @property
    def writer(self) -> Writer:
        return self.service.writer

    async def sweep(self) -> None:
        """Let the sweeper look now."""
        await self.writer.run_each(sweep, [Sweep()])

    async def post(self, path: str, body: object) -> dict[str, Any]:
        """Post a body that must be taken."""
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        value: dict[str, Any] = answer.json()
        return value

    async def get(self, path: str, **query: Any) -> Any:
        """Get what must be there."""
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def parked(self, count: int) -> None:
        """Wait until so many pulls wait."""
        await until(lambda: self.writer.parked == count, what=f"{count} waiting pulls, not {self.writer.parked}")


@dataclass(frozen=True)
class Site:
    """Where a service under test lives: a folder with its plans, and its database."""

    folder: Path
    database: Database


def make_settings(site: Site, **more: Any) -> Settings:
    """Return settings that no environment changes: the sweeper sleeps, and the plan folder is empty."""
    plans = site.folder / "plans"
    plans.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "database_url": site.database.url,
        "plans": plans,
        "act_url": "http://act",
        "sweep_interval_sec": 60,
        **more,
    }
    return Settings(**values)


@asynccontextmanager
async def running(
    site: Site,
    *,
    plans: Sequence[dict[str, Any]] = (RENEWAL, CHECKED, SINGLE),
    clock: Clock | None = None,
    ledger: ScriptedLedger | None = None,
    store: Store | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Run the service in this process, with a ledger that takes everything, and plans put in force by HTTP."""
    clock = clock or Clock()
    chosen = make_settings(site, **settings)
    store = store or open_store(chosen.database_url, writers=chosen.writers)
    app = create_app(chosen, store, ledger=(ledger or ScriptedLedger()).client(), now_ms=clock)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://oms", timeout=LIMIT_SEC) as http,
    ):
        for document in plans:
            answer = await http.post("/plans", json=document)
            assert answer.status_code == 200, answer.text
        yield Running(app, http, store, clock)
