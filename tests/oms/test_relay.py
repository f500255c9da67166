"""The relay: every event gets to the ledger at least once and in its order, and no ledger can hold up the work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from act.app import create_app as create_ledger
from act.client import LedgerClient, LedgerUnavailableError
from act.config import Settings as LedgerSettings
from act.contract import MAX_BATCH_EVENTS, entry_bytes, leaf_hash
from act.storage.store import open_store as open_ledger
from oms.domain.errors import UnavailableError
from oms.relay import loop
from oms.relay.loop import Relay
from oms.sequencer.deliver import ResumeStreams, resume
from oms.sequencer.start import Start, start
from oms.sequencer.writer import Writer
from oms.storage.store import Store
from tests.databases import NewDatabase
from tests.oms.support import (
    LIMIT_SEC,
    Clock,
    ScriptedLedger,
    Site,
    Tower,
    break_next_commit,
    event_rows,
    in_loop,
    lose_reply,
    problem,
    refuse,
    running,
    turns,
    until,
    working,
)


@pytest.fixture
def ledger() -> ScriptedLedger:
    return ScriptedLedger()


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a relay that backs off come back soon."""
    monkeypatch.setattr(loop, "MAX_BACKOFF_SEC", 0.01)


def relay_of(tower: Tower, writer: Writer, ledger: ScriptedLedger) -> Relay:
    return Relay(tower.store, writer, ledger.client(), now_ms=tower.clock, random_unit=lambda: 0.0)


async def send_all(relay: Relay) -> None:
    """Let a relay send until there is nothing to send."""
    for _ in range(200):
        if not await relay.send_once():
            return
    raise AssertionError("there is no end to it")


def some_jobs(tower: Tower, count: int, *, first: int = 1) -> None:
    """Make jobs of four events each, mixed with each other: two that start, one that runs, one that is done."""
    tower.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(first, first + count)))
    for task in tower.pull("only", count):
        tower.fail(task, retryable=False)


def undelivered(store: Store) -> list[str]:
    return [f"{row.stream}.{row.seq}" for row in event_rows(store) if not row.delivered]


def check_ledger_has_all(store: Store, ledger: ScriptedLedger) -> None:
    """Check that the ledger has just the outbox's events, each stream in its order, and that its receipts are kept."""
    streams: dict[str, list[Any]] = {}
    for row in event_rows(store):
        streams.setdefault(row.stream, []).append(json.loads(row.body))
        place = ledger.places[f"{row.stream}.{row.seq}"]
        assert row.delivered
        assert (row.ledger_index, row.leaf_hash) == (place, place.to_bytes(32, "big"))
    assert {stream: [json.loads(raw) for raw in known] for stream, known in ledger.streams.items() if known} == streams


# All is well.


@in_loop
async def test_every_event_is_sent_in_its_order_and_its_receipt_is_kept(tower: Tower, ledger: ScriptedLedger) -> None:
    some_jobs(tower, 30)
    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        await send_all(relay)
        assert not await relay.send_once()
    check_ledger_has_all(tower.store, ledger)
    assert [event_id for batch in ledger.batches for event_id in batch] == [
        f"{row.stream}.{row.seq}" for row in event_rows(tower.store)
    ]
    assert relay.health.delivered == len(event_rows(tower.store))


@in_loop
async def test_a_batch_is_no_larger_than_the_ledger_takes(
    tower: Tower, ledger: ScriptedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_jobs(tower, 150)
    monkeypatch.setattr(loop, "MAX_BATCH_BYTES", 100_000)
    async with working(tower) as writer:
        await send_all(relay_of(tower, writer, ledger))
    sizes = {f"{row.stream}.{row.seq}": len(row.body) for row in event_rows(tower.store)}
    assert max(len(batch) for batch in ledger.batches) <= MAX_BATCH_EVENTS
    assert all(sum(sizes[event] + 1 for event in batch) + 1 <= 100_000 for batch in ledger.batches)
    check_ledger_has_all(tower.store, ledger)


@in_loop
async def test_a_commit_wakes_the_relay_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "IDLE_POLL_SEC", 3600.0)
    ledger = ScriptedLedger()
    async with running(site, ledger=ledger) as oms:
        for number in range(3):
            await oms.post("/start", {"plan": "single", "reference": f"T-{number}"})
            await until(lambda: not undelivered(oms.store), what="the ledger has it")
        check_ledger_has_all(oms.store, ledger)


