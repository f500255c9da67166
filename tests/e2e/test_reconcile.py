"""`act reconcile`: silent where the two agree, also under load; and it names what somebody changed on either side."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from act import reconcile as module
from act import signer
from act.client import LedgerClient
from act.domain.checkpoint import open_checkpoint, sign_checkpoint
from act.domain.note import VerifierKey
from act.keys import Keys, make_keys
from act.reconcile import Outcome, ReconcileError, reconcile
from act.remote_tree import RemoteTree
from oms.app import create_app
from oms.storage import postgres
from oms.storage.store import open_store
from tests.act.support import Act, event
from tests.act.support import running as running_act
from tests.database import Database
from tests.databases import NewDatabase
from tests.oms.support import LIMIT_SEC, RENEWAL, SINGLE, Clock, Site, make_settings, until


class Network(httpx.AsyncBaseTransport):
    """Leads to the services of this process by the names of their hosts; a cut one refuses."""

    def __init__(self) -> None:
        self.to: dict[str, httpx.AsyncBaseTransport] = {}
        self.is_cut = False
        self.on_answer: Callable[[httpx.Request, bytes], bytes] = lambda _request, body: body
        self.on_request: Callable[[httpx.Request], Awaitable[None]] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.on_request is not None:
            await self.on_request(request)
        if self.is_cut and request.method == "POST" and request.url.host == "act":
            raise httpx.ConnectError("cut", request=request)
        if request.url.host not in self.to:
            raise httpx.ConnectError("nobody listens", request=request)
        answer = await self.to[request.url.host].handle_async_request(request)
        if request.url.path.startswith(("/checkpoint", "/tile/", "/proof/")):
            body = self.on_answer(request, await answer.aread())
            return httpx.Response(answer.status_code, content=body, request=request)
        return answer


@dataclass
class TwoServices:
    """OMS and ACT, and what compares them."""

    oms: httpx.AsyncClient
    act: Act
    network: Network
    databases: dict[str, Database]
    found: list[str] = field(default_factory=list)
    seen: list[tuple[int, int]] = field(default_factory=list)

    async def reconcile(self, *, wait_sec: float = 5.0, keys: Sequence[VerifierKey] = ()) -> Outcome:
        self.found.clear()
        return await reconcile(
            "http://oms",
            "http://act",
            keys=keys,
            wait_sec=wait_sec,
            on_difference=self.found.append,
            on_progress=lambda done, of: self.seen.append((done, of)),
            transport=self.network,
        )

    async def post(self, path: str, body: Any) -> Any:
        answer = await self.oms.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def work(self, lane: str, body: dict[str, Any] | None = None, *, verb: str = "complete") -> bool:
        """Take a task of a lane and do something to it; False where there is none."""
        task = (await self.oms.get("/pull", params={"lane": lane, "worker": "w-1"})).json()
        if task is not None:
            await self.post(f"/{verb}", {"task_id": task["task_id"], "token": task["token"], **(body or {})})
        return task is not None

    async def delivered(self) -> None:
        """Wait until ACT has all events."""
        async with asyncio.timeout(LIMIT_SEC):
            while (await self.oms.get("/readyz")).json()["relay"]["pending"]:  # noqa: ASYNC110 - seen over HTTP only
                await asyncio.sleep(0.01)

    def tamper(self, service: str, statement: str) -> None:
        """Change a database as whoever has it can."""
        database = self.databases[service]
        if service == "act":
            if database.kind == "sqlite":
                for (name,) in database.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                    database.rows(f'DROP TRIGGER "{name}"')
            else:
                database.rows("ALTER TABLE events DISABLE TRIGGER ALL")
        database.rows(statement)


EIGHT = [{"activity": f"a{number}", "lane": "eight"} for number in range(8)]


@pytest.fixture(autouse=True)
def quick_and_single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PostgreSQL give numbers one by one, as these tests call jobs by their names; and ACT sign at once."""
    monkeypatch.setattr(postgres, "MAX_NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(signer, "EVERY_SEC", 0.01)


@asynccontextmanager
async def two_services(
    new_database: NewDatabase, folder: Path, keys: Keys | None = None, **of_oms: Any
) -> AsyncIterator[TwoServices]:
    databases = {"oms": new_database("oms"), "act": new_database("act")}
    network = Network()
    async with running_act(databases["act"].url, keys=keys) as act:
        network.to["act"] = httpx.ASGITransport(act.app)
        chosen = make_settings(Site(folder, databases["oms"]), **of_oms)
        store = open_store(chosen.database_url)
        app = create_app(chosen, store, ledger=LedgerClient("http://act", transport=network), now_ms=Clock())
        network.to["oms"] = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=network, base_url="http://oms") as oms,
        ):
            both = TwoServices(oms, act, network, databases)
            for plan in (RENEWAL, SINGLE):
                await both.post("/plans", plan)
            yield both


