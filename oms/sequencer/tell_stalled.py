"""Tasks that have been queued for longer than their lane allows: told once, and moved to its backup if it says so."""

from __future__ import annotations

from oms.domain.plan import OnStall
from oms.domain.task import Job, Task
from oms.sequencer.backup import OMS, backup_of, go_to_backup
from oms.sequencer.events import record_task
from oms.sequencer.lanes import calendar_of, declaring_plan
from oms.sequencer.place import clock_of
from oms.sequencer.swept import Portion, Swept
from oms.storage.jobs import lock_jobs
from oms.storage.lane_pauses import paused_lanes, pauses_of
from oms.storage.stalls import stalled_tasks, stalling_lanes
from oms.storage.transaction import Transaction
from oms.storage.written_rows import Change

BATCH = 500


def tell_stalled(tx: Transaction, portion: Portion) -> Swept:
    """Look at up to `BATCH` tasks that may have stalled.

    A paused lane is not open: nothing stalls in it. After the pause each task is looked at once more and gets the time
    that it has left.
    """
    due = [lane for lane, first_ms in stalling_lanes(tx) if first_ms <= tx.now_ms]
    if due:
        paused = paused_lanes(tx, due)
        due = [lane for lane in due if lane not in paused]
    share = max(1, portion.at_most(BATCH) // max(1, len(due)))
    stalled, more = 0, False
    for lane in due:
        tasks = stalled_tasks(tx, lane, limit=share, without=portion.without)
        portion.taken += [task.job_id for task in tasks]
        more = more or len(tasks) == share
        lock_jobs(tx, sorted({task.job_id for task in tasks}))
        stalled += sum(_tell(tx, tx.jobs[task.job_id], task) for task in tasks)
        if len(portion.taken) == portion.limit:
            break
    return Swept(stalled=stalled, more=more)


def _tell(tx: Transaction, job: Job, task: Task) -> bool:
    """Record that a task has stalled; where it has not, because its lane was paused, set when it will have."""
    assert task.stalls_at is not None
    assert task.stall_from is not None
    plan = declaring_plan(tx, job, task.lane)
    lane = None if plan is None else plan.lane(task.lane)
    tx.task_changed(task, Change.STATE)
    if plan is None or lane is None or lane.stall_after_sec is None:  # the plan in force that said so says so no more
        task.stalls_at = task.stall_from = None
        return False
    clock = clock_of(lane, calendar_of(plan, lane))
    left_ms = clock.left_ms(task.stall_from, task.stalls_at, tx.now_ms, pauses_of(tx, task.lane))
    if left_ms > 0:
        task.stall_from, task.stalls_at = tx.now_ms, clock.ends_at_ms(tx.now_ms, left_ms)
        return False
    task.stalls_at = task.stall_from = None
    task.stalled_at = tx.now_ms
    queued_sec = lane.stall_after_sec - left_ms // 1000
    record_task(tx, job, task, "stalled", actor=OMS, detail={"lane": task.lane, "queued_sec": queued_sec})
    backup = backup_of(tx, job, task) if lane.on_stall is OnStall.REROUTE else None
    if backup is not None:
        go_to_backup(tx, job, task, backup, reason="stalled")
    return True
