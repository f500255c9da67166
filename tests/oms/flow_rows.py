"""What a database holds of a job, put into a `tests.oms.flow_world.World`, which checks what must hold in between."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from sqlalchemy import Connection, select

from act.contract import EVENT, MAX_EVENT_BYTES
from act.domain.entry import Entry
from act.domain.fold import JobFold
from act.domain.posted import facts_of
from oms.domain import paths
from oms.domain.run import Ending, RunState
from oms.domain.task import FINISHED, Job, JobState, Task
from oms.storage.jobs import job_of_row
from oms.storage.runs import block_of_row, branch_of_row
from oms.storage.store import Store
from oms.storage.tables import blocks, branches, jobs, lane_counts, outbox, tasks, timers
from oms.storage.tasks import task_of_row
from tests.oms.flow_world import CANCEL_TIMER, LIVE, Alarm, Child, World, WorldTask


def world_of(connection: Connection, store: Store, number: int) -> World:
    """Return a job as its rows have it."""
    job = job_of_row(connection.execute(select(jobs).where(jobs.c.job_id == number)).one())
    world = World(store.plans.get(connection, job.plan, job.plan_version))
    world.state = job.state
    sequence = world.branch("")
    assert sequence is not None
    sequence.position = job.position
    if job.ending is not None:
        world.how = Ending(JobState(json.loads(job.ending)["state"]))
    for row in connection.execute(select(tasks).where(tasks.c.job_id == number).order_by(tasks.c.task_id)):
        task = task_of_row(row)
        world.tasks[task.task_id] = WorldTask(
            task.task_id,
            task.branch,
            task.scope,
            world.plan.steps[task.position],
            status=task.status.value,
            superseded=bool(task.superseded),
        )
    for row in connection.execute(select(branches).where(branches.c.job_id == number)):
        branch = branch_of_row(row)
        if branch.block == paths.UNDO:
            assert branch.state is RunState.WAITING, branch
            assert world.how is not None, branch
            assert world.state not in FINISHED, branch
            continue
        world.branches[branch.path] = branch
    for row in connection.execute(select(blocks).where(blocks.c.job_id == number)):
        block = block_of_row(row)
        world.blocks[block.path] = block
    for row in connection.execute(select(timers).where(timers.c.job_id == number)):
        world.alarms[row.id] = Alarm(row.id, row.due_at, row.path, row.kind)
    for row in connection.execute(select(jobs).where(jobs.c.parent_job == number)):
        child = job_of_row(row)
        block_there = world.blocks.get(child.parent_path or "")
        is_orphan = block_there is None or block_there.child_job != child.job_id
        # What else it may be, it is on its way to an end, or back: to its parent it runs.
        state = child.state if child.state in FINISHED else JobState.RUNNING
        world.children[child.job_id] = Child(child.job_id, child.parent_path or "", state, is_orphan)
        for timer in connection.execute(
            select(timers).where(timers.c.job_id == child.job_id, timers.c.kind == CANCEL_TIMER)
        ):
            world.alarms[timer.id] = Alarm(timer.id, timer.due_at, str(child.job_id), CANCEL_TIMER)
    return world


def check_jobs(store: Store) -> None:
    """Check every job: its rows among each other, with its events, and the lanes' counts with the tasks.

    Raises:
        AssertionError: something does not fit.
    """
    with store.reading() as connection:
        folds = _folds(connection)
        there = list(map(job_of_row, connection.execute(select(jobs).order_by(jobs.c.job_id))))
        assert {job.name for job in there} == folds.keys()
        held: dict[int, list[Task]] = defaultdict(list)
        for row in connection.execute(select(tasks).order_by(tasks.c.task_id)):
            held[row.job_id].append(task_of_row(row))
        for job in there:
            world_of(connection, store, job.job_id).check()
            _check_fold(folds[job.name], job, held[job.job_id])
            _check_places(job, held[job.job_id])
        _check_counts(connection, [task for of_job in held.values() for task in of_job])


def _folds(connection: Connection) -> dict[str, JobFold]:
    """Return what the outbox's events add up to; each must be one that the ledger takes, in its turn."""
    folds: dict[str, JobFold] = {}
    for row in connection.execute(select(outbox).order_by(outbox.c.id)):
        assert len(row.body) <= MAX_EVENT_BYTES
        entry = Entry(row.id, 0, **facts_of(EVENT.validate_json(row.body)))
        fold = folds.setdefault(row.stream, JobFold(row.stream))
        assert entry.seq == fold.seq + 1, f"{entry.event_id} comes after number {fold.seq}"
        fold.take([entry])
    return folds


def _check_fold(fold: JobFold, job: Job, its_tasks: list[Task]) -> None:
    said = fold.body()
    assert (said["state"], said["seq"]) == (job.state, job.seq), job.name
    keys = ("task_id", "activity", "lane", "status", "attempt")
    in_rows = {(task.name, task.activity, task.lane, task.status.value, task.attempt) for task in its_tasks}
    assert {tuple(task[key] for key in keys) for task in said["tasks"]} == in_rows, job.name


def _check_places(job: Job, its_tasks: list[Task]) -> None:
    """Check that what is queued in a paused job is held, and nothing else; and that a job that is over has nothing."""
    assert (job.paused_at is not None) == (job.state is JobState.PAUSED), job
    for task in its_tasks:
        if task.status in LIVE:
            is_held = task.status == "queued" and job.state is JobState.PAUSED
            assert (task.held_available_at is not None) == is_held, task
            assert not (is_held and task.ready), task
            assert job.state is not JobState.QUEUED or task.attempt == 0, task


def _check_counts(connection: Connection, all_tasks: list[Task]) -> None:
    """Check that the lanes' counts are what their lists hold."""
    counted: Counter[tuple[str, str]] = Counter()
    for row in connection.execute(select(lane_counts)):
        counted[row.lane, "queued"] += row.queued
        counted[row.lane, "running"] += row.running
    listed = Counter((task.lane, task.status.value) for task in all_tasks if task.status in LIVE)
    assert {key: count for key, count in counted.items() if count} == listed