async def some_history(both: TwoServices) -> None:
    """Let jobs be in every state: waiting, held, tried again, moved, done, failed, erased."""
    await both.post("/start", [{"plan": "renewal", "reference": f"T-{n}", "input": {"n": n}} for n in range(1, 9)])
    await both.work("extract", {"output": {"a": 1}})
    await both.work("extract", {"error": "x"}, verb="fail")
    await both.work("extract", {"error": "x", "retryable": False}, verb="fail")
    await both.work("extract", verb="release")
    await both.post("/jobs/JOB-3/erase", {"reason": "asked for"})
    await both.oms.get("/pull", params={"lane": "extract"})
    await both.post("/reroute", {"task_id": "TASK-8", "new_lane": "verify"})
    await both.post("/lanes/verify/pause", {"actor": "boss"})
    await both.post("/lanes/verify/resume", {})
    await both.post("/lanes/print/pause", {})
    await both.post("/start", {"plan": "single", "reference": "S"})
    await both.work("only", {"output": {}})
    await both.delivered()


BLOCKS: dict[str, Any] = {
    "id": "blocks",
    "lanes": ["left", "right", "scan", "unscan", "draft", "file", "end"],
    "sequence": [
        {"parallel": {"x": ["left"], "y": ["right"]}, "join": "any"},
        {"id": "pages", "for_each": "input.pages", "as": "page", "do": [{"activity": "scan", "undo": ["unscan"]}]},
        {"repeat": ["draft"], "until": "outputs.draft.good", "max_rounds": 3},
        {"choose": [{"when": "outputs.draft.good", "do": ["file"]}]},
        {"id": "answer", "wait": {"signal": "answered", "timeout_sec": 600}},
        {"id": "letter", "plan": "single", "input": {"to": "reference"}},
        "end",
    ],
    "retry_policy": {"attempts": 1},
}


async def some_history_of_blocks(both: TwoServices) -> list[str]:
    """Let jobs with blocks be in every state, and managers do to them what they can; return their names."""
    await both.post("/plans", BLOCKS)
    names: list[str] = []

    async def start() -> str:
        wish = {"plan": "blocks", "reference": f"B-{len(names)}", "input": {"pages": [1, 2]}}
        names.append((await both.post("/start", wish))["job_id"])
        return names[-1]

    async def do(*lanes: str, verb: str = "complete", **body: Any) -> str:
        task: dict[str, Any] = {}
        for lane in lanes:
            task = (await both.oms.get("/pull", params={"lane": lane, "wait": LIMIT_SEC})).json()
            await both.post(f"/{verb}", {"task_id": task["task_id"], "token": task["token"], **body})
        return str(task["task_id"])

    done = await start()
    await do("left", "scan", "scan")
    await do("draft", output={"good": False})
    await do("draft", output={"good": True})
    await do("file")
    await both.post(f"/jobs/{done}/signal", {"name": "answered", "data": {"yes": 1}, "signal_id": "S"})
    await do("only", "end")

    restarted = await start()
    await do("left", "scan", "scan")
    await do("draft", output={"good": True})
    await both.post(f"/jobs/{restarted}/restart", {"from": "draft", "actor": "boss"})
    await do("draft", output={"good": True})
    await do("file")

    cancelled = await start()
    await do("left", "scan")
    await both.post(f"/jobs/{cancelled}/cancel", {"reason": "no longer wanted"})
    await do("unscan")

    out_of_rounds = await start()
    await do("left", "scan", "scan")
    await do("draft", "draft", "draft", output={"good": False})
    await do("unscan", "unscan")

    skipped = await start()
    await do("right", verb="fail", error="x", retryable=False)
    task_id = await do("left", verb="fail", error="x", retryable=False)
    await both.post("/skip", {"task_id": task_id, "output": {}, "reason": "seen on paper", "actor": "boss"})

    paused = await start()
    await both.post(f"/jobs/{paused}/pause", {"actor": "boss"})
    await both.post(f"/jobs/{paused}/resume", {})
    await do("left")
    await both.post(f"/jobs/{paused}/pause", {})
    states = {name: (await both.oms.get(f"/jobs/{name}")).json()["state"] for name in names}
    assert states == {
        done: "done", restarted: "running", cancelled: "cancelled", skipped: "running", out_of_rounds: "failed",
        paused: "paused",
    }  # fmt: skip
    await both.delivered()
    return names


