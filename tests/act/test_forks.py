"""Two histories of one job: the first is kept, the other one refused, recorded and alarmed, and in no tree."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from act import signer as signers
from act.domain.audit import Finding
from act.keys import Keys
from act.storage import forks as rows
from act.storage.forks import forks_after
from act.storage.store import Store
from act.verify import BadLedgerError, verify
from tests.act.support import Act, check_ledger, event, figures_of, plain_job, run, running, until
from tests.database import Database
from tests.databases import NewDatabase, postgres_only

JOB = plain_job("JOB-1")
FORGED = plain_job("JOB-1", lane="elsewhere")[3]


async def forks_of(act: Act, query: str = "") -> list[dict[str, Any]]:
    answer = await act.http.get(f"/forks?{query}")
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()
    return listed


def test_p9_a_fork_is_refused_recorded_and_alarmed_and_changes_nothing(
    url: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signers, "EVERY_SEC", 0.01)

    async def scenario() -> None:
        async with running(url, keys=keys, clock=lambda: 1_763_820_500_123_456) as act:
            assert await forks_of(act) == []
            await act.append(*JOB)
            await act.signed()
            before = (await act.http.get("/checkpoint")).content
            for attempt in (1, 2):
                with capture_logs() as logs:
                    answer = await act.post(*plain_job("JOB-2"), FORGED)
                assert (answer.status_code, answer.json()["code"]) == (409, "fork")
                (line,) = [line for line in logs if line["event"] == "fork_refused"]
                assert (line["log_level"], line["event_id"], line["ledger_index"]) == ("error", "JOB-1.4", 3)
                ready = (await act.http.get("/readyz")).json()
                assert (ready["forks_refused"], ready["forks_recorded"]) == (attempt, 1)
                figures = await figures_of(act)
                assert (figures["act_forks_refused_total"], figures["act_forks_recorded"]) == (attempt, 1)
            assert (await act.http.get("/checkpoint")).content == before
            assert check_ledger(act.store) == JOB
        # A restart forgets the count, and not the record.
        async with running(url) as act:
            ready = (await act.http.get("/readyz")).json()
            assert (ready["forks_refused"], ready["forks_recorded"]) == (0, 1)
            assert await forks_of(act) == [
                {
                    "id": 0,
                    "event_id": "JOB-1.4",
                    "stream": "JOB-1",
                    "seq": 4,
                    "index": 3,
                    "refused_at": "2025-11-22T14:08:20.123Z",
                    "event_sha256": hashlib.sha256(FORGED).hexdigest(),
                    "event": FORGED.decode(),
                }
            ]

    run(scenario())


def test_each_different_one_is_kept_once(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*JOB)
            in_one_batch = (event("JOB-7", 1, actor="a"), event("JOB-7", 1, actor="b"))
            forged = [event("JOB-1", 1, actor=name) for name in "abc"]
            for batch in ((forged[0],), (forged[0],), (forged[1],), in_one_batch, (forged[2],), in_one_batch):
                assert (await act.post(*batch)).status_code == 409
            assert [(fork["id"], fork["event_id"], fork["index"]) for fork in await forks_of(act)] == [
                (0, "JOB-1.1", 0),
                (1, "JOB-1.1", 0),
                (2, "JOB-7.1", None),
                (3, "JOB-1.1", 0),
            ]
            assert [fork["event"].encode() for fork in await forks_of(act)] == [*forged[:2], in_one_batch[1], forged[2]]
            assert [fork["id"] for fork in await forks_of(act, "after=1&limit=1")] == [2]
            assert await forks_of(act, "after=3") == []
            for query in ("limit=0", "limit=101", "after=x", "before=1"):
                assert (await act.http.get(f"/forks?{query}")).status_code == 422
            assert check_ledger(act.store) == JOB

    run(scenario())


def test_what_others_share_the_commit_with_a_fork_is_taken(url: str) -> None:
    import asyncio

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*JOB)
            answers = await asyncio.gather(*(act.post(*plain_job(f"JOB-{n}")) for n in range(2, 9)), act.post(FORGED))
            assert [answer.status_code for answer in answers] == [*([200] * 7), 409]
            assert len(await forks_of(act)) == 1
            assert len(check_ledger(act.store)) == 40

    run(scenario())


def test_they_fill_no_disk(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_FORKS", 3)

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*JOB)
            for number in range(5):
                assert (await act.post(event("JOB-1", 1, actor=f"a{number}"))).status_code == 409
            ready = (await act.http.get("/readyz")).json()
            assert (ready["forks_refused"], ready["forks_recorded"]) == (5, 3)

    run(scenario())


@postgres_only
def test_every_process_knows_of_them(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("act.ledger.LOOK_AROUND_EVERY_SEC", 0.01)

    async def scenario() -> None:
        async with running(url, poll_sec=0.05) as one, running(url, poll_sec=0.05) as other:
            await one.append(*JOB)
            assert (await one.post(FORGED)).status_code == 409
            await until(lambda: other.ledger.forks.recorded == 1, what="the other one knows")
            assert other.ledger.forks.refused == 0
            assert await forks_of(other) == await forks_of(one)

    run(scenario())


def with_a_fork(database: Database) -> None:
    async def scenario() -> None:
        async with running(database.url) as act:
            await act.append(*JOB)
            assert (await act.post(FORGED)).status_code == 409

    run(scenario())


@pytest.mark.parametrize("statement", ["UPDATE forks SET seq = seq", "DELETE FROM forks"])
def test_the_database_refuses_to_change_them(new_database: NewDatabase, store: Store, statement: str) -> None:
    database = new_database("act")
    with_a_fork(database)
    with pytest.raises(Exception, match="append-only"):
        database.rows(statement)
    assert database.count("forks") == 1


def test_none_is_put_in_anothers_place(store: Store) -> None:
    with store.writer.begin() as tx:
        rows.add_fork(tx, refusal(b"a"), now_us=1)
    add = "INSERT INTO forks SELECT {}, stream, seq, 5, 5, sha256, event FROM forks"
    for number in (0, 1, 7) if store.writer.dialect.name == "sqlite" else (0, 1):
        with pytest.raises(DBAPIError), store.writer.begin() as tx:
            tx.execute(text(add.format(number)))
        store.writer.dispose()
    with store.reader.begin() as tx:
        assert [(fork.number, fork.refused_us) for fork in forks_after(tx, -1, count=9)] == [(0, 1)]


def refusal(raw: bytes) -> Any:
    from act.domain.errors import ForkError

    return ForkError("x", stream="JOB-1", seq=1, position=0, ledger_index=None, event=raw)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE forks SET seq = 5", "its columns say 'JOB-1'.5, and its bytes 'JOB-1'.4"),
        ("UPDATE forks SET stream = 'JOB-2'", "its columns say 'JOB-2'.4"),
        ("UPDATE forks SET idx = 2", "the entry 2 is not another event in its place"),
        ("UPDATE forks SET idx = 77", "the entry 77 is not another event in its place"),
        ("UPDATE forks SET number = 1", "one before it is gone"),
        ("UPDATE forks SET sha256 = {zeros}", "its bytes are not those of its digest"),
        ("UPDATE forks SET event = {zeros}", "its bytes are not those of its digest"),
    ],
)
def test_an_edited_record_is_found(new_database: NewDatabase, change: str, says: str) -> None:
    database = new_database("act")
    with_a_fork(database)
    assert found(database) is None
    if database.kind == "sqlite":
        for (name,) in database.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.rows(f"DROP TRIGGER {name}")
    else:
        database.rows("ALTER TABLE forks DISABLE TRIGGER USER")
    zeros = "zeroblob(32)" if database.kind == "sqlite" else "decode(repeat('00', 32), 'hex')"
    database.rows(change.format(zeros=zeros))
    finding = found(database)
    assert finding is not None
    assert says in finding.detail


def test_the_entry_itself_is_no_fork_of_itself(new_database: NewDatabase, tmp_path: Path) -> None:
    database = new_database("act")
    with_a_fork(database)
    other = event("JOB-1", 5, entity="job", status="done", time_ms=1_763_820_313_123)
    assert other == JOB[4]
    digest = hashlib.sha256(other).hexdigest()
    wrote = (
        f"x'{other.hex()}', x'{digest}'"
        if database.kind == "sqlite"
        else f"decode('{other.hex()}', 'hex'), decode('{digest}', 'hex')"
    )
    database.rows(
        f"INSERT INTO forks (event, sha256, number, stream, seq, idx, refused_us) VALUES ({wrote}, 1, 'JOB-1', 5, 4, 1)"
    )
    finding = found(database)
    assert finding == Finding(4, "the record 1 in the table forks: the entry 4 is not another event in its place")


def found(database: Database) -> Finding | None:
    """Return what the full check finds."""
    from act.storage.readonly import reading

    try:
        with reading(database.url) as tx:
            verify(tx, keys=[], on_progress=lambda *_: None)
    except BadLedgerError as error:
        return error.finding
    return None
