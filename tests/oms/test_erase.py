"""Erasure: what OMS holds of a citizen's in a job is destroyed, in rows and files; the ledger's facts stay."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from oms.domain.digest import canonical_json, keyed_digest
from oms.domain.errors import ConflictError, ErasedError, NotFoundError, UnavailableError
from oms.sequencer import erase_family as family_module
from oms.sequencer import writer as writer_module
from oms.sequencer.complete import Complete, complete
from oms.sequencer.erase import Erase, erase
from oms.sequencer.fail import Fail, fail
from oms.sequencer.heartbeat import Heartbeat, heartbeat
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.start import Start, start
from oms.sequencer.wishes import JobAnswer
from oms.sequencer.writer import Writer
from oms.storage.store import Store, open_store
from oms.storage.tables import jobs, metadata
from tests.database import Database
from tests.databases import postgres_only, sqlite_only
from tests.oms.api_client import Client, serving
from tests.oms.support import Running, Site, Tower, events, in_loop, running, told, working

INPUT, OUTPUT, MESSAGE, NOTE = "planted-input-9a1", "planted-output-9a2", "planted-message-9a3", "planted-note-9a4"
PLANTED = (INPUT, OUTPUT, MESSAGE, NOTE)


def work(tower: Tower, reference: str = "T-1", *, pad: int = 0) -> str:
    """Run a job of two tasks into its failure, with a planted value wherever it can hold one; return its id."""
    job_id = tower.start("renewal", reference, {"name": INPUT + "x" * pad}).job_id
    tower.complete(tower.pull_one("extract"), {"name": OUTPUT + "x" * pad})
    task = tower.pull_one("verify")
    tower.one(heartbeat, Heartbeat(task_id=task.task_id, token=task.token, note=NOTE))
    tower.fail(task, MESSAGE + "x" * pad, retryable=False)
    return job_id


def rows_of(store: Store) -> str:
    """Return every row of every table as one text."""
    with store.reading() as connection:
        return repr([list(connection.execute(select(table))) for table in metadata.sorted_tables])


def test_nothing_of_the_values_stays_in_any_row(tower: Tower, store: Store) -> None:
    job_id = work(tower)
    before = rows_of(store)
    assert [text for text in PLANTED if text not in before] == [], "they must be there to be destroyed"
    assert not any(text in repr(events(store)) for text in PLANTED), "no event holds a value"

    assert tower.one(erase, Erase(job_id)) == JobAnswer(job_id, "failed")

    after = rows_of(store)
    assert [text for text in PLANTED if text in after] == []
    with store.reading() as connection:
        (row,) = connection.execute(select(jobs))
    assert (row.hmac_key, row.input, row.error) == (None, "{}", None)
    view = tower.job(job_id)
    assert (view["erased"], view["state"], view["input"], view["outputs"]) == (True, "failed", {}, {})
    assert [task["error"] for task in view["tasks"]] == [None, {"type": "error", "message": ""}]
    assert [task["note"] for task in view["tasks"]] == [None, None]


def test_it_is_one_event_however_often_it_is_asked(tower: Tower, store: Store) -> None:
    tower.start("single", "T-1")
    tower.complete(tower.pull_one("only"))
    wish = Erase("JOB-1", reason="Art. 17", actor="clerk-7")
    assert tower.run(erase, wish, wish) == [JobAnswer("JOB-1", "done")] * 2
    seq = tower.job("JOB-1")["updated_at"]
    assert tower.one(erase, Erase("JOB-1", reason="another")) == JobAnswer("JOB-1", "done")
    assert tower.job("JOB-1")["updated_at"] == seq
    assert told(store)[-2:] == [("job", "done"), ("job", "erased")]
    event = events(store)[-1]
    assert event["type"] == "hms.job.erased.v1"
    assert event["data"]["detail"] == {"reason": "Art. 17"}
    assert (event["data"]["actor"], event["data"]["task_id"]) == ("clerk-7", None)


def test_the_ledgers_digests_cannot_be_matched_any_more(tower: Tower, store: Store) -> None:
    tower.start("single", "T-1", {"name": INPUT})
    with store.reading() as connection:
        key = connection.execute(select(jobs.c.hmac_key)).scalar_one()
    said = events(store)[0]["data"]["detail"]["input_hmac"]
    assert keyed_digest(key, canonical_json({"name": INPUT})) == said, "with the key they can"
    tower.complete(tower.pull_one("only"), {"name": OUTPUT})
    tower.one(erase, Erase("JOB-1"))
    assert key.hex() not in rows_of(store)
    assert repr(key) not in rows_of(store)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_is_not_finished_keeps_its_data(tower: Tower, store: Store, state: str) -> None:
    tower.start("single", "T-1", {"name": INPUT})
    if state == "running":
        tower.pull_one("only")
    with pytest.raises(ConflictError, match=f"JOB-1 is {state}.*cancel"):
        tower.one(erase, Erase("JOB-1"))
    assert INPUT in rows_of(store)
    assert "erased" not in [status for _, status in told(store)]


@pytest.mark.parametrize("name", ["JOB-2", "JOB-0", "JOB-1x", "TASK-1", "", "JOB-9999999999999999999"])
def test_an_unknown_job_is_not_found(tower: Tower, name: str) -> None:
    tower.start("single", "T-1")
    with pytest.raises(NotFoundError):
        tower.one(erase, Erase(name))


def test_a_refusal_stands_in_its_place_and_holds_up_nobody(tower: Tower) -> None:
    for number in (1, 2):
        tower.start("single", f"T-{number}")
    tower.complete(tower.pull_one("only"))
    refused, done, unknown = tower.run(erase, Erase("JOB-2"), Erase("JOB-1"), Erase("JOB-3"))
    assert isinstance(refused, ConflictError)
    assert done == JobAnswer("JOB-1", "done")
    assert isinstance(unknown, NotFoundError)


def test_what_needs_the_data_is_refused_from_then_on(tower: Tower, store: Store) -> None:
    job_id = work(tower)
    done, failed = (task["task_id"] for task in tower.job(job_id)["tasks"])
    tower.one(erase, Erase(job_id))
    before = rows_of(store)
    wishes: list[tuple[Any, Any]] = [
        (complete, Complete(task_id=done, output={"name": OUTPUT})),
        (fail, Fail(task_id=failed, error_type="error", message=MESSAGE)),
        (reroute, Reroute(task_id=failed, new_lane="extract")),
        (start, Start("renewal", "T-1", {"name": INPUT}, 0)),
        (start, Start("renewal", "T-1", {}, 0)),
    ]
    for verb, wish in wishes:
        with pytest.raises(ErasedError, match="reference of its own"):
            tower.one(verb, wish)
    with pytest.raises(ErasedError):
        tower.retry(failed)
    assert rows_of(store) == before


def test_a_task_that_ends_in_the_same_transaction_is_erased_too(tower: Tower, store: Store) -> None:
    tower.start("single", "T-1", {"name": INPUT})
    task = tower.pull_one("only")
    with tower.transaction() as tx:
        complete(tx, [Complete(task_id=task.task_id, output={"name": OUTPUT}, token=task.token)])
        assert erase(tx, [Erase("JOB-1")]) == [JobAnswer("JOB-1", "done")]
    after = rows_of(store)
    assert INPUT not in after
    assert OUTPUT not in after
    assert told(store)[-3:] == [("task", "done"), ("job", "done"), ("job", "erased")]


def test_other_jobs_keep_theirs(tower: Tower, store: Store) -> None:
    first = work(tower, "T-1")
    second = work(tower, "T-2")
    before = tower.job(second)
    tower.one(erase, Erase(first))
    assert tower.job(second) == before
    assert INPUT in rows_of(store)


@postgres_only
@in_loop
async def test_what_another_tower_holds_is_waited_for(tower: Tower, oms_database: Database) -> None:
    job_id = work(tower)
    other = open_store(oms_database.url)
    async with working(tower) as writer:
        with other.connect_writer() as connection:
            with connection.begin():
                connection.execute(select(jobs).with_for_update())
                erasing = asyncio.ensure_future(writer.run(erase, Erase(job_id)))
                await asyncio.sleep(writer_module.TRY_AGAIN_SEC * 4)
                assert not erasing.done()
            assert (await erasing).state == "failed"
    other.close()


@postgres_only
def test_what_another_tower_holds_for_long_is_unavailable(tower: Tower, oms_database: Database) -> None:
    job_id = work(tower)
    other = open_store(oms_database.url)
    with other.connect_writer() as connection, connection.begin():
        connection.execute(select(jobs).with_for_update())
        with pytest.raises(UnavailableError, match="try again"):
            tower.one(erase, Erase(job_id))
    other.close()


# Over HTTP.


@pytest.fixture
def oms(site: Site) -> Iterator[Client]:
    with serving(site) as client:
        yield client


def test_the_call(oms: Client) -> None:
    oms.start(plan="single", input={"name": INPUT})
    status, body = oms.refused("/jobs/JOB-1/erase", {})
    assert (status, body["code"]) == (409, "conflict")
    task = oms.get("/pull", lane="only")
    oms.post("/complete", {"task_id": task["task_id"], "token": task["token"], "output": {"name": OUTPUT}})
    for _ in range(2):
        assert oms.post("/jobs/JOB-1/erase", {"reason": "asked for", "actor": "clerk-7"}) == {
            "job_id": "JOB-1",
            "state": "done",
        }
    assert oms.http.post("/jobs/JOB-1/erase").json() == {"job_id": "JOB-1", "state": "done"}, (
        "reason and actor are optional"
    )
    job = oms.get("/jobs/JOB-1")
    assert (job["erased"], job["input"], job["outputs"]) == (True, {}, {})
    status, body = oms.refused("/start", {"plan": "single", "reference": "T-1", "input": {"name": INPUT}})
    assert (status, body["code"]) == (409, "erased")
    assert oms.refused("/jobs/JOB-9/erase", {})[0] == 404
    assert oms.refused("/jobs/JOB-1/erase", {"why": "x"})[0] == 422
    assert oms.refused("/jobs/JOB-1/erase", {}, origin="https://elsewhere.example")[0] == 403


# Jobs that are steps.

FAMILY: list[dict[str, Any]] = [
    {
        "id": "top",
        "lanes": ["only"],
        "sequence": [
            {"id": "all", "for_each": "input.all", "as": "one", "do": [{"plan": "middle", "input": {"name": "one"}}]}
        ],
    },
    {"id": "middle", "lanes": ["only"], "sequence": [{"plan": "bottom", "id": "low", "input": {"name": "input.name"}}]},
    {"id": "bottom", "lanes": ["only"], "sequence": [{"activity": "deep", "lane": "only"}]},
]
COUNT = 5


@asynccontextmanager
async def family(site: Site) -> AsyncIterator[Running]:
    """Run a service in which a job has so many jobs as steps, and each of those one, of which the last one waits."""
    async with running(site, plans=FAMILY) as oms:
        data = {"all": [f"{INPUT}-{number}" for number in range(COUNT)]}
        await oms.post("/start", {"plan": "top", "reference": "T-1", "input": data})
        await settle(oms)
        for _ in range(COUNT - 1):
            await work_deep(oms)
        yield oms


async def work_deep(oms: Running) -> None:
    task = await oms.get("/pull", lane="only")
    await oms.post("/complete", {"task_id": task["task_id"], "token": task["token"], "output": {"name": OUTPUT}})
    await settle(oms)


async def settle(oms: Running) -> None:
    for _ in range(20):
        await oms.sweep()


def erased(store: Store) -> list[tuple[str, str, str]]:
    """Return job, reason and actor of each erasure, in order."""
    found = [event["data"] for event in events(store) if event["data"]["status"] == "erased"]
    return [(data["job_id"], data["detail"].get("reason"), data["actor"]) for data in found]


@in_loop
async def test_the_jobs_below_are_erased_too_in_parts_and_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_module, "BATCH", 3)
    async with family(site) as oms:
        await work_deep(oms)
        assert INPUT in rows_of(oms.store)
        assert OUTPUT in rows_of(oms.store)
        for _ in range(2):
            answer = await oms.post("/jobs/JOB-1/erase", {"reason": "asked for", "actor": "clerk-7"})
            assert answer == {"job_id": "JOB-1", "state": "done"}
        told_of = erased(oms.store)
        assert len(told_of) == len(set(told_of)) == 1 + 2 * COUNT
        assert {(reason, actor) for _, reason, actor in told_of} == {("asked for", "clerk-7")}
        assert told_of[-1][0] == "JOB-1"
        below = [job_id for job_id, *_ in told_of[:COUNT]]
        plans = {(await oms.get(f"/jobs/{job_id}"))["plan"] for job_id in below}
        assert plans == {"bottom"}
        held = rows_of(oms.store)
        assert not [text for text in PLANTED if text in held]


@in_loop
async def test_while_one_below_is_not_finished_nothing_is_erased(site: Site) -> None:
    async with family(site) as oms:
        await oms.post("/jobs/JOB-1/cancel", {})
        answer = await oms.http.post("/jobs/JOB-1/erase")  # those below hear of it in the next sweep
        assert answer.status_code == 409
        assert ", a step below JOB-1, is " in answer.json()["detail"]
        assert erased(oms.store) == []
        await settle(oms)
        assert (await oms.post("/jobs/JOB-1/erase", {}))["state"] == "cancelled"
        assert len(erased(oms.store)) == 1 + 2 * COUNT


@in_loop
async def test_what_is_cut_off_goes_on_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_module, "BATCH", 2)
    async with family(site) as oms:
        await work_deep(oms)
        run_each, left = Writer.run_each, [2]

        async def cut_off(self: Writer, verb: Any, wishes: Any, **more: Any) -> Any:
            if verb is erase:
                if not left[0]:
                    raise UnavailableError("the disk is full")
                left[0] -= 1
            return await run_each(self, verb, wishes, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Writer, "run_each", cut_off)
            assert (await oms.http.post("/jobs/JOB-1/erase")).status_code == 503
        assert len(erased(oms.store)) == 4
        assert not (await oms.get("/jobs/JOB-1"))["erased"]
        await oms.post("/jobs/JOB-1/erase", {})
        assert len(erased(oms.store)) == 1 + 2 * COUNT


@in_loop
async def test_what_was_erased_before_its_steps_were_is_completed(site: Site) -> None:
    async with family(site) as oms:
        await work_deep(oms)
        await oms.writer.run(erase, Erase("JOB-1"))
        assert INPUT in rows_of(oms.store)
        await oms.post("/jobs/JOB-1/erase", {})
        assert INPUT not in rows_of(oms.store)
        assert len(erased(oms.store)) == 1 + 2 * COUNT


@in_loop
async def test_a_step_is_erased_without_the_job_above_it(site: Site) -> None:
    async with family(site) as oms:
        (child,) = [
            job for job in (await oms.get("/jobs", plan="middle"))["items"] if job["reference"] == "T-1/middle/1"
        ]
        await oms.post(f"/jobs/{child['job_id']}/erase", {})
        assert len(erased(oms.store)) == 2
        assert not (await oms.get("/jobs/JOB-1"))["erased"]


# In SQLite's files.


def copies_in(folder: Path, texts: tuple[str, ...] = PLANTED) -> dict[str, list[str]]:
    """Return which of the texts stand in which file of a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if here := [text for text in texts if text.encode() in content]:
                found[path.name] = here
    return found


