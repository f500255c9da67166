"""What ACT's tests share: events, a running service in this process, a live stream's client, and a full check."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import psycopg
from fastapi import FastAPI
from sqlalchemy import Engine, select
from sqlalchemy import event as hook
from sqlalchemy.exc import OperationalError

from act.app import create_app
from act.config import Settings
from act.contract import EVENT, Entity, encode_event, entry_bytes, event_bytes, leaf_hash
from act.domain.posted import facts_of
from act.keys import Keys
from act.ledger import Clock, Ledger
from act.signer import Signer
from act.storage.store import Store, open_store
from act.storage.tables import BLOCK_EVENTS, blocks, events, heads, tiles
from act.storage.tree import behind, catch_up, frontier_of
from tests.act.trees import mth

T = TypeVar("T")

NOW_MS = 1_763_820_309_123
LIMIT_SEC = 10.0
"""How long a test waits for what must come; it polls, and goes on at once when it has come."""


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run an asynchronous scenario to its end."""
    return asyncio.run(scenario)


async def until(condition: Callable[[], bool], *, what: str) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(LIMIT_SEC):
        while not condition():  # noqa: ASYNC110 - the service under test has no event for it
            await asyncio.sleep(0.002)
    assert condition(), what


def event(
    job: str = "JOB-1",
    seq: int = 1,
    *,
    entity: Entity = "task",
    status: str = "queued",
    lane: str | None = "ai_extract",
    time_ms: int = NOW_MS,
    task: str = "TASK-1",
    **more: Any,
) -> bytes:
    """Return an event's bytes. ``more`` goes into ``data``; on a job's own events lane and task are null."""
    of_task = entity == "task"
    data = {
        "job_id": None if job.startswith("LANE-") else job,
        "plan": "passport_renewal",
        "plan_version": 1,
        "reference": f"ticket-of-{job}",
        "task_id": task if of_task else None,
        "activity": lane if entity in ("task", "step") else None,
        "lane": None if entity == "job" else lane,
        "status": status,
        "attempt": None,
        "worker": None,
        "actor": None,
        "detail": {},
        **more,
    }
    return encode_event(
        stream=job, seq=seq, entity=entity, subject=task if of_task else job, time_ms=time_ms, data=data
    )


def plain_job(job: str, *, lane: str = "ai_extract", time_ms: int = NOW_MS, task: str | None = None) -> list[bytes]:
    """Return the events of a job of one activity, one second apart."""
    name = task or f"TASK-{job.removeprefix('JOB-')}"
    worker: dict[str, Any] = {"attempt": 1, "worker": "w-1"}
    return [
        event(job, 1, entity="job", status="queued", time_ms=time_ms),
        event(job, 2, status="queued", lane=lane, time_ms=time_ms + 1000, task=name),
        event(job, 3, status="started", lane=lane, time_ms=time_ms + 2000, task=name, **worker),
        event(
            job,
            4,
            status="done",
            lane=lane,
            time_ms=time_ms + 3000,
            task=name,
            **worker,
            detail={"output_hmac": "ab" * 32},
        ),
        event(job, 5, entity="job", status="done", time_ms=time_ms + 4000),
    ]


def array(raws: Iterable[bytes]) -> bytes:
    """Return the body that posts the events."""
    return b"[" + b",".join(raws) + b"]"


@dataclass
class Act:
    """A running service and its client."""

    app: FastAPI
    http: httpx.AsyncClient
    store: Store

    @property
    def signer(self) -> Signer:
        signer: Signer = self.app.state.signer
        return signer

    async def signed(self) -> None:
        """Wait until a checkpoint covers the whole ledger, or the signer has stopped."""
        await until(
            lambda: self.signer.health["stopped"] or self.signer.health["size"] == self.ledger.size, what="a checkpoint"
        )

    @property
    def ledger(self) -> Ledger:
        ledger: Ledger = self.app.state.ledger
        return ledger

    async def post(self, *raws: bytes) -> httpx.Response:
        """Post the events as one batch."""
        return await self.http.post("/events", content=array(raws))

    async def append(self, *raws: bytes) -> dict[str, Any]:
        """Post the events, which must be taken."""
        answer = await self.post(*raws)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def rows(self, query: str = "") -> list[dict[str, Any]]:
        """Return the rows of ``/stream``, which must answer."""
        answer = await self.http.get(f"/stream?{query}")
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows


