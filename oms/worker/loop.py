"""The loop of a worker: pull, handle, tell the outcome; heartbeats meanwhile; an orderly stop."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar, cast

from oms.worker.backoff import backoff_sec, jittered_sec
from oms.worker.client import OmsClient
from oms.worker.deliver import Deliverer, Outcome, as_outcome
from oms.worker.errors import OmsClientError, OmsProblem
from oms.worker.leases import MOST_SEC, Leases
from oms.worker.task import Task

log = logging.getLogger("oms.worker")

Output = Mapping[str, Any] | None
Handle = Callable[[Task], Output]
HandleBatch = Callable[[list[Task]], Sequence[Output | Exception]]
H = TypeVar("H", bound=Handle | HandleBatch)

PULL_AGAIN_MOST_SEC = 30.0
GRACE_SEC = 20.0
"""After a stop, how long the outcome of the work in hand is still offered to an OMS that does not answer."""


def instance_name() -> str:
    """Return a name that no other start of any process has: ``host-pid-uuid``."""
    host = re.sub(r"[\x00-\x1f\x7f-\x9f]", "", socket.gethostname())[:100] or "host"
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


class Worker:
    """Works off one lane: ``handle(task)`` does the work, and what it returns is the activity's output.

    An exception in the handler is a failed attempt; its class's name is the error type in the ledger, and its
    message stays in OMS. `PermanentError` asks for no further attempt, `ReleaseTask` gives the task back. While
    the handler works, heartbeats keep the task's lease; ``task.lost`` says that it is somebody else's now, and what
    the handler returns then is dropped.

    With ``max`` the handler gets a list of up to so many tasks and returns a list with one output each, in the same
    order (an exception in a place fails that task alone), as a printing plant does.

    One worker does one thing at a time; run more of them, in threads or processes, for more.

    Example::

        worker = Worker("http://oms", lane="ai_extract")

        @worker
        def handle(task):
            return {"passport_no": read(task.input["scan"])}

        worker.run()

    Args:
        url: of OMS; by default ``OMS_URL``, else ``http://oms``.
        lane: what to pull from.
        worker: this worker's name in the ledger; by default ``host-pid-uuid``, one per worker object.
        max: pull up to so many tasks (1 to 1000) at once, for a handler of lists.
        wait_sec: how long one long poll waits (0 to 60); a stop waits for it too. 0: poll.
        idle_sec: how long to wait between polls of an empty lane, about, where ``wait_sec`` is 0.
        heartbeat_most_sec: the longest time between two heartbeats; else a third of the lease.
        client: calls OMS; by default one for ``url``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        lane: str,
        worker: str | None = None,
        max: int | None = None,  # noqa: A002 - the contract's word
        wait_sec: float = 5.0,
        idle_sec: float = 1.0,
        heartbeat_most_sec: float = MOST_SEC,
        client: OmsClient | None = None,
    ) -> None:
        self.lane = lane
        self.worker = worker or instance_name()
        self._max = max
        self._wait_sec = wait_sec
        self._idle_sec = idle_sec
        self._owns_client = client is None
        self._client = client or OmsClient(url)
        self._leases = Leases(self._client, most_sec=heartbeat_most_sec)
        self._deliverer = Deliverer(self._client, self.worker, give_up=self._is_grace_over)
        self._handle: Handle | HandleBatch | None = None
        self._stopping = threading.Event()
        self._stopped_at: float | None = None
        self._failed_pulls = 0

    def __call__(self, handle: H) -> H:
        """Take the handler, as a decorator."""
        self._handle = handle
        return handle

    @property
    def done(self) -> int:
        """How many tasks OMS has taken as completed."""
        return self._deliverer.done

    def run(self, handle: Handle | HandleBatch | None = None) -> int:
        """Work until `stop`, SIGTERM or Ctrl-C; return how many tasks were completed.

        The signals are taken only in the main thread. The first lets the work in hand end; the second interrupts it
        (with KeyboardInterrupt, in the handler) and gives it back.

        Raises:
            ValueError: there is no handler.
            OmsProblem: OMS refuses to hand out work at all: the lane's name, the address or the rights are wrong.
        """
        if handle is not None:
            self._handle = handle
        if self._handle is None:
            raise ValueError("the worker has no handler: run(handle), or use the worker as a decorator")
        with ExitStack() as stack:
            if self._owns_client:
                stack.callback(self._client.close)
            stack.enter_context(self._signals())
            self._leases.open()
            stack.callback(self._leases.close)
            try:
                self._loop()
            except KeyboardInterrupt:
                if not self._stopping.is_set():
                    raise  # it came from elsewhere
                log.warning("stopped at once")
        return self.done

    def _loop(self) -> None:
        while not self._stopping.is_set():
            tasks = self._pull()
            if tasks and self._stopping.is_set():
                self._release_all(tasks)
            elif tasks:
                self._work(tasks)

    def stop(self, *, release: bool = False) -> None:
        """Let `run` return once the work in hand is through; from any thread.

        Args:
            release: give the work in hand back at once instead. Its handler sees ``task.lost``, and `run` still
                returns only when the handler does.
        """
        self._stopped_at = self._stopped_at or time.monotonic()
        self._stopping.set()
        if release:
            self._leases.give_back()

    def _pull(self) -> list[Task]:
        asked_at = time.monotonic()
        try:
            tasks = self._client.pull_many(
                self.lane, self._max or 1, worker=self.worker, wait_sec=self._wait_sec, retry_for_sec=0
            )
        except OmsClientError as error:
            if not error.is_temporary:
                raise
            self._wait_out(error)
            return []
        if self._failed_pulls:
            log.info("OMS answers again")
            self._failed_pulls = 0
        # A service that is about to stop answers a long poll at once; asking at once again would be a busy loop.
        if not tasks and (not self._wait_sec or time.monotonic() - asked_at < self._wait_sec / 2):
            self._stopping.wait(jittered_sec(self._idle_sec))
        return tasks

    def _wait_out(self, error: OmsClientError) -> None:
        """Wait after a pull that failed, longer each time; say it once."""
        if not self._failed_pulls:
            log.warning("cannot pull from %s, and will try on: %s", self.lane, error)
        wait_sec = backoff_sec(self._failed_pulls, most_sec=PULL_AGAIN_MOST_SEC)
        if isinstance(error, OmsProblem):
            wait_sec = max(wait_sec, error.retry_after_sec or 0)
        self._failed_pulls += 1
        self._stopping.wait(wait_sec)

    def _work(self, tasks: list[Task]) -> None:
        self._leases.hold(tasks)
        try:
            outcomes = self._outcomes(tasks)
        except BaseException:  # the second Ctrl-C: the work in hand is given back before it goes on up
            self._leases.drop(tasks)
            self._release_all(tasks)
            raise
        # From here on nobody may take a task's refused heartbeat for a loss: its attempt is about to end.
        self._leases.drop(tasks)
        self._deliverer.deliver(
            [(task, outcome) for task, outcome in zip(tasks, outcomes, strict=True) if not task.lost]
        )

    def _outcomes(self, tasks: list[Task]) -> list[Outcome]:
        """Return what the handler makes of each task."""
        if self._max is None:
            handle = cast("Handle", self._handle)
            try:
                return [as_outcome(handle(tasks[0]))]
            except Exception as error:  # noqa: BLE001 - whatever the handler raises is its attempt's outcome
                return [as_outcome(error)]
        handle_batch = cast("HandleBatch", self._handle)
        try:
            outputs = list(handle_batch(tasks))
            if len(outputs) != len(tasks):
                raise ValueError(f"the handler got {len(tasks)} tasks and returned {len(outputs)} outputs")
        except Exception as error:  # noqa: BLE001
            return [as_outcome(error) for _ in tasks]
        return [as_outcome(output) for output in outputs]

    def _release_all(self, tasks: list[Task]) -> None:
        for task in tasks:
            with suppress(OmsClientError):  # its lease will run out
                self._client.release(task, reason="the worker stops", retry_for_sec=1)

    def _is_grace_over(self) -> bool:
        return self._stopped_at is not None and time.monotonic() > self._stopped_at + GRACE_SEC

    @contextmanager
    def _signals(self) -> Generator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self._stopping.is_set():
                raise KeyboardInterrupt
            # In a thread: the signal may come while this one holds a lock that `stop` or the log needs.
            threading.Thread(target=self._stop_on, args=(number,), name="oms-stop", daemon=True).start()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _stop_on(self, number: int) -> None:
        log.info("%s: stopping once the work in hand is through", signal.Signals(number).name)
        self.stop()
