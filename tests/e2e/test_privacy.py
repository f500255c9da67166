"""What is planted in a job's values is found nowhere but in OMS's database, and nowhere at all once it is erased."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from act.export.formats import FORMATS
from oms.demo.ledger import wait_until_delivered
from oms.demo.pair import Pair
from oms.worker import OmsClient
from tests.e2e.conftest import EXAMPLES, LIMIT_SEC, ROOT, until
from tests.spawner import run

PLANTED = {
    "input": "planted-input-b7f1",
    "output": "planted-output-b7f2",
    "message": "planted-message-b7f3",
    "note": "planted-note-b7f4",
    "condition": "planted-condition-b7f5",
    "refused": "planted-refused-b7f6",
    "signal": "planted-signal-b7f7",
    "skip": "planted-skip-b7f8",
    "item": "planted-item-b7f9",
}
JOBS = ("JOB-1", "JOB-2", "JOB-3")
WITH_VALUES = ("/jobs", *(f"/jobs/{job_id}" for job_id in JOBS), "/tasks", "/tasks/TASK-1")
OMS_PAGES = (
    *WITH_VALUES, "/", "/jobs/JOB-1/receipts", "/tasks/TASK-1/why", "/lanes", "/lanes/receipts",
    "/lanes/read/receipts", "/plans", "/plans/plain", "/healthz", "/readyz",
    "/openapi.json",
)  # fmt: skip
ACT_PAGES = (
    "/", "/stream", "/stream?view=latest", "/stream?job=JOB-1", "/jobs/JOB-1", "/jobs/JOB-2", "/forks", "/healthz",
    "/readyz", "/metrics", "/openapi.json", "/checkpoint", "/proof/inclusion?index=0", "/proof/consistency?from=0",
    "/tile/0/000.p/1", "/tile/entries/000.p/1", "/ledger", "/ledger?job=JOB-1", "/ledger/entries/0",
    "/ledger/static/ledger.js", *(f"/export?format={name}" for name in ("cloudevents", "ocel2", "csv", "parquet")),
)  # fmt: skip
"""A page for every call, and one for every format. Of the tiles and entries there is one for each event: `pages`."""


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "plain.plan.yaml").write_text(
        "id: plain\n"
        "lanes: [read, check]\n"
        "sequence:\n"
        "  - {activity: read, output_schema: {type: object, required: [text]}}\n"
        "  - check\n"
        "retry_policy: {attempts: 2, backoff_sec: 0}\n"
    )
    (folder / "choosy.plan.yaml").write_text(
        "id: choosy\nlanes: [read, check]\nsequence: [read, {activity: check, when: outputs.read.score > 3}]\n"
    )
    (folder / "blocks.plan.yaml").write_text(
        "id: blocks\nlanes: [read, check]\nsequence:\n"
        "  - {id: answer, wait: {signal: answered}}\n"
        "  - {id: pages, for_each: outputs.answer.pages, as: page, do: [{activity: read, input: {page: page}}]}\n"
        "  - check\n"
    )
    return folder


def plant(url: str) -> None:
    """Put a planted value wherever a job can hold one, and end both jobs."""
    with httpx.Client(base_url=url) as oms:

        def post(path: str, body: dict[str, Any], status: int = 200) -> None:
            answer = oms.post(path, json=body)
            assert answer.status_code == status, answer.text

        def pull(lane: str) -> dict[str, Any]:
            task: dict[str, Any] = oms.get("/pull", params={"lane": lane, "worker": "w-1"}).json()
            return {"task_id": task["task_id"], "token": task["token"]}

        post("/lanes/read/pause", {})
        post("/lanes/read/resume", {})
        post("/start", {"plan": "plain", "reference": "T-1", "input": {"name": PLANTED["input"]}})
        post("/start", {"plan": "plain", "reference": "T-1", "input": {"name": PLANTED["refused"]}}, 409)
        task = pull("read")
        post("/heartbeat", {**task, "progress": 0.5, "note": PLANTED["note"]})
        post("/complete", {**task, "output": {"other": PLANTED["refused"]}}, 422)
        post("/complete", {**task, "output": {"text": PLANTED["output"]}})
        for _ in range(2):
            task = pull("check")
            post("/heartbeat", {**task, "note": PLANTED["note"]})
            post("/fail", {**task, "error": {"type": "unreadable", "message": PLANTED["message"]}})
        post("/start", {"plan": "choosy", "reference": "T-2", "input": {}})
        post("/complete", {**pull("read"), "output": {"score": PLANTED["condition"]}})
        post("/start", {"plan": "blocks", "reference": "T-3", "input": {}})
        post("/jobs/JOB-3/signal", {"name": "answered", "data": {"pages": [PLANTED["item"]], "x": PLANTED["signal"]}})
        task = until(lambda: oms.get("/pull", params={"lane": "read", "worker": "w-1"}).json())
        post("/complete", {"task_id": task["task_id"], "token": task["token"], "output": {"page": PLANTED["item"]}})
        waiting = until(lambda: oms.get("/tasks", params={"job": "JOB-3", "status": "queued"}).json()["items"])
        post("/skip", {"task_id": waiting[0]["task_id"], "output": {"y": PLANTED["skip"]}, "reason": "told by phone"})
        states = [job["state"] for job in oms.get("/jobs").json()["items"]]
        assert states == ["done", "failed", "failed"]


def found_in(texts: dict[str, bytes]) -> dict[str, list[str]]:
    """Return which planted values stand in which text."""
    marks = {name: [kind for kind, mark in PLANTED.items() if mark.encode() in text] for name, text in texts.items()}
    return {name: kinds for name, kinds in marks.items() if kinds}


def secrets_in(key_file: Path) -> tuple[bytes, bytes, bytes]:
    """Return what nobody else may have of a key file: the signing key as base64, as it is, and in hexadecimal."""
    (line,) = [line for line in key_file.read_text().splitlines() if line.startswith("PRIVATE+KEY+")]
    text = line.split("+", 4)[4]
    seed = base64.b64decode(text)[1:]
    return text.encode(), seed, seed.hex().encode()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pages(pair: Pair) -> dict[str, bytes]:
    """Return every page of both services, and the live stream's beginning."""
    found = {}
    with httpx.Client(trust_env=False) as http:
        size = int(http.get(f"{pair.act_url}/checkpoint").text.split("\n")[1])
        entries = [f"/ledger/entries/{index}" for index in range(size)]
        entries += [f"/proof/inclusion?index={index}" for index in range(size)]
        of_act = (*ACT_PAGES, *entries, f"/tile/entries/000.p/{size}", f"/tile/0/000.p/{size}")
        for url, paths in ((pair.oms_url, OMS_PAGES), (pair.act_url, of_act)):
            for path in paths:
                answer = http.get(url + path)
                assert answer.status_code in (200, *((404,) if path == "/" else ())), path
                is_parquet = answer.headers.get("content-type") == FORMATS["parquet"].media_type
                found[path] = in_words(answer.content) if is_parquet else answer.content
    with httpx.stream("GET", f"{pair.act_url}/stream?follow=true") as live:
        received = b""
        for chunk in live.iter_bytes():
            received += chunk
            if b'"status":"failed"' in received:
                break
    return {**found, "live": received}


