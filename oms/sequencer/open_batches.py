"""A lane's batch: at its time up to so many of the waiting tasks are ready, in the lane's order; the rest waits on.

A batch is worked through task by task: each is let in while there is room, or waits for the next batch. How far that
has come is in the database, so that it goes on after a crash, and at another tower. (A batch without a limit needs
none of this: its tasks are woken like all that wait for a moment.)
"""

from __future__ import annotations

from collections.abc import Iterable

from oms.sequencer.place import move_on
from oms.sequencer.swept import Portion, Swept
from oms.storage.batches import keep_batch, lanes_with_batches, lock_batch, newest_due_ms, ready_count, waiting_tasks
from oms.storage.jobs import lock_jobs
from oms.storage.set_aside import Due
from oms.storage.transaction import Transaction
from oms.storage.written_rows import Change

BATCH = 1_000
"""How many tasks one transaction looks at: as many as one pull can take."""


def open_batches(tx: Transaction, portion: Portion) -> Swept:
    """Look at up to `BATCH` tasks whose batch has come, in all lanes."""
    lanes = lanes_with_batches(tx)
    share = max(1, portion.at_most(BATCH) // max(1, len(lanes)))
    more = False
    for lane in lanes:
        more = open_batch(tx, lane, portion, limit=share) == share or more
        if len(portion.taken) == portion.limit:
            break
    return Swept(more=more)


def open_polled(tx: Transaction, lanes: Iterable[str]) -> None:
    """Open the batches that have come of lanes that somebody pulls from: a vendor calls at 03:00, not a second later.

    Of lanes without batches it costs nothing. Those of plans that only another tower has met so far, the sweep opens.
    """
    for lane in sorted(tx.plans.batch_lanes.intersection(lanes)):
        open_batch(tx, lane, Portion(tx.set_aside.keys(Due.BATCH, tx.now_ms)))


def open_batch(tx: Transaction, lane: str, portion: Portion, *, limit: int = BATCH) -> int:
    """Look at up to ``limit`` tasks of a lane whose batch has come; return how many there were."""
    newest_ms = newest_due_ms(tx, lane)
    if newest_ms is None:
        return 0
    batch = lock_batch(tx, lane)
    if batch is None:
        tx.contended.add(lane)  # another tower opens it at this moment: whoever pulls is to look again
        return 0
    if newest_ms > batch.opened_at:
        batch.opened_at = newest_ms
        batch.taken = ready_count(tx, lane)  # what nobody took since the last one counts
    waiting = waiting_tasks(tx, batch, limit=limit, without=portion.without)
    portion.taken += [task.job_id for task in waiting]
    lock_jobs(tx, sorted({task.job_id for task in waiting}))
    for task in waiting:
        assert task.batch_at is not None
        assert task.batch_max is not None
        if batch.taken < task.batch_max:
            batch.taken += 1
            task.available_at = task.batch_at
            task.batch_at = task.batch_max = None
            task.ready = True
            tx.woken[lane] += 1
        else:
            move_on(tx, tx.jobs[task.job_id], task)
        tx.task_changed(task, Change.PLACE)
    keep_batch(tx, batch)
    return len(waiting)
