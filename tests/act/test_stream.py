"""``GET /stream`` as a list, and ``GET /jobs/{job_id}``."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.act.support import NOW_MS, array, event, plain_job, run, running

ROW_KEYS = [
    "id", "status", "lane", "ts", "job_id", "seq", "plan", "plan_version", "reference", "task_id", "activity",
    "attempt", "worker", "actor", "detail", "type", "event_id", "received_at",
]  # fmt: skip


def test_a_jobs_rows_are_a_plain_list_oldest_first(url: str) -> None:
    async def scenario() -> None:
        async with running(url, clock=lambda: (NOW_MS + 60_000) * 1000) as act:
            await act.append(*plain_job("JOB-1"), *plain_job("JOB-2"))
            rows = await act.rows("job=JOB-2")
            assert [list(row) for row in rows] == [ROW_KEYS] * 5
            assert [(row["id"], row["seq"], row["status"], row["lane"]) for row in rows] == [
                (5, 1, "queued", None),
                (6, 2, "queued", "ai_extract"),
                (7, 3, "started", "ai_extract"),
                (8, 4, "done", "ai_extract"),
                (9, 5, "done", None),
            ]
            assert rows[3] == {
                "id": 8,
                "status": "done",
                "lane": "ai_extract",
                "ts": "2025-11-22T14:05:12.123Z",
                "job_id": "JOB-2",
                "seq": 4,
                "plan": "passport_renewal",
                "plan_version": 1,
                "reference": "ticket-of-JOB-2",
                "task_id": "TASK-2",
                "activity": "ai_extract",
                "attempt": 1,
                "worker": "w-1",
                "actor": None,
                "detail": {"output_hmac": "ab" * 32},
                "type": "hms.task.done.v1",
                "event_id": "JOB-2.4",
                "received_at": "2025-11-22T14:06:09.123Z",
            }

    run(scenario())


def test_a_field_of_a_later_oms_is_shown_after_detail_and_hides_nothing(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(event("JOB-1", 1, due="soon", id="mine", ts=5))
            (row,) = await act.rows()
            assert (row["due"], row["id"], row["ts"]) == ("soon", 0, "2025-11-22T14:05:09.123Z")

    run(scenario())


def test_the_whole_ledger_page_by_page(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            for number in range(1, 261):
                await act.append(*plain_job(f"JOB-{number}"))
            assert [row["id"] for row in await act.rows()] == list(range(1000)), "1000 where no limit is given"
            found: list[int] = []
            while page := await act.rows(f"limit=77&after={found[-1] if found else -1}"):
                found += [row["id"] for row in page]
            assert found == list(range(1300))
            assert [row["id"] for row in await act.rows("limit=10000")] == list(range(1300))
            assert await act.rows("after=1299") == await act.rows("after=99999999") == []
            assert [row["id"] for row in await act.rows("after=3&limit=2")] == [4, 5]

    run(scenario())


def test_a_long_job_is_shown_whole_and_in_pages(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            for first in range(1, 2502, 500):
                await act.append(*(event("JOB-1", seq) for seq in range(first, first + 500)))
            await act.append(event("JOB-2", 1))
            whole = await act.http.get("/stream?job=JOB-1")
            assert "content-length" not in whole.headers, "it is sent as it is read"
            assert [row["seq"] for row in whole.json()] == list(range(1, 3001))
            assert [row["seq"] for row in await act.rows("job=JOB-1&limit=1500&after=99")] == list(range(101, 1601))
            assert await act.rows("job=JOB-1&status=done") == []
            assert len(await act.rows("job=JOB-1&status=queued&limit=2999")) == 2999

    run(scenario())


def test_filters(url: str) -> None:
    async def scenario() -> None:
        clock_us = (NOW_MS + 100_000) * 1000
        async with running(url, clock=lambda: clock_us) as act:
            await act.append(*plain_job("JOB-1"))
            await act.append(*plain_job("JOB-2", lane="clerk", time_ms=NOW_MS + 50_000))

            async def ids(query: str) -> list[int]:
                return [row["id"] for row in await act.rows(query)]

            assert await ids("lane=clerk") == [6, 7, 8]
            assert await ids("lane=clerk&lane=ai_extract&status=done") == [3, 8]
            assert await ids("status=done") == [3, 4, 8, 9]
            assert await ids("status=done&status=started&job=JOB-1") == [2, 3, 4]
            assert await ids("lane=nobody") == []
            # From the first time on, and before the second.
            assert await ids("since=2025-11-22T14:05:11.123Z&until=2025-11-22T14:05:13.123Z") == [2, 3]
            assert await ids("since=2025-11-22T15:05:11.123%2B01:00&job=JOB-1") == [2, 3, 4]
            assert await ids("older_than_sec=97") == [0, 1, 2], "more than 97 seconds ago"
            assert await ids("older_than_sec=96.999") == [0, 1, 2, 3]
            assert await ids("older_than_sec=0&lane=clerk") == [6, 7, 8]

    run(scenario())


def test_the_newest_of_each_lane_and_status_makes_a_plain_pivot_work(url: str) -> None:
    """``df.pivot(index="lane", columns="status", values="ts")`` wants each pair once, the null lane too."""

    async def scenario() -> None:
        async with running(url) as act:
            raws = plain_job("JOB-1")
            await act.append(
                *raws[:3],
                event("JOB-1", 4, status="failed", time_ms=NOW_MS + 3000),
                event("JOB-1", 5, status="queued", time_ms=NOW_MS + 4000),
                event("JOB-1", 6, status="started", time_ms=NOW_MS + 5000),
                event("JOB-1", 7, status="rerouted", lane="backup", time_ms=NOW_MS + 6000),
                event("JOB-1", 8, entity="job", status="paused", time_ms=NOW_MS + 7000),
                event("JOB-1", 9, entity="job", status="resumed", time_ms=NOW_MS + 8000),
                event("JOB-1", 10, entity="job", status="paused", time_ms=NOW_MS + 9000),
            )
            await act.append(*plain_job("JOB-2", lane="clerk"))
            every = await act.rows("job=JOB-1")
            assert len({(row["lane"], row["status"]) for row in every}) < len(every), "no pivot works on these"
            latest = await act.rows("job=JOB-1&view=latest")
            assert [(row["lane"], row["status"], row["seq"]) for row in latest] == [
                (None, "queued", 1),
                ("ai_extract", "failed", 4),
                ("ai_extract", "queued", 5),
                ("ai_extract", "started", 6),
                ("backup", "rerouted", 7),
                (None, "resumed", 9),
                (None, "paused", 10),
            ]
            overall = await act.rows("view=latest")
            assert [row["id"] for row in overall] == [3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]
            pairs = [(row["lane"], row["status"]) for row in overall]
            assert len(set(pairs)) == len(pairs)
            assert [row["id"] for row in await act.rows("view=latest&lane=clerk&status=done&limit=1")] == [13]
            assert [row["id"] for row in await act.rows("view=latest&after=11&limit=2")] == [12, 13]

    run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        "/stream?job=JOB-404",
        "/stream?job=JOB-404&follow=true",
        "/stream?job=JOB-404&view=latest",
        "/stream?job=JOB-404&status=done&limit=5",
        "/stream?job=LANE-clerk",
        "/jobs/JOB-404",
        "/jobs/LANE-clerk",
        "/jobs/%00",
        "/jobs/%ff",
    ],
)
def test_an_unknown_job_is_a_404(url: str, path: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(event("LANE-clerk", 1, entity="lane", status="paused", lane="clerk"), *plain_job("JOB-1"))
            answer = await act.http.get(path)
            assert answer.status_code == 404
            assert answer.json()["code"] == "not-found"

    run(scenario())


def test_a_known_job_without_such_rows_is_an_empty_list(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            assert await act.rows("job=JOB-1&lane=nobody") == []

    run(scenario())


def test_a_lanes_own_events_are_found_by_lane(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(event("LANE-clerk", 1, entity="lane", status="paused", lane="clerk", actor="boss"))
            (row,) = await act.rows("lane=clerk")
            assert (row["job_id"], row["event_id"], row["type"]) == (None, "LANE-clerk.1", "hms.lane.paused.v1")

    run(scenario())


def test_a_typo_never_widens_the_answer(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            answer = await act.http.get("/stream?jobs=JOB-1")
            assert answer.status_code == 422
            assert "did you mean 'job'?" in answer.json()["detail"]
            assert answer.json()["errors"][0]["loc"] == ["query", "jobs"]
            assert (await act.http.get("/jobs/JOB-1?verbose=1")).status_code == 422

    run(scenario())


def test_the_list_is_json_for_every_reader(url: str) -> None:
    """The seed's dashboard reads ``httpx.get(...).json()`` into a table; so does this."""

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            answer = await act.http.get("/stream?job=JOB-1")
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            out = io.StringIO()
            table = csv.DictWriter(out, ["id", "status", "lane", "ts"], extrasaction="ignore")
            table.writerows(answer.json())
            assert out.getvalue().splitlines()[2] == "2,started,ai_extract,2025-11-22T14:05:11.123Z"
            assert json.loads(answer.text) == answer.json()

    run(scenario())


