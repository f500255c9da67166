"""P5 as the operating system sees it: synced before the answer, and killed or failing at any system call.

They need strace, and are skipped without it.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.act.support import array, plain_job
from tests.faults.syscalls import FAULTS, LOG, SYSCALLS, strike, traced

AMONG_THE_FIRST = {"pwrite64": 40, "write": 30, "fdatasync": 5, "fsync": 4, "unlink": 2, "ftruncate": 2, "rename": 2}
"""A thread has some more of each."""
CALLS = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg"
ANSWER = '"HTTP/1.1 200'
LAZY = """
from sqlalchemy import event, pool
event.listen(pool.Pool, "checkout", lambda raw, *_: raw.execute("PRAGMA synchronous=NORMAL"))
from act.cli import main
main()
"""


def can_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not can_trace(), reason="there is no strace that may trace: apt-get install strace")


def is_synced_before_the_answer(folder: Path, *program: str) -> bool:
    """Tell whether all that was written to the WAL for a post was synced before its answer was sent."""
    chosen = {"program": program} if program else {}
    with traced(folder, "-e", CALLS, env={"ACT_SIGNING_KEY": "none"}, **chosen) as act:
        answer = httpx.post(f"{act.url}/events", content=array(plain_job("JOB-1")), trust_env=False, timeout=10)
        assert answer.status_code == 200
    lines = (folder / LOG).read_text(errors="replace").splitlines()
    answered = next(at for at, line in enumerate(lines) if ANSWER in line)
    wrote = max(at for at, line in enumerate(lines[:answered]) if "pwrite64(" in line and "act.db-wal>" in line)
    return any("fdatasync" in line and line.endswith("= 0") for line in lines[wrote:answered])


def test_p5_the_answer_is_sent_after_the_sync(tmp_path: Path) -> None:
    assert is_synced_before_the_answer(tmp_path)


def test_with_synchronous_normal_the_answer_does_not_wait_for_it(tmp_path: Path) -> None:
    """The control."""
    assert not is_synced_before_the_answer(tmp_path, "-c", LAZY)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_p5_nothing_acknowledged_is_lost_at_whatever_call_it_ends(tmp_path: Path, fault: str) -> None:
    """At every one: ``python tests/faults/syscalls.py``."""
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    syscall = dice.choice(SYSCALLS)
    at = dice.randint(1, AMONG_THE_FIRST.get(syscall, 1))
    assert strike(tmp_path, syscall=syscall, at=at, fault=fault), f"seed {seed}: it did not come to {syscall} {at}"
