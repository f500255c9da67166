"""The worker's client: what it sends, what it makes of the answers, and what it dares to send again."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import oms.worker
from oms.worker import OmsClient, OmsClientError, OmsProblem, OmsUnreachableError
from oms.worker import client as client_module
from oms.worker.backoff import FIRST_SEC, MOST_SEC, backoff_sec
from oms.worker.task import LEAST_LEASE_SEC, Task, lease_sec, server_time
from tests.oms.worker_stub import HANG_UP, Answer, StubOms, problem


@pytest.fixture
def stub() -> Iterator[StubOms]:
    stub = StubOms()
    yield stub
    stub.close()


@pytest.fixture
def client(stub: StubOms, monkeypatch: pytest.MonkeyPatch) -> Iterator[OmsClient]:
    monkeypatch.setattr(client_module, "backoff_sec", lambda _tries: 0.0)
    with OmsClient(stub.url, retry_for_sec=5) as client:
        yield client


def a_task(stub: StubOms, number: int = 1) -> Task:
    return Task.from_answer(stub.task(number), server_now=stub.now())


def test_needs_only_the_standard_library_and_httpx() -> None:
    folder = Path(oms.worker.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top == "httpx" or name.startswith("oms.worker"), (file, name)


def test_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_URL", "http://tower:81/")
    assert OmsClient().url == "http://tower:81"
    monkeypatch.delenv("OMS_URL")
    assert OmsClient().url == "http://oms"
    assert OmsClient("http://x").url == "http://x"


def test_start_sends_what_the_contract_says(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/start", {"job_id": "JOB-1", "state": "queued"})
    assert client.start("passport_renewal", "ticket", {"a": 1}, priority=2)["job_id"] == "JOB-1"
    (asked,) = stub.asked
    assert asked.body == {"plan": "passport_renewal", "reference": "ticket", "input": {"a": 1}, "priority": 2}
    assert asked.headers["content-type"] == "application/json"


def test_a_refused_item_of_a_list_is_a_problem(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/start", [{"job_id": "JOB-1"}, {"error": problem(404, "not-found").body}])
    first, second = client.start_many([{"plan": "a", "reference": "r"}, {"plan": "b", "reference": "r"}])
    assert first == {"job_id": "JOB-1"}
    assert isinstance(second, OmsProblem)
    assert (second.status, second.code) == (404, "not-found")


def test_pull_gives_a_task_or_none(stub: StubOms, client: OmsClient) -> None:
    assert client.pull("ai_extract", worker="w", wait_sec=0.01) is None
    stub.answer("/pull", stub.task(7))
    task = client.pull("ai extract & more")
    assert task is not None
    assert (task.task_id, task.token, task.input) == ("TASK-7", "token-7", {"scan": 7})
    assert stub.asked[0].query == {"lane": "ai_extract", "worker": "w", "wait": "0.01"}
    assert stub.asked[1].query == {"lane": "ai extract & more"}


def test_pull_many_gives_a_list(stub: StubOms, client: OmsClient) -> None:
    stub.hand_out(1, 2)
    assert [task.task_id for task in client.pull_many("x", 5)] == ["TASK-1", "TASK-2"]
    assert client.pull_many("x", 5) == []
    assert stub.asked[0].query == {"lane": "x", "max": "5"}


def test_a_task_brings_its_token_and_an_id_needs_none(stub: StubOms, client: OmsClient) -> None:
    client.complete(a_task(stub), {"ok": True})
    client.complete("TASK-2", {"ok": True})
    client.fail(a_task(stub), "bad", "very bad", retryable=False)
    client.release(a_task(stub), reason="why")
    client.reroute("TASK-3", "backup", reason="r", actor="me")
    client.retry("TASK-4")
    assert [asked.body for asked in stub.asked] == [
        {"task_id": "TASK-1", "token": "token-1", "output": {"ok": True}},
        {"task_id": "TASK-2", "output": {"ok": True}},
        {
            "task_id": "TASK-1",
            "token": "token-1",
            "error": {"type": "bad", "message": "very bad"},
            "retryable": False,
        },
        {"task_id": "TASK-1", "token": "token-1", "reason": "why"},
        {"task_id": "TASK-3", "new_lane": "backup", "reason": "r", "actor": "me"},
        {"task_id": "TASK-4"},
    ]


def test_pages_are_followed_to_their_end(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/tasks", {"items": [{"task_id": "TASK-1"}], "next_cursor": "1"})
    stub.answer("/tasks", {"items": [{"task_id": "TASK-2"}], "next_cursor": None})
    assert [task["task_id"] for task in client.tasks(lane="x")] == ["TASK-1", "TASK-2"]
    assert stub.asked[1].query == {"limit": "500", "lane": "x", "cursor": "1"}


def test_an_id_cannot_leave_its_place_in_the_path(stub: StubOms, client: OmsClient) -> None:
    client.job("../start?x=1")
    assert stub.asked[0].path == "/jobs/..%2Fstart%3Fx%3D1"


def test_a_refusal_says_what_oms_said(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/complete", problem(409, "stale-token"))
    with pytest.raises(OmsProblem) as caught:
        client.complete("TASK-1")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (409, "stale-token", "No: stale-token.")
    assert len(stub.asked) == 1


def test_a_refusal_by_something_else_than_oms_is_told_by_its_status(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/complete", Answer("<html>", 403))
    with pytest.raises(OmsProblem) as caught:
        client.complete("TASK-1")
    assert (caught.value.status, caught.value.code) == (403, "http-403")


def test_503_is_tried_again_also_for_a_pull(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/pull", problem(503, "unavailable"), problem(503, "unavailable"), stub.task(1))
    task = client.pull("x")
    assert task is not None
    assert len(stub.asked) == 3


def test_retry_after_is_heeded(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/complete", problem(503, "unavailable", **{"Retry-After": "0.3"}), {})
    client.complete("TASK-1")
    assert stub.asked[1].at - stub.asked[0].at >= 0.3


def test_a_retry_after_beyond_the_limit_is_not_waited_for(stub: StubOms, client: OmsClient) -> None:
    stub.answer("/complete", problem(503, "unavailable", **{"Retry-After": "3600"}))
    began_at = time.monotonic()
    with pytest.raises(OmsProblem):
        client.complete("TASK-1")
    assert time.monotonic() - began_at < 2


@pytest.mark.parametrize("call", ["start", "complete", "fail", "heartbeat", "release", "job"])
def test_what_may_be_sent_twice_is_sent_again_after_a_lost_answer(stub: StubOms, client: OmsClient, call: str) -> None:
    task = a_task(stub)
    paths = {"job": "/jobs/JOB-1"}
    stub.answer(paths.get(call, f"/{call}"), HANG_UP)
    calls: dict[str, Callable[[], object]] = {
        "start": lambda: client.start("p", "r"),
        "complete": lambda: client.complete(task),
        "fail": lambda: client.fail(task, "x"),
        "heartbeat": lambda: client.heartbeat(task),
        "release": lambda: client.release(task),
        "job": lambda: client.job("JOB-1"),
    }
    calls[call]()
    assert len(stub.asked) == 2


@pytest.mark.parametrize("call", ["pull", "fail", "reroute", "retry"])
def test_what_may_not_be_sent_twice_is_not_sent_again_after_a_lost_answer(
    stub: StubOms, client: OmsClient, call: str
) -> None:
    stub.answer(f"/{call}", HANG_UP)
    calls: dict[str, Callable[[], object]] = {
        "pull": lambda: client.pull("x"),
        "fail": lambda: client.fail("TASK-1", "x"),
        "reroute": lambda: client.reroute("TASK-1", "y"),
        "retry": lambda: client.retry("TASK-1"),
    }
    with pytest.raises(OmsUnreachableError):
        calls[call]()
    assert len(stub.asked) == 1


def test_nobody_there_is_said_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "backoff_sec", lambda _tries: 0.01)
    with OmsClient("http://127.0.0.1:9", retry_for_sec=0.1) as client, pytest.raises(OmsUnreachableError):
        client.pull("x")


@pytest.mark.parametrize("url", ["oms:8001", "ftp://oms", "http://oms:port", "nonsense"])
def test_an_address_that_is_none_is_said_at_once(url: str) -> None:
    with OmsClient(url) as client, pytest.raises(OmsClientError, match="is no address"):
        client.job("JOB-1")


def test_an_answer_that_is_no_json_is_said(stub: StubOms, client: OmsClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.oms.worker_stub.json.dumps", lambda _body: "<html>")
    with pytest.raises(OmsClientError, match="no JSON"):
        client.job("JOB-1")


@pytest.mark.parametrize("output", [{"x": float("nan")}, {"x": "\ud800"}, {"x": {1, 2}}])
def test_an_output_that_is_no_json_is_not_sent(stub: StubOms, client: OmsClient, output: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        client.complete("TASK-1", output)
    assert stub.asked == []


def test_backoff_doubles_up_to_its_bound_and_is_spread() -> None:
    for tries in range(2000):
        assert 0 <= backoff_sec(tries) <= min(MOST_SEC, FIRST_SEC * 2 ** min(tries, 30))
    assert len({backoff_sec(5) for _ in range(20)}) > 10


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=3), timedelta(days=-400)])
def test_the_lease_is_measured_by_the_servers_clock(ahead: timedelta) -> None:
    stub = StubOms(clock_ahead=ahead, lease_sec=300)
    try:
        stub.hand_out(1)
        with OmsClient(stub.url) as client:
            (task,) = client.pull_many("x", 1)
            assert 298 <= task.lease_sec <= 300.1
            assert 298 <= client.heartbeat(task) <= 300.1
    finally:
        stub.close()


def test_a_lease_without_a_date_is_measured_by_the_time_of_the_answer() -> None:
    in_a_minute = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()
    assert lease_sec(in_a_minute, server_time(None)) == pytest.approx(60, abs=1)
    assert lease_sec(in_a_minute, server_time("gibberish")) == pytest.approx(60, abs=1)
    assert lease_sec("2001-01-01T00:00:00.000Z", server_time(None)) == LEAST_LEASE_SEC
