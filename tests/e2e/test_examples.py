"""The files under examples/, as users run them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oms.demo.ledger import Ledger
from oms.demo.pair import Pair
from oms.worker import OmsClient
from tests.e2e.conftest import (
    EXAMPLES,
    ROOT,
    a_small_log,
    environment,
    get,
    is_done,
    run_python,
    running,
    task_of,
    told,
    until,
    work_off,
    write_log,
)

MUNICIPAL_LOG = ROOT.parent / "shared" / "data" / "receipt.csv"


def a_job(client: OmsClient, ticket: str) -> str:
    return str(client.start("passport_renewal", ticket)["job_id"])


def test_create_job(pair: Pair) -> None:
    result = run_python(EXAMPLES / "create_job.py", env=environment(pair))
    assert result.returncode == 0, result.stderr
    assert "'state': 'queued'" in result.stdout


def test_ai_agent_and_clerk(pair: Pair, client: OmsClient) -> None:
    job_id = a_job(client, "for the agent and the clerk")
    with running(EXAMPLES / "ai_agent.py", env=environment(pair)):
        until(lambda: is_done(client, job_id, "ai_extract"))
    with running(EXAMPLES / "clerk.py", env=environment(pair), stdin="later\n" + "yes\n" * 50):
        until(lambda: is_done(client, job_id, "human_verify"))
    assert client.job(job_id)["outputs"]["human_verify"] == {"photo_ok": True}


def test_reroute(pair: Pair, client: OmsClient) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    task = until(lambda: task_of(client, a_job(client, "to be moved"), "ai_extract"))
    script = ["sh", str(EXAMPLES / "reroute.sh"), task["task_id"]]
    result = subprocess.run(script, env=environment(pair), check=True, capture_output=True, text=True, timeout=20)
    assert '"lane":"human_verify_backup"' in result.stdout
    assert client.task(task["task_id"])["lane"] == "human_verify_backup"


def test_dashboard_after_a_retry(pair: Pair, client: OmsClient, ledger: Ledger) -> None:
    pytest.importorskip("pandas")
    job_id = a_job(client, "that is tried twice")
    task_id = until(lambda: task_of(client, job_id, "ai_extract"))["task_id"]
    while (task := client.pull("ai_extract", wait_sec=5)) is not None and task.task_id != task_id:
        client.complete(task)
    assert task is not None
    client.fail(task, "torn", retryable=False)
    client.retry(task_id)
    work_off(client, "ai_extract", job_id)
    until(lambda: told(ledger, job_id, "done"))
    result = run_python(EXAMPLES / "dashboard.py", job_id, env=environment(pair))
    assert result.returncode == 0, result.stderr
    for word in ("ai_extract", "human_verify", "failed", "done", "queued"):
        assert word in result.stdout


def replay(pair: Pair, log: Path, *flags: str, limit_sec: float = 60) -> subprocess.CompletedProcess[str]:
    addresses = ["--oms", pair.oms_url, "--act", pair.act_url]
    return run_python(
        EXAMPLES / "replay_log.py", str(log), *addresses, *flags, env=dict(os.environ), limit_sec=limit_sec
    )


def plans_of(pair: Pair) -> dict[str, Any]:
    return {plan["id"]: plan["versions"] for plan in get(f"{pair.oms_url}/plans")["items"]}


def test_replay_of_a_small_log_twice(pair: Pair, client: OmsClient, ledger: Ledger, tmp_path: Path) -> None:
    log = a_small_log(tmp_path)
    before, plans = plans_of(pair), None
    for flags in ([], ["--workers-per-lane", "2"]):
        result = replay(pair, log, *flags)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "12 cases, 52 activities" in result.stdout
        assert "nothing differs" in result.stdout
        found = {name: versions for name, versions in plans_of(pair).items() if name not in before}
        assert len(found) == 2
        assert plans in (None, found)  # the same log gives the same plans, in the same version
        plans = found
    job = next(job for job in client.jobs(state="done") if job["reference"].startswith("case 0/"))
    done = [(row["activity"], row["lane"]) for row in told(ledger, job["job_id"], "done")]
    assert done == [
        ("Receive", "Desk"),
        ("File", "nobody"),
        ("Check", "Clerks"),
        ("Check (2)", "Clerks"),
        ("Appeal", "Court"),
    ]


def test_replay_leaves_other_work_alone(pair: Pair, client: OmsClient, tmp_path: Path) -> None:
    job_id = a_job(client, "real work in a lane of the log's")
    log = write_log(tmp_path / "busy.csv", [("c", "Read", "ai_extract", "2026-10-01T09:00:00Z")])
    result = replay(pair, log)
    assert result.returncode == 1
    assert "use an OMS of its own" in result.stdout
    assert not is_done(client, job_id, "ai_extract")
    work_off(client, "ai_extract", job_id)


def test_a_bad_log_is_said(pair: Pair, tmp_path: Path) -> None:
    result = replay(pair, tmp_path / "nowhere.csv")
    assert result.returncode == 1
    assert "cannot be read: No such file" in result.stdout
    assert not result.stderr


@pytest.mark.slow
def test_replay_of_the_municipal_log(pair: Pair) -> None:
    if not MUNICIPAL_LOG.exists():
        assert not os.environ.get("CI"), f"{MUNICIPAL_LOG} is missing"
        pytest.skip("the municipal log is not here")
    result = replay(pair, MUNICIPAL_LOG, limit_sec=100)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1,434 cases, 8,577 activities, 116 variants" in result.stdout
    assert "nothing differs" in result.stdout
