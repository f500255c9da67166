"""Compare OMS with the ledger: what the events add up to is what OMS's tables say, and every receipt is in the tree.

Both may be at work meanwhile. OMS shows a job as its event number ``seq`` left it, and the receipts of its events, all
of one moment; the ledger is read after that. So the first ``seq`` events must add up to just this, and what has come
since is no difference. Events that ACT does not have yet, and has not acknowledged, are waited for. What the ledger
shows must stand in the tree that it has signed: else it could show another history to whoever compares. Lanes that were
ever paused have events of their own, and are compared like jobs.

Over HTTP only: OMS's ``/jobs`` and ``receipts``, ACT's ``/export``, ``/checkpoint`` and ``/tile``. A job's receipts are
held at a time, and what is compared at once is a few jobs: memory does not grow with the number of jobs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from act.contract import EVENT, LANE_PREFIX, entry_bytes, leaf_hash
from act.domain.entry import Entry
from act.domain.note import VerifierKey
from act.domain.posted import facts_of
from act.reconcile_told import Held, JobTold, LaneTold, Stands, Told, task_of
from act.remote_tree import RemoteTree, TreeError

AT_ONCE = 8
"""How many jobs are compared at once."""
JOBS_PAGE = 1_000
RECEIPTS_PAGE = 10_000
TIMEOUT_SEC = 60.0
LOOK_AGAIN_SEC = 0.2
MAX_TRIES = 5
TRY_AGAIN_SEC = 1.0

Read = Callable[[str], Awaitable[Stands | None]]


class ReconcileError(Exception):
    """The two cannot be compared; the message says why."""


@dataclass(slots=True)
class Outcome:
    """What a comparison came to.

    Attributes:
        jobs: how many were compared.
        lanes: how many lanes that were paused once at least.
        events: how many events they have.
        left: how many left OMS meanwhile.
        differences: in how many places the two differ; each was reported.
        waiting: jobs and lanes that could not be compared: ACT did not get their events in time.
        tree_size: how many entries the checkpoint covers that the events were found under; None: nothing is signed.
    """

    jobs: int = 0
    lanes: int = 0
    events: int = 0
    left: int = 0
    differences: int = 0
    waiting: list[str] = field(default_factory=list)
    tree_size: int | None = None


async def reconcile(
    oms_url: str,
    act_url: str,
    *,
    keys: Sequence[VerifierKey] = (),
    wait_sec: float,
    on_difference: Callable[[str], None],
    on_progress: Callable[[int, int], None],
    transport: httpx.AsyncBaseTransport | None = None,
) -> Outcome:
    """Compare every job that OMS keeps, and every lane that was ever paused.

    Args:
        oms_url: of a running OMS.
        act_url: of a running ACT.
        keys: the log's verifier keys; empty: who signed its checkpoint is not checked.
        wait_sec: for how long a job's events are waited for.
        on_difference: told each difference, in words.
        on_progress: told how many jobs are compared, and of about how many.
        transport: an httpx transport of one's own.

    Raises:
        ReconcileError: one of them cannot be reached, or is something else.
    """
    outcome = Outcome()
    timeout = httpx.Timeout(TIMEOUT_SEC, connect=5.0)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False, transport=transport) as http:
        oms, act = _Oms(http, oms_url.rstrip("/")), _Act(http, act_url.rstrip("/"), keys)
        waiting: asyncio.Queue[str | None] = asyncio.Queue(maxsize=2 * AT_ONCE)
        newest = 0

        async def compare_one(name: str, kind: type[Told], read: Read) -> None:
            for difference in await _compare(act, name, kind, read, outcome, wait_sec=wait_sec):
                outcome.differences += 1
                on_difference(difference)

        async def compare() -> None:
            while (job_id := await waiting.get()) is not None:
                await compare_one(job_id, JobTold, oms.stands)
                on_progress(outcome.jobs + outcome.left, max(newest, outcome.jobs))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(compare())
                async for job_id in oms.jobs():
                    newest = newest or int(job_id.removeprefix("JOB-"))
                    await waiting.put(job_id)
                for _ in range(AT_ONCE):
                    await waiting.put(None)
                for name in await oms.lanes():
                    await compare_one(name, LaneTold, oms.lane_stands)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    on_progress(outcome.jobs, outcome.jobs)
    outcome.tree_size = act.tree.size if act.tree.checkpoint is not None else None
    return outcome


async def _compare(
    act: _Act, name: str, kind: type[Told], read: Read, outcome: Outcome, *, wait_sec: float
) -> list[str]:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + wait_sec
    stands = await read(name)
    if stands is None:
        outcome.left += 1
        return []
    if kind is LaneTold:
        outcome.lanes += 1
    else:
        outcome.jobs += 1
    while True:
        told = kind(name, stands)
        await act.tell(name, told)
        if not told.is_behind:
            break
        if loop.time() > give_up_at:
            outcome.waiting.append(name)
            return told.differences
        await asyncio.sleep(LOOK_AGAIN_SEC)
    outcome.events += stands.seq
    differences = [*told.end(), *await act.find(name, told)]
    if told.last > stands.seq:
        now = await read(name)  # read after the ledger: what the ledger had then, OMS must have now
        if now is not None and now.seq < told.last:
            differences.append(f"{name}.{now.seq + 1}: the ledger has this event, and OMS does not")
    return differences


class _Oms:
    """Reads OMS."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def jobs(self) -> AsyncIterator[str]:
        """Yield every job that there was at the start, the newest first."""
        query: dict[str, str] = {"limit": str(JOBS_PAGE)}
        while True:
            page = await self._get("/jobs", query)
            with _understood(self._url):
                job_ids = [str(item["job_id"]) for item in page["items"]]
                cursor = page["next_cursor"]
            for job_id in job_ids:
                yield job_id
            if cursor is None:
                return
            query["cursor"] = cursor

    async def stands(self, job_id: str) -> Stands | None:
        """Return how the job stands; None where OMS keeps it no more."""
        read = await self._receipts(f"/jobs/{quote(job_id, safe='')}/receipts")
        with _understood(self._url):
            return None if read is None else _stands(*read)

    async def _receipts(self, path: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """Return the first page of receipts, and the items of all."""
        first = page = await self._get(path, {"limit": str(RECEIPTS_PAGE)})
        if first is None:
            return None
        with _understood(self._url):
            items = list(first["items"])
            while page["next_cursor"] is not None:
                page = await self._get(path, {"limit": str(RECEIPTS_PAGE), "cursor": page["next_cursor"]})
                if page is None:
                    return None
                items += page["items"]
            return first, items

    async def lanes(self) -> list[str]:
        """Return the streams of all lanes that have events of their own."""
        found = await self._get("/lanes/receipts", {})
        with _understood(self._url):
            return [f"{LANE_PREFIX}{item['lane']}" for item in found["items"]] if found is not None else []

    async def lane_stands(self, stream: str) -> Stands | None:
        """Return how the lane stands."""
        lane = quote(stream.removeprefix(LANE_PREFIX), safe="")
        read = await self._receipts(f"/lanes/{lane}/receipts")
        with _understood(self._url):
            return None if read is None else _lane_stands(*read)

    async def _get(self, path: str, query: dict[str, str]) -> Any:  # noqa: ANN401 - any JSON
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                answer = await self._http.get(self._url + path, params=query)
            except httpx.HTTPError as error:
                raise _no_answer("OMS", self._url, error) from error
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or not tries_left:
                break
            await asyncio.sleep(TRY_AGAIN_SEC)
        if answer.status_code == httpx.codes.NOT_FOUND and path.endswith("/receipts"):
            return None
        if answer.status_code != httpx.codes.OK:
            raise ReconcileError(f"{self._url}{path} answered {answer.status_code}: is this the address of OMS?")
        with _understood(self._url):
            return answer.json()


class _Act:
    """Reads ACT."""

    def __init__(self, http: httpx.AsyncClient, url: str, keys: Sequence[VerifierKey]) -> None:
        self._http = http
        self._url = url
        self._is_tree_bad = False
        self.tree = RemoteTree(self._fetch, keys)

    async def find(self, name: str, told: Told) -> list[str]:
        """Find the entries that were told in the signed tree; return where it says something else."""
        if told.shown is None or self._is_tree_bad:
            return []
        try:
            if told.shown > self.tree.size:
                await self.tree.renew()
            return [
                f"{name}.{seq}: the ledger shows it at the index {index}, and its signed tree has another entry there"
                for seq, index, leaf in told.agrees
                if index >= self.tree.size or await self.tree.leaf_hash(index) != leaf
            ]
        except TreeError as error:
            self._is_tree_bad = True  # which is said once, and not of every entry
            return [f"{name}: what the ledger shows is not in a tree that it has signed: {error}"]

    async def _fetch(self, path: str) -> bytes | None:
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                answer = await self._http.get(self._url + path)
            except httpx.HTTPError as error:
                raise _no_answer("ACT", self._url, error) from error
            if answer.status_code == httpx.codes.OK:
                return answer.content
            if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.INTERNAL_SERVER_ERROR):
                return None
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or not tries_left:
                break
            await asyncio.sleep(TRY_AGAIN_SEC)
        raise ReconcileError(f"{self._url}{path} answered {answer.status_code}: is this the address of ACT?")

    async def tell(self, name: str, told: Told) -> None:
        """Give the stream's entries, the bytes of their events, and their leaf hashes made anew from these bytes."""
        query = {"format": "cloudevents", "stream": name}
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                async with self._http.stream("GET", f"{self._url}/export", params=query) as answer:
                    if answer.status_code == httpx.codes.OK:
                        await self._tell(answer, told)
                        return
                    text = (await answer.aread()).decode(errors="replace")
            except httpx.HTTPError as error:
                raise _no_answer("ACT", self._url, error) from error
            if answer.status_code == httpx.codes.NOT_FOUND and "no event of" in text:
                return
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or not tries_left:
                raise ReconcileError(f"{self._url}/export answered {answer.status_code}: is this the address of ACT?")
            await asyncio.sleep(TRY_AGAIN_SEC)

    async def _tell(self, answer: httpx.Response, told: Told) -> None:
        is_header = True
        async for line in answer.aiter_lines():
            with _understood(self._url):
                if is_header:
                    header = json.loads(line)
                    told.shown = None if header["checkpoint"] is None else int(header["size"])
                else:
                    told.take(*_entry(line))
            is_header = False


