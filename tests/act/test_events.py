"""``POST /events`` over HTTP."""

from __future__ import annotations

import gc
import gzip
import json
import weakref
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from act.client import LedgerClient, LedgerGapError, LedgerRefusedError, LedgerTooLargeError, LedgerUnavailableError
from act.contract import (
    BATCH_CONTENT_TYPE,
    EVENT_CONTENT_TYPE,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    entry_bytes,
    leaf_hash,
)
from tests.act.support import NOW_MS, Act, array, check_ledger, event, plain_job, run, running

JOB = plain_job("JOB-1")


def test_a_batch_is_taken_once_and_its_receipts_bind_the_bytes(url: str) -> None:
    async def scenario() -> None:
        async with running(url, clock=lambda: NOW_MS * 1000 + 7) as act:
            body = await act.append(*JOB)
            assert body == {
                "accepted": 5,
                "duplicates": 0,
                "size": 5,
                "results": [
                    {
                        "id": f"JOB-1.{place + 1}",
                        "index": place,
                        "outcome": "appended",
                        "leaf_hash": leaf_hash(entry_bytes(NOW_MS * 1000 + 7, raw)).hex(),
                    }
                    for place, raw in enumerate(JOB)
                ],
            }
            assert list(body) == ["accepted", "duplicates", "size", "results"]
            again = await act.append(*JOB)
            assert (again["accepted"], again["duplicates"], again["size"]) == (0, 5, 5)
            assert again["results"] == [{**result, "outcome": "duplicate"} for result in body["results"]]
            assert check_ledger(act.store) == JOB

    run(scenario())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": BATCH_CONTENT_TYPE},
        {"content-type": "application/json"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "text/plain"},
        {"content-type": "nonsense"},
        {"content-encoding": "identity"},
    ],
)
def test_whatever_type_the_body_names_it_is_read_as_json(url: str, headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            answer = await act.http.post("/events", content=array(JOB), headers=headers)
            assert answer.status_code == 200

    run(scenario())


def test_one_event_is_a_batch_of_one(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            answer = await act.http.post("/events", content=JOB[0], headers={"content-type": EVENT_CONTENT_TYPE})
            assert answer.json()["results"][0]["id"] == "JOB-1.1"
            assert check_ledger(act.store) == JOB[:1]

    run(scenario())


def test_the_bytes_are_kept_as_they_were_posted(url: str) -> None:
    value = json.loads(JOB[0])
    value["data"]["detail"] = {"price": 1.0, "name": "Łukasz €"}
    odd = json.dumps(value, indent=1).replace('"price": 1.0', '"price": 1.00').encode()
    assert b"\\u20ac" in odd

    async def scenario() -> None:
        async with running(url) as act:
            await act.http.post("/events", content=b"\n [ " + odd + b" \t]\r\n")
            assert check_ledger(act.store) == [odd]
            same_value = json.dumps(value).encode()
            assert (await act.post(same_value)).json()["code"] == "fork", "the same value in other bytes is a fork"

    run(scenario())


def test_a_fork_is_refused_counted_and_logged_loudly(url: str) -> None:
    forged = plain_job("JOB-1", lane="elsewhere")[3]

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*JOB)
            with capture_logs() as logs:
                answer = await act.post(JOB[4], *plain_job("JOB-2"), forged)
            assert answer.status_code == 409
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            detail = problem.pop("detail")
            assert "JOB-1.4" in detail
            assert problem == {
                "type": "urn:hms:problem:fork",
                "title": "The ledger has another event in this place",
                "status": 409,
                "code": "fork",
                "event_id": "JOB-1.4",
                "stream": "JOB-1",
                "seq": 4,
                "index": 6,
                "ledger_index": 3,
            }
            (line,) = [line for line in logs if line["event"] == "fork_refused"]
            assert line["log_level"] == "error"
            assert (line["event_id"], line["ledger_index"]) == ("JOB-1.4", 3)
            assert check_ledger(act.store) == JOB, "nothing of the batch was appended"
            assert (await act.http.get("/readyz")).json()["forks_refused"] == 1

    run(scenario())


def test_a_gap_names_the_one_that_is_expected(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.append(*JOB[:2])
            answer = await act.post(JOB[2], JOB[4])
            assert answer.status_code == 409
            problem = answer.json()
            assert problem["code"] == "gap"
            assert problem["type"] == "urn:hms:problem:gap"
            assert (problem["event_id"], problem["stream"], problem["index"]) == ("JOB-1.5", "JOB-1", 1)
            assert (problem["expected_seq"], problem["expected_id"]) == (4, "JOB-1.4")
            assert problem["expected_sequence"] == "00000000000000000004"
            assert "expects JOB-1.4 next" in problem["detail"]
            assert check_ledger(act.store) == JOB[:2]

    run(scenario())


def test_a_refused_event_is_named(url: str) -> None:
    bad = event("JOB-2", 1, attempt=-1)

    async def scenario() -> None:
        async with running(url) as act:
            answer = await act.post(*JOB, bad)
            assert answer.status_code == 422
            problem = answer.json()
            assert (problem["event_id"], problem["index"]) == ("JOB-2.1", 5)
            assert problem["errors"][0]["loc"] == ["body", 5, "data", "attempt"]
            assert "JOB-2.1" in problem["detail"]
            assert check_ledger(act.store) == []

    run(scenario())


def test_limits(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            most = [event(f"JOB-{number}", 1) for number in range(MAX_BATCH_EVENTS)]
            await act.append(*most)
            too_many = await act.post(*most, event("JOB-X", 1))
            assert (too_many.status_code, too_many.json()["code"]) == (413, "body-too-large")

            large = [event(f"JOB-L{number}", 1, detail={"x": "y" * 63_000}) for number in range(66)]
            body = array(large)
            assert MAX_BATCH_BYTES - 70_000 < len(body) <= MAX_BATCH_BYTES
            body += b" " * (MAX_BATCH_BYTES - len(body))
            assert (await act.http.post("/events", content=body)).status_code == 200
            assert (await act.http.post("/events", content=body + b" ")).status_code == 413

            async def chunks() -> Any:
                for _ in range(5):
                    yield b" " * 1_000_000

            unannounced = await act.http.post("/events", content=chunks())
            assert unannounced.status_code == 413
            event_too_large = await act.post(event("JOB-Y", 1, detail={"x": "y" * 64_000}))
            assert event_too_large.status_code == 422, "half of it would not help"
            assert event_too_large.json()["event_id"] == "JOB-Y.1"
            assert len(check_ledger(act.store)) == 566

    run(scenario())


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_a_compressed_body_is_refused(url: str, encoding: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            answer = await act.http.post(
                "/events", content=gzip.compress(array(JOB)), headers={"content-encoding": encoding}
            )
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-encoding")

    run(scenario())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://act"}, 200),
        ({"origin": "https://portal.example", "sec-fetch-site": "cross-site"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "http://act"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({}, 200),
    ],
)
def test_a_page_elsewhere_cannot_post_through_a_browser(url: str, headers: dict[str, str], status: int) -> None:
    async def scenario() -> None:
        async with running(url, allowed_origins="https://portal.example, https://other.example") as act:
            answer = await act.http.post("/events", content=array(JOB), headers=headers)
            assert answer.status_code == status
            assert len(check_ledger(act.store)) == (5 if status == 200 else 0)
            assert (await act.http.get("/stream", headers=headers)).status_code == 200, "reading is no change"

    run(scenario())


HOSTILE_BODIES = [
    b"",
    b" ",
    b"[]",
    b"{}",
    b"[{}]",
    b"[[]]",
    b"null",
    b"0",
    b'"x"',
    b"{",
    b"\x00",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" + b"1," * 600,
    b'[{"id":' + b"9" * 10_000 + b"}]",
    b'[{"id":1e999}]',
    b'[{"id":NaN}]',
    b'[{"id":"\\ud800"}]',
    b'[{"id":"\\u0000"}]',
    b'[{"id":"a","id":"b"}]',
    event().replace(b'"detail":{}', b'"detail":{"x":' + b"[" * 40 + b"]" * 40 + b"}"),
    event().replace(b'"detail":{}', b'"detail":{"a":1,"a":2}'),
    event().replace(b'"detail":{}', b'"detail":{"a":"\\udfff"}'),
    event().replace(b'"time":"2025', b'"time":"0000'),
    event().replace(b'"time":"2025', b'"time":"99999'),
    event("JOB-1", 2**64),
    event("JOB-1", 10**20 - 1),
    event("JOB-" + "9" * 490, 1),
    event("' OR 1=1 --", 1).replace(b"0000001", b"0000000"),
    b"<xml/>",
    b"task_id=1&status=done",
]


@pytest.mark.parametrize("number", range(len(HOSTILE_BODIES)))
def test_a_hostile_body_is_refused_with_a_reason_and_changes_nothing(url: str, number: int) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            answer = await act.http.post("/events", content=HOSTILE_BODIES[number])
            assert answer.status_code in (409, 413, 422), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert len(problem["detail"]) > 10
            assert problem["status"] == answer.status_code
            assert check_ledger(act.store) == []
            await act.append(*JOB)

    run(scenario())


ODD_NAMES: dict[str, Any] = {"status ": 1, "": None}
ODD_EVENTS = [
    event("JOB-" + "9" * 480, 1),
    event("' OR 1=1 --", 1),
    event("job with spaces/and%20slashes?#", 1),
    event("JOB-ü€😀", 1, lane="Straße €", worker="\u202eevil"),
    event("JOB-1", 1, detail={"x": 10**4000}),
    event("JOB-1", 1, detail={"x": 1e308, "y": -0.0, "z": 2**64}),
    event("JOB-1", 1, detail={"<script>": "</script>\n\r\t"}),
    event("JOB-1", 1, detail={"deep": json.loads("[" * 29 + "]" * 29)}),
    event("JOB-1", 1, id=5, ts="x", **ODD_NAMES),
    event("JOB-1", 1, time_ms=-62_135_596_800_000),
    event("JOB-1", 1, time_ms=253_402_300_799_999),
    event("JOB-1", 1, plan_version=2**53, attempt=2**53),
]


@pytest.mark.parametrize("number", range(len(ODD_EVENTS)))
def test_an_odd_event_that_is_taken_can_be_read_in_every_way(url: str, number: int) -> None:
    raw = ODD_EVENTS[number]

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(raw)
            assert check_ledger(act.store) == [raw]
            (row,) = await act.rows()
            assert row["id"] == 0
            assert row["detail"] == json.loads(raw)["data"]["detail"]
            for query in ("view=latest", f"lane={'x'}", "status=queued", "since=0001-01-01T00:00:00Z"):
                await act.rows(query)
            answer = await act.http.get("/stream", params={"job": row["job_id"]})
            assert answer.json() == [row]

    run(scenario())


def test_unknown_parameters_and_methods(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            assert (await act.http.post("/events?dry_run=1", content=array(JOB))).status_code == 422
            for method, path in (("GET", "/events"), ("DELETE", "/events"), ("PUT", "/events"), ("POST", "/stream")):
                answer = await act.http.request(method, path)
                assert answer.status_code == 405
                assert answer.headers["content-type"] == "application/problem+json"
            assert (await act.http.get("/nothing")).status_code == 404

    run(scenario())


# --- the client that OMS uses -------------------------------------------------------------------------------------


def client_of(act: Act) -> LedgerClient:
    return LedgerClient("http://act", transport=httpx.ASGITransport(act.app))


def test_the_client_understands_every_answer(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act, client_of(act) as client:
            receipts = await client.append(JOB)
            assert [(receipt.id, receipt.index, receipt.outcome) for receipt in receipts] == [
                (f"JOB-1.{place + 1}", place, "appended") for place in range(5)
            ]
            assert [row["seq"] for row in await client.stream("JOB-1")] == [1, 2, 3, 4, 5]
            assert await client.stream("JOB-2") == []
            with pytest.raises(LedgerGapError) as gap:
                await client.append([event("JOB-1", 9)])
            assert (gap.value.event_id, gap.value.expected_seq) == ("JOB-1.9", 6)
            with pytest.raises(LedgerRefusedError) as fork:
                await client.append([event("JOB-1", 1)])
            assert (fork.value.code, fork.value.event_id) == ("fork", "JOB-1.1")
            with pytest.raises(LedgerRefusedError) as unreadable:
                await client.append([event("JOB-3", 1, attempt=-1)])
            assert (unreadable.value.code, unreadable.value.event_id) == ("invalid-input", "JOB-3.1")
            with pytest.raises(LedgerTooLargeError):
                await client.append([event(f"JOB-{number}", 1) for number in range(501)])
            act.ledger._writer._is_stopping = True
            with pytest.raises(LedgerUnavailableError) as later:
                await client.append(JOB)
            assert later.value.retry_after_sec == 1.0
            act.ledger._writer._is_stopping = False

    run(scenario())


def test_what_was_posted_is_gone_once_it_was_answered() -> None:
    answers: list[weakref.ref[httpx.Response]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        results = [{"id": "x", "index": 0, "outcome": "appended", "leaf_hash": "00"}] * len(JOB)
        given = httpx.Response(200, json={"results": results}, request=request)
        answers.append(weakref.ref(given))  # it keeps the request, and that what was posted
        return given

    async def scenario() -> None:
        async with LedgerClient("http://act", transport=httpx.MockTransport(answer)) as client:
            await client.append(JOB)
            assert answers[0]() is None

    gc.disable()  # for hundreds of batches it does not come
    try:
        run(scenario())
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"results": []}),
        httpx.Response(200, json=[]),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(409, json={"detail": "some other service"}),
        httpx.Response(404, json={"code": "x", "detail": "y"}),
    ],
)
def test_an_answer_that_is_not_acts_acknowledges_nothing(answer: httpx.Response) -> None:
    async def scenario() -> None:
        async with LedgerClient("http://act", transport=httpx.MockTransport(lambda _: answer)) as client:
            with pytest.raises(LedgerUnavailableError):
                await client.append(JOB)

    run(scenario())