def test_a_jobs_state_adds_up(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            raws = plain_job("JOB-1")
            states = []
            for raw in raws:
                await act.append(raw)
                states.append((await act.http.get("/jobs/JOB-1")).json())
            assert [state["state"] for state in states] == ["queued", "queued", "running", "running", "done"]
            assert [state["seq"] for state in states] == [1, 2, 3, 4, 5]
            assert states[-1] == {
                "job_id": "JOB-1",
                "plan": "passport_renewal",
                "plan_version": 1,
                "reference": "ticket-of-JOB-1",
                "state": "done",
                "seq": 5,
                "first_at": "2025-11-22T14:05:09.123Z",
                "updated_at": "2025-11-22T14:05:13.123Z",
                "tasks": [
                    {
                        "task_id": "TASK-1",
                        "activity": "ai_extract",
                        "lane": "ai_extract",
                        "status": "done",
                        "attempt": 1,
                        "worker": "w-1",
                        "updated_at": "2025-11-22T14:05:12.123Z",
                    }
                ],
            }

    run(scenario())


def test_a_job_of_many_pages_folds_to_its_end(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            for first in range(1, 1502, 500):
                await act.append(*(event("JOB-1", seq, task=f"TASK-{seq}") for seq in range(first, first + 500)))
            state = (await act.http.get("/jobs/JOB-1")).json()
            assert (state["seq"], len(state["tasks"])) == (2000, 2000)

    run(scenario())


def test_what_was_answered_is_seen_at_once(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            for seq in range(1, 30):
                await act.http.post("/events", content=array([event("JOB-1", seq)]))
                assert (await act.rows("job=JOB-1"))[-1]["seq"] == seq

    run(scenario())