def _held(items: list[dict[str, Any]]) -> dict[int, Held]:
    return {
        int(item["event_id"].rpartition(".")[2]): Held(
            item["event_sha256"], item["delivered"], item["index"], item["leaf_hash"]
        )
        for item in items
    }


def _stands(first: dict[str, Any], items: list[dict[str, Any]]) -> Stands:
    """Raises: KeyError, TypeError, ValueError."""
    held = _held(items)
    seq = int(first["seq"])
    if not held.keys() >= set(range(1, seq + 1)):
        raise ValueError("an event is missing")
    return Stands(seq, first["state"], {task["task_id"]: task_of(task) for task in first["tasks"]}, held)


def _lane_stands(first: dict[str, Any], items: list[dict[str, Any]]) -> Stands:
    """Raises: KeyError, TypeError, ValueError."""
    held, seq = _held(items), int(first["seq"])
    if held and sorted(held) != list(range(min(held), seq + 1)):
        raise ValueError("an event is missing")
    return Stands(seq, "paused" if first["paused"] else "resumed", {}, held)


def _entry(line: str) -> tuple[Entry, bytes, bytes]:
    """Raises: KeyError, TypeError, ValueError."""
    fields = json.loads(line)
    raw = fields["event"].encode()
    entry = Entry(fields["index"], fields["received_us"], **facts_of(EVENT.validate_json(raw)))
    return entry, raw, leaf_hash(entry_bytes(fields["received_us"], raw))


@contextmanager
def _understood(url: str) -> Iterator[None]:
    """Raises: ReconcileError: an answer that is read in the block has another shape than it should."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ReconcileError(f"{url} answered what cannot be read ({error}): is this the right address?") from error


def _no_answer(who: str, url: str, error: httpx.HTTPError) -> ReconcileError:
    return ReconcileError(f"{who} at {url} gave no answer: {error or type(error).__name__}")
