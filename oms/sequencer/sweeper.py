"""The sweeper: does what is due by the clock, for as long as the service runs.

What is due is done in batches. Where one fails by a fault of ours, each thing in it is done in a transaction of its
own, as the writer does with commands: what fails there is left alone for a while (`oms.storage.set_aside`).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import structlog

from oms.domain.errors import UnavailableError
from oms.sequencer.sweep import PARTS, Sweep, SweepOne, sweep, sweep_one
from oms.sequencer.swept import Swept
from oms.sequencer.writer import Writer
from oms.storage.set_aside import Due, SetAside
from oms.storage.store import Store

log = structlog.get_logger(__name__)

CLOCK_JUMP_SEC = 5.0
MAX_ONE_BY_ONE = 500
"""So many things of a kind are done one by one before the other kinds have their turn."""


async def sweep_for_ever(store: Store, writer: Writer, *, interval_sec: float, is_due: asyncio.Event) -> None:
    """Look for what is due, for as long as the service runs; at once where a job says that something is."""
    clock = asyncio.get_running_loop().time
    wall, steady = time.time(), time.monotonic()
    while True:
        try:
            began = clock()
            swept = await sweep_all(writer, store.set_aside)
            _tell_swept(swept)
            if swept.more:
                await asyncio.sleep(clock() - began)  # the workers' calls come between all the same
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(is_due.wait(), interval_sec)
                is_due.clear()
        except UnavailableError:
            await asyncio.sleep(max(interval_sec, 1.0))
        except Exception:
            # A fault of ours must not end the sweeping for good: without it work would be stuck silently.
            log.exception("sweep_failed")
            await asyncio.sleep(max(interval_sec, 1.0))
        wall, steady = _watch_clock(wall, steady)


async def sweep_all(writer: Writer, set_aside: SetAside) -> Swept:
    """Do what is due, in one transaction; where that fails, one by one.

    Raises:
        UnavailableError: the database cannot take it now.
        Exception: it fails, and nothing of it does alone.
    """
    try:
        (swept,) = await writer.run_each(sweep, [Sweep()], is_logged=False)
    except UnavailableError:
        raise
    except Exception:
        swept, failed = Swept(), 0
        for what in PARTS:
            found, failed_of_kind = await _one_by_one(writer, set_aside, what)
            swept, failed = swept + found, failed + failed_of_kind
        if not failed:
            raise
    else:
        if not swept.more:  # else they may not have had their turn
            set_aside.drop(swept.tried_again)
    return swept


async def _one_by_one(writer: Writer, set_aside: SetAside, what: Due) -> tuple[Swept, int]:
    """Do what is due of a kind, each in a transaction of its own; return what was found, and how many failed."""
    swept, failed = Swept(), 0
    for _ in range(MAX_ONE_BY_ONE):
        wish = SweepOne(what)
        try:
            (found,) = await writer.run_each(sweep_one, [wish], is_logged=False)
        except UnavailableError:
            raise
        except Exception as error:
            if not wish.taken:
                log.exception("sweep_failed", what=what)
                return swept, failed + 1
            failed += 1
            entry = set_aside.add(what, wish.taken[0], error, wish.now_ms)
            again_in_sec = (entry.again_at - wish.now_ms) / 1000
            log.exception("set_aside", what=what, of=entry.of, tries=entry.tries, again_in_sec=again_in_sec)
            continue
        swept += found
        if not found.more:
            set_aside.drop(found.tried_again)
            return replace(swept, more=False), failed
    return swept, failed


def _tell_swept(swept: Swept) -> None:
    if swept.expired:
        log.warning("leases_expired", attempts=swept.expired)
    if swept.stalled:
        log.warning("tasks_stalled", tasks=swept.stalled, detail="GET /tasks?stalled=true lists them")
    for fired in swept.schedules:
        told = {"plan": fired.plan, "reference": fired.reference, "at": fired.fire_at}
        if fired.refused is None:
            log.info("schedule_fired", **told)
        else:
            log.error("schedule_refused", **told, detail=fired.refused)


def _watch_clock(wall: float, steady: float) -> tuple[float, float]:
    """Log a jump of the wall clock: leases and backoffs run by it, so that they end earlier or later than meant."""
    wall_now, steady_now = time.time(), time.monotonic()
    jump_sec = (wall_now - wall) - (steady_now - steady)
    if abs(jump_sec) > CLOCK_JUMP_SEC:
        log.warning(
            "clock_jumped",
            by_sec=round(jump_sec, 1),
            detail="leases and retries that were due in between are due now, or as much later; nothing is lost",
        )
    return wall_now, steady_now
