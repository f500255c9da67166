"""A crew of workers, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from oms.worker import Worker
from oms.worker.loop import Handle, HandleBatch

STOP_LIMIT_SEC = 10.0


class Crew:
    """Runs workers until it is left; a context."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        # What a worker logs would run through the progress bars; what matters comes out of `check`.
        logging.getLogger("oms.worker").addHandler(logging.NullHandler())

    def add(self, worker: Worker, handle: Handle | HandleBatch) -> Worker:
        """Let a worker begin."""
        thread = threading.Thread(target=self._run, args=(worker, handle), name=worker.worker, daemon=True)
        self._workers.append(worker)
        self._threads.append(thread)
        thread.start()
        return worker

    @property
    def done(self) -> int:
        """How many tasks all of them have completed."""
        return sum(worker.done for worker in self._workers)

    def check(self) -> None:
        """Return while all of them work.

        Raises:
            Exception: what ended one of them.
        """
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            if thread.ident is not None:  # a Ctrl-C may come before one is started
                # After a crash there is nobody to tell the outcomes to, and nothing to wait for.
                thread.join(STOP_LIMIT_SEC if error is None else 0.1)

    def _run(self, worker: Worker, handle: Handle | HandleBatch) -> None:
        try:
            worker.run(handle)
        except Exception as error:  # noqa: BLE001 - handed to whoever asks with `check`
            self._errors.append(error)
