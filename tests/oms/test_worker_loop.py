"""The worker's loop: what comes of a handler's result, heartbeats, lost attempts, and stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from oms.worker import Fatal, OmsProblem, PermanentError, ReleaseTask, Task, Worker, instance_name
from oms.worker import deliver as deliver_module
from oms.worker.deliver import Done, Failed, as_outcome, error_type_of
from oms.worker.loop import Handle, HandleBatch
from tests.oms.worker_stub import HANG_UP, Answer, Asked, StubOms, problem, until


@pytest.fixture
def stub() -> Iterator[StubOms]:
    stub = StubOms()
    yield stub
    stub.close()


@pytest.fixture
def start(stub: StubOms) -> Iterator[Callable[..., Worker]]:
    """Run a worker in a thread until the test ends."""
    running: list[tuple[Worker, threading.Thread]] = []

    def start(handle: Handle | HandleBatch, **options: Any) -> Worker:
        given: dict[str, Any] = {"lane": "ai_extract", "worker": "w", "wait_sec": 0.05}
        worker = Worker(stub.url, **(given | options))
        thread = threading.Thread(target=worker.run, args=(handle,))
        running.append((worker, thread))
        thread.start()
        return worker

    yield start
    for worker, thread in running:
        worker.stop()
        thread.join(10)
        assert not thread.is_alive()


def only(asked: list[Asked]) -> Any:
    (one,) = asked
    (item,) = one.body
    return item


def test_completes_with_the_token_and_its_name(stub: StubOms, start: Callable[..., Worker]) -> None:
    stub.hand_out(1)
    worker = start(lambda task: {"read": task.input["scan"]})
    until(lambda: worker.done == 1)
    assert only(stub.to("/complete")) == {
        "task_id": "TASK-1",
        "output": {"read": 1},
        "token": "token-1",
        "worker": "w",
    }
    assert stub.to("/pull")[0].query == {"lane": "ai_extract", "worker": "w", "wait": "0.05", "max": "1"}


def test_is_a_decorator_too(stub: StubOms) -> None:
    stub.hand_out(1)
    worker = Worker(stub.url, lane="x", wait_sec=0.05)

    @worker
    def handle(task: Task) -> dict[str, Any]:
        worker.stop()
        return {"scan": task.input["scan"]}

    assert worker.run() == 1
    assert handle(Task.from_answer(stub.task(3), server_now=stub.now())) == {"scan": 3}


def test_without_a_handler_it_says_so(stub: StubOms) -> None:
    with pytest.raises(ValueError, match="no handler"):
        Worker(stub.url, lane="x").run()


def test_every_worker_has_a_name_of_its_own() -> None:
    names = {instance_name() for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(rf"[^\x00-\x1f]+-{os.getpid()}-[0-9a-f]{{12}}", name) for name in names)


class FormTornError(Exception):
    """Of a handler."""


class NoSuchFormError(PermanentError):
    """Of a handler that knows better than to try again."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FormTornError("page 2"), ("FormTornError", "page 2", True)),
        (NoSuchFormError("x"), ("NoSuchFormError", "x", False)),
        (Fatal("x"), ("PermanentError", "x", False)),
        (Fatal("x", error_type="form missing!"), ("form_missing_", "x", False)),
        (type("Größe" * 30, (Exception,), {})("y" * 20_000), (("Gr_e" * 30)[:64], "y" * 10_000, True)),
        (ValueError("half \ud800"), ("ValueError", "half ?", True)),
    ],
)
def test_an_exception_fails_the_attempt(
    stub: StubOms, start: Callable[..., Worker], error: Exception, expected: tuple[str, str, bool]
) -> None:
    error_type, message, retryable = expected

    def handle(_task: Task) -> dict[str, Any]:
        raise error

    stub.hand_out(1)
    start(handle)
    until(lambda: stub.to("/fail"))
    assert only(stub.to("/fail")) == {
        "task_id": "TASK-1",
        "error": {"type": error_type, "message": message},
        "retryable": retryable,
        "token": "token-1",
        "worker": "w",
    }


