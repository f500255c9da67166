"""Long polls: pulls that found nothing and wait until work becomes ready in their lane.

A waiting pull holds no connection and no thread. It is parked by the writer, in the same turn in which it found
nothing, so that no task can become ready between the look and the wait; and it is served in the very
transaction that makes work ready.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from oms.sequencer.command import Command
from oms.sequencer.pull import Pull


class Waiting:
    """The parked pulls of every lane, in the order in which they came. Thread-safe."""

    def __init__(self) -> None:
        self._lanes: dict[str, OrderedDict[int, Command]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def park(self, command: Command, *, first: bool = False) -> bool:
        """Let a pull wait; ``first``: at its old place, before those that came later. False where it is over."""
        with self._lock:
            if command.over or self._closed:
                return False
            lane = self._lanes.setdefault(_wish(command).lane, OrderedDict())
            lane[id(command)] = command
            if first:
                lane.move_to_end(id(command), last=False)
            self._count += 1
            return True

    def take(self, woken: Mapping[str, int]) -> list[Command]:
        """Take out as many pulls of each woken lane as can be served with what became ready there."""
        taken: list[Command] = []
        with self._lock:
            for name, ready in woken.items():
                lane = self._lanes.get(name)
                served = 0
                while lane and served < ready:
                    _, command = lane.popitem(last=False)
                    taken.append(command)
                    served += _wish(command).limit
                if lane is not None and not lane:
                    del self._lanes[name]
            self._count -= len(taken)
        return taken

    def end(self, command: Command) -> bool:
        """End a pull's wait. False where the writer has it in hand, which will answer it and not park it again."""
        name = _wish(command).lane
        with self._lock:
            command.over = True
            lane = self._lanes.get(name)
            if lane is None or lane.pop(id(command), None) is None:
                return False
            self._count -= 1
            if not lane:
                del self._lanes[name]
            return True

    def close(self) -> list[Command]:
        """Let nobody wait any more; return who did."""
        with self._lock:
            self._closed = True
            everybody = [command for lane in self._lanes.values() for command in lane.values()]
            self._lanes.clear()
            self._count = 0
            return everybody


def _wish(command: Command) -> Pull:
    wish = command.wishes[0]
    assert isinstance(wish, Pull)
    return wish
