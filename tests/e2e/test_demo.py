"""``oms demo`` as users run it: what it says, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import a_small_log, get, until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the demo puts its folder, which must be gone at the end; so must its processes."""
    yield tmp_path
    assert list(tmp_path.glob("oms-demo-*")) == []
    assert services_of(tmp_path) == []


def services_of(folder: Path) -> list[int]:
    """Return the processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    # What is set here is about another OMS: the demo must not touch it.
    elsewhere = {"OMS_DATABASE_URL": "sqlite:////nowhere/oms.db", "ACT_PORT": "1", "OMS_PLANS": "/nowhere"}
    return subprocess.Popen(
        [sys.executable, "-m", "oms", "demo", *flags],
        env=os.environ | elsewhere | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    text = ""
    while words not in text:
        line = process.stdout.readline()
        assert line, f"it ended before it said {words!r}:\n{text}"
        text += line
    return text


def test_it_runs_checks_and_cleans_up(folder: Path) -> None:
    process = start(folder, "--jobs", "3")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "3 of 3 passports" in text
    assert "agree about every job" in text
    for job in ("JOB-1", "JOB-2", "JOB-3"):
        assert job in text
    for word in ("released", "rerouted", "human_verify_backup", "printing-plant"):
        assert word in text


def test_it_keeps_the_services_up_when_asked(folder: Path) -> None:
    process = start(folder, "--jobs", "1", "--keep")
    text = read_until(process, "/lanes")
    assert "1 of 1 passport" in text
    found = re.search(r"OMS (http://\S+) and ACT (http://\S+)", text)
    assert found is not None
    assert get(f"{found[1]}/readyz")["ready"] is True
    assert get(f"{found[2]}/stream?job=JOB-1")
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 0, text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_cleans_up_when_it_is_stopped(folder: Path, number: signal.Signals) -> None:
    process = start(folder, "--jobs", "2000")
    read_until(process, "renewals started")
    process.send_signal(number)
    process.send_signal(number)  # impatience
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 130, text
    assert "stopped" in text


@pytest.mark.parametrize("module", ["oms", "act"])
def test_a_service_that_dies_is_said_with_the_end_of_its_log(folder: Path, module: str) -> None:
    process = start(folder, "--jobs", "5000")
    read_until(process, "renewals started")
    (service,) = until(lambda: [number for number in services_of(folder) if is_module(number, module)])
    os.kill(service, signal.SIGKILL)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 1, text
    assert f"{module} has ended with status -9. Its log ends:" in text
    assert "listening on" in text


def is_module(number: int, module: str) -> bool:
    command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    return command[1:3] == [b"-m", module.encode()]


def test_a_log_that_is_none_is_said_before_anything_starts(folder: Path) -> None:
    file = folder / "log.csv"
    file.write_text("a,b\n1,2\n", encoding="utf-8")
    process = start(folder, "--log", str(file))
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "has no column case:concept:name" in text
    assert "are up" not in text


def test_a_log_can_be_replayed_instead(folder: Path) -> None:
    process = start(folder, "--log", str(a_small_log(folder)))
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "12 cases, 52 activities, 2 variants" in text
    assert "nothing differs from the log" in text
    assert "Check (2)" in text  # a timeline