def test_a_handler_can_give_a_task_back(stub: StubOms, start: Callable[..., Worker]) -> None:
    def handle(_task: Task) -> dict[str, Any]:
        raise ReleaseTask("too dark")

    stub.hand_out(1)
    start(handle)
    until(lambda: stub.to("/release"))
    assert stub.to("/release")[0].body == {"task_id": "TASK-1", "token": "token-1", "reason": "too dark"}
    assert not stub.to("/fail")


@pytest.mark.parametrize("result", [[1], "text", {"x": float("inf")}, {"x": object()}, {"x": "\ud800"}])
def test_a_result_that_is_no_json_object_fails_the_attempt(result: object) -> None:
    outcome = as_outcome(result)
    assert isinstance(outcome, Failed)
    assert outcome.retryable


def test_no_result_is_an_empty_output() -> None:
    assert as_outcome(None) == Done({})


@pytest.mark.parametrize("name", ["", "ü", "a b", "x" * 100, "a.b:c-d_e"])
def test_an_error_type_is_always_one_that_oms_takes(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", error_type_of(name))


def test_a_broken_message_does_not_hide_the_failure() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    outcome = as_outcome(BrokenError())
    assert isinstance(outcome, Failed)
    assert outcome.error_type == "BrokenError"


def test_an_output_that_oms_refuses_fails_the_attempt(stub: StubOms, start: Callable[..., Worker]) -> None:
    stub.hand_out(1)
    stub.answer("/complete", [{"error": problem(422, "invalid-input").body}])
    worker = start(lambda _task: {"x": 1})
    until(lambda: stub.to("/fail"))
    assert only(stub.to("/fail"))["error"] == {"type": "OutputRefused", "message": "No: invalid-input."}
    assert worker.done == 0


def test_the_outcome_is_sent_until_oms_answers(
    stub: StubOms, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver_module, "ROUND_SEC", 0.0)
    stub.hand_out(1)
    stub.answer("/complete", HANG_UP, problem(503), HANG_UP)
    worker = start(lambda _task: {})
    until(lambda: worker.done == 1)
    assert len(stub.to("/complete")) == 4


def test_a_pull_that_fails_is_tried_on_later(stub: StubOms, start: Callable[..., Worker]) -> None:
    stub.answer("/pull", problem(503), HANG_UP, problem(502), [stub.task(1)])
    worker = start(lambda _task: {})
    until(lambda: worker.done == 1)


def test_a_refused_pull_ends_the_worker(stub: StubOms) -> None:
    stub.answer("/pull", problem(422, "invalid-input"))
    with pytest.raises(OmsProblem):
        Worker(stub.url, lane="x").run(lambda _task: {})


def test_an_empty_lane_is_polled_with_jitter(stub: StubOms, start: Callable[..., Worker]) -> None:
    start(lambda _task: {}, wait_sec=0, idle_sec=0.05)
    until(lambda: len(stub.to("/pull")) == 8)
    times = [asked.at for asked in stub.to("/pull")][:8]
    gaps = [late - early for early, late in pairwise(times)]
    assert min(gaps) > 0.02
    assert len({round(gap, 3) for gap in gaps}) > 1
    assert "wait" not in stub.to("/pull")[0].query


def test_a_long_poll_that_is_answered_at_once_is_no_busy_loop(stub: StubOms, start: Callable[..., Worker]) -> None:
    stub.answer("/pull", *[[]] * 1000)
    start(lambda _task: {}, wait_sec=30, idle_sec=0.2)
    until(lambda: len(stub.to("/pull")) == 3)
    assert stub.to("/pull")[2].at - stub.to("/pull")[0].at > 0.15


def test_a_batch_is_handled_and_completed_as_one(stub: StubOms, start: Callable[..., Worker]) -> None:
    def handle(tasks: list[Task]) -> Sequence[dict[str, Any] | Exception | None]:
        return [{"n": 1}, None, ValueError("torn"), ReleaseTask("later")][: len(tasks)]

    stub.hand_out(1, 2, 3, 4)
    worker = start(handle, max=10)
    until(lambda: stub.to("/release"))
    (completed,) = stub.to("/complete")
    assert [(item["task_id"], item["output"]) for item in completed.body] == [("TASK-1", {"n": 1}), ("TASK-2", {})]
    assert only(stub.to("/fail"))["task_id"] == "TASK-3"
    assert stub.to("/release")[0].body["task_id"] == "TASK-4"
    assert stub.to("/pull")[0].query["max"] == "10"
    assert worker.done == 2


@pytest.mark.parametrize("outputs", [[], [{}, {}, {}], None])
def test_a_batch_with_too_few_outputs_fails_as_a_whole(
    stub: StubOms, start: Callable[..., Worker], outputs: Any
) -> None:
    stub.hand_out(1, 2)
    start(lambda _tasks: outputs, max=10)
    until(lambda: stub.to("/fail"))
    assert [item["task_id"] for item in stub.to("/fail")[0].body] == ["TASK-1", "TASK-2"]
    assert not stub.to("/complete")


def test_a_batch_that_is_too_large_to_send_is_sent_in_parts(stub: StubOms, start: Callable[..., Worker]) -> None:
    def at_most_two(asked: Asked) -> Any:
        if len(asked.body) > 2:
            return problem(413, "body-too-large")
        return [{"error": problem(413).body} if item["task_id"] == "TASK-4" else {} for item in asked.body]

    stub.hand_out(1, 2, 3, 4, 5)
    stub.answer("/complete", *[at_most_two] * 10)
    worker = start(lambda tasks: [{}] * len(tasks), max=10)
    until(lambda: stub.to("/fail"))
    assert worker.done == 4
    assert only(stub.to("/fail"))["task_id"] == "TASK-4"


def test_heartbeats_keep_the_lease_while_the_handler_works(stub: StubOms, start: Callable[..., Worker]) -> None:
    stub.lease_sec = 1.6  # about 0.2 s between heartbeats, since a Date says whole seconds only
    release = threading.Event()

    def handle(task: Task) -> dict[str, Any]:
        task.progress, task.note = 0.5, "page 3 of 6"
        release.wait(10)
        return {}

    stub.hand_out(1)
    worker = start(handle)
    until(lambda: len(stub.to("/heartbeat")) >= 4)
    release.set()
    until(lambda: worker.done == 1)
    beats = stub.to("/heartbeat")
    assert beats[-1].body == {"task_id": "TASK-1", "token": "token-1", "progress": 0.5, "note": "page 3 of 6"}
    gaps = [late.at - early.at for early, late in pairwise(beats)]
    assert max(gaps) < stub.lease_sec
    count = len(stub.to("/heartbeat"))
    until(lambda: len(stub.to("/pull")) > 5)
    assert len(stub.to("/heartbeat")) <= count + 1  # one may have been on its way


def test_a_wrong_local_clock_does_not_stop_the_heartbeats(
    stub: StubOms, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oms.worker.task.time.time", lambda: 0.0)
    stub.lease_sec = 1.6
    release = threading.Event()
    stub.hand_out(1)
    worker = start(lambda _task: {"waited": release.wait(10)})
    until(lambda: len(stub.to("/heartbeat")) >= 2)
    release.set()
    until(lambda: worker.done == 1)


def test_a_heartbeat_without_an_answer_is_sent_again_and_nothing_is_lost(
    stub: StubOms, start: Callable[..., Worker]
) -> None:
    stub.lease_sec = 1.6
    release = threading.Event()
    seen: list[bool] = []

    def handle(task: Task) -> dict[str, Any]:
        release.wait(10)
        seen.append(task.lost)
        return {}

    stub.hand_out(1)
    stub.answer("/heartbeat", HANG_UP, problem(503), Answer({}, 500))
    worker = start(handle)
    until(lambda: len(stub.to("/heartbeat")) >= 5)
    release.set()
    until(lambda: worker.done == 1)
    assert seen == [False]


def test_a_lost_attempt_is_dropped(stub: StubOms, start: Callable[..., Worker]) -> None:
    seen: list[bool] = []

    def handle(task: Task) -> dict[str, Any]:
        if task.task_id == "TASK-1":
            seen.append(task.wait(10))
            seen.append(task.lost)
        return {}

    stub.hand_out(1, lease_expires_at="2001-01-01T00:00:00.000Z")
    stub.answer("/heartbeat", problem(409, "stale-token"))
    stub.hand_out(2)
    worker = start(handle)
    until(lambda: worker.done == 1)
    assert seen == [True, True]
    assert [item["task_id"] for asked in stub.to("/complete") for item in asked.body] == ["TASK-2"]
    assert not stub.to("/fail")
    assert not stub.to("/release")


def test_a_completion_that_comes_too_late_is_dropped_and_the_loop_goes_on(
    stub: StubOms, start: Callable[..., Worker]
) -> None:
    stub.hand_out(1)
    stub.hand_out(2)
    stub.answer("/complete", [{"error": problem(409, "stale-token").body}])
    worker = start(lambda _task: {})
    until(lambda: worker.done == 1)
    assert not stub.to("/fail")


def test_a_stop_lets_the_work_in_hand_end(stub: StubOms) -> None:
    stub.hand_out(1)
    stub.hand_out(2)
    worker = Worker(stub.url, lane="x", wait_sec=0.05)

    def handle(_task: Task) -> dict[str, Any]:
        worker.stop()
        return {"done": True}

    assert worker.run(handle) == 1
    assert only(stub.to("/complete"))["task_id"] == "TASK-1"
    assert len(stub.to("/pull")) == 1


def test_what_a_poll_brings_after_a_stop_is_given_back(stub: StubOms) -> None:
    worker = Worker(stub.url, lane="x", wait_sec=5)

    def slow(_asked: Asked) -> Any:
        worker.stop()
        return [stub.task(1)]

    stub.answer("/pull", slow)
    assert worker.run(lambda _task: {}) == 0
    assert stub.to("/release")[0].body["task_id"] == "TASK-1"


def test_a_stop_can_give_the_work_in_hand_back(stub: StubOms) -> None:
    worker = Worker(stub.url, lane="x", wait_sec=0.05)
    seen: list[bool] = []

    def handle(task: Task) -> dict[str, Any]:
        worker.stop(release=True)
        seen.append(task.wait(10))
        return {}

    stub.hand_out(1)
    assert worker.run(handle) == 0
    assert seen == [True]
    until(lambda: stub.to("/release"))
    assert stub.to("/release")[0].body == {"task_id": "TASK-1", "token": "token-1", "reason": "the worker stops"}
    assert not stub.to("/complete")


def test_a_stop_is_not_held_up_by_an_oms_that_is_gone(stub: StubOms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver_module, "ROUND_SEC", 0.0)
    monkeypatch.setattr("oms.worker.loop.GRACE_SEC", 0.1)
    worker = Worker(stub.url, lane="x", wait_sec=0.05)
    stub.hand_out(1)
    stub.answer("/complete", *[HANG_UP] * 10_000)

    def handle(_task: Task) -> dict[str, Any]:
        worker.stop()
        return {}

    began_at = time.monotonic()
    assert worker.run(handle) == 0
    assert time.monotonic() - began_at < 6


PROGRAM = """
import sys, time
from oms.worker import Worker

worker = Worker(sys.argv[1], lane="x", wait_sec=0.1)

@worker
def handle(task):
    print("working", flush=True)
    for _ in range(int(sys.argv[2])):
        time.sleep(0.05)
    return {}

print("through", worker.run(), flush=True)
"""


def run_program(stub: StubOms, naps: int) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, stub.url, str(naps)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_work_in_hand_end(stub: StubOms, number: signal.Signals) -> None:
    stub.hand_out(1)
    process = run_program(stub, naps=10)
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == "through 1\n"
    assert process.returncode == 0
    assert only(stub.to("/complete"))["task_id"] == "TASK-1"


def test_a_second_signal_gives_the_work_in_hand_back(stub: StubOms) -> None:
    stub.hand_out(1)
    process = run_program(stub, naps=10_000)
    process.send_signal(signal.SIGTERM)
    give_up_at = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < give_up_at:
        process.send_signal(signal.SIGINT)  # until one comes after the first has been taken
        time.sleep(0.1)
    assert process.communicate(timeout=10)[0] == "through 0\n"
    assert stub.to("/release")[0].body["task_id"] == "TASK-1"
    assert not stub.to("/complete")