@in_loop
async def test_many_commits_are_told_of_together(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "GATHER_SEC", 0.2)
    ledger = ScriptedLedger()
    async with running(site, ledger=ledger) as oms:
        for number in range(30):
            await oms.post("/start", {"plan": "single", "reference": f"T-{number}"})
        await until(lambda: not undelivered(oms.store), what="the ledger has it")
        assert len(ledger.batches) <= 10
        check_ledger_has_all(oms.store, ledger)


@in_loop
async def test_what_is_left_is_sent_before_the_service_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relay, "run", lambda _relay: asyncio.Event().wait())
    ledger = ScriptedLedger()
    async with running(site, ledger=ledger) as oms:
        await oms.post("/start", {"plan": "single", "reference": "T-1"})
        assert ledger.batches == []
    assert ledger.batches == [["JOB-1.1", "JOB-1.2"]]


# The ledger is away.


@pytest.mark.usefixtures("swift")
@in_loop
async def test_p6_work_goes_on_while_the_ledger_is_away_and_the_backlog_is_shown_and_follows(site: Site) -> None:
    ledger = ScriptedLedger()
    ledger.is_up = False
    clock = Clock()
    async with running(site, ledger=ledger, clock=clock) as oms:
        for number in range(20):
            await oms.post("/start", {"plan": "single", "reference": f"T-{number}"})
        task = await oms.get("/pull", lane="only")
        await oms.post("/complete", {"task_id": task["task_id"], "token": task["token"]})
        await until(lambda: oms.service.relay.act_error, what="the outage is noticed")
        clock.advance(90)
        ready = await oms.get("/readyz")
        assert (ready["ready"], ready["act"]["ok"]) == (True, False)
        assert "ConnectError" in ready["act"]["error"]
        assert (ready["relay"]["pending"], ready["relay"]["oldest_undelivered_sec"]) == (43, 90.0)
        ledger.is_up = True
        await until(lambda: not undelivered(oms.store), what="the backlog follows")
        await until(lambda: oms.service.relay.act_error is None, what="the end of the outage is noticed")
        ready = await oms.get("/readyz")
        assert (ready["act"]["ok"], ready["relay"]["pending"], ready["relay"]["oldest_undelivered_sec"]) == (
            True,
            0,
            None,
        )
        check_ledger_has_all(oms.store, ledger)


@in_loop
async def test_an_idle_service_notices_that_the_ledger_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PROBE_EVERY_SEC", 0.0)
    monkeypatch.setattr(loop, "IDLE_POLL_SEC", 0.01)
    ledger = ScriptedLedger()
    async with running(site, ledger=ledger) as oms:
        ledger.is_up = False
        await until(lambda: oms.service.relay.act_error, what="the outage is noticed")


@pytest.mark.parametrize(
    "fault",
    [
        refuse(503, "unavailable"),
        refuse(500, "internal-error"),
        refuse(404, "not-found"),
        lambda _ledger, _batch: httpx.Response(200, text="<html>a proxy</html>"),
        lambda _ledger, _batch: httpx.Response(200, json={"results": []}),
        lambda _ledger, _batch: httpx.Response(422, text="no problem of the ledger's"),
        lambda _ledger, _batch: httpx.Response(302, headers={"location": "http://elsewhere"}),
    ],
    ids=["503", "500", "404", "a page", "no receipts", "a bare 422", "a redirect"],
)
@pytest.mark.usefixtures("swift")
@in_loop
async def test_an_answer_that_acknowledges_nothing_is_an_outage_and_nothing_is_lost(
    tower: Tower, ledger: ScriptedLedger, fault: Any
) -> None:
    some_jobs(tower, 2)
    ledger.script += [fault] * 3
    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        running_relay = asyncio.ensure_future(relay.run())
        await until(lambda: not undelivered(tower.store), what="all of it is delivered")
        running_relay.cancel()
    assert len(ledger.batches) >= 4
    check_ledger_has_all(tower.store, ledger)


@in_loop
async def test_a_lost_reply_makes_duplicates_and_the_same_receipts(tower: Tower, ledger: ScriptedLedger) -> None:
    some_jobs(tower, 3)
    ledger.script.append(lose_reply)
    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        with pytest.raises(LedgerUnavailableError):
            await relay.send_once()
        places = dict(ledger.places)
        assert len(undelivered(tower.store)) == len(places) > 0
        await send_all(relay)
    assert ledger.places == places
    assert ledger.batches[0] == ledger.batches[1]
    check_ledger_has_all(tower.store, ledger)


