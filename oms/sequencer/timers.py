"""What is due in jobs: waits whose time is up, items that may begin, and news of jobs that are steps of others."""

from __future__ import annotations

from pydantic_core import from_json

from oms.domain.errors import ConflictError
from oms.domain.flow_start import CHILD_TIMER, MORE_TIMER, WAIT_TIMER
from oms.domain.task import FINISHED, Job, JobState
from oms.sequencer.advance import flow_of
from oms.sequencer.cancel import cancel_job
from oms.sequencer.ground import CANCEL_TIMER, Cause
from oms.sequencer.standing import is_over
from oms.sequencer.swept import Portion, Swept
from oms.storage.jobs import lock_named_jobs, peek_job, peek_outputs
from oms.storage.runs import runs_of
from oms.storage.timers import Timer, due_timers, take_timers
from oms.storage.transaction import Transaction

BATCH = 100
"""Each may begin many tasks."""
ACTOR = "oms"
NO_USE = "the job of which it is a step has no use for it any more"


def fire_timers(tx: Transaction, portion: Portion) -> Swept:
    """Do what up to `BATCH` timers are for. Of a job that others hold, they stay."""
    limit = portion.at_most(BATCH)
    due = due_timers(tx, limit=limit, without=portion.without)
    if not due:
        return Swept()
    portion.taken += [timer.job_id for timer in due]
    lock_named_jobs(tx, sorted({timer.job_id for timer in due}))
    ours = [timer for timer in due if timer.job_id not in tx.busy_jobs]
    take_timers(tx, ours)  # before they are fired, which may set them anew
    for timer in ours:
        job = tx.jobs.get(timer.job_id)
        if job is not None and not job.is_erased:
            _fire(tx, job, timer)
    return Swept(fired=len(ours), more=len(ours) == limit)


def _fire(tx: Transaction, job: Job, timer: Timer) -> None:
    flow = flow_of(tx, job, Cause("plan", ACTOR))
    match timer.kind:
        case _ if timer.kind == WAIT_TIMER:
            flow.time_is_up(timer.path)
        case _ if timer.kind == MORE_TIMER:
            flow.begin_more(timer.path)
        case _ if timer.kind == CHILD_TIMER:
            _hear_of_child(tx, job, timer.path)
        case _ if timer.kind == CANCEL_TIMER and job.state not in FINISHED and job.ending is None:
            cancel_job(tx, job, Cause("parent", ACTOR, NO_USE))


def _hear_of_child(tx: Transaction, job: Job, path: str) -> None:
    """Let a job take notice of one that is a step of it, as that stands now; every change of that sets a timer."""
    if is_over(job, path):
        return
    block = runs_of(tx).block(job.job_id, path)
    child = None if block is None or block.child_job is None else peek_job(tx, block.child_job)
    if child is None:
        return
    ended = child.state if child.state in FINISHED else None
    outputs = peek_outputs(tx, child) if ended is JobState.DONE else {}
    given = {name: from_json(output) for name, output in outputs.items()}
    try:
        flow_of(tx, job, Cause("plan", ACTOR)).child_news(path, child.job_id, ended=ended, output=given)
    except ConflictError:
        return  # the child runs again, but its parent has stopped for another reason, too: that is seen to first
