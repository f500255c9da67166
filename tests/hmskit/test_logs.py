"""Logs: one JSON object a line, ours and the libraries' alike."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, structlog
from hmskit.logs import configure_logs
configure_logs(level={level!r}, json_lines={json_lines!r})
structlog.get_logger("ours").warning("fork_refused", stream="JOB-1")
logging.getLogger("library").info("hello %s", "you")
logging.getLogger("httpx").info("a line a request")
try:
    1 / 0
except ZeroDivisionError as error:
    structlog.get_logger("ours").error("unexpected", exc_info=error)
"""


def lines(*, level: str = "info", json_lines: bool = True) -> list[str]:
    script = SCRIPT.format(level=level, json_lines=json_lines)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_each_line_is_one_json_object() -> None:
    warning, info, error = (json.loads(line) for line in lines())
    assert (warning["event"], warning["stream"], warning["level"], warning["logger"]) == (
        "fork_refused", "JOB-1", "warning", "ours",
    )  # fmt: skip
    assert (info["event"], info["logger"]) == ("hello you", "library")
    assert "ZeroDivisionError" in error["exception"]
    assert warning["timestamp"].endswith("Z")


def test_the_level_holds_for_all() -> None:
    assert [json.loads(line)["event"] for line in lines(level="warning")] == ["fork_refused", "unexpected"]


@pytest.mark.parametrize("word", ["fork_refused", "JOB-1", "ZeroDivisionError"])
def test_on_a_terminal_it_is_text(word: str) -> None:
    assert word in "\n".join(lines(json_lines=False))
