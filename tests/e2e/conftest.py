"""What the end-to-end tests share: a real pair of services, the seed's snippets, and programs run as users run them."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from oms.demo.event_log import COLUMNS
from oms.demo.ledger import Ledger
from oms.demo.pair import Pair
from oms.worker import OmsClient

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LIMIT_SEC = 20.0
V = TypeVar("V")


def until(look: Callable[[], V | None], limit_sec: float = LIMIT_SEC) -> V:
    """Return what ``look`` finds, once it finds something; fail where the limit is over first."""
    give_up_at = time.monotonic() + limit_sec
    while not (found := look()):
        assert time.monotonic() < give_up_at, "it did not come about in time"
        time.sleep(0.02)
    return found


def seed_block(name: str) -> str:
    """Return one of the seed's snippets, word for word: ``create_job.py``, or ``bash`` for the one without a name."""
    text = (Path(__file__).parent / "seed" / "blocks.txt").read_text(encoding="utf-8")
    for language, body in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if language == name or re.match(rf"# file: {re.escape(name)}\b", body):
            return str(body)
    raise AssertionError(f"the seed has no snippet {name}")


def environment(pair: Pair, **more: str) -> dict[str, str]:
    """Return the variables that a program needs to find the pair."""
    return os.environ | {"OMS_URL": pair.oms_url, "ACT_URL": pair.act_url, "PYTHONUNBUFFERED": "1"} | more


def run_python(
    file: Path, *arguments: str, env: Mapping[str, str], stdin: str = "", limit_sec: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end."""
    return subprocess.run(
        [sys.executable, str(file), *arguments],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=limit_sec,
        check=False,
    )


@contextmanager
def running(file: Path, *, env: Mapping[str, str], stdin: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Let a Python program run meanwhile; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, str(file)],
        env=env,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        if stdin and process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """OMS and ACT, with the seed's plan file in the plan folder. All tests share them: each starts its own jobs."""
    folder = tmp_path_factory.mktemp("pair")
    plans = folder / "plans"
    plans.mkdir()
    (plans / "passport.plan.yaml").write_text(seed_block("passport.plan.yaml"), encoding="utf-8")
    with Pair(folder, plans) as pair:
        yield pair


@pytest.fixture
def own_pair(tmp_path: Path) -> Iterator[Pair]:
    """OMS and ACT for one test alone, which may stop and kill them; with a plan whose leases are short."""
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "short.plan.yaml").write_text(
        "id: short\n"
        "lanes: [{id: dig, lease_sec: 2}, {id: fill, lease_sec: 2}]\n"
        "sequence: [dig, fill]\n"
        "retry_policy: {attempts: 3, backoff_sec: 0}\n",
        encoding="utf-8",
    )
    with Pair(tmp_path, plans) as pair:
        yield pair


@pytest.fixture
def client(pair: Pair) -> Iterator[OmsClient]:
    with OmsClient(pair.oms_url) as client:
        yield client


@pytest.fixture
def ledger(pair: Pair) -> Iterator[Ledger]:
    with Ledger(pair.act_url) as ledger:
        yield ledger


def task_of(oms: OmsClient, job_id: str, activity: str) -> dict[str, Any] | None:
    """Return the job's task of an activity, once there is one."""
    return next((task for task in oms.job(job_id)["tasks"] if task["activity"] == activity), None)


def is_done(oms: OmsClient, job_id: str, activity: str) -> bool:
    """Tell whether a job's activity is done."""
    task = task_of(oms, job_id, activity)
    return task is not None and task["status"] == "done"


def told(ledger: Ledger, job_id: str, status: str, *, task: bool = True) -> list[dict[str, Any]]:
    """Return the job's rows of a status, as far as they have come."""
    return [row for row in ledger.rows(job_id) if row["status"] == status and (row["task_id"] is not None) == task]


def work_off(oms: OmsClient, lane: str, job_id: str) -> None:
    """Complete the tasks of a lane until the job has none left there."""
    while any(task["lane"] == lane and task["status"] != "done" for task in oms.job(job_id)["tasks"]):
        task = oms.pull(lane, wait_sec=5)
        if task is not None:
            oms.complete(task, {"by": "the test"})


def get(url: str) -> Any:
    """Return the JSON at a URL."""
    answer = httpx.get(url)
    answer.raise_for_status()
    return answer.json()


def write_log(file: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """Write an event log: case, activity, group, time."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["concept:instance", *COLUMNS])
        writer.writerows([f"task-{number}", *row] for number, row in enumerate(rows))
    return file


def a_small_log(folder: Path) -> Path:
    """Write a log of 12 cases, 52 activities and 2 variants, in which the order takes some thought."""
    rows = []
    for number in range(12):
        case, day = f"case {number}", f"2026-10-{number + 1:02}"
        rows += [
            (case, "Receive", "Desk", f"{day} 09:00:00+02:00"),
            (case, "Check", "Clerks", f"{day} 10:00:00+02:00"),
            (case, "Check", "Clerks" if number else "Desk", f"{day} 10:00:00+02:00"),  # again, in the same second
            (case, "File", "", f"{day} 10:30:00+03:00"),  # earlier than it looks: before both checks
        ]
        if number % 3 == 0:
            rows.append((case, "Appeal", "Court", f"{day} 12:00:00.5+02:00"))
    return write_log(folder / "small.csv", rows)
