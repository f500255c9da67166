"""The sweep: what is due by the clock, done in small bounded batches.

It is safe to run from anywhere, any number of times: everything it does, it does under the same locks and rules as the
workers' own calls. What of it fails is found, and left alone, by `oms.sequencer.sweeper`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from oms.domain.task import NEVER_MS
from oms.sequencer.close_windows import close_windows
from oms.sequencer.expire_leases import expire_leases
from oms.sequencer.fire_schedules import fire_schedules
from oms.sequencer.open_batches import open_batches
from oms.sequencer.swept import Portion, Swept
from oms.sequencer.tell_stalled import tell_stalled
from oms.sequencer.timers import fire_timers
from oms.storage.schedules import next_fire_ms
from oms.storage.set_aside import Due, Key
from oms.storage.tasks import next_due_ms, wake_due
from oms.storage.timers import next_timer_ms
from oms.storage.transaction import Transaction

PARTS: dict[Due, Callable[[Transaction, Portion], Swept]] = {
    Due.LEASE: expire_leases,
    Due.WINDOW: close_windows,
    Due.BATCH: open_batches,
    Due.STALL: tell_stalled,
    Due.SCHEDULE: fire_schedules,
    Due.TIMER: fire_timers,
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """Look for what is due now."""


@dataclass(slots=True)
class SweepOne:
    """Look for one thing of a kind that is due now.

    Attributes:
        what: the kind.
        taken: whose thing it was, at most one: known also where it fails.
        now_ms: when that was.
    """

    what: Due
    taken: list[Key] = field(default_factory=list)
    now_ms: int = 0


def sweep(tx: Transaction, wishes: Sequence[Sweep]) -> list[Swept]:
    """Wake every waiting task that is due, and do the rest of what is due, of each kind up to a batch."""
    wake_due(tx)
    tx.trace = None
    swept = Swept(tried_again=tuple(tx.set_aside.over(tx.now_ms)))
    for what, part in PARTS.items():
        swept += part(tx, Portion(tx.set_aside.keys(what, tx.now_ms)))
    tx.flush()
    return [swept + Swept(next_due_ms=_next_due_ms(tx))] * len(wishes)


def sweep_one(tx: Transaction, wishes: Sequence[SweepOne]) -> list[Swept]:
    """Do the first thing of each wish's kind that is due; ``more``: there was one."""
    tx.trace = None
    found = []
    for wish in wishes:
        wish.now_ms, wish.taken = tx.now_ms, []
        tried_again = tuple(entry for entry in tx.set_aside.over(tx.now_ms) if entry.what is wish.what)
        portion = Portion(tx.set_aside.keys(wish.what, tx.now_ms), limit=1, taken=wish.taken)
        found.append(Swept(tried_again=tried_again) + PARTS[wish.what](tx, portion))
    return found


def _next_due_ms(tx: Transaction) -> int | None:
    due = (next_due_ms(tx), next_fire_ms(tx), next_timer_ms(tx))
    return min((moment for moment in due if moment is not None and moment < NEVER_MS), default=None)
