"""Other towers on the same database: what they made ready is handed out here, too."""

from __future__ import annotations

import asyncio

import structlog

from oms.domain.errors import UnavailableError
from oms.sequencer.admission import without_held_back
from oms.sequencer.writer import Writer
from oms.storage.store import Store
from oms.storage.tasks import ready_tasks

log = structlog.get_logger(__name__)

MAX_COUNTED = 1_000
UNSTICK_EVERY_SEC = 5.0
MAX_PAUSE_SEC = 2.0
"""How long the look pauses at most while the database is away."""


async def look_for_ever(store: Store, writer: Writer, *, interval_sec: float) -> None:
    """Look every ``interval_sec`` whether tasks are ready in the lanes that pulls wait for, and wake those.

    A wake-up that another tower sends is faster, and may be lost: this look is what bounds a pull's wait. It costs one
    read along an index, and nothing while nobody waits. What a lane holds back wakes nobody.
    """
    pause_sec = interval_sec
    while True:
        await asyncio.sleep(pause_sec)
        lanes = writer.waited_for
        if not lanes:
            continue
        try:
            ready = await asyncio.to_thread(_ready, store, lanes)
        except UnavailableError:
            pause_sec = min(MAX_PAUSE_SEC, pause_sec * 2)
            continue
        except Exception:
            # A fault of ours must not end the look for good: waiting pulls would be served late, and nobody would know.
            log.exception("look_failed")
            pause_sec = MAX_PAUSE_SEC
            continue
        pause_sec = interval_sec
        if ready:
            writer.wake(ready)


def _ready(store: Store, lanes: list[str]) -> dict[str, int]:
    with store.reading() as connection:
        ready = ready_tasks(connection, store.dialect, lanes, limit=MAX_COUNTED)
        if not ready:
            return {}
        return without_held_back(connection, store.dialect, ready, now_ms=store.dialect.now_ms(connection))


async def unstick_for_ever(store: Store, *, interval_sec: float = UNSTICK_EVERY_SEC) -> None:
    """End, every ``interval_sec``, the sessions of towers that stand still and hold jobs."""
    while True:
        await asyncio.sleep(interval_sec)
        try:
            ended = await asyncio.to_thread(_end_stuck, store)
        except UnavailableError:
            continue
        except Exception:
            log.exception("unstick_failed")
            continue
        if ended:
            log.warning("stuck_sessions_ended", sessions=ended, detail="an OMS stands still with jobs in its hands")


def _end_stuck(store: Store) -> int:
    with store.reading() as connection:
        return store.dialect.end_stuck(connection)
