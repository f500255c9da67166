"""How much begins at once: what is left begins in a later transaction, for everybody else waits for the end of each."""

from __future__ import annotations

from oms.domain.flow_start import MORE_TIMER
from oms.domain.run import BlockRun, Branch, Ground, RunState

MAX_BEGUN = 500
"""So many items, rounds and jobs that are steps begin in one transaction at most, in all jobs together."""
NOTED_FOR_ONE = 20
"""To note so many items of a list costs about what it costs to begin one."""


class Share:
    """What may begin in this transaction, and in which blocks of a job the rest begins later."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._later: set[str] = set()

    @property
    def left(self) -> int:
        """How much may yet begin."""
        return MAX_BEGUN - self._ground.begun

    def take(self) -> bool:
        """Count something that is about to begin; False where that is for later."""
        if self.left <= 0:
            return False
        self._ground.begun += 1
        return True

    def noted(self, items: int) -> None:
        """Count the items of a list, which were noted and have not begun."""
        self._ground.begun += items // NOTED_FOR_ONE

    def later(self, block: BlockRun) -> None:
        """Let the next sweep begin more of a block."""
        if block.path not in self._later:
            self._later.add(block.path)
            self._ground.set_timer(block, MORE_TIMER, self._ground.now_ms)

    def put_back(self, item: Branch) -> None:
        """Let an item that was about to begin wait again."""
        block = self._ground.block(item.block)
        assert block is not None
        item.state = RunState.WAITING
        block.begun -= 1
        self._ground.changed(item)
        self._ground.changed(block)
        self.later(block)
