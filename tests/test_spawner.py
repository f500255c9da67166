"""What is started as a copy is a process like any other: the tests of crashes rest on it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.services import free_port
from tests.spawner import run, spawn


def test_a_command_has_its_own_folder_environment_and_output(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    env = {"OMS_DATABASE_URL": "sqlite:///here/oms.db", "PATH": os.environ["PATH"]}
    done = run("oms", "migrate", cwd=tmp_path, env=env, limit_sec=30)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "here" / "oms.db").exists()
    refused = run("oms", "migrate", "--nothing", cwd=tmp_path, env={}, limit_sec=30)
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"--nothing" in refused.stderr


def test_a_service_can_be_killed_and_stopped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        arguments = ("act", "serve", "--port", str(free_port()))
        process = spawn(*arguments, cwd=tmp_path, env=os.environ, stdout=log, stderr=log)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        assert process.poll() is None
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        process.kill()
        assert not Path(f"/proc/{process.pid}").exists()
