"""Retention: finished jobs leave once ACT has all of their events, and so does the trace of workers and lanes.

A batch is small and one transaction: it comes between the workers' own calls, and holds none of them up for long. It
is safe to run from anywhere, any number of times, at several towers at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from oms.domain.errors import UnavailableError
from oms.sequencer.known_lanes import LANE_IS_ALIVE_SEC
from oms.sequencer.writer import Writer
from oms.storage.retention import (
    delete_jobs,
    delete_lane_events,
    finished_jobs,
    forget_lanes,
    forget_workers,
    undelivered_jobs,
)
from oms.storage.transaction import Transaction

log = structlog.get_logger(__name__)

BATCH_JOBS = 100
BATCH_EVENTS = 5_000
"""How many jobs one batch looks at, at most, and how many events these may have together; but always one job."""
DAY_SEC = 24 * 3600
WORKER_IS_KEPT_SEC = LANE_IS_ALIVE_SEC + DAY_SEC
"""A day longer than the lists and /reroute ask for."""
FORGET_BATCH = 500
ROUND_EVERY_SEC = 60.0
REST_PER_WORK = 1.0
"""How long the purge rests after each batch, as a part of how long that took: under load it takes no more than half of
the writer's time, and less the longer the writer's queue is."""
IDLE_REST_SEC = 1.0
"""How long it rests after a batch of which no job could leave."""


@dataclass(frozen=True, slots=True)
class Place:
    """Behind which job a batch begins, in the order in which jobs finished."""

    finished_at: int = 0
    job_id: int = 0


@dataclass(frozen=True, slots=True)
class Purge:
    """Let the next finished jobs leave. A round begins at the first place.

    Attributes:
        keep_ms: for how long after its last change a job is kept.
        after: where the batch before ended.
    """

    keep_ms: int
    after: Place = Place()


@dataclass(frozen=True, slots=True)
class Purged:
    """What a batch did.

    Attributes:
        jobs: how many left.
        more: where the next batch begins; None when there is nothing more to look at.
    """

    jobs: int
    more: Place | None


@dataclass(frozen=True, slots=True)
class PurgeLanes:
    """Let the next events leave that are of lanes, not of jobs; ``keep_ms``: for how long they are kept."""

    keep_ms: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget workers that nobody has seen for long, and lanes that hold nothing."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many there were."""

    workers: int
    lanes: int


def purge(tx: Transaction, wishes: Sequence[Purge]) -> list[Purged]:
    """Let up to `BATCH_JOBS` jobs leave that are finished for long enough, with all that belongs to them.

    A job stays while ACT lacks one of its events, while its stream is stopped, and while another call has it. Those
    that stay do not stand in the way of others: the next batch begins behind them.
    """
    return [_purge_once(tx, wish) for wish in wishes]


def _purge_once(tx: Transaction, wish: Purge) -> Purged:
    after = (wish.after.finished_at, wish.after.job_id)
    found = finished_jobs(tx, until_ms=tx.now_ms - wish.keep_ms, after=after, limit=BATCH_JOBS)
    looked_at = found[:1]
    events = sum(job.events for job in looked_at)
    for job in found[1:]:
        events += job.events
        if events > BATCH_EVENTS:
            break
        looked_at.append(job)
    # What this transaction has read before may have been changed by it, and not be written yet.
    free = [job.job_id for job in looked_at if job.is_finished and job.job_id not in tx.jobs]
    kept = undelivered_jobs(tx, free)
    leaving = [number for number in free if number not in kept]
    delete_jobs(tx, leaving)
    if len(looked_at) == len(found) < BATCH_JOBS:
        return Purged(jobs=len(leaving), more=None)
    return Purged(jobs=len(leaving), more=Place(looked_at[-1].finished_at, looked_at[-1].job_id))


def purge_lanes(tx: Transaction, wishes: Sequence[PurgeLanes]) -> list[int]:
    """Let up to `BATCH_EVENTS` events of lanes leave that ACT has; the answers say how many did. They are few."""
    return [delete_lane_events(tx, until_ms=tx.now_ms - wish.keep_ms, limit=BATCH_EVENTS) for wish in wishes]


def forget(tx: Transaction, wishes: Sequence[Forget]) -> list[Forgotten]:
    """Forget up to `FORGET_BATCH` workers not seen within `WORKER_IS_KEPT_SEC`, and as many lanes that hold nothing."""
    forgotten = Forgotten(
        workers=forget_workers(tx, until_ms=tx.now_ms - WORKER_IS_KEPT_SEC * 1000, limit=FORGET_BATCH),
        lanes=forget_lanes(tx, limit=FORGET_BATCH),
    )
    return [forgotten] * len(wishes)


async def purge_for_ever(writer: Writer, *, retention_days: float, interval_sec: float = ROUND_EVERY_SEC) -> None:
    """Let finished jobs leave, for as long as the service runs.

    Args:
        writer: runs the batches.
        retention_days: for how long a finished job is kept; 0: for ever.
        interval_sec: how long to rest after each round.
    """
    while True:
        try:
            await writer.run(forget, Forget())
            if retention_days:
                left = await purge_round(writer, keep_ms=round(retention_days * DAY_SEC * 1000))
                if left:
                    log.info("jobs_left", jobs=left, detail="finished for long; the ledger has them")
        except UnavailableError:
            pass  # the writer says so, and the next round comes
        except Exception:
            # A fault of ours must not end it for good: the database would grow silently.
            log.exception("purge_failed")
        await asyncio.sleep(interval_sec)


async def purge_round(writer: Writer, *, keep_ms: int) -> int:
    """Let every job leave that may, in small batches with rests; return how many left. Lanes' old events go, too.

    Raises:
        UnavailableError: the database cannot take it now.
    """
    left = 0
    place: Place | None = Place()
    clock = asyncio.get_running_loop().time
    while place is not None:
        began = clock()
        purged = await writer.run(purge, Purge(keep_ms, after=place))
        left += purged.jobs
        place = purged.more
        if place is not None:
            await asyncio.sleep((clock() - began) * REST_PER_WORK if purged.jobs else IDLE_REST_SEC)
    await writer.run_each(purge_lanes, [PurgeLanes(keep_ms)])  # what is more than a batch goes in the next round
    return left
