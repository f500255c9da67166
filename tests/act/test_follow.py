"""``GET /stream`` live: every row once, in order, whatever the connection does; and no reader costs memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from act.api import follow
from tests.act.support import Act, LiveClient, event, failing_reads, plain_job, run, running, until


def test_what_is_there_comes_first_and_then_what_is_appended(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            async with LiveClient(act.app, "/stream") as client:
                assert [row_id for row_id, _ in await client.rows_up_to(5)] == [0, 1, 2, 3, 4]
                assert client.status == 200
                assert client.headers["content-type"].startswith("text/event-stream")
                assert client.headers["cache-control"] == "no-store"
                assert "content-length" not in client.headers
                await act.append(*plain_job("JOB-2"))
                rows = await client.rows_up_to(10)
                assert [row_id for row_id, _ in rows] == list(range(10))
                assert [row for _, row in rows] == await act.rows(), "a row is the same live and in the list"
                assert all(row["id"] == row_id for row_id, row in rows)

    run(scenario())


def test_follow_asks_for_it_too_and_something_comes_at_once(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act, LiveClient(act.app, "/stream?follow=true", {"accept": "*/*"}) as client:
            await until(lambda: bool(client.chunks), what="the first bytes of an empty ledger's stream")
            assert client.text == "retry: 1000\n\n"

    run(scenario())


def test_filters_hold_live(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            targets: dict[str, Callable[[dict[str, Any]], bool]] = {
                "/stream?job=JOB-1": lambda row: row["job_id"] == "JOB-1",
                "/stream?lane=clerk": lambda row: row["lane"] == "clerk",
                "/stream?status=done&status=started": lambda row: row["status"] in ("done", "started"),
                "/stream?since=2025-11-22T14:05:12.000Z": lambda row: row["ts"] >= "2025-11-22T14:05:12.000Z",
                "/stream?job=JOB-1&status=done": lambda row: row["job_id"] == "JOB-1" and row["status"] == "done",
            }
            clients = {target: LiveClient(act.app, target) for target in targets}
            for client in clients.values():
                await client.__aenter__()
            await act.append(*plain_job("JOB-2", lane="clerk"))
            await act.append(event("JOB-1", 6, entity="job", status="erased"), *plain_job("JOB-3", lane="clerk"))
            whole = await act.rows()
            for target, wanted in targets.items():
                expected = [row["id"] for row in whole if wanted(row)]
                rows = await clients[target].rows_up_to(len(expected))
                assert [row_id for row_id, _ in rows] == expected, target
                await clients[target].__aexit__(None, None, None)

    run(scenario())


@pytest.mark.parametrize("query", ["", "job=JOB-2", "lane=clerk", "job=JOB-2&status=done&status=queued"])
def test_resuming_from_every_point_leaves_nothing_out_and_repeats_nothing(url: str, query: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            order = random.Random(3)
            rest = [plain_job(f"JOB-{number}", lane=("clerk", "ai")[number % 2]) for number in range(1, 6)]
            while any(rest):
                await act.append(order.choice([raws for raws in rest if raws]).pop(0))
            whole = [row["id"] for row in await act.rows(query)]
            size = len(await act.rows())
            for seen in range(-1, size):
                expected = [row_id for row_id in whole if row_id > seen]
                targets: list[tuple[str, dict[str, str]]] = [(f"/stream?{query}&after={seen}", {})]
                if seen >= 0:
                    # A reconnecting browser sends its first URL again, and where it is.
                    targets.append((f"/stream?{query}&after=0", {"last-event-id": str(seen)}))
                for target, headers in targets:
                    async with LiveClient(act.app, target, headers) as client:
                        rows = await client.rows_up_to(len(expected))
                        assert [row_id for row_id, _ in rows] == expected

    run(scenario())


def test_a_client_that_drops_and_resumes_under_appends_sees_every_row_once(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            order = random.Random(11)
            await act.append(*plain_job("JOB-0"))

            async def append_all() -> None:
                for number in range(1, 121):
                    await act.append(*plain_job(f"JOB-{number}"))

            async def browse(query: str, stop_at: int) -> list[int]:
                seen: list[int] = []
                while not seen or seen[-1] < stop_at:
                    headers = {"last-event-id": str(seen[-1])} if seen else {}
                    async with LiveClient(act.app, f"/stream?{query}", headers) as client:
                        count = order.randint(1, 60)
                        rows = await client.rows_up_to(count, last=stop_at)
                        seen += [row_id for row_id, _ in rows]
                return seen

            appending = asyncio.create_task(append_all())
            everything, done = await asyncio.gather(browse("", 604), browse("status=done", 604))
            await appending
            assert everything == list(range(605))
            assert done == [row["id"] for row in await act.rows("status=done&limit=1000")]

    run(scenario())


@pytest.mark.parametrize(
    ("target", "headers", "says"),
    [
        ("/stream", {"last-event-id": "nonsense"}, "must be the id of a row"),
        ("/stream", {"last-event-id": "5"}, "ends with the id 4"),
        ("/stream?after=5", {}, "ends with the id 4"),
        ("/stream?job=JOB-1&after=99", {}, "ends with the id 4"),
        ("/stream?limit=5", {}, "does not go with a live stream"),
        ("/stream?view=latest", {}, "does not go with a live stream"),
    ],
)
def test_what_cannot_be_followed_is_refused(url: str, target: str, headers: dict[str, str], says: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            async with LiveClient(act.app, target, headers) as client:
                await client.task
                assert client.status == 422
                assert says in client.text

    run(scenario())


def test_the_last_row_there_is_can_be_resumed_from(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            async with LiveClient(act.app, "/stream", {"last-event-id": "4"}) as client:
                await until(lambda: bool(client.chunks), what="the beginning")
                await act.append(event("JOB-2", 1))
                assert [row_id for row_id, _ in await client.rows_up_to(1)] == [5]

    run(scenario())


def test_a_silent_stream_gets_a_comment(url: str) -> None:
    async def scenario() -> None:
        async with running(url, ping_sec=0.05) as act, LiveClient(act.app, "/stream") as client:
            await until(lambda: client.text.count(": ping\n\n") >= 3, what="three pings")
            await act.append(event("JOB-1", 1))
            assert len(await client.rows_up_to(1)) == 1
            before = client.text.count(": ping\n\n")
            await until(lambda: client.text.count(": ping\n\n") >= before + 2, what="silence again")

    run(scenario())


def test_the_ping_is_every_15_seconds() -> None:
    from act.config import Settings

    assert Settings().ping_sec == 15


def test_only_so_many_may_follow(url: str) -> None:
    async def scenario() -> None:
        async with running(url, max_followers=2) as act:
            async with LiveClient(act.app, "/stream") as first, LiveClient(act.app, "/stream") as second:
                await until(lambda: bool(first.chunks and second.chunks), what="two streams")
                async with LiveClient(act.app, "/stream") as third:
                    await third.task
                    assert third.status == 503
                    assert third.headers["retry-after"] == "5"
                    assert third.headers["content-type"] == "application/problem+json"
                assert (await act.http.get("/readyz")).json()["followers"] == 2
                assert len(await act.rows()) == 0, "asking without following goes on"
            assert len(act.ledger.followers) == 0, "who has left is not counted"
            async with LiveClient(act.app, "/stream") as again:
                await until(lambda: bool(again.chunks), what="a stream")

    run(scenario())


def test_a_slow_reader_holds_up_nobody_and_holds_no_rows(url: str) -> None:
    async def scenario() -> None:
        async with (
            running(url) as act,
            LiveClient(act.app, "/stream") as slow,
            LiveClient(act.app, "/stream") as quick,
        ):
            await until(lambda: bool(slow.chunks and quick.chunks), what="two streams")
            slow.may_send.clear()
            for number in range(60):
                await act.append(*plain_job(f"JOB-{number}"))
            assert len(await quick.rows_up_to(300)) == 300
            assert len(slow.rows()) <= 5, "nothing is sent to who does not read"
            # What the service holds for it is one page: the rest comes out of the database when it reads again.
            slow.may_send.set()
            assert [row_id for row_id, _ in await slow.rows_up_to(300)] == list(range(300))
            assert max(chunk.count(b"\n\n") for chunk in slow.chunks) <= follow.PAGE

    run(scenario())


def test_a_reader_that_takes_nothing_is_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "SEND_TIMEOUT_SEC", 0.05)
    monkeypatch.setattr(follow, "STOP_SEC", 0.05)

    async def scenario() -> None:
        async with running(url) as act, LiveClient(act.app, "/stream") as client:
            await until(lambda: bool(client.chunks), what="the beginning")
            client.may_send.clear()
            await act.append(*plain_job("JOB-1"))
            await until(client.task.done, what="the end")
            assert len(act.ledger.followers) == 0

    run(scenario())


def test_a_stop_ends_every_stream_cleanly(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            targets = ("/stream", "/stream?job=JOB-1")
            clients = [LiveClient(act.app, target) for target in targets]
            for client in clients:
                await client.__aenter__()
                await client.rows_up_to(5)
            act.ledger.followers.stop()
            for client in clients:
                await asyncio.wait_for(client.task, 5)
                assert client.is_ended, "the last chunk says that it is the last"
                assert len(client.rows()) == 5
            async with LiveClient(act.app, "/stream") as late:
                await late.task
                assert late.status == 503

    run(scenario())


def test_a_stop_does_not_wait_for_who_does_not_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "STOP_SEC", 0.05)

    async def scenario() -> None:
        async with running(url) as act, LiveClient(act.app, "/stream") as client:
            await until(lambda: bool(client.chunks), what="the beginning")
            client.may_send.clear()
            await act.append(*plain_job("JOB-1"))
            act.ledger.followers.stop()
            await asyncio.wait_for(client.task, 5)

    run(scenario())


def test_what_another_process_appends_is_noticed(url: str) -> None:
    """Nobody wakes the followers: the look for it does."""

    async def scenario() -> None:
        async with running(url, poll_sec=0.05) as act, LiveClient(act.app, "/stream") as client:
            await until(lambda: bool(client.chunks), what="the beginning")
            _append_behind_its_back(act, event("JOB-1", 1))
            assert [row_id for row_id, _ in await client.rows_up_to(1)] == [0]
            assert act.ledger.size == 1

    run(scenario())


def _append_behind_its_back(act: Act, raw: bytes) -> None:
    from act.domain.posted import read_posted
    from act.ledger import append

    with act.store.writer.begin() as tx:
        append(tx, [read_posted(raw)], now_us=1)


def test_a_database_that_cannot_be_read_ends_the_stream_and_the_client_goes_on_later(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*plain_job("JOB-1"))
            async with LiveClient(act.app, "/stream") as client:
                await client.rows_up_to(5)
                with failing_reads(act.store.reader):
                    await act.append(*plain_job("JOB-2"))
                    await asyncio.wait_for(client.task, 5)
                assert client.is_ended
            async with LiveClient(act.app, "/stream", {"last-event-id": "4"}) as client:
                assert [row_id for row_id, _ in await client.rows_up_to(5)] == [5, 6, 7, 8, 9]

    run(scenario())
