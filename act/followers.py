"""Who follows the ledger live: counted, woken when it grows, and sent home when the service stops."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager

from act.domain.errors import UnavailableError


class Followers:
    """The open live streams. A follower holds no rows: it is only told that there are some.

    Belongs to the event loop.

    Args:
        most: how many there may be at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.stopped = asyncio.Event()
        self._of_stream: dict[str | None, set[asyncio.Event]] = {}
        self._listeners: list[asyncio.Event] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def join(self, stream: str | None) -> Generator[asyncio.Event]:
        """Follow one stream (None: the whole ledger); the event is set when it may have grown.

        Raises:
            UnavailableError: there are too many already, or the service stops.
        """
        if self.stopped.is_set():
            raise UnavailableError("ACT is stopping: follow again once it is back.")
        if self._count >= self.most:
            raise UnavailableError(
                f"{self.most} live streams are open, and no more are taken (ACT_MAX_FOLLOWERS): ask without follow, "
                "or try again.",
                retry_after_sec=5,
            )
        wake = asyncio.Event()
        group = self._of_stream.setdefault(stream, set())
        group.add(wake)
        self._count += 1
        try:
            yield wake
        finally:
            self._count -= 1
            group.discard(wake)
            if not group:
                self._of_stream.pop(stream, None)

    def listen(self, wake: asyncio.Event) -> None:
        """Set the event from now on whenever the ledger has grown: for a part of the service, which is no follower."""
        self._listeners.append(wake)

    def wake(self, streams: Iterable[str]) -> None:
        """Wake who follows one of the streams, and who follows all."""
        for wake in self._listeners:
            wake.set()
        for stream in (None, *streams):
            for wake in self._of_stream.get(stream, ()):
                wake.set()

    def stop(self) -> None:
        """Send everyone home."""
        self.stopped.set()
        for group in self._of_stream.values():
            for wake in group:
                wake.set()
