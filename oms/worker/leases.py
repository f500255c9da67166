"""Keeps the leases of the tasks in hand alive, in a thread, while their handler works."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from oms.worker.backoff import jittered_sec
from oms.worker.client import OmsClient
from oms.worker.errors import OmsClientError, OmsProblem
from oms.worker.task import Task

log = logging.getLogger("oms.worker")

BEATS_PER_LEASE = 3
"""Two heartbeats may be lost on the way before the lease is."""
MOST_SEC = 60.0
"""The longest time between two heartbeats, however long the lease: it is also how a worker learns of a reroute."""
AGAIN_SEC = 2.0
"""How soon a heartbeat that got no answer is sent again."""
_LOST = frozenset({404, 409})


class Leases:
    """The leases of the tasks that a worker has in hand.

    Args:
        client: sends the heartbeats.
        most_sec: the longest time between two of them.
    """

    def __init__(self, client: OmsClient, *, most_sec: float = MOST_SEC) -> None:
        self._client = client
        self._most_sec = most_sec
        self._due: dict[Task, float] = {}
        self._changed = threading.Condition()
        self._returns = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="oms-heartbeats", daemon=True)

    def open(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def hold(self, tasks: Iterable[Task]) -> None:
        """Keep these alive from now on."""
        with self._changed:
            for task in tasks:
                self._due[task] = time.monotonic() + self._interval_sec(task.lease_sec)
            self._changed.notify()

    def drop(self, tasks: Iterable[Task]) -> None:
        """Send no more heartbeats for these; one on its way does not count."""
        with self._changed:
            for task in tasks:
                self._due.pop(task, None)

    def give_back(self) -> None:
        """Release, soon, whatever is in hand now, and mark it as lost; what its handler returns is dropped."""
        with self._changed:
            self._returns = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._closed and not self._returns:
                    self._changed.wait(self._wait_sec())
                if self._closed:
                    return
                returned = list(self._due) if self._returns else []
                self._returns = False
                now = time.monotonic()
                due = [task for task, at in self._due.items() if at <= now and task not in returned]
            for task in returned:
                self._release(task)
            for task in due:
                self._beat(task)

    def _wait_sec(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _interval_sec(self, lease_sec: float) -> float:
        return min(lease_sec / BEATS_PER_LEASE, self._most_sec)

    def _beat(self, task: Task) -> None:
        try:
            lease_sec = self._client.heartbeat(task, progress=task.progress, note=task.note, retry_for_sec=0)
        except OmsClientError as error:
            if isinstance(error, OmsProblem) and error.status in _LOST:
                self._lose(task, error.detail)
                return
            log.warning("%s: the heartbeat got no answer, and will be sent again: %s", task.task_id, error)
            next_sec = min(jittered_sec(AGAIN_SEC), self._interval_sec(task.lease_sec))
        except (TypeError, ValueError):
            log.exception("%s: its progress or note cannot be sent; it goes without", task.task_id)
            task.progress = task.note = None
            next_sec = 0.0
        else:
            next_sec = self._interval_sec(lease_sec)
        with self._changed:
            if task in self._due:
                self._due[task] = time.monotonic() + next_sec

    def _lose(self, task: Task, why: str) -> None:
        with self._changed:
            if self._due.pop(task, None) is None:
                return  # its handler was through meanwhile: the refusal is about an attempt that has ended well
        task.lose()
        log.warning("%s: attempt %d is lost, its work is dropped: %s", task.task_id, task.attempt, why)

    def _release(self, task: Task) -> None:
        with self._changed:
            if self._due.pop(task, None) is None:
                return
        task.lose()
        try:
            self._client.release(task, reason="the worker stops")
        except OmsClientError as error:
            log.warning("%s: could not be given back, its lease will run out: %s", task.task_id, error)
