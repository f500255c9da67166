"""The commands that wait for a writing thread, and how many of them share a transaction."""

from __future__ import annotations

import queue
import time

from oms.sequencer.command import Command

MAX_COMMANDS = 256
"""How many commands one transaction takes at most: beyond, a larger batch is no cheaper per command."""
LINGER_STEPS = 6
LINGER_SHARE = 1 / 15
MIN_LINGER_SEC = 0.0002
MAX_LINGER_SEC = 0.002
"""Under load a transaction waits for more commands while they arrive, in so many steps; each is a share of how long the
last transaction took: where one costs more, gathering more into it is worth a longer wait."""


class Intake:
    """A queue of commands. Thread-safe; several threads may take from it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command | None] = queue.SimpleQueue()

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, command: Command) -> None:
        """Let a command wait for its turn."""
        self._queue.put(command)

    def end(self) -> None:
        """Tell one thread that nothing comes any more, once it has taken all that was put before."""
        self._queue.put(None)

    def take(self, linger_sec: float) -> tuple[list[Command], bool]:
        """Wait for a command, and take with it all that have come by now; True when the end has come.

        ``linger_sec``: for how long to wait for more at a time, while they arrive; 0 without load.
        """
        commands: list[Command] = []
        command = self._queue.get()
        if linger_sec:
            self._linger(linger_sec)
        while command is not None and len(commands) < MAX_COMMANDS - 1:
            commands.append(command)
            try:
                command = self._queue.get_nowait()
            except queue.Empty:
                return commands, False
        if command is None:
            return commands, True
        return [*commands, command], False

    def _linger(self, step_sec: float) -> None:
        """Let the loop's thread read the requests that are there: a larger transaction costs less for each."""
        arrived = -1
        for _ in range(LINGER_STEPS):
            if arrived == (arrived := self._queue.qsize()):
                return
            time.sleep(step_sec)


def linger_of(commands: int, took_sec: float) -> float:
    """Return for how long to linger after a transaction of so many commands, which took so long.

    Where others shared it, more are on their way.
    """
    return min(max(took_sec * LINGER_SHARE, MIN_LINGER_SEC), MAX_LINGER_SEC) if commands > 1 else 0.0
