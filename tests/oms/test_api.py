"""The calls as the contract has them, one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.oms.api_client import CALLS, Client, check_problem, serving
from tests.oms.support import SINGLE, Site, events

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def oms(site: Site) -> Iterator[Client]:
    with serving(site) as client:
        yield client


# /start


def test_a_start_answers_with_the_job(oms: Client) -> None:
    assert oms.start(input={"name": "x"}, priority=3) == {
        "job_id": "JOB-1",
        "state": "queued",
        "plan": "renewal",
        "plan_version": 1,
        "created": True,
    }


def test_the_same_plan_and_reference_again_are_the_same_job(oms: Client) -> None:
    first = oms.start(input={"a": 1, "b": [2.5, None]})
    assert oms.start(input={"b": [2.5, None], "a": 1}) == {**first, "created": False}
    assert oms.start(input={"a": 1, "b": [2.5, None]}, priority=9) == {**first, "created": False}
    assert oms.start(plan="single", input={"a": 1})["job_id"] == "JOB-2"


def test_the_same_reference_with_another_input_is_refused(oms: Client) -> None:
    oms.start(input={"a": 1})
    status, body = oms.refused("/start", {"plan": "renewal", "reference": "T-1", "input": {"a": 2}})
    assert status == 409
    assert "JOB-1" in body["detail"]


def test_a_plan_that_is_not_there_is_refused_with_the_nearest_name(oms: Client) -> None:
    status, body = oms.refused("/start", {"plan": "renewl", "reference": "T-1"})
    assert status == 404
    assert "'renewal'" in body["detail"] or '"renewal"' in body["detail"]


def test_a_list_is_answered_item_by_item_in_its_order(oms: Client) -> None:
    answers = oms.post(
        "/start",
        [
            {"plan": "renewal", "reference": "T-1"},
            {"plan": "nobody_knows", "reference": "T-1"},
            {"plan": "renewal"},
            {"plan": "renewal", "reference": "T-1"},
            {"plan": "renewal", "reference": "T-1", "input": {"other": 1}},
            {"plan": "renewal", "reference": "T-2", "input": {}},
        ],
    )
    assert [answer.get("job_id") for answer in answers] == ["JOB-1", None, None, "JOB-1", None, "JOB-2"]
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, 404, 422, None, 409, None]
    assert [answer.get("created") for answer in answers] == [True, None, None, False, None, True]
    assert answers[2]["error"]["errors"] == [{"loc": ["body", "reference"], "msg": "Field required"}]


def test_an_empty_list_is_answered_with_an_empty_list(oms: Client) -> None:
    assert oms.post("/start", []) == []
    assert oms.post("/complete", []) == []


# /pull


def test_a_pull_answers_with_the_task_and_all_that_its_worker_needs(oms: Client) -> None:
    oms.start(input={"name": "x"}, priority=3)
    task = oms.get("/pull", lane="extract", worker="w-1")
    token = task.pop("token")
    assert task == {
        "task_id": "TASK-1",
        "job_id": "JOB-1",
        "plan": "renewal",
        "activity": "extract",
        "lane": "extract",
        "reference": "T-1",
        "attempt": 1,
        "priority": 3,
        "payload": {"input": {"name": "x"}, "outputs": {}},
        "lease_expires_at": "2025-11-22T14:06:09.123Z",
    }
    oms.post("/complete", {"task_id": "TASK-1", "output": {"mrz": "P<"}, "token": token})
    assert oms.get("/pull", lane="verify")["payload"] == {"input": {"name": "x"}, "outputs": {"extract": {"mrz": "P<"}}}


def test_an_empty_lane_answers_null_and_with_max_an_empty_list(oms: Client) -> None:
    answer = oms.http.get("/pull", params={"lane": "extract"})
    assert (answer.status_code, answer.text) == (200, "null")
    assert answer.headers["cache-control"] == "no-store"
    assert oms.get("/pull", lane="extract", max=5) == []


def test_with_max_the_answer_is_a_list_of_up_to_so_many(oms: Client) -> None:
    oms.post("/start", [{"plan": "renewal", "reference": f"T-{number}"} for number in range(5)])
    assert [task["task_id"] for task in oms.get("/pull", lane="extract", max=3)] == ["TASK-1", "TASK-2", "TASK-3"]
    assert [task["task_id"] for task in oms.get("/pull", lane="extract", max=3)] == ["TASK-4", "TASK-5"]


# /complete


def test_a_completion_answers_how_task_and_job_stand_and_moves_the_job_on(oms: Client) -> None:
    oms.start(plan="checked")
    token = oms.get("/pull", lane="extract")["token"]
    assert oms.post("/complete", {"task_id": "TASK-1", "output": {"score": 9}, "token": token, "worker": "w-2"}) == {
        "task_id": "TASK-1",
        "status": "done",
        "job_id": "JOB-1",
        "job_state": "running",
    }
    oms.get("/pull", lane="extract")
    assert oms.post("/complete", {"task_id": "TASK-2"})["job_state"] == "done"
    assert oms.get("/tasks/TASK-1")["worker"] == "w-2"
    assert oms.get("/jobs/JOB-1")["outputs"] == {"extract": {"score": 9}, "file": {}}


def test_a_completion_again_is_the_same_answer_and_nothing_else_happens(oms: Client) -> None:
    oms.start()
    token = oms.get("/pull", lane="extract")["token"]
    wish = {"task_id": "TASK-1", "output": {"a": 1, "b": 2}}
    first = oms.post("/complete", {**wish, "token": token})
    before = oms.tables()
    assert oms.post("/complete", {**wish, "token": token}) == first
    assert oms.post("/complete", {"task_id": "TASK-1", "output": {"b": 2, "a": 1}}) == first
    assert oms.refused("/complete", {**wish, "output": {"a": 2}, "token": token})[0] == 409
    assert oms.refused("/complete", {**wish, "output": {"a": 2}})[0] == 409
    assert oms.refused("/complete", {**wish, "token": "of nobody"})[0] == 409
    assert oms.tables() == before


def test_a_token_of_an_earlier_attempt_is_refused_whatever_became_of_the_task(oms: Client) -> None:
    oms.start()
    first = oms.get("/pull", lane="extract")["token"]
    oms.post("/release", {"task_id": "TASK-1", "token": first})
    assert oms.refused("/complete", {"task_id": "TASK-1", "token": first})[1]["code"] == "stale-token"
    second = oms.get("/pull", lane="extract")["token"]
    assert oms.refused("/complete", {"task_id": "TASK-1", "token": first})[1]["code"] == "stale-token"
    oms.post("/complete", {"task_id": "TASK-1", "token": second})
    for path, more in (("/complete", {}), ("/fail", {"error": ""}), ("/heartbeat", {}), ("/release", {})):
        assert oms.refused(path, {"task_id": "TASK-1", "token": first, **more})[1]["code"] == "stale-token"


def test_without_a_token_the_task_must_be_running(oms: Client) -> None:
    oms.start()
    assert oms.refused("/complete", {"task_id": "TASK-1"})[0] == 409
    oms.get("/pull", lane="extract")
    assert oms.post("/complete", {"task_id": "TASK-1"})["status"] == "done"


def test_an_output_that_does_not_fit_its_schema_is_refused_and_the_task_stays_with_the_worker(oms: Client) -> None:
    oms.start(plan="checked")
    token = oms.get("/pull", lane="extract")["token"]
    before = oms.tables()
    status, body = oms.refused("/complete", {"task_id": "TASK-1", "output": {"score": "high"}, "token": token})
    assert status == 422
    assert body["errors"][0]["loc"][-1] == "score"
    assert oms.refused("/complete", {"task_id": "TASK-1"})[0] == 422
    assert oms.tables() == before
    assert oms.post("/complete", {"task_id": "TASK-1", "output": {"score": 1}, "token": token})["status"] == "done"


def test_an_output_that_is_nested_too_deep_for_its_schema_is_refused(oms: Client) -> None:
    oms.start(plan="checked")
    oms.get("/pull", lane="extract")
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    assert oms.refused("/complete", {"task_id": "TASK-1", "output": {"score": 1, "more": deep}})[0] == 422


def test_a_list_of_completions_is_answered_item_by_item(oms: Client) -> None:
    oms.post("/start", [{"plan": "single", "reference": f"T-{number}"} for number in range(3)])
    tasks = oms.get("/pull", lane="only", max=2)
    answers = oms.post(
        "/complete",
        [
            {"task_id": tasks[0]["task_id"], "token": tasks[0]["token"]},
            {"task_id": "TASK-3"},
            {"task_id": "TASK-77"},
            {"task_id": tasks[0]["task_id"], "token": tasks[0]["token"]},
            {"task_id": tasks[1]["task_id"], "output": {"a": 1}},
        ],
    )
    assert [answer.get("status") for answer in answers] == ["done", None, None, "done", "done"]
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, 409, 404, None, None]


def test_a_condition_that_cannot_be_decided_fails_the_job_and_says_which_and_why(oms: Client) -> None:
    oms.post(
        "/plans",
        {"id": "odd", "lanes": ["only"], "sequence": [{"activity": "only", "when": "input.age > 17"}]},
    )
    assert oms.start("T-1", "odd", input={"age": "P<UTO"})["state"] == "failed"
    job = oms.get("/jobs/JOB-1")
    assert "input.age > 17" in job["error"]
    assert job["tasks"] == []
    failed = events(oms.store)[-1]["data"]
    assert failed["status"] == "failed"
    assert failed["detail"]["when"] == "input.age > 17"
    assert "P<UTO" not in str(events(oms.store))
    assert oms.start("T-2", "odd", input={"age": 18})["state"] == "queued"
    assert oms.start("T-3", "odd", input={"age": 17})["state"] == "done"


# /fail


def test_a_failure_is_tried_again_after_its_backoff_and_ends_the_job_when_the_attempts_are_used_up(oms: Client) -> None:
    oms.start()
    for _ in range(2):
        oms.get("/pull", lane="extract")
        answer = oms.post("/fail", {"task_id": "TASK-1", "error": "no luck", "worker": "w-3"})
        assert answer == {"task_id": "TASK-1", "status": "queued", "job_id": "JOB-1", "job_state": "running"}
        assert oms.get("/pull", lane="extract") is None
        oms.clock.advance(30)
    task = oms.get("/pull", lane="extract")
    assert task["attempt"] == 3
    answer = oms.post("/fail", {"task_id": "TASK-1", "error": "no luck", "token": task["token"]})
    assert (answer["status"], answer["job_state"]) == ("failed", "failed")
    assert oms.get("/tasks/TASK-1")["error"] == {"type": "error", "message": "no luck"}
    assert oms.post("/fail", {"task_id": "TASK-1", "error": "no luck"}) == answer
    assert oms.refused("/fail", {"task_id": "TASK-1", "error": "other"})[0] == 409


def test_a_failure_keeps_its_message_here_and_tells_the_ledger_its_code(oms: Client) -> None:
    oms.start()
    token = oms.get("/pull", lane="extract", worker="w-1")["token"]
    error = {"type": "ocr.unreadable", "message": "P<UTO is unreadable"}
    oms.post("/fail", {"task_id": "TASK-1", "error": error, "token": token, "retryable": False})
    assert oms.get("/tasks/TASK-1")["error"] == error
    assert "P<UTO is unreadable" in oms.get("/jobs/JOB-1")["error"]
    failed = next(event["data"] for event in events(oms.store) if event["type"] == "hms.task.failed.v1")
    assert failed["detail"]["error_type"] == "ocr.unreadable"
    assert failed["detail"]["final"] is True
    assert re.fullmatch("[0-9a-f]{64}", failed["detail"]["error_hmac"])
    assert (failed["worker"], failed["attempt"]) == ("w-1", 1)
    assert "P<UTO" not in str(events(oms.store))


def test_a_list_of_failures_is_answered_item_by_item(oms: Client) -> None:
    oms.start()
    oms.get("/pull", lane="extract")
    answers = oms.post("/fail", [{"task_id": "TASK-1", "error": "a"}, {"task_id": "TASK-2", "error": "a"}, {}])
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, 404, 422]


# /heartbeat, /release


def test_a_heartbeat_extends_the_lease_and_shows_progress(oms: Client) -> None:
    oms.start()
    token = oms.get("/pull", lane="extract")["token"]
    oms.clock.advance(50)
    answer = oms.post("/heartbeat", {"task_id": "TASK-1", "token": token, "progress": 0.5, "note": "page 3"})
    assert answer == {"lease_expires_at": "2025-11-22T14:06:59.123Z"}
    oms.post("/heartbeat", {"task_id": "TASK-1", "token": token})
    task = oms.get("/tasks/TASK-1")
    assert (task["progress"], task["note"], task["lease_expires_at"]) == (0.5, "page 3", answer["lease_expires_at"])
    assert len(events(oms.store)) == 3


def test_a_heartbeat_of_an_attempt_that_is_over_is_refused(oms: Client) -> None:
    oms.start()
    token = oms.get("/pull", lane="extract")["token"]
    assert oms.refused("/heartbeat", {"task_id": "TASK-1", "token": "of nobody"})[0] == 409
    oms.post("/complete", {"task_id": "TASK-1", "token": token})
    assert oms.refused("/heartbeat", {"task_id": "TASK-1", "token": token})[0] == 409


def test_a_released_task_is_back_at_its_old_place_with_its_attempts_before_it(oms: Client) -> None:
    oms.post("/start", [{"plan": "renewal", "reference": f"T-{number}"} for number in range(2)])
    for _ in range(5):
        task = oms.get("/pull", lane="extract")
        assert task["task_id"] == "TASK-1"
        wish = {"task_id": "TASK-1", "token": task["token"], "reason": "lunch"}
        answer = oms.post("/release", wish)
        assert answer == {"task_id": "TASK-1", "status": "queued", "job_id": "JOB-1", "job_state": "running"}
        assert oms.post("/release", wish) == answer
    assert oms.get("/tasks/TASK-1")["worker"] is None
    assert [event["data"]["detail"] for event in events(oms.store) if event["data"]["status"] == "released"] == [
        {"reason": "lunch"}
    ] * 5


# /reroute, /retry


def test_a_rerouted_task_goes_to_the_end_of_its_new_lane(oms: Client) -> None:
    oms.start("T-1")
    oms.clock.advance(1)
    oms.start("T-2", "checked")
    token = oms.get("/pull", lane="extract")["token"]
    oms.post("/complete", {"task_id": "TASK-1", "token": token})
    oms.clock.advance(1)
    assert oms.post("/reroute", {"task_id": "TASK-2", "new_lane": "verify", "reason": "busy", "actor": "m-1"}) == {
        "task_id": "TASK-2",
        "lane": "verify",
        "status": "queued",
    }
    assert [task["task_id"] for task in oms.get("/pull", lane="verify", max=5)] == ["TASK-3", "TASK-2"]
    event = next(event["data"] for event in events(oms.store) if event["data"]["status"] == "rerouted")
    assert (event["lane"], event["actor"]) == ("verify", "m-1")
    assert event["detail"].items() >= {"from_lane": "extract", "to_lane": "verify", "reason": "busy"}.items()


def test_a_reroute_takes_a_running_task_from_its_worker_and_may_change_its_priority(oms: Client) -> None:
    oms.start()
    token = oms.get("/pull", lane="extract", worker="w-1")["token"]
    oms.post("/reroute", {"task_id": "TASK-1", "new_lane": "print", "priority": 7})
    assert oms.refused("/complete", {"task_id": "TASK-1", "token": token})[0] == 409
    task = oms.get("/pull", lane="print")
    assert (task["attempt"], task["priority"], task["activity"]) == (2, 7, "extract")


def test_a_failed_task_runs_again_when_it_is_rerouted_or_retried(oms: Client) -> None:
    for number, (path, more) in enumerate((("/reroute", {"new_lane": "print"}), ("/retry", {})), start=1):
        oms.start(f"T-{number}")
        oms.get("/pull", lane="extract")
        name = f"TASK-{number}"
        oms.post("/fail", {"task_id": name, "error": "", "retryable": False})
        assert oms.get(f"/jobs/JOB-{number}")["state"] == "failed"
        assert oms.post(path, {"task_id": name, **more})["status"] == "queued"
        job = oms.get(f"/jobs/JOB-{number}")
        assert (job["state"], job["error"]) == ("running", None)
        said = [(event["type"], event["data"]["detail"].get("by")) for event in events(oms.store, f"JOB-{number}")]
        assert said[-1] == ("hms.job.restarted.v1", path[1:])
    assert oms.refused("/retry", {"task_id": "TASK-1"})[0] == 409


def test_a_done_task_cannot_be_rerouted_or_retried(oms: Client) -> None:
    oms.start()
    oms.get("/pull", lane="extract")
    oms.post("/complete", {"task_id": "TASK-1"})
    assert oms.refused("/reroute", {"task_id": "TASK-1", "new_lane": "print"})[0] == 409
    assert oms.refused("/retry", {"task_id": "TASK-1"})[0] == 409


def test_a_lane_that_nobody_knows_is_accepted_with_a_warning_that_names_the_nearest(oms: Client) -> None:
    oms.start()
    answer = oms.post("/reroute", {"task_id": "TASK-1", "new_lane": "verfy"})
    assert answer["lane"] == "verfy"
    assert "verify" in answer["warning"]


def test_a_lane_is_known_for_a_day_after_a_named_worker_polled_it(oms: Client) -> None:
    oms.start()
    oms.get("/pull", lane="backup")
    assert "warning" in oms.post("/reroute", {"task_id": "TASK-1", "new_lane": "backup"})
    oms.get("/pull", lane="spare", worker="w-1")
    oms.clock.advance(24 * 3600 - 1)
    assert "warning" not in oms.post("/reroute", {"task_id": "TASK-1", "new_lane": "spare"})
    oms.clock.advance(1)
    assert "warning" in oms.post("/reroute", {"task_id": "TASK-1", "new_lane": "spare"})


def test_a_lane_that_nobody_knows_is_refused_where_lanes_are_strict(site: Site) -> None:
    with serving(site, strict_lanes=True) as oms:
        oms.start("T-1", "single")
        status, body = oms.refused("/reroute", {"task_id": "TASK-1", "new_lane": "onyl"})
        assert status == 422
        assert "'only'" in body["detail"]
        assert oms.get("/tasks/TASK-1")["lane"] == "only"


# What is shown.


def test_a_job_is_shown_with_its_tasks_and_outputs(oms: Client) -> None:
    oms.start(input={"a": 1}, priority=2)
    oms.get("/pull", lane="extract", worker="w-1")
    oms.clock.advance(2)
    oms.post("/complete", {"task_id": "TASK-1", "output": {"mrz": "P<"}})
    job = oms.get("/jobs/JOB-1")
    tasks = job.pop("tasks")
    assert job == {
        "job_id": "JOB-1",
        "plan": "renewal",
        "plan_version": 1,
        "reference": "T-1",
        "state": "running",
        "priority": 2,
        "error": None,
        "erased": False,
        "created_at": "2025-11-22T14:05:09.123Z",
        "updated_at": "2025-11-22T14:05:11.123Z",
        "input": {"a": 1},
        "outputs": {"extract": {"mrz": "P<"}},
        "blocks": [],
        "parent": None,
    }
    assert [(task["task_id"], task["activity"], task["status"]) for task in tasks] == [
        ("TASK-1", "extract", "done"),
        ("TASK-2", "verify", "queued"),
    ]
    assert oms.get("/tasks/TASK-1") == tasks[0]


def test_a_task_is_shown_without_its_token(oms: Client) -> None:
    oms.start()
    token = oms.get("/pull", lane="extract", worker="w-1")["token"]
    answer = oms.http.get("/tasks/TASK-1")
    assert token not in answer.text
    assert token not in oms.http.get("/jobs/JOB-1").text
    assert answer.json() == {
        "task_id": "TASK-1",
        "job_id": "JOB-1",
        "plan": "renewal",
        "activity": "extract",
        "branch": None,
        "lane": "extract",
        "status": "running",
        "attempt": 1,
        "priority": 0,
        "worker": "w-1",
        "created_at": "2025-11-22T14:05:09.123Z",
        "available_at": "2025-11-22T14:05:09.123Z",
        "due_at": None,
        "stalled": False,
        "lease_expires_at": "2025-11-22T14:06:09.123Z",
        "error": None,
        "progress": None,
        "note": None,
    }


def test_the_lanes_show_what_waits_what_runs_and_who_was_seen(oms: Client) -> None:
    oms.post("/start", [{"plan": "renewal", "reference": f"T-{number}"} for number in range(3)])
    oms.clock.advance(5)
    oms.get("/pull", lane="extract", worker="w-1")
    items = {item["lane"]: item for item in oms.get("/lanes")["items"]}
    assert items["extract"] == {
        "lane": "extract",
        "kind": "machine",
        "queued": 2,
        "running": 1,
        "oldest_queued_sec": 5.0,
        "paused": False,
        "paused_at": None,
        "paused_by": None,
        "pause_reason": None,
        "max_running": None,
        "rates": [],
        "workers": [{"worker": "w-1", "last_seen": "2025-11-22T14:05:14.123Z"}],
    }
    assert (items["verify"]["kind"], items["print"]["kind"]) == ("human", "vendor")
    assert (items["verify"]["queued"], items["verify"]["oldest_queued_sec"]) == (0, None)


def test_plans_are_shown_with_their_versions_and_their_document(oms: Client) -> None:
    oms.post("/plans", {**SINGLE, "retry_policy": {"attempts": 7}})
    plans = {plan["id"]: plan for plan in oms.get("/plans")["items"]}
    assert plans.keys() == {"renewal", "checked", "single"}
    plan = oms.get("/plans/single")
    assert plan.pop("document")["retry_policy"] == {"attempts": 7}
    assert plan == plans["single"]
    assert [(version["plan_version"], version["in_force"]) for version in plan["versions"]] == [(1, False), (2, True)]
    assert plan["plan_version"] == 2
    assert all(TIME.fullmatch(version["created_at"]) for version in plan["versions"])


def test_a_plan_that_is_refused_says_where_and_what(oms: Client) -> None:
    answer = oms.http.post("/plans", content=b"id: x\nlanes: [a]\nsequence: [b]\n")
    assert answer.status_code == 422
    body = check_problem(answer)
    assert body["errors"][0]["loc"][:2] == ["body", 3]


@pytest.mark.parametrize("path", ["/jobs/JOB-9", "/tasks/TASK-9", "/plans/nobody_knows"])
def test_what_is_not_there_is_answered_404(oms: Client, path: str) -> None:
    answer = oms.http.get(path)
    assert answer.status_code == 404
    check_problem(answer)


def test_health_and_readiness_are_told(oms: Client) -> None:
    assert oms.get("/healthz") == {"alive": True}
    ready = oms.get("/readyz")
    assert ready["ready"] is True
    assert ready["database"]["ok"] is True
    assert ready["act"]["url"] == "http://act"


def test_a_service_without_its_database_is_alive_and_not_ready(oms: Client, site: Site) -> None:
    with site.database.away():
        assert oms.http.get("/healthz").status_code == 200
        answer = oms.http.get("/readyz")
        assert (answer.status_code, answer.json()["ready"], answer.json()["database"]["ok"]) == (503, False, False)
        status, body = oms.refused("/start", {"plan": "single", "reference": "T-1"})
        assert (status, body["code"]) == (503, "unavailable")
        for path in ("/jobs", "/tasks", "/lanes", "/plans", "/jobs/JOB-1"):
            answer = oms.http.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            check_problem(answer)
        if site.database.kind == "sqlite":
            assert not site.database.path.exists(), "a look must not make an empty database where the real one was"
    assert oms.get("/readyz")["ready"] is True
    assert oms.start()["created"] is True


def test_a_fault_of_ours_is_a_problem_too_and_says_nothing_of_the_data(
    oms: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any) -> None:
        raise ZeroDivisionError("P<UTO")

    monkeypatch.setattr("oms.sequencer.start.find_jobs", explode)
    status, body = oms.refused("/start", {"plan": "single", "reference": "T-1"})
    assert (status, body["code"]) == (500, "internal-error")
    assert "P<UTO" not in str(body)


def test_a_trace_context_goes_into_the_events_and_a_bad_one_is_ignored(oms: Client) -> None:
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    oms.post("/start", {"plan": "single", "reference": "T-1"}, traceparent=trace)
    oms.post("/start", {"plan": "single", "reference": "T-2"}, traceparent="00-zz")
    oms.post("/start", {"plan": "single", "reference": "T-3"})
    assert [event.get("traceparent") for event in events(oms.store)] == [trace, trace, None, None, None, None]


# How a body may come.


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/x-www-form-urlencoded", "text/plain;charset=utf-8", "image/png", ""],
)
def test_a_body_is_read_as_json_whatever_type_it_names(oms: Client, content_type: str) -> None:
    answer = oms.http.post(
        "/start", content=b'{"plan":"single","reference":"T-1"}', headers={"content-type": content_type}
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"plan":"single","reference":"T-1"}',
        (
            b' {"plan" :"single", "reference": "T-1", '
            b'"input": {"a": [1e3, -0.0, 12345678901234567890, "\\ud83d\\ude00"]}}'
        ),
        '{"plan":"single","reference":"Müller/東京 🙂","input":{"ключ":"значение"}}'.encode(),
    ],
)
def test_all_that_json_can_say_is_taken_and_kept(oms: Client, body: bytes) -> None:
    answer = oms.http.post("/start", content=body)
    assert answer.status_code == 200, answer.text
    assert oms.http.post("/start", content=body).json()["created"] is False
    assert oms.get("/pull", lane="only")["payload"]["input"] == oms.get("/jobs/JOB-1")["input"]


def test_an_error_may_hold_any_character(oms: Client) -> None:
    """It is what a program said when it broke, and no database may refuse it."""
    oms.start("T-1", "single")
    task = oms.get("/pull", lane="only")
    wish = {"task_id": task["task_id"], "token": task["token"], "error": "half a line\x00 and \U0001f642"}
    failed = oms.post("/fail", wish)
    assert failed["status"] == "queued"
    assert oms.post("/fail", wish) == failed
    assert oms.get("/tasks/TASK-1")["error"]["message"].startswith("half a line")


def test_a_condition_with_a_character_that_no_text_holds_is_no_fault_of_ours(oms: Client) -> None:
    plan = {"id": "odd", "lanes": ["a"], "sequence": [{"activity": "a", "when": "input.a == '\x00'"}]}
    answer = oms.http.post("/plans", json=plan)
    assert answer.status_code in (200, 422)
    if answer.status_code == 200:
        assert oms.start("T-1", "odd")["state"] == "failed"


def test_a_body_that_comes_in_pieces_is_put_together(oms: Client) -> None:
    answer = oms.http.post("/start", content=iter([b'{"plan":"sin', b'gle","refer', b'ence":"T-1"}']))
    assert answer.status_code == 200, answer.text


def test_an_input_may_be_nested_deep_and_comes_back_as_it_was(oms: Client) -> None:
    deep: Any = "bottom"
    for _ in range(90):
        deep = {"in": [deep]} if isinstance(deep, str) else [deep]
    oms.start("T-1", "single", input={"deep": deep})
    assert oms.get("/pull", lane="only", max=1)[0]["payload"]["input"] == {"deep": deep}
    assert oms.get("/jobs/JOB-1")["input"] == {"deep": deep}


# What describes the service.


def test_the_documentation_is_served_without_any_other_host(oms: Client) -> None:
    page = oms.http.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sources
    for source in sources:
        assert not re.match(r"(?:https?:)?//", source), source
        assert oms.http.get(source).status_code == 200, source
    assert "http://" not in page.text.replace("http://oms", "")
    assert "https://" not in page.text


def test_the_description_names_every_call_of_the_contract(oms: Client) -> None:
    document = oms.get("/openapi.json")
    calls = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert calls >= set(CALLS)
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            assert call["responses"].get("200"), (method, path)
            assert call["summary"], (method, path)
