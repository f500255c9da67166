"""Start ``python -m oms`` and ``python -m act`` many times at the price of importing them once.

A Python process that has imported both, and done nothing else, makes a copy of itself for each of them. A copy is a
process of its own in every other way: its own pid, environment, folder, files and signals. To import takes a second,
and the tests start some hundreds of them.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
MAX_REQUEST_BYTES = 1_000_000


class Spawned:
    """A process, as `subprocess.Popen` has it; use `spawn`.

    Attributes:
        pid: its number.
        returncode: how it ended, once it was seen to have: the exit code, or minus the signal's number.
    """

    def __init__(self, status: IO[bytes]) -> None:
        self._status = status
        self.returncode: int | None = None
        self.pid = int(status.readline())

    def poll(self) -> int | None:
        """Return `returncode`, after a look."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._read()
        return self.returncode

    def wait(self, limit_sec: float | None = None) -> int:
        """Return how it ended.

        Raises:
            subprocess.TimeoutExpired: it runs still after so many seconds.
        """
        if self.returncode is None:
            if limit_sec is not None and not select.select([self._status], [], [], limit_sec)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), limit_sec)
            self._read()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, where it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.send_signal(signal.SIGKILL)

    def _read(self) -> None:
        self.returncode = int(self._status.readline())
        self._status.close()


def spawn(
    module: str,
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str],
    stdout: int | IO[Any],
    stderr: int | IO[Any],
) -> Spawned:
    """Start ``python -m <module>``.

    Args:
        module: ``oms`` or ``act``.
        arguments: of its command line.
        cwd: where.
        env: its environment; what Python reads when it starts has no effect.
        stdout: an open file, or its number.
        stderr: the same.
    """
    request = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": dict(env)}
    numbers = [file if isinstance(file, int) else file.fileno() for file in (stdout, stderr)]
    status, its_end = os.pipe()
    try:
        socket.send_fds(_original(), [json.dumps(request).encode()], [*numbers, its_end])
    finally:
        os.close(its_end)
    return Spawned(os.fdopen(status, "rb"))


def run(
    module: str, *arguments: str, cwd: Path, env: Mapping[str, str], limit_sec: float
) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m <module>`` to its end.

    Raises:
        subprocess.TimeoutExpired: it did not come; it was killed.
    """
    with ExitStack() as files:
        out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        process = spawn(module, *arguments, cwd=cwd, env=env, stdout=out, stderr=err)
        try:
            code = process.wait(limit_sec)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


@functools.cache
def _original() -> socket.socket:
    """Start the process that is copied; it ends with this one, which closes its socket."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMS_", "ACT_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.spawner", str(its.fileno())],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        pass_fds=[its.fileno()],
    )
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> None:
    """Copy this process for each request; return in the copies, and where the requests end."""
    while True:
        data, files, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 3)
        if not data:
            return
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(data), *files)
            return
        for file in files:
            os.close(file)


def _watch(request: dict[str, Any], out: int, err: int, status: int) -> None:
    """Copy this process once more; return in the copy, and tell in the other its number and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        for file in (out, err):
            os.close(file)
        os.setsid()  # whoever ends the process and its group leaves the one that tells of it
        with suppress(BrokenPipeError):  # whoever asked has ended
            os.write(status, b"%d\n" % pid)
            _, how = os.waitpid(pid, 0)
            os.write(status, b"%d\n" % os.waitstatus_to_exitcode(how))
        os._exit(0)
    os.close(status)
    for file, place in ((out, 1), (err, 2)):
        os.dup2(file, place)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = ["", *request["arguments"]]
    sys.path[0] = request["cwd"]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _import_all() -> None:
    """Import what the services use; nothing of it may start a thread, which no copy would have."""
    for module in ("act.app", "act.cli", "act.copy", "oms.api.front", "oms.app", "oms.cli", "oms.copy"):
        importlib.import_module(module)

    assert len(list(Path("/proc/self/task").iterdir())) == 1, "there is more than one thread"


def main(arguments: Sequence[str]) -> None:
    """Be the process that is copied."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _import_all()
    gc.freeze()  # a copy that collects garbage would else write to all memory that it shares
    _serve(socket.socket(fileno=int(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
