"""Kill ACT at a system call, or let the call fail, and look whether what was acknowledged is still there.

``python tests/faults/syscalls.py --fault kill``: at every call of `SYSCALLS`, one after the other, from the first start
with an empty folder on; with ``--fault eio`` the call gives an I/O error instead. Exit 0 when nothing was lost, 1
otherwise. It needs strace. Power cuts are ``power.py``: they lose more, and need no process.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx

from act.domain.checkpoint import Checkpoint
from act.domain.note import read_note
from act.keys import read_keys
from act.storage.readonly import reading
from act.verify import verify
from tests.act.process import Served, environment
from tests.act.support import array, plain_job

SYSCALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "link", "unlink", "write")
FAULTS = {"kill": "signal=KILL", "eio": "error=EIO"}
POSTS = 2
LIMIT_SEC = 5.0
LOG = "strace.log"


class LostError(Exception):
    """Something that was promised does not hold; the message says what."""


@dataclass
class Seen:
    """What a client has seen before the end.

    Attributes:
        acknowledged: each event that was answered 200, and its index and leaf hash.
        checkpoint: the last one.
    """

    acknowledged: dict[bytes, tuple[int, str]] = field(default_factory=dict)
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class Traced:
    """A running ACT under strace.

    Attributes:
        process: strace's; it ends with ACT.
        url: where ACT listens; None where it ended before it did.
    """

    process: subprocess.Popen[str]
    url: str | None

    def has_ended(self) -> bool:
        """Tell whether it ended by itself, soon."""
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            return False
        return True


@contextmanager
def traced(
    folder: Path,
    *options: str,
    program: tuple[str, ...] = ("-m", "act.cli"),
    env: Mapping[str, str] | None = None,
) -> Iterator[Traced]:
    """Run ACT under strace, whose log is `LOG`, until the end of the block."""
    command = ["strace", "-f", "-qq", "-y", "-o", str(folder / LOG), *options, sys.executable, *program]
    with (folder / "stderr.txt").open("ab") as errors:
        process = subprocess.Popen(
            [*command, "serve", "--port", "0"],
            cwd=folder,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        found = re.search(r"http://[^,]+", process.stdout.readline())
        yield Traced(process, found[0] if found else None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # strace and what it traces
        process.wait()
        process.stdout.close()


def strike(folder: Path, *, syscall: str, at: int, fault: str) -> bool:
    """Start ACT in an empty folder, and let the fault come at the call; tell whether it came to that.

    Args:
        folder: empty.
        syscall: one of `SYSCALLS`.
        at: the how manyth of a thread, from 1.
        fault: one of `FAULTS`.

    Raises:
        LostError: something that was acknowledged is not there, or the ledger is not sound.
    """
    seen = Seen()
    with traced(folder, "-e", f"trace={syscall}", "-e", f"inject={syscall}:{FAULTS[fault]}:when={at}") as act:
        if act.url is not None:
            _work(act.url, seen)
        has_ended = act.has_ended()
    _check(folder, seen)
    return has_ended if fault == "kill" else "(INJECTED)" in (folder / LOG).read_text(errors="replace")


def _work(url: str, seen: Seen) -> None:
    """Post events, and wait for the checkpoint that covers them, until an answer stays away."""
    with httpx.Client(base_url=url, timeout=LIMIT_SEC, trust_env=False) as http:
        for number in range(POSTS):
            raws = plain_job(f"JOB-{number}")
            try:
                answer = http.post("/events", content=array(raws))
                if answer.status_code == httpx.codes.OK:
                    for raw, result in zip(raws, answer.json()["results"], strict=True):
                        seen.acknowledged[raw] = (result["index"], result["leaf_hash"])
                _wait_for_checkpoint(http, seen)
            except httpx.HTTPError:
                return


def _wait_for_checkpoint(http: httpx.Client, seen: Seen) -> None:
    give_up_at = time.monotonic() + 2.0
    while time.monotonic() < give_up_at:
        answer = http.get("/checkpoint")
        if answer.status_code == httpx.codes.OK:
            seen.checkpoint = answer.content
            if Checkpoint.parse(read_note(answer.content).text).size >= len(seen.acknowledged):
                return
        time.sleep(0.02)


def _check(folder: Path, seen: Seen) -> None:
    """Start ACT again, as after any end, and check all that was promised."""
    with Served(folder) as served:
        there = httpx.get(f"{served.url}/export?format=cloudevents", trust_env=False)
        deadline = time.monotonic() + LIMIT_SEC
        while not (health := httpx.get(f"{served.url}/readyz", trust_env=False).json()["signing"])["signed_at"]:
            if time.monotonic() > deadline or health["stopped"]:
                raise LostError(f"it does not sign any more: {health}")
        again = httpx.post(f"{served.url}/events", content=array(plain_job("JOB-0")), trust_env=False)
        if again.status_code != httpx.codes.OK:
            raise LostError(f"the same batch again: {again.status_code} {again.text}")
        outcomes = {result["id"]: (result["index"], result["leaf_hash"]) for result in again.json()["results"]}
        served.stop()
    for number, raw in enumerate(plain_job("JOB-0"), start=1):
        if seen.acknowledged.get(raw, outcomes[f"JOB-0.{number}"]) != outcomes[f"JOB-0.{number}"]:
            raise LostError(f"JOB-0.{number} has another receipt")
    with reading(str(folder / "act.db")) as tx:
        held = [] if seen.checkpoint is None else [seen.checkpoint]
        size = verify(tx, keys=read_keys(folder / "act.db.key").verifiers, held=held, on_progress=lambda *_: None).size
        rows = tx.exec_driver_sql("SELECT entry, idx, leaf_hash FROM events ORDER BY idx").all()
    kept = {entry.split(b"\n", 2)[2]: (index, leaf.hex()) for entry, index, leaf in rows}
    lost = [raw for raw, receipt in seen.acknowledged.items() if kept.get(raw) != receipt]
    if lost:
        raise LostError(
            f"{len(lost)} of {len(seen.acknowledged)} acknowledged events are not in the {size} that are there"
        )
    if there.status_code != httpx.codes.OK:
        raise LostError(f"it cannot be read: {there.status_code}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=sorted(FAULTS), default="kill")
    parser.add_argument("--syscall", choices=SYSCALLS, action="append", help="only this one; default: each")
    given = parser.parse_args()
    struck, began = 0, time.monotonic()
    for syscall in given.syscall or SYSCALLS:
        at = 1
        while _one(syscall, at, given.fault):
            at += 1
            struck += 1
            print(f"{syscall} {at - 1}", end="\r", file=sys.stderr, flush=True)
        print(f"{syscall}: {given.fault} at each of {at - 1}", flush=True)
    print(f"{struck} times in {time.monotonic() - began:.0f} s: nothing acknowledged was lost")
    return 0


def _one(syscall: str, at: int, fault: str) -> bool:
    folder = Path(tempfile.mkdtemp())
    try:
        return strike(folder, syscall=syscall, at=at, fault=fault)
    except Exception:
        print(f"LOST: {fault} at {syscall} {at}", flush=True)
        raise
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