def overwritten(store: Store) -> bool:
    with store.connect_writer() as connection:
        driver: Any = connection.connection.driver_connection
        return bool(driver.execute("PRAGMA secure_delete").fetchone()[0])


@sqlite_only
def test_no_file_holds_a_copy(tower: Tower, store: Store, oms_database: Database) -> None:
    # Small values lie in a page with others, long ones fill pages of their own.
    job_ids = [work(tower, f"T-{number}", pad=pad) for number, pad in enumerate((0, 300, 3_000, 9_000) * 5)]
    folder = oms_database.path.parent
    assert set(PLANTED) == {text for texts in copies_in(folder).values() for text in texts}
    tower.run(erase, *map(Erase, job_ids))
    assert copies_in(folder) == {}
    assert oms_database.path.with_name("oms.db-wal").stat().st_size == 0
    assert overwritten(store)


@sqlite_only
def test_pages_that_were_split_and_moved_hold_no_copy(tower: Tower, oms_database: Database) -> None:
    """Each job's values are its own; jobs of many sizes come, change and are erased in between."""
    folder = oms_database.path.parent
    alive: list[tuple[str, str]] = []
    gone: list[str] = []
    for number in range(120):
        mark = f"<{number:05}-{number * 7919:08x}>"
        job_id = tower.start("single", f"T-{number}", {"m": mark + "y" * (number * 37 % 1500)}).job_id
        tower.complete(tower.pull_one("only"), {"m": mark + "z" * (number * 91 % 2500)})
        alive.append((job_id, mark))
        if number % 3 == 2:
            job_id, mark = alive.pop(number * 31 % len(alive))
            tower.one(erase, Erase(job_id))
            gone.append(mark)
    found = copies_in(folder, tuple(gone))
    assert found == {}, f"{sum(map(len, found.values()))} of {len(gone)}"


@sqlite_only
def test_a_reader_in_the_way_holds_it_up_for_as_long_as_it_reads(
    tower: Tower, store: Store, oms_database: Database
) -> None:
    job_id = work(tower)
    folder = oms_database.path.parent
    with store.reading() as connection:
        connection.execute(select(jobs)).all()
        tower.one(erase, Erase(job_id))
        assert copies_in(folder), "what the reader sees must still be there"
    tower.start("single", "T-2")  # any commit
    assert copies_in(folder) == {}


@sqlite_only
def test_a_start_cleans_up_after_a_kill(tower: Tower, oms_database: Database, tmp_path: Path) -> None:
    job_id = work(tower)
    tower.store._database = _without_scrub(tower.store)
    tower.one(erase, Erase(job_id))
    assert copies_in(oms_database.path.parent), "the log must hold them"
    for name in ("oms.db", "oms.db-wal"):  # as the disk is at this moment
        shutil.copyfile(oms_database.path.with_name(name), tmp_path / name)
    killed = open_store(f"sqlite:///{tmp_path / 'oms.db'}")
    assert copies_in(tmp_path) == {}
    killed.close()


def _without_scrub(store: Store) -> Any:
    from dataclasses import replace

    return replace(store._database, scrub=lambda _connection: True)