@in_loop
async def test_a_relay_that_dies_between_the_answer_and_its_mark_does_no_harm(
    tower: Tower, ledger: ScriptedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_jobs(tower, 3)

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        monkeypatch.setattr(writer, "run_each", die)
        with pytest.raises(asyncio.CancelledError):
            await send_all(relay)
        monkeypatch.undo()
        await send_all(relay_of(tower, writer, ledger))
    assert ledger.batches[0] == ledger.batches[1]
    check_ledger_has_all(tower.store, ledger)


@in_loop
async def test_the_next_batch_is_sent_while_the_last_one_is_marked(
    tower: Tower, ledger: ScriptedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_jobs(tower, 3)
    monkeypatch.setattr(loop, "MAX_BATCH_EVENTS", 5)
    may_mark = asyncio.Event()
    async with working(tower) as writer:
        run_each = writer.run_each

        async def mark_late(*arguments: Any) -> Any:
            await may_mark.wait()
            return await run_each(*arguments)

        monkeypatch.setattr(writer, "run_each", mark_late)
        relay = relay_of(tower, writer, ledger)
        sending = asyncio.create_task(send_all(relay))
        await until(lambda: len(ledger.batches) == 2, what="the second batch is there")
        assert len(undelivered(tower.store)) == len(event_rows(tower.store))
        may_mark.set()
        await sending
    sent = [event_id for batch in ledger.batches for event_id in batch]
    assert sent == [f"{row.stream}.{row.seq}" for row in event_rows(tower.store)]
    assert relay.health.delivered == len(sent)
    check_ledger_has_all(tower.store, ledger)


@in_loop
async def test_what_could_not_be_marked_is_sent_again(
    tower: Tower, ledger: ScriptedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_jobs(tower, 3)

    async def fail(*_: Any) -> None:
        raise UnavailableError("the disk is full")

    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        monkeypatch.setattr(writer, "run_each", fail)
        with pytest.raises(UnavailableError):
            await send_all(relay)
        monkeypatch.undo()
        await send_all(relay)
    assert ledger.batches[0] == ledger.batches[1]
    check_ledger_has_all(tower.store, ledger)


@pytest.mark.usefixtures("swift")
@in_loop
async def test_two_relays_at_once_do_no_harm(
    tower: Tower, ledger: ScriptedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_BATCH_EVENTS", 7)
    async with working(tower) as writer:
        relays = [asyncio.ensure_future(relay_of(tower, writer, ledger).run()) for _ in range(2)]
        for number in range(40):
            await writer.run(start, Start("single", f"T-{number}", {}, 0))
            await turns(number % 7)
        await until(lambda: not undelivered(tower.store), what="all of it is delivered")
        for relay in relays:
            relay.cancel()
    assert sum(len(batch) for batch in ledger.batches) >= 80
    check_ledger_has_all(tower.store, ledger)


class SlowLedger(ScriptedLedger):
    """A ledger that answers only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.is_asked = asyncio.Event()

    async def handle_slowly(self, request: httpx.Request) -> httpx.Response:
        self.is_asked.set()
        await self.may_answer.wait()
        return self.handle(request)

    def client(self) -> LedgerClient:
        return LedgerClient("http://act", transport=httpx.MockTransport(self.handle_slowly))


@in_loop
async def test_a_slow_ledger_slows_no_work(site: Site) -> None:
    ledger = SlowLedger()
    async with running(site, ledger=ledger) as oms:
        await oms.post("/start", {"plan": "single", "reference": "T-0"})
        await ledger.is_asked.wait()
        async with asyncio.timeout(LIMIT_SEC):
            for number in range(1, 50):
                await oms.post("/start", {"plan": "single", "reference": f"T-{number}"})
                task = await oms.get("/pull", lane="only", wait=5)
                await oms.post("/complete", {"task_id": task["task_id"], "token": task["token"]})
        assert not ledger.places
        ledger.may_answer.set()
        await until(lambda: not undelivered(oms.store), what="the backlog follows")
        check_ledger_has_all(oms.store, ledger)


@in_loop
async def test_a_stop_does_not_wait_for_a_ledger_that_does_not_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oms.app.FLUSH_SEC", 0.05)
    ledger = SlowLedger()
    async with asyncio.timeout(LIMIT_SEC), running(site, ledger=ledger) as oms:
        await oms.post("/start", {"plan": "single", "reference": "T-0"})


# The ledger lacks something, or will not have it.


@in_loop
async def test_a_ledger_that_lost_its_newest_events_gets_them_again(tower: Tower, ledger: ScriptedLedger) -> None:
    some_jobs(tower, 2)
    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        await send_all(relay)
        for stream in ("JOB-1", "JOB-2"):
            for raw in ledger.streams[stream][1:]:
                del ledger.places[json.loads(raw)["id"]]
            del ledger.streams[stream][1:]
        tower.retry("TASK-1")
        with capture_logs() as logs:
            await send_all(relay)
        assert [log["stream"] for log in logs if log["event"] == "ledger_lost_events"] == ["JOB-1"]
        tower.retry("TASK-2")
        await send_all(relay)
    assert undelivered(tower.store) == []
    assert {stream: len(known) for stream, known in ledger.streams.items()} == {"JOB-1": 7, "JOB-2": 7}


@pytest.mark.parametrize(("status", "code"), [(409, "fork"), (422, "invalid-event")])
@in_loop
async def test_an_event_that_the_ledger_will_never_take_stops_its_own_stream_and_no_other(
    tower: Tower, ledger: ScriptedLedger, status: int, code: str
) -> None:
    some_jobs(tower, 3)
    take = ledger.take

    def poisoned(batch: Any) -> httpx.Response:
        ids = [json.loads(raw)["id"] for raw in batch]
        return problem(status, code, event_id="JOB-2.3") if "JOB-2.3" in ids else take(batch)

    ledger.take = poisoned  # type: ignore[method-assign]
    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        with capture_logs() as logs:
            await send_all(relay)
        some_jobs(tower, 1, first=4)
        await send_all(relay)
        stopped = [log for log in logs if log["event"] == "stream_stopped"]
        assert [(log["stream"], log["event_id"], log["code"]) for log in stopped] == [("JOB-2", "JOB-2.3", code)]
        assert all(event_id.startswith("JOB-2.") for event_id in undelivered(tower.store))
        assert {"JOB-2.3", "JOB-2.4", "JOB-2.5"} <= set(undelivered(tower.store))
        ledger.take = take  # type: ignore[method-assign]
        await send_all(relay)
        assert undelivered(tower.store), "a stopped stream is not tried again by itself, soon"
        await writer.run_each(resume, [ResumeStreams()])
        await send_all(relay)
    check_ledger_has_all(tower.store, ledger)


@in_loop
async def test_an_event_that_the_ledger_refuses_without_saying_which_is_found(
    tower: Tower, ledger: ScriptedLedger
) -> None:
    some_jobs(tower, 8)
    take = ledger.take

    def poisoned(batch: Any) -> httpx.Response:
        ids = [json.loads(raw)["id"] for raw in batch]
        return problem(422, "invalid-event") if "JOB-5.3" in ids else take(batch)

    ledger.take = poisoned  # type: ignore[method-assign]
    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        await send_all(relay)
    assert undelivered(tower.store) == ["JOB-5.3", "JOB-5.4", "JOB-5.5"]


@in_loop
async def test_a_batch_that_is_too_large_is_halved_until_it_is_not(tower: Tower, ledger: ScriptedLedger) -> None:
    some_jobs(tower, 10)
    take = ledger.take
    ledger.take = lambda batch: problem(413, "too-large") if len(batch) > 9 else take(batch)  # type: ignore[method-assign]
    async with working(tower) as writer:
        await send_all(relay_of(tower, writer, ledger))
    check_ledger_has_all(tower.store, ledger)


@in_loop
async def test_one_event_that_is_too_large_stops_its_stream(tower: Tower, ledger: ScriptedLedger) -> None:
    some_jobs(tower, 3)
    take = ledger.take

    def poisoned(batch: Any) -> httpx.Response:
        ids = [json.loads(raw)["id"] for raw in batch]
        return problem(413, "too-large") if "JOB-1.1" in ids else take(batch)

    ledger.take = poisoned  # type: ignore[method-assign]
    async with working(tower) as writer:
        await send_all(relay_of(tower, writer, ledger))
    assert {event_id.partition(".")[0] for event_id in undelivered(tower.store)} == {"JOB-1"}


@in_loop
async def test_a_stopped_stream_is_shown_and_tried_again_after_a_restart(site: Site) -> None:
    ledger = ScriptedLedger()
    take = ledger.take
    ledger.take = lambda batch: problem(409, "fork", event_id=json.loads(batch[0])["id"])  # type: ignore[method-assign]
    async with running(site, ledger=ledger) as oms:
        await oms.post("/start", {"plan": "single", "reference": "T-1"})
        await until(lambda: ledger.batches, what="it is sent")
        async with asyncio.timeout(LIMIT_SEC):
            while not (relay := (await oms.get("/readyz"))["relay"])["stopped"]:  # noqa: ASYNC110 - as a probe does
                await asyncio.sleep(0.005)
        assert relay["pending"] == 2
        assert relay["stopped"] == [
            {
                "stream": "JOB-1",
                "event_id": "JOB-1.1",
                "code": "fork",
                "detail": "refused: fork",
                "since": "2025-11-22T14:05:09.123Z",
            }
        ]
        assert (await oms.get("/readyz"))["ready"] is True
    ledger.take = take  # type: ignore[method-assign]
    async with running(site, ledger=ledger, plans=()) as oms:
        await until(lambda: not undelivered(oms.store), what="it is tried again")
        assert (await oms.get("/readyz"))["relay"]["stopped"] == []
        check_ledger_has_all(oms.store, ledger)


@pytest.mark.parametrize("after", [False, True], ids=["not persisted", "persisted"])
@pytest.mark.usefixtures("swift")
@in_loop
async def test_marks_that_our_own_database_does_not_take_are_made_again_and_are_no_fault_of_the_ledger(
    tower: Tower, ledger: ScriptedLedger, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    some_jobs(tower, 2)
    async with working(tower) as writer:
        relay = relay_of(tower, writer, ledger)
        take = ledger.take

        def take_and_break(batch: Any) -> httpx.Response:
            ledger.take = take  # type: ignore[method-assign]
            break_next_commit(tower.store, monkeypatch, after=after)
            return take(batch)

        ledger.take = take_and_break  # type: ignore[method-assign]
        with capture_logs() as logs:
            running_relay = asyncio.ensure_future(relay.run())
            await until(lambda: relay.health.delivered or (after and not undelivered(tower.store)), what="the marks")
            await until(lambda: any(log["event"] == "database_unavailable" for log in logs), what="the log says so")
            running_relay.cancel()
        assert not any(log["event"] == "ledger_unavailable" for log in logs)
        assert len(ledger.batches) == (1 if after else 2)
    check_ledger_has_all(tower.store, ledger)


# The real ledger.


@asynccontextmanager
async def real_ledger(url: str) -> AsyncIterator[httpx.ASGITransport]:
    """Run ACT in this process."""
    app = create_ledger(LedgerSettings(database_url=url), open_ledger(url, migrate=True))
    async with app.router.lifespan_context(app):
        yield httpx.ASGITransport(app)


@in_loop
async def test_p6_the_real_ledger_takes_what_the_relay_sends_and_its_fold_is_what_the_tables_say(
    tower: Tower, new_database: NewDatabase
) -> None:
    tower.start("checked", "T-1")
    tower.complete(tower.pull_one("extract", "w-1"), {"score": 9})
    some_jobs(tower, 5, first=2)
    tower.retry("TASK-4")
    tower.reroute("TASK-5", "elsewhere")
    tower.release(tower.pull_one("elsewhere"))
    tower.pull_one("only")
    tower.clock.advance(3600)
    tower.sweep()
    async with real_ledger(new_database("act").url) as transport, working(tower) as writer:
        client = LedgerClient("http://act", transport=transport)
        relay = Relay(tower.store, writer, client, now_ms=tower.clock)
        await send_all(relay)
        async with httpx.AsyncClient(transport=transport, base_url="http://act") as http:
            for number in range(1, 7):
                name = f"JOB-{number}"
                rows = (await http.get("/stream", params={"job": name})).json()
                sent = event_rows(tower.store, name)
                assert [row["event_id"] for row in rows] == [f"{name}.{row.seq}" for row in sent]
                assert [row["id"] for row in rows] == [row.ledger_index for row in sent]
                fold = (await http.get(f"/jobs/{name}")).json()
                job = tower.job(name)
                assert fold["state"] == job["state"]
                keys = ("task_id", "activity", "lane", "status", "attempt", "worker")
                assert [[task[key] for key in keys] for task in fold["tasks"]] == [
                    [task[key] for key in keys] for task in job["tasks"]
                ]
        await client.close()


@in_loop
async def test_the_real_ledgers_receipts_bind_the_bytes_that_were_sent(tower: Tower, new_database: NewDatabase) -> None:
    some_jobs(tower, 2)
    url = new_database("act").url
    app = create_ledger(
        LedgerSettings(database_url=url), open_ledger(url, migrate=True), clock=lambda: 1_700_000_000_000_000
    )
    async with app.router.lifespan_context(app), working(tower) as writer:
        client = LedgerClient("http://act", transport=httpx.ASGITransport(app))
        relay = Relay(tower.store, writer, client, now_ms=tower.clock)
        await send_all(relay)
        before = [(row.ledger_index, row.leaf_hash) for row in event_rows(tower.store)]
        assert await client.append([row.body for row in event_rows(tower.store)])
        await client.close()
    for row, (index, leaf) in zip(event_rows(tower.store), before, strict=True):
        assert leaf == leaf_hash(entry_bytes(1_700_000_000_000_000, row.body))
        assert index == row.id - 1
