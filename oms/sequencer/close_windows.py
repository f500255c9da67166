"""A lane that closes: what waits there still waits for its next opening.

Nothing is handed out after the closing whatever happens here (the claim sees to that): this keeps ``available_at``
true, and takes the tasks out of what is ready, so that a pull does not step over them.
"""

from __future__ import annotations

from oms.sequencer.place import move_on
from oms.sequencer.swept import Portion, Swept
from oms.storage.jobs import lock_jobs
from oms.storage.transaction import Transaction
from oms.storage.windows import closed_tasks
from oms.storage.written_rows import Change

BATCH = 500


def close_windows(tx: Transaction, portion: Portion) -> Swept:
    """Move up to `BATCH` tasks on whose window is over.

    One whose lane is open again by now is ready at its old place.
    """
    limit = portion.at_most(BATCH)
    closed = closed_tasks(tx, limit=limit, without=portion.without)
    portion.taken += [task.job_id for task in closed]
    lock_jobs(tx, sorted({task.job_id for task in closed}))
    for task in closed:
        move_on(tx, tx.jobs[task.job_id], task)
        tx.task_changed(task, Change.PLACE)
        if task.ready:
            tx.woken[task.lane] += 1
    return Swept(more=len(closed) == limit)