BLOCKS_TAMPERED = {
    "a state": "UPDATE jobs SET state = 'done' WHERE job_id = {paused}",
    "a cancelled branch's task": "UPDATE tasks SET status = 'done' WHERE job_id = {done} AND status = 'cancelled'",
    "an item's task": "DELETE FROM tasks WHERE job_id = {cancelled} AND activity = 'unscan'",
}


def test_p10_jobs_with_blocks_agree_and_what_somebody_changed_in_one_is_named(
    new_database: NewDatabase, tmp_path: Path, keys: Keys
) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path, keys, sweep_interval_sec=0.01) as both:
            names = await some_history_of_blocks(both)
            await both.act.signed()
            outcome = await both.reconcile(keys=keys.verifiers)
            assert (both.found, outcome.differences, outcome.waiting) == ([], 0, [])
            assert outcome.jobs == len(names) + 1, "one has a job of its own for a step"
            assert outcome.tree_size == outcome.events == both.databases["act"].count("events")
            done, _, cancelled, _, _, paused = (name.removeprefix("JOB-") for name in names)
            changed = set()
            for statement, job in zip(BLOCKS_TAMPERED.values(), (paused, done, cancelled), strict=True):
                both.tamper("oms", statement.format(done=done, cancelled=cancelled, paused=paused))
                changed.add(f"JOB-{job}")
                await both.reconcile(wait_sec=0, keys=keys.verifiers)
                assert {difference.partition(":")[0] for difference in both.found} == changed

    asyncio.run(scenario())


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "act.key", name="log.example/act")


@pytest.mark.parametrize("signs", [True, False])
def test_p10_two_that_agree_have_no_differences_and_every_receipt_is_in_the_tree(
    new_database: NewDatabase, tmp_path: Path, keys: Keys, signs: bool
) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path, keys if signs else None) as both:
            await some_history(both)
            outcome = await both.reconcile(keys=keys.verifiers)
            assert both.found == []
            assert outcome.tree_size == (outcome.events if signs else None)
            assert (outcome.jobs, outcome.left, outcome.differences, outcome.waiting) == (9, 0, 0, [])
            assert outcome.lanes == 2
            assert outcome.events == both.databases["act"].count("events")
            assert both.seen[-1] == (9, 9)

    asyncio.run(scenario())


async def many_events(both: TwoServices) -> None:
    """Let 20 jobs have 520 events: two full tiles, and 8 entries of the next."""
    await both.post("/plans", {"id": "eight", "lanes": ["eight"], "sequence": EIGHT})
    await both.post("/start", [{"plan": "eight", "reference": f"T-{n}"} for n in range(20)])
    for _ in EIGHT:
        tasks = (await both.oms.get("/pull", params={"lane": "eight", "max": 20})).json()
        await both.post("/complete", [{"task_id": task["task_id"], "token": task["token"]} for task in tasks])


def some_other_root(note: bytes, keys: Keys) -> bytes:
    """Return what the log's operator can sign too: another tree of the same size."""
    checkpoint = open_checkpoint(note, keys.verifiers, origin=keys.origin).checkpoint
    return sign_checkpoint(replace(checkpoint, root=bytes(32)), keys.signing).encoded()


