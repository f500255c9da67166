"""What managers do to jobs, over HTTP: with a body or without one, again, and to what is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.oms.api_client import Client, check_problem, serving
from tests.oms.support import Site


@pytest.fixture
def oms(site: Site) -> Iterator[Client]:
    with serving(site) as client:
        yield client


@pytest.mark.parametrize("body", [b"", b"{}", b'{"reason": "sick leave", "actor": "boss"}'])
def test_pause_resume_and_cancel_take_a_reason_or_nothing(oms: Client, body: bytes) -> None:
    oms.start("T-1")
    for verb, state in (("pause", "paused"), ("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        answer = oms.http.post(f"/jobs/JOB-1/{verb}", content=body)
        assert answer.json() == {"job_id": "JOB-1", "state": state}, answer.text


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "signal", "restart"])
def test_a_job_that_is_not_there_is_not_found(oms: Client, verb: str) -> None:
    body = {"signal": {"name": "x"}, "restart": {"from": "x"}}.get(verb, {})
    for job_id in ("JOB-99", "JOB-0", "TASK-1", "x"):
        answer = oms.http.post(f"/jobs/{job_id}/{verb}", json=body)
        assert answer.status_code == 404, answer.text
        check_problem(answer)


def test_a_job_shows_the_blocks_that_it_is_in(oms: Client) -> None:
    ways = {"x": ["only"], "y": [{"activity": "other", "lane": "only"}]}
    oms.post("/plans", {"id": "forked", "lanes": ["only"], "sequence": [{"parallel": ways}]})
    oms.start("T-1", "forked")
    job = oms.get("/jobs/JOB-1")
    (block,) = job["blocks"]
    assert (block["at"], block["kind"], [one["task_id"] for one in block["branches"]]) == (
        "0",
        "parallel",
        ["TASK-1", "TASK-2"],
    )
    assert oms.get("/tasks/TASK-2")["branch"] == "0.1"


def test_a_browsers_page_from_elsewhere_cannot_cancel(oms: Client) -> None:
    oms.start("T-1")
    answer = oms.http.post("/jobs/JOB-1/cancel", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert oms.get("/jobs/JOB-1")["state"] == "queued"
