"""What the ledger tells of a job or a lane, entry by entry, held against what OMS holds of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from act.domain.entry import Entry
from act.domain.fold import JobFold

Task = tuple[str, str, str, int]
"""Activity, lane, status and attempt."""


@dataclass(frozen=True, slots=True)
class Held:
    """What OMS holds of one event: the digest of its bytes, and ACT's receipt, where it has one."""

    sha256: str
    delivered: bool
    index: int | None
    leaf_hash: str | None


@dataclass(frozen=True, slots=True)
class Stands:
    """A job or a lane as OMS shows it, at its event number ``seq``; what it holds of each event, by its number.

    A lane's old events leave OMS: of those nothing is held. It has no tasks, and is ``paused`` or ``resumed``.
    """

    seq: int
    state: str
    tasks: dict[str, Task]
    held: dict[int, Held]


class Told:
    """What the ledger tells of a stream, held against what OMS holds; it takes the stream's entries in their order."""

    def __init__(self, name: str, stands: Stands) -> None:
        self._name = name
        self._stands = stands
        self.last = 0
        self.shown: int | None = None  # how much of the ledger is shown; None: all of it
        self.agrees: list[tuple[int, int, bytes]] = []  # number, index and leaf hash of each entry that is as it should
        self.differences: list[str] = []

    @property
    def is_behind(self) -> bool:
        """Events are under way: to ACT, or acknowledged and not in a checkpoint yet, up to which ACT shows them."""
        return self.last < self._stands.seq and self._lost() is None

    def _lost(self) -> int | None:
        """Return the first event that ACT acknowledged and should show, and does not."""
        for seq in range(self.last + 1, self._stands.seq + 1):
            held = self._stands.held.get(seq)
            if held is None:  # it has left OMS, which it does only once ACT has it
                return seq
            if held.delivered and held.index is not None and (self.shown is None or held.index < self.shown):
                return seq
        return None

    def take(self, entry: Entry, raw: bytes, leaf: bytes) -> None:
        """Hold the next entry against what OMS has of it."""
        self.last += 1
        name = f"{self._name}.{self.last}"
        if entry.event_id != name:
            self.differences.append(f"{name}: the ledger has {entry.event_id} in its place")
        if self.last > self._stands.seq:
            return
        self._fold(entry)
        held = self._stands.held.get(self.last)
        if held is None:
            self.agrees.append((self.last, entry.idx, leaf))
            return
        if held.sha256 != hashlib.sha256(raw).hexdigest():
            self.differences.append(f"{name}: the ledger has other bytes than OMS")
        if not held.delivered or (held.index, held.leaf_hash) == (entry.idx, leaf.hex()):
            self.agrees.append((self.last, entry.idx, leaf))
        else:
            self.differences.append(
                f"{name}: OMS holds a receipt for the index {held.index} with the leaf hash {held.leaf_hash}; "
                f"the ledger has it at {entry.idx} with {leaf.hex()}"
            )

    def end(self) -> list[str]:
        """Return the differences, after the last entry."""
        lost = self._lost()
        if lost is not None:
            held = self._stands.held.get(lost)
            where = "" if held is None else f" for the index {held.index}"
            return [*self.differences, f"{self._name}.{lost}: ACT acknowledged it{where}, and does not have it"]
        return [*self.differences, *self._differs()]

    def _fold(self, entry: Entry) -> None:
        """Add the next entry up."""
        raise NotImplementedError

    def _differs(self) -> list[str]:
        """Return where what the entries add up to is not what OMS says."""
        raise NotImplementedError


class JobTold(Told):
    """What the ledger tells of a job."""

    def __init__(self, name: str, stands: Stands) -> None:
        super().__init__(name, stands)
        self._job = JobFold(name)

    def _fold(self, entry: Entry) -> None:
        self._job.take([entry])

    def _differs(self) -> list[str]:
        stands, folded, found = self._stands, self._job.body(), []
        if folded["state"] != stands.state:
            found.append(f"{self._name}: OMS says {stands.state}, the ledger {folded['state']}")
        there = {task["task_id"]: task_of(task) for task in folded["tasks"]}
        for task_id in sorted(stands.tasks.keys() | there.keys()):
            if stands.tasks.get(task_id) != there.get(task_id):
                here, said = _words(stands.tasks.get(task_id)), _words(there.get(task_id))
                found.append(f"{self._name}: OMS says {task_id} is {here}, the ledger {said}")
        return found


class LaneTold(Told):
    """What the ledger tells of a lane: whether it is paused."""

    _state = "resumed"

    def _fold(self, entry: Entry) -> None:
        self._state = entry.status

    def _differs(self) -> list[str]:
        if self._state == self._stands.state:
            return []
        return [f"{self._name}: OMS says {self._stands.state}, the ledger {self._state}"]


def task_of(task: dict[str, Any]) -> Task:
    """Return what is compared of a task.

    Raises:
        KeyError: it has another shape.
    """
    return task["activity"], task["lane"], task["status"], task["attempt"]


def _words(task: Task | None) -> str:
    return "not there" if task is None else "{} in {}, {}, attempt {}".format(*task)