def test_p10_what_is_shown_and_not_signed_is_a_difference(
    new_database: NewDatabase, tmp_path: Path, keys: Keys
) -> None:
    """ACT shows to whoever compares what OMS has, and has signed another history."""

    async def scenario() -> None:
        async with two_services(new_database, tmp_path, keys) as both:
            await many_events(both)
            await both.delivered()
            await both.act.signed()
            assert (await both.reconcile(keys=keys.verifiers)).tree_size == 520
            assert both.found == []
            # Its one full tile has another leaf; its checkpoint another root; another key; no checkpoint at all.
            lies: dict[str, tuple[Callable[[httpx.Request, bytes], bytes], str]] = {
                "tile": (
                    lambda request, body: bytes(32) + body[32:] if request.url.path == "/tile/0/000" else body,
                    "tile/0/000 is not the tile that was signed",
                ),
                "edge": (
                    lambda request, body: bytes(32) + body[32:] if "/tile/0/002.p/8" in request.url.path else body,
                    "the tiles of 520 entries do not give the root that was signed",
                ),
                "short": (
                    lambda request, body: body[32:] if request.url.path == "/tile/0/001" else body,
                    "tile/0/001: a tile of 256 hashes has",
                ),
                "root": (
                    lambda request, body: some_other_root(body, keys) if request.url.path == "/checkpoint" else body,
                    "do not give the root that was signed",
                ),
                "note": (lambda request, body: b"x" if request.url.path == "/checkpoint" else body, "the checkpoint: "),
            }
            for change, says in lies.values():
                both.network.on_answer = change
                outcome = await both.reconcile(keys=keys.verifiers)
                assert 1 <= outcome.differences <= module.AT_ONCE
                assert all(says in found and "not in a tree that it has signed" in found for found in both.found), says
            both.network.on_answer = lambda _request, body: body
            stranger = make_keys(tmp_path / "other.key", name=keys.origin)
            await both.reconcile(keys=stranger.verifiers)
            assert "the checkpoint: " in both.found[0]

    asyncio.run(scenario())


