"""Long polls: pulls that found nothing and wait until work becomes ready in their lane.

A waiting pull holds no connection and no thread. It is parked by the writer, in the same turn in which it found
nothing, and it is served in the very transaction that makes work ready. Where several transactions run side by side,
work may become ready between the look and the wait: a pull whose lane has had news since its look is not parked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum

from oms.sequencer.command import Command
from oms.sequencer.pull import Pull

MAX_LANES_WITH_NEWS = 10_000


class Parked(Enum):
    """What became of a pull that was to wait."""

    WAITS = "it waits"
    OVER = "it must not wait any more"
    NEWS = "its lane has had news since it looked: it is to look again"


class Waiting:
    """The parked pulls of every lane, in the order in which they came. Thread-safe."""

    def __init__(self) -> None:
        self._lanes: dict[str, OrderedDict[int, Command]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._count = 0
        self._turn = 0
        self._news: dict[str, int] = {}
        self._all_had_news = 0

    def __len__(self) -> int:
        return self._count

    @property
    def turn(self) -> int:
        """A mark to take before a look, for `park` after it."""
        return self._turn

    @property
    def lanes(self) -> list[str]:
        """The lanes that somebody waits for."""
        with self._lock:
            return list(self._lanes)

    def park(self, command: Command, *, since: int) -> Parked:
        """Let a pull wait that found nothing; one that has waited, before those that came later.

        Args:
            command: the pull.
            since: the `turn` before it looked.
        """
        name = _wish(command).lane
        with self._lock:
            if command.over or self._closed:
                return Parked.OVER
            if self._news.get(name, self._all_had_news) > since:
                return Parked.NEWS
            lane = self._lanes.setdefault(name, OrderedDict())
            lane[id(command)] = command
            if command.has_waited:
                lane.move_to_end(id(command), last=False)
            command.has_waited = True
            self._count += 1
            return Parked.WAITS

    def wake(self, woken: Mapping[str, int]) -> list[Command]:
        """Note that tasks are ready in these lanes, and take out the pulls that they may serve."""
        with self._lock:
            self._turn += 1
            if len(self._news) > MAX_LANES_WITH_NEWS:
                self._news.clear()
                self._all_had_news = self._turn  # who looked before this turn looks again, in whatever lane
            self._news.update(dict.fromkeys(woken, self._turn))
        return self.take(woken)

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
