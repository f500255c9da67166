"""A paused lane hands out nothing, at whatever tower, until it is resumed; and the ledger hears of both, once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from act.contract import EVENT
from oms.domain.errors import NotFoundError
from oms.sequencer import neighbours
from oms.sequencer.deliver import StopStream, stop_streams
from oms.sequencer.pause_lane import LaneStands, PauseLane, ResumeLane, pause_lanes, resume_lanes
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.purge import PurgeLanes, purge_lanes
from oms.sequencer.start import Start, start
from oms.sequencer.writer import Writer
from oms.storage.store import Store, open_store
from tests.database import Database
from tests.databases import postgres_only
from tests.oms.api_client import Client, serving
from tests.oms.crew import Hand, hands
from tests.oms.support import (
    LIMIT_SEC,
    SINGLE,
    Clock,
    Hold,
    ScriptedLedger,
    Site,
    Tower,
    event_rows,
    events,
    in_loop,
    running,
    told,
    until,
    working,
)
from tests.oms.test_retention import hand_over

ONLY = Pull(lane="only", limit=1)


def pause(tower: Tower, lane: str = "only", **more: str) -> LaneStands:
    return tower.one(pause_lanes, PauseLane(lane, **more))


def resume(tower: Tower, lane: str = "only", **more: str) -> LaneStands:
    return tower.one(resume_lanes, ResumeLane(lane, **more))


def lane_events(store: Store, lane: str = "only") -> list[dict[str, Any]]:
    return events(store, f"LANE-{lane}")


# What it does.


def test_a_paused_lane_hands_out_nothing_and_others_go_on(tower: Tower) -> None:
    tower.start("single", "T-1")
    tower.start("single", "T-2")
    tower.start("renewal", "T-3")
    held = tower.pull_one("only")
    assert pause(tower) == LaneStands("only", paused=True)
    assert tower.pull("only", limit=5) == []
    assert tower.pull_one("extract").reference == "T-3"
    assert tower.complete(held).job_state == "done", "what runs may still be completed"
    assert resume(tower) == LaneStands("only", paused=False)
    assert tower.pull_one("only").reference == "T-2"


def test_what_becomes_ready_in_a_paused_lane_waits_too(tower: Tower, clock: Clock) -> None:
    tower.start("single", "T-1")
    tower.fail(tower.pull_one("only"))
    pause(tower)
    tower.start("single", "T-2")
    clock.advance(60)
    tower.sweep()
    assert tower.pull("only", limit=5) == []
    resume(tower)
    assert [task.reference for task in tower.pull("only", limit=5)] == ["T-2", "T-1"]


def test_pausing_again_is_the_same_answer_and_no_event(tower: Tower, clock: Clock) -> None:
    assert resume(tower) == LaneStands("only", paused=False), "it was not paused"
    assert lane_events(tower.store) == []
    answers = [pause(tower, actor="boss", reason="no paper"), pause(tower, actor="other")]
    clock.advance(1)
    answers += [resume(tower, actor="boss"), resume(tower)]
    answers += tower.run(pause_lanes, PauseLane("only"), PauseLane("only"))  # type: ignore[arg-type]
    assert [answer.paused for answer in answers] == [True, True, False, False, True, True]
    said = [(event["id"], event["data"]["status"], event["data"]["actor"]) for event in lane_events(tower.store)]
    assert said == [
        ("LANE-only.1", "paused", "boss"),
        ("LANE-only.2", "resumed", "boss"),
        ("LANE-only.3", "paused", None),
    ]


def test_the_event_says_who_and_why_and_stands_in_the_lane_s_own_stream(tower: Tower) -> None:
    pause(tower, actor="boss", reason="no paper", trace="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    (event,) = lane_events(tower.store)
    assert event == {
        "specversion": "1.0",
        "id": "LANE-only.1",
        "source": "/oms/lanes/only",
        "type": "hms.lane.paused.v1",
        "subject": "LANE-only",
        "time": "2025-11-22T14:05:09.123Z",
        "sequence": "00000000000000000001",
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        "datacontenttype": "application/json",
        "data": {
            **dict.fromkeys(("job_id", "plan", "plan_version", "reference", "task_id", "activity")),
            "lane": "only",
            "status": "paused",
            **dict.fromkeys(("attempt", "worker")),
            "actor": "boss",
            "detail": {"reason": "no paper"},
        },
    }


@pytest.mark.parametrize("lane", ["a/b c.7%", "\U0001f4ee" * 100, "名" * 100], ids=["plain", "emoji", "han"])
def test_a_lane_of_any_name_has_events_that_the_ledger_takes(tower: Tower, lane: str) -> None:
    tower.put_plan({"id": "odd", "lanes": [lane], "sequence": [lane]})
    pause(tower, lane)
    (row,) = event_rows(tower.store, f"LANE-{lane}")
    event = EVENT.validate_json(row.body)
    assert (event.stream, event.seq, event.data.lane) == (f"LANE-{lane}", 1, lane)


def test_the_list_of_lanes_shows_who_paused_it_since_when_and_why(tower: Tower) -> None:
    pause(tower, actor="boss", reason="no paper")
    shown = tower.lanes()
    said = {key: shown["only"][key] for key in ("paused", "paused_at", "paused_by", "pause_reason")}
    assert said == {
        "paused": True,
        "paused_at": "2025-11-22T14:05:09.123Z",
        "paused_by": "boss",
        "pause_reason": "no paper",
    }
    assert not shown["extract"]["paused"]
    resume(tower)
    shown = tower.lanes()["only"]
    assert [shown[key] for key in said if shown[key]] == []


def test_a_lane_that_nobody_knows_is_refused_with_the_nearest_name(tower: Tower) -> None:
    with pytest.raises(NotFoundError, match="nearest known lane is 'extract'"):
        pause(tower, "extrakt")
    with pytest.raises(NotFoundError):
        resume(tower, "extrakt")
    assert lane_events(tower.store, "extrakt") == []


def test_a_lane_that_only_tasks_or_a_pause_know_may_be_paused_and_resumed(tower: Tower) -> None:
    tower.start("single", "T-1")
    tower.reroute("TASK-1", "backup")
    assert pause(tower, "backup").paused
    tower.reroute("TASK-1", "only")
    tower.pull_one("only")
    assert tower.lanes()["backup"]["paused"], "it is shown although nothing else knows it"
    assert not resume(tower, "backup").paused
    assert "backup" not in tower.lanes()


# Who waits.


@asynccontextmanager
async def one_who_waits(writer: Writer) -> AsyncIterator[asyncio.Task[list[LeasedTask]]]:
    poll = asyncio.ensure_future(writer.pull(ONLY, wait_sec=60))
    await until(lambda: writer.parked == 1, what="the pull waits")
    yield poll


@in_loop
async def test_who_waits_in_a_paused_lane_is_served_when_it_is_resumed(tower: Tower) -> None:
    async with working(tower) as writer, one_who_waits(writer) as poll:
        await writer.run(pause_lanes, PauseLane("only"))
        await writer.run(start, Start("single", "T-1", {}, 0))
        assert (poll.done(), writer.parked) == (False, 1)
        await writer.run(resume_lanes, ResumeLane("only"))
        ((task),) = await poll
        assert task.reference == "T-1"


@in_loop
async def test_all_who_wait_are_served_in_turn_as_far_as_tasks_are_there(tower: Tower) -> None:
    tower.run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(3)))
    pause(tower)
    async with working(tower) as writer:
        polls = []
        for number in range(5):
            polls.append(asyncio.ensure_future(writer.pull(ONLY, wait_sec=60)))
            await until(lambda count=number + 1: writer.parked == count, what="it waits")  # type: ignore[misc]
        await writer.run(resume_lanes, ResumeLane("only"))
        served = await asyncio.gather(*polls[:3])
        assert [task.reference for (task,) in served] == ["T-0", "T-1", "T-2"]
        assert writer.parked == 2


@in_loop
async def test_a_pull_that_comes_with_the_resume_is_served_by_it(tower: Tower) -> None:
    tower.start("single", "T-1")
    pause(tower)
    async with working(tower) as writer:
        async with Hold(writer):
            resumed = asyncio.ensure_future(writer.run(resume_lanes, ResumeLane("only")))
            pulled = asyncio.ensure_future(writer.pull(ONLY))
        await resumed
        assert len(await pulled) == 1


@in_loop
async def test_a_paused_lane_costs_the_writer_nothing_while_pulls_wait_in_it(
    tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither are they tried again and again, nor does every start wake them twice."""
    tower.start("single", "T-1")
    pause(tower)
    async with working(tower) as writer, one_who_waits(writer):
        looks = 0
        run = writer._transact

        def count(*args: Any) -> None:
            nonlocal looks
            looks += 1
            run(*args)

        monkeypatch.setattr(writer, "_transact", count)
        await writer.run(start, Start("single", "T-2", {}, 0))
        await writer.run(start, Start("single", "T-3", {}, 0))
        assert looks == 2
        assert writer.parked == 1