async def figures_of(act: Act) -> dict[str, float]:
    """Return what Prometheus is told."""
    answer = await act.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line.split(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


@asynccontextmanager
async def running(
    url: str, *, clock: Clock | None = None, raises: bool = True, keys: Keys | None = None, **settings: Any
) -> AsyncIterator[Act]:
    """Run ACT in this process.

    Args:
        url: of its database.
        clock: the time of receipt.
        raises: an unexpected error fails the test instead of giving a 500.
        keys: sign with them; None: nothing is signed.
        settings: more of them.
    """
    read = Settings(database_url=url, **settings)
    store = open_store(url, migrate=True)
    app = create_app(read, store, keys=keys, **({} if clock is None else {"clock": clock}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://act") as http,
    ):
        yield Act(app, http, store)


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """Open a ledger's database until the end of the block."""
    store = open_store(url, migrate=True)
    try:
        yield store
    finally:
        store.close()


def check_ledger(store: Store) -> list[bytes]:
    """Read the whole ledger and check all that must hold of it; return the events' bytes in index order."""
    with store.reader.begin() as tx:
        rows = tx.execute(select(events).order_by(events.c.idx)).all()
        kept_heads = {row.stream: row.seq for row in tx.execute(select(heads))}
        kept_blocks = [tuple(row) for row in tx.execute(select(blocks).order_by(blocks.c.block))]
    assert [row.idx for row in rows] == list(range(len(rows))), "the index has a gap"
    last: dict[str, int] = defaultdict(int)
    for row in rows:
        raw = event_bytes(row.entry)
        assert row.entry == entry_bytes(row.received_us, raw)
        assert row.leaf_hash == leaf_hash(row.entry)
        facts = facts_of(EVENT.validate_json(raw))
        assert {name: getattr(row, name) for name in facts} == facts, "a column says something else than the bytes"
        assert row.seq == last[row.stream] + 1, "a stream has a gap or is out of order"
        last[row.stream] = row.seq
    assert kept_heads == dict(last)
    full = [rows[at : at + BLOCK_EVENTS] for at in range(0, len(rows) - BLOCK_EVENTS + 1, BLOCK_EVENTS)]
    assert kept_blocks == [
        (number, min(row.ts_ms for row in block), max(row.ts_ms for row in block)) for number, block in enumerate(full)
    ]
    with store.reader.begin() as tx:
        is_behind = behind(tx) > 0
    if is_behind:  # the release before appends without the tree
        with store.writer.begin() as tx:
            store.lock_appends(tx)
            assert catch_up(tx, count=len(rows)) == 0
    check_tree(store, [row.leaf_hash for row in rows])
    return [event_bytes(row.entry) for row in rows]


def check_tree(store: Store, leaves: Sequence[bytes]) -> None:
    """Check the kept tree and every full tile against RFC 6962's own definition, over the leaf hashes."""
    with store.reader.begin() as tx:
        frontier = frontier_of(tx)
        kept = {(row.level, row.number): (row.hashes, row.root) for row in tx.execute(select(tiles))}
    assert frontier is not None
    assert (frontier.size, frontier.root) == (len(leaves), mth(leaves))
    expected, level, nodes = {}, 0, list(leaves)
    while len(nodes) >= 256:
        full = [nodes[at : at + 256] for at in range(0, len(nodes) - 255, 256)]
        expected.update({(level, at): (b"".join(tile), mth(tile)) for at, tile in enumerate(full)})
        level, nodes = level + 1, [mth(tile) for tile in full]
    assert kept == expected


class LiveClient:
    """Follows ``/stream`` in this process. Like a browser it keeps the last id, and can be slow."""

    def __init__(self, app: FastAPI, target: str, headers: Mapping[str, str] | None = None) -> None:
        url = urlsplit(target)
        self._app = app
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": url.path,
            "raw_path": url.path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": url.query.encode(),
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in {"host": "act", "accept": "text/event-stream", **(headers or {})}.items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("act", 80),
        }
        self._gone = asyncio.Event()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.is_ended = False
        self._asked = False

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self._app(self._scope, self._receive, self._send))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        self.may_send.set()
        async with asyncio.timeout(LIMIT_SEC):
            await self.task

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.may_send.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self.chunks.append(message.get("body", b""))
        self.is_ended = not message.get("more_body", False)

    @property
    def text(self) -> str:
        """All that came."""
        return b"".join(self.chunks).decode()

    def rows(self) -> list[tuple[int, dict[str, Any]]]:
        """Return each row that came in full, with its id."""
        found = []
        for block in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "data" in fields:
                found.append((int(fields["id"]), json.loads(fields["data"])))
        return found

    async def rows_up_to(self, count: int, *, last: int = -1) -> list[tuple[int, dict[str, Any]]]:
        """Wait until ``count`` rows have come, or the one with the id ``last``; return them."""

        def have_come() -> bool:
            rows = self.rows()
            return len(rows) >= count or any(row_id == last for row_id, _ in rows)

        await until(lambda: have_come() or self.task.done(), what=f"{count} rows")
        return self.rows()


def sqlite_error(code: int, text: str = "x") -> sqlite3.OperationalError:
    """Return what SQLite's driver raises."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def passing_error(engine: Engine) -> Exception:
    """Return what the engine's driver raises where the disk fails."""
    if engine.dialect.name == "sqlite":
        return sqlite_error(sqlite3.SQLITE_IOERR_WRITE, "disk I/O error")
    return psycopg.errors.IoError("could not write to file")


def wrapped(error: Exception) -> OperationalError:
    """Return the driver's error as SQLAlchemy raises it."""
    return OperationalError("statement", {}, error)


def sqlite_file(engine: Engine) -> Path:
    """Return the file behind an engine."""
    assert engine.url.database is not None
    return Path(engine.url.database)


def batches(raws: Sequence[bytes], size: int) -> list[list[bytes]]:
    """Cut the events into batches."""
    return [list(raws[at : at + size]) for at in range(0, len(raws), size)]


@contextmanager
def failing_reads(engine: Engine) -> Iterator[None]:
    """Fail every statement on the engine."""

    def fail(*_: object) -> None:
        raise wrapped(passing_error(engine))

    hook.listen(engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        hook.remove(engine, "before_cursor_execute", fail)