def test_p10_an_entry_that_the_signed_tree_has_not_is_named(
    new_database: NewDatabase, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tree is sound, and the log's own, and does not have what ACT shows of one job."""

    async def scenario() -> None:
        async with two_services(new_database, tmp_path, keys) as both:
            await some_history(both)
            await both.act.signed()
            real = RemoteTree.leaf_hash

            async def other(self: RemoteTree, index: int) -> bytes:
                return bytes(32) if index == 3 else await real(self, index)

            monkeypatch.setattr(RemoteTree, "leaf_hash", other)
            await both.reconcile(keys=keys.verifiers)
            (found,) = both.found
            assert "the ledger shows it at the index 3, and its signed tree has another entry there" in found

    asyncio.run(scenario())


def test_a_service_without_a_job_agrees(new_database: NewDatabase, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            assert (await both.reconcile()).jobs == 0

    asyncio.run(scenario())


def test_it_goes_over_every_page(new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOBS_PAGE", 2)
    monkeypatch.setattr(module, "RECEIPTS_PAGE", 2)

    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await some_history(both)
            outcome = await both.reconcile()
            assert (both.found, outcome.jobs) == ([], 9)

    asyncio.run(scenario())


def copy(table: str, column: str, source: tuple[str, int], target: tuple[str, int]) -> str:
    """Return the statement that puts one event's value in the place of another's."""
    value = f"SELECT {column} FROM {table} WHERE stream = '{source[0]}' AND seq = {source[1]}"
    return f"UPDATE {table} SET {column} = ({value}) WHERE stream = '{target[0]}' AND seq = {target[1]}"


TAMPERED = {
    "a job's state": ("oms", "UPDATE jobs SET state = 'done' WHERE job_id = 2", "JOB-2: OMS says done, the ledger"),
    "a task's status": ("oms", "UPDATE tasks SET status = 'done' WHERE task_id = 5", "TASK-5 is extract in extract, d"),
    "a task's lane": ("oms", "UPDATE tasks SET lane = 'print' WHERE task_id = 8", "TASK-8 is extract in print"),
    "an attempt": ("oms", "UPDATE tasks SET attempt = 7 WHERE task_id = 1", "attempt 7, the ledger"),
    "a task that is gone": ("oms", "DELETE FROM tasks WHERE task_id = 6", "TASK-6 is not there, the ledger extract in"),
    "an event that OMS rewrote": (
        "oms",
        copy("outbox", "body", ("JOB-2", 1), ("JOB-1", 3)),
        "JOB-1.3: the ledger has other bytes than OMS",
    ),
    "a receipt's index": (
        "oms",
        copy("outbox", "ledger_index", ("JOB-4", 1), ("JOB-4", 2)),
        "JOB-4.2: OMS holds a receipt for the index",
    ),
    "a receipt's leaf hash": (
        "oms",
        copy("outbox", "leaf_hash", ("JOB-4", 1), ("JOB-4", 2)),
        "JOB-4.2: OMS holds a receipt for the index",
    ),
    "an entry that ACT rewrote": (
        "act",
        copy("events", "entry", ("JOB-5", 1), ("JOB-5", 2)),
        "JOB-5.2: the ledger has JOB-5.1 in its place",
    ),
    "an acknowledged event that ACT lost": (
        "act",
        "DELETE FROM events WHERE stream = 'JOB-9' AND seq = 5",
        "JOB-9.5: ACT acknowledged it for the index",
    ),
    "a lane's pause": (
        "oms",
        "UPDATE lane_controls SET paused_at = NULL WHERE lane = 'print'",
        "LANE-print: OMS says resumed, the ledger paused",
    ),
    "a lane's event that OMS rewrote": (
        "oms",
        copy("outbox", "body", ("LANE-verify", 1), ("LANE-verify", 2)),
        "LANE-verify.2: the ledger has other bytes than OMS",
    ),
    "a lane's event that ACT lost": (
        "act",
        "DELETE FROM events WHERE stream = 'LANE-verify' AND seq = 2",
        "LANE-verify.2: ACT acknowledged it",
    ),
    "a lane's old event that OMS holds no more, and that ACT lost": (
        "both",
        "DELETE FROM {} WHERE stream = 'LANE-print'",
        "LANE-print.1: ACT acknowledged it",
    ),
    "a job that ACT lost": ("act", "DELETE FROM events WHERE stream = 'JOB-6'", "JOB-6.1: ACT acknowledged it"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_somebody_changed_is_named(new_database: NewDatabase, tmp_path: Path, what: str) -> None:
    service, statement, says = TAMPERED[what]

    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await some_history(both)
            for one, table in (("oms", "outbox"), ("act", "events")):
                if service in (one, "both"):
                    both.tamper(one, statement.format(table))
            outcome = await both.reconcile(wait_sec=0)
            assert [difference for difference in both.found if says in difference], both.found
            jobs = {difference.partition(":")[0].partition(".")[0] for difference in both.found}
            assert len(jobs) == 1, "all other jobs agree"
            assert outcome.differences == len(both.found)
            assert outcome.waiting == []

    asyncio.run(scenario())


def test_an_event_that_oms_never_sent_is_named(new_database: NewDatabase, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await some_history(both)
            forged = event("JOB-9", 6, entity="job", status="failed")
            answer = await both.oms.post("http://act/events", content=b"[" + forged + b"]")
            assert answer.status_code == 200, answer.text
            await both.reconcile()
            assert both.found == ["JOB-9.6: the ledger has this event, and OMS does not"]

    asyncio.run(scenario())


def test_a_lane_whose_old_events_have_left_oms_agrees(new_database: NewDatabase, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await some_history(both)
            both.databases["oms"].rows(
                "DELETE FROM outbox WHERE stream = 'LANE-print' OR (stream, seq) = ('LANE-verify', 1)"
            )
            outcome = await both.reconcile()
            assert (both.found, outcome.lanes, outcome.waiting) == ([], 2, [])

    asyncio.run(scenario())


def test_events_under_way_are_waited_for(new_database: NewDatabase, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await some_history(both)
            both.network.is_cut = True
            await both.work("extract", {"output": {}})
            outcome = await both.reconcile(wait_sec=0)
            assert (both.found, outcome.waiting) == ([], ["JOB-5"])
            comparing = asyncio.create_task(both.reconcile(wait_sec=20))
            await asyncio.sleep(module.LOOK_AGAIN_SEC)
            assert not comparing.done()
            both.network.is_cut = False
            assert (await comparing).waiting == []
            assert both.found == []

    asyncio.run(scenario())


def test_it_finds_nothing_while_both_are_at_work(new_database: NewDatabase, tmp_path: Path, keys: Keys) -> None:
    async def scenario() -> None:
        chance = random.Random(11)
        async with two_services(new_database, tmp_path, keys) as both:
            over = asyncio.Event()
            done = 0

            async def start() -> None:
                for number in range(10_000):
                    if over.is_set():
                        return
                    await both.post("/start", {"plan": "renewal", "reference": f"W-{number}"})
                    await asyncio.sleep(0.01)

            async def work(lane: str) -> None:
                nonlocal done
                while not over.is_set():
                    verb = chance.choice(["complete", "complete", "complete", "release", "fail"])
                    body: dict[str, Any] = {"output": {}} if verb == "complete" else {}
                    if verb == "fail":
                        body = {"error": "x", "retryable": chance.random() < 0.5}
                    done += await both.work(lane, body, verb=verb)
                    await asyncio.sleep(0)

            crew = [asyncio.create_task(start()), *(asyncio.create_task(work(lane)) for lane in ("extract", "verify"))]
            await until(lambda: done > 10, what="some work")
            compared = 0
            for _ in range(6):
                before = done
                outcome = await both.reconcile(wait_sec=20, keys=keys.verifiers)
                assert (both.found, outcome.waiting) == ([], [])
                assert outcome.tree_size
                compared += outcome.jobs
                await until(lambda before=before: done > before, what="work goes on")  # type: ignore[misc]
            over.set()
            await asyncio.gather(*crew)
            assert compared > 30

    asyncio.run(scenario())


def test_a_checkpoint_that_lags_is_waited_for(
    new_database: NewDatabase, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        async with two_services(new_database, tmp_path, keys) as both:
            await some_history(both)
            await both.act.signed()
            with monkeypatch.context() as patch:
                patch.setattr(signer, "write_whole", full)
                await both.work("extract", {"output": {}})
                await both.delivered()
                outcome = await both.reconcile(wait_sec=0)
                assert (both.found, outcome.waiting) == ([], ["JOB-5"])
                comparing = asyncio.create_task(both.reconcile(wait_sec=20))
                await asyncio.sleep(module.LOOK_AGAIN_SEC)
                assert not comparing.done()
            assert (await comparing).waiting == []
            assert both.found == []

    asyncio.run(scenario())


def test_what_comes_between_the_two_reads_is_no_difference(new_database: NewDatabase, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await some_history(both)
            moved = False

            async def move(request: httpx.Request) -> None:
                """Let a job go on, after OMS was asked for it and before the ledger is."""
                nonlocal moved
                if not moved and request.url.path == "/export" and request.url.params["stream"] == "JOB-5":
                    moved = True
                    assert await both.work("extract", {"output": {}})
                    await both.delivered()

            both.network.on_request = move
            outcome = await both.reconcile()
            assert moved
            assert (both.found, outcome.jobs, outcome.waiting) == ([], 9, [])
            assert outcome.events < both.databases["act"].count("events")

    asyncio.run(scenario())


def test_a_job_that_leaves_meanwhile_is_no_difference(new_database: NewDatabase, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await some_history(both)

            async def forget(request: httpx.Request) -> None:
                if request.url.path == "/jobs/JOB-9/receipts":
                    for table in ("jobs", "tasks"):
                        both.databases["oms"].rows(f"DELETE FROM {table} WHERE job_id = 9")

            both.network.on_request = forget
            outcome = await both.reconcile()
            assert (both.found, outcome.jobs, outcome.left) == ([], 8, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("oms_url", "act_url", "says"),
    [
        ("http://nobody", "http://act", "OMS at http://nobody gave no answer"),
        ("http://oms", "http://nobody", "ACT at http://nobody gave no answer"),
        ("http://act", "http://act", "is this the address of OMS?"),
        ("http://oms", "http://oms", "is this the address of ACT?"),
    ],
)
def test_a_wrong_address_is_said(
    new_database: NewDatabase, tmp_path: Path, oms_url: str, act_url: str, says: str
) -> None:
    async def scenario() -> None:
        async with two_services(new_database, tmp_path) as both:
            await both.post("/start", {"plan": "single", "reference": "T"})
            with pytest.raises(ReconcileError) as caught:
                await reconcile(
                    oms_url,
                    act_url,
                    wait_sec=0,
                    on_difference=both.found.append,
                    on_progress=lambda _done, _of: None,
                    transport=both.network,
                )
            assert says in str(caught.value)

    asyncio.run(scenario())