def in_words(file: bytes) -> bytes:
    """Return what a Parquet file holds, which is compressed."""
    table = pq.read_table(pa.BufferReader(file))
    return repr(table.to_pydict()).encode() + repr(table.schema.metadata).encode()


def not_looked_at(pair: Pair, looked_at: Iterable[str]) -> set[str]:
    """Return the calls that the services describe and no page stands for: whoever adds one must plant for it, too."""
    asked = [path.partition("?")[0] for path in looked_at]
    left = set()
    for url in (pair.oms_url, pair.act_url):
        for path, methods in httpx.get(f"{url}/openapi.json").json()["paths"].items():
            pattern = re.compile(re.sub(r"\\\{[a-z_]+\\\}", ".+", re.escape(path)))
            if "get" in methods and not any(pattern.fullmatch(one) for one in asked):
                left.add(path)
    return left


def act(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of ACT's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMS_", "ACT_"))}
    return run("act", *arguments, cwd=ROOT, env=environment, limit_sec=60)


def verified(key: Path, export: Path) -> str | None:
    """Return the first line of what the verifier that needs nothing of ours says; None where it refuses."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "verify_without_us.py"), "--key", str(key), str(export)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.splitlines()[0] if done.returncode == 0 else None


def test_p11_values_stay_in_oms_until_they_are_erased_and_are_nowhere_then(tmp_path: Path, plans: Path) -> None:
    """Every file, export and page, and a backup; and what was proven before holds after it."""
    data = tmp_path / "data"
    data.mkdir()
    kept = set(PLANTED) - {"refused"}
    with Pair(data, plans) as pair, OmsClient(pair.oms_url) as oms:
        plant(pair.oms_url)
        assert wait_until_delivered(oms, limit_sec=LIMIT_SEC)
        size = httpx.get(f"{pair.act_url}/readyz").json()["size"]
        note = until(lambda: signed(pair, size))
        there = found_in(files(data))
        assert {name for name in there if not name.startswith("oms.db")} == set(), there
        assert {kind for kinds in there.values() for kind in kinds} >= kept, "planted for nothing"
        looked_at = pages(pair)
        assert not_looked_at(pair, looked_at) == {"/pull"}
        shown = found_in(looked_at)
        assert shown.keys() <= set(WITH_VALUES), shown
        (key_file,) = data.glob("*.key")
        secrets = secrets_in(key_file)
        assert [name for name, text in {**files(data), **looked_at}.items() if any(one in text for one in secrets)] == [
            key_file.name
        ], "the signing key is in its file and nowhere else"
        (tmp_path / "log.vkey").write_bytes(act("key", "show", "--file", str(key_file)).stdout)
        (tmp_path / "before").write_text(note)
        (tmp_path / "one.tlog-proof").write_bytes(looked_at["/proof/inclusion?index=0"])

        for job_id in JOBS:
            answer = httpx.post(f"{pair.oms_url}/jobs/{job_id}/erase", json={"reason": "asked for"})
            assert (answer.status_code, answer.json()["job_id"]) == (200, job_id), answer.text
        assert wait_until_delivered(oms, limit_sec=LIMIT_SEC)
        until(lambda: signed(pair, size + len(JOBS)))
        assert found_in(files(data)) == {}
        assert found_in(pages(pair)) == {}
        backups = tmp_path / "backups"
        backups.mkdir()
        for name in ("oms", "act"):
            with closing(sqlite3.connect(data / f"{name}.db")) as live:
                live.execute("VACUUM INTO ?", (str(backups / f"{name}.db"),))
        assert found_in(files(backups)) == {}
        compared = act("reconcile", pair.oms_url, pair.act_url, "--key", str(tmp_path / "log.vkey"))
        assert compared.returncode == 0, compared.stderr
    assert found_in(files(data)) == {}, "a stop writes nothing of it either"
    for arguments in (
        ("verify", str(data / "act.db"), "--checkpoint", str(tmp_path / "before")),
        ("verify-proof", str(tmp_path / "one.tlog-proof")),
    ):
        proven = act(*arguments, "--key", str(tmp_path / "log.vkey"))
        assert proven.returncode == 0, proven.stderr


# The commands, on the same pair.


def signed(pair: Pair, size: int) -> str | None:
    """Return the checkpoint of that size, once it is there."""
    answer = httpx.get(f"{pair.act_url}/checkpoint")
    return answer.text if answer.is_success and answer.text.split("\n")[1] == str(size) else None


def test_the_commands_tell_the_truth(tmp_path: Path, plans: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with Pair(data, plans) as pair, OmsClient(pair.oms_url) as oms:
        plant(pair.oms_url)
        assert wait_until_delivered(oms, limit_sec=LIMIT_SEC)

        same = act("reconcile", pair.oms_url, pair.act_url)
        assert same.returncode == 0, same.stderr
        size = httpx.get(f"{pair.act_url}/readyz").json()["size"]
        note = until(lambda: signed(pair, size))
        assert same.stdout.decode().startswith(
            f"act: 3 jobs and 1 lane with {size} events: OMS and the ledger say the same"
        )

        wrong = act("reconcile", pair.act_url, pair.act_url)
        assert (wrong.returncode, wrong.stdout) == (2, b"")
        assert b"is this the address of OMS?" in wrong.stderr
        assert act("reconcile", "oms", "act").returncode == 2

        by_http = {}
        for name in ("cloudevents", "ocel2", "csv"):
            target = tmp_path / f"http.{name}"
            done = act("export", "--from", pair.act_url, "--format", name, "-o", str(target))
            assert done.returncode == 0, done.stderr
            by_http[name] = target.read_bytes()
            assert by_http[name] == httpx.get(f"{pair.act_url}/export?format={name}").content
        beside = json.loads((tmp_path / "http.csv.header.json").read_text())
        origin = note.partition("\n")[0]
        assert beside == {"act_export": 1, "origin": origin, "checkpoint": note, "format": "csv", "size": size}
        assert len(list(csv.reader(io.StringIO(by_http["csv"].decode())))) == size + 1

        (key_file,) = data.glob("*.key")
        public = act("key", "show", "--file", str(key_file)).stdout
        (tmp_path / "log.vkey").write_bytes(public)
        assert verified(tmp_path / "log.vkey", tmp_path / "http.cloudevents") == f"size {size}"
        changed = by_http["cloudevents"].replace(b"T-1", b"T-2", 1)
        (tmp_path / "changed").write_bytes(changed)
        assert verified(tmp_path / "log.vkey", tmp_path / "changed") is None

        used = act("export", "--from", f"sqlite:///{data / 'act.db'}", "-o", str(tmp_path / "used"))
        assert used.returncode == 1
        assert b"name the running service" in used.stderr
        for arguments in (("--job", "JOB-9"), ("--format", "xes"), ("--since", "yesterday")):
            refused = act("export", "--from", pair.act_url, *arguments, "-o", str(tmp_path / "used"))
            assert refused.returncode == 1, arguments
            assert refused.stderr.count(b"\n") < 8, "no traceback"
        assert not list(tmp_path.glob("used*"))

    database = f"sqlite:///{data / 'act.db'}"
    for name, content in by_http.items():
        done = act("export", "--from", database, "--format", name)
        assert (done.returncode, done.stdout) == (0, content), done.stderr
    assert act("export", "--from", database, "--job", "JOB-9").returncode == 1
    gone = act("export", "--from", "http://127.0.0.1:9", "-o", str(tmp_path / "used"))
    assert gone.returncode == 1
    assert b"gave no answer" in gone.stderr
