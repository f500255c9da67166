"""The seed's snippets, word for word, against real services. Only host names and ids are put in their places."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from oms.demo.ledger import Ledger
from oms.demo.pair import Pair
from oms.worker import OmsClient
from tests.e2e.conftest import ROOT, environment, is_done, run_python, running, seed_block, task_of, told, until


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def create_job(pair: Pair, folder: Path) -> dict[str, Any]:
    text = seed_block("create_job.py").replace("http://oms", pair.oms_url)
    result = run_python(write(folder, "create_job.py", text), env=environment(pair))
    assert result.returncode == 0, result.stderr
    job = ast.literal_eval(result.stdout)  # a dict as print shows it
    assert isinstance(job, dict)
    return job


def test_the_plan_file_is_the_one_of_the_plan_folder_and_of_the_demo() -> None:
    text = seed_block("passport.plan.yaml")
    assert (ROOT / "plans" / "passport.plan.yaml").read_text(encoding="utf-8") == text
    assert (ROOT / "oms" / "demo" / "plans" / "passport.plan.yaml").read_text(encoding="utf-8") == text


def test_create_job_prints_the_job_and_its_state(pair: Pair, tmp_path: Path) -> None:
    job = create_job(pair, tmp_path)
    assert job["job_id"].startswith("JOB-")
    assert job["state"] == "queued"


def test_the_agent_polls_and_completes(pair: Pair, client: OmsClient, ledger: Ledger, tmp_path: Path) -> None:
    pytest.importorskip("requests")
    job_id = create_job(pair, tmp_path)["job_id"]
    with running(write(tmp_path, "ai_agent.py", seed_block("ai_agent.py")), env=environment(pair)) as agent:
        until(lambda: is_done(client, job_id, "ai_extract"))
        assert agent.poll() is None  # it keeps polling
    assert client.job(job_id)["outputs"] == {"ai_extract": {"passport_no": "987654321"}}
    until(lambda: told(ledger, job_id, "done"))
    statuses = [(row["status"], row["lane"]) for row in ledger.rows(job_id)]
    assert statuses == [
        ("queued", None),
        ("queued", "ai_extract"),
        ("started", "ai_extract"),
        ("done", "ai_extract"),
        ("queued", "human_verify"),
    ]


def test_the_dashboards_columns_are_there(pair: Pair, ledger: Ledger, tmp_path: Path) -> None:
    job_id = create_job(pair, tmp_path)["job_id"]
    rows = until(lambda: ledger.rows(job_id))
    assert list(rows[0])[:4] == ["id", "status", "lane", "ts"]


def test_the_dashboard_prints_its_table(pair: Pair, client: OmsClient, ledger: Ledger, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    job_id = create_job(pair, tmp_path)["job_id"]
    until(lambda: ledger.rows(job_id))
    text = seed_block("dashboard.py").replace("http://act", pair.act_url).replace("JOB-123", job_id)
    if int(pandas.__version__.partition(".")[0]) >= 2:
        # Since pandas 2, pivot takes its arguments by name only.
        text = text.replace('"lane","status","ts"', 'index="lane", columns="status", values="ts"')
    result = run_python(write(tmp_path, "dashboard.py", text), env=environment(pair))
    assert result.returncode == 0, result.stderr
    assert "ai_extract" in result.stdout
    assert "queued" in result.stdout
    assert client.job(job_id)["state"] == "queued"


@pytest.mark.parametrize("sender", ["curl", "httpx"])
def test_the_reroute_moves_a_task(pair: Pair, client: OmsClient, ledger: Ledger, tmp_path: Path, sender: str) -> None:
    job_id = create_job(pair, tmp_path)["job_id"]
    task = until(lambda: task_of(client, job_id, "ai_extract"))
    command = seed_block("bash").replace("http://oms", pair.oms_url).replace("TASK-55", task["task_id"])
    if sender == "curl":
        if shutil.which("curl") is None:
            pytest.skip("there is no curl")
        subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=20)
    else:
        # What curl -d sends: JSON under the name of a form.
        body = command.partition("-d '")[2].rpartition("'")[0]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        httpx.post(f"{pair.oms_url}/reroute", content=body, headers=form).raise_for_status()
    moved = client.task(task["task_id"])
    assert (moved["lane"], moved["status"]) == ("human_verify_backup", "queued")
    (row,) = until(lambda: told(ledger, job_id, "rerouted"))
    assert row["lane"] == "human_verify_backup"