@postgres_only
@in_loop
async def test_a_resume_at_one_tower_serves_who_waits_at_another(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(site, look_interval_sec=0.01) as one, running(site, plans=(), look_interval_sec=0.01) as other:
        await one.post("/lanes/only/pause", {})
        await one.post("/start", {"plan": "single", "reference": "T-1"})
        poll = asyncio.ensure_future(other.get("/pull", lane="only", wait=60))
        await other.parked(1)
        woken: list[Any] = []
        monkeypatch.setattr(other.writer, "wake", woken.append)
        looked = 0
        ready = neighbours._ready

        def look(store: Store, lanes: list[str]) -> dict[str, int]:
            nonlocal looked
            looked += 1
            return ready(store, lanes)

        monkeypatch.setattr(neighbours, "_ready", look)
        await until(lambda: looked > 2, what="the other tower looks")
        assert woken == [], "what is held back wakes nobody"
        monkeypatch.undo()
        await one.post("/lanes/only/resume", {})
        assert (await poll)["reference"] == "T-1"


# At the same moment.


@pytest.fixture
def busy(oms_database: Database) -> Store:
    """A store that many write to."""
    store = open_store(oms_database.url, writers=8)
    Tower(store, Clock()).put_plan(SINGLE)
    return store


@postgres_only
def test_many_who_pause_a_lane_that_never_was_paused_do_it_once(busy: Store) -> None:
    answers = hands(8, busy, lambda one: one.run(pause_lanes, PauseLane("only", actor=f"boss-{one.number}")))
    assert {answer for (answer,) in answers} == {LaneStands("only", paused=True)}
    assert [event["id"] for event in lane_events(busy)] == ["LANE-only.1"]
    busy.close()


@postgres_only
def test_many_who_pause_and_resume_leave_a_stream_without_a_gap_that_alternates(busy: Store) -> None:
    def turn(one: Hand) -> None:
        for _ in range(10):
            one.run(pause_lanes, PauseLane("only"))
            one.run(resume_lanes, ResumeLane("only"))

    hands(6, busy, turn)
    said = lane_events(busy)
    assert [event["id"] for event in said] == [f"LANE-only.{number}" for number in range(1, len(said) + 1)]
    assert [event["data"]["status"] for event in said] == ["paused", "resumed"] * (len(said) // 2)
    busy.close()


@postgres_only
def test_no_pull_that_was_asked_after_the_answer_to_a_pause_gets_anything(busy: Store) -> None:
    Tower(busy, Clock()).run(start, *(Start("single", f"T-{number}", {}, 0) for number in range(400)))
    answered = threading.Event()
    answered_at: list[float] = []

    def work(one: Hand) -> list[float]:
        if one.number == 0:
            time.sleep(0.02)  # let the others be in the midst of it
            one.run(pause_lanes, PauseLane("only"))
            answered_at.append(time.monotonic())
            answered.set()
            return []
        got: list[float] = []
        while not answered.is_set() or time.monotonic() < answered_at[0] + 0.1:
            asked = time.monotonic()
            (leased,) = one.run(pull, Pull("only", limit=1))
            got += [asked] * len(leased)
        return got

    asked = [at for got in hands(6, busy, work) for at in got]
    assert asked, "somebody got something before the pause"
    assert len(asked) < 400
    assert max(asked) < answered_at[0]
    busy.close()


@postgres_only
@in_loop
async def test_a_pause_that_meets_another_comes_again_until_it_gets_through(site: Site) -> None:
    """A plan that changes the lane's cap meets it, too. What shares a transaction with it does not wait."""
    async with running(site) as oms:
        held = threading.Event()
        free = threading.Event()
        other = Tower(open_store(site.database.url), Clock())

        def hold() -> None:
            with other.transaction() as tx:
                pause_lanes(tx, [PauseLane("only")])
                tx.flush()
                held.set()
                assert free.wait(LIMIT_SEC)

        await oms.post("/lanes/only/pause", {})
        await oms.post("/lanes/only/resume", {})
        holding = threading.Thread(target=hold)
        holding.start()
        await until(held.is_set, what="another has the lane")
        pausing = asyncio.ensure_future(oms.post("/lanes/only/pause", {}))
        putting = asyncio.ensure_future(oms.post("/plans", {**SINGLE, "lanes": [{"id": "only", "max_running": 1}]}))
        await oms.post("/start", {"plan": "renewal", "reference": "T-1"})
        assert not pausing.done()
        assert not putting.done()
        free.set()
        assert await pausing == {"lane": "only", "paused": True}
        assert (await putting)["plan_version"] == 2
        holding.join()
        other.store.close()
        assert [event["id"] for event in lane_events(oms.store)] == [f"LANE-only.{number}" for number in (1, 2, 3)]


@postgres_only
@in_loop
async def test_a_lane_that_another_does_not_let_go_of_is_503(site: Site) -> None:
    async with running(site) as oms:
        await oms.post("/lanes/only/pause", {})
        other = Tower(open_store(site.database.url), Clock())
        with other.transaction() as tx:
            resume_lanes(tx, [ResumeLane("only")])
            answer = await oms.http.post("/lanes/only/resume", json={})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        other.store.close()


# What else there is of a lane's stream.


def test_what_waited_in_a_paused_lane_is_not_late_for_it(tower: Tower, clock: Clock) -> None:
    tower.put_plan({**SINGLE, "lanes": [{"id": "only", "stall_after_sec": 60}]})
    tower.start("single", "T-1")
    clock.advance(30)
    pause(tower)
    clock.advance(1_000)
    resume(tower)
    clock.advance(29)
    tower.sweep()
    assert ("task", "stalled") not in told(tower.store)
    clock.advance(2)
    tower.sweep()
    assert ("task", "stalled") in told(tower.store)


@in_loop
async def test_the_relay_delivers_a_lane_s_events_in_order(site: Site) -> None:
    ledger = ScriptedLedger()
    async with running(site, ledger=ledger) as oms:
        for _ in range(3):
            await oms.post("/lanes/only/pause", {"reason": "no paper"})
            await oms.post("/lanes/only/resume", {"actor": "boss"})
        await until(lambda: len(ledger.streams["LANE-only"]) == 6, what="the ledger has them")
        assert ledger.streams["LANE-only"] == [row.body for row in event_rows(oms.store, "LANE-only")]


def test_a_lane_s_old_events_leave_once_the_ledger_has_them_and_are_counted_on(tower: Tower, clock: Clock) -> None:
    pause(tower)
    resume(tower)
    tower.start("single", "T-1")
    clock.advance(2)
    assert tower.run(purge_lanes, PurgeLanes(keep_ms=1_000)) == [0], "the ledger does not have them"
    hand_over(tower)
    pause(tower)
    assert tower.run(purge_lanes, PurgeLanes(keep_ms=2_001)) == [0], "their time has not come"
    assert tower.run(purge_lanes, PurgeLanes(keep_ms=0)) == [2], "the newest has not been delivered"
    assert [event["id"] for event in lane_events(tower.store)] == ["LANE-only.3"]
    assert event_rows(tower.store, "JOB-1"), "a job's leave with it"
    hand_over(tower)
    assert tower.run(purge_lanes, PurgeLanes(keep_ms=0)) == [1]
    resume(tower)
    assert [event["id"] for event in lane_events(tower.store)] == ["LANE-only.4"]


def test_a_lane_s_events_stay_while_the_ledger_refuses_its_stream(tower: Tower, clock: Clock) -> None:
    pause(tower)
    hand_over(tower)
    tower.run(stop_streams, StopStream("LANE-only", "LANE-only.1", "fork", "another event stands there"))
    clock.advance(1)
    assert tower.run(purge_lanes, PurgeLanes(keep_ms=0)) == [0]


# Over HTTP.


@pytest.fixture
def oms(site: Site) -> Any:
    with serving(site) as client:
        yield client


def test_over_http_with_a_body_or_without(oms: Client) -> None:
    assert oms.post("/lanes/only/pause", {"reason": "no paper", "actor": "boss"}) == {"lane": "only", "paused": True}
    assert oms.http.post("/lanes/only/pause").json() == {"lane": "only", "paused": True}
    assert oms.http.post("/lanes/only/resume").json() == {"lane": "only", "paused": False}


def test_a_lane_whose_name_needs_quoting_is_reached_by_its_path(oms: Client) -> None:
    oms.post("/plans", {"id": "odd", "lanes": ["a/b ü"], "sequence": ["a/b ü"]})
    answer = oms.http.post("/lanes/a%2Fb%20%C3%BC/pause")
    assert answer.json() == {"lane": "a/b ü", "paused": True}


def test_bad_input_says_what_is_wrong(oms: Client) -> None:
    status, problem = oms.refused("/lanes/extrakt/pause", {})
    assert status == 404
    assert "'extract'" in problem["detail"]
    assert oms.refused("/lanes/only/pause", {"why": "x"})[0] == 422
    assert oms.refused("/lanes/only/pause", {"reason": "a\nb"})[0] == 422
    assert oms.refused("/lanes/a%00b/pause", {})[0] == 422
    assert oms.http.get("/lanes/only/pause").status_code == 405


def test_a_browser_of_another_site_may_not_pause(oms: Client) -> None:
    for verb in ("pause", "resume"):
        assert oms.refused(f"/lanes/only/{verb}", {}, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
