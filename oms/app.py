"""The composition root: settings in, a running service out."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

import oms
from act.client import LedgerClient
from hmskit.same_site import SameSiteOnly
from oms.api import control, health, jobs, lanes, plans, problems, tasks
from oms.config import Settings
from oms.domain.errors import UnavailableError
from oms.relay.loop import Relay
from oms.relay.wakes import Wakes
from oms.sequencer.estimates import Estimates
from oms.sequencer.learn import Completed, learn_for_ever
from oms.sequencer.neighbours import look_for_ever, unstick_for_ever
from oms.sequencer.plan_folder import reload_folder
from oms.sequencer.purge import purge_for_ever
from oms.sequencer.service import Service
from oms.sequencer.sweeper import sweep_for_ever
from oms.sequencer.writer import Writer
from oms.storage.store import Store

log = structlog.get_logger(__name__)

FLUSH_SEC = 1.0
"""How long a stop waits for ACT to take what is left; the outbox keeps the rest."""

DESCRIPTION = """
The tower: starts jobs from plans, hands their tasks to the workers that poll a lane, retries, reroutes, and posts
every state change to ACT, the flight log. Errors are `application/problem+json` (RFC 9457).
"""


def system_now_ms() -> int:
    """Return the time, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def create_app(
    settings: Settings,
    store: Store,
    *,
    ledger: LedgerClient | None = None,
    now_ms: Callable[[], int] | None = None,
) -> FastAPI:
    """Return the OMS application on an open store. Its lifespan runs the writer, the relay and the sweeper.

    Args:
        settings: as read.
        store: open; the lifespan closes it.
        ledger: ACT; by default the one at ``settings.act_url``.
        now_ms: the clock, milliseconds since the epoch; None: the system's here, and the database's for what all
            towers on it must agree on.
    """
    here_ms = now_ms or system_now_ms

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = ledger or LedgerClient(settings.act_url, timeout_sec=settings.act_timeout_sec)
        relay: Relay | None = None

        def wake_relay() -> None:
            if relay is not None:
                relay.wake()

        def wake_others(ready: Mapping[str, int]) -> None:
            if wakes is not None:
                wakes.publish(ready)

        completed = Completed()
        is_due = asyncio.Event()
        writer = Writer(
            store,
            now_ms=now_ms,
            on_recorded=wake_relay,
            on_ready=wake_others,
            on_due=is_due.set,
            on_completed=completed.add,
        )
        wakes = _wakes_of(settings, store, on_wake=writer.wake)
        writer.start()
        relay = Relay(store, writer, client, now_ms=here_ms)
        app.state.service = Service(
            store, writer, relay.health, settings.act_url, here_ms, Estimates(store.dialect, store.plans), wakes
        )
        report = await reload_folder(writer, settings.plans)
        log.info("plans_loaded", loaded=len(report["loaded"]), refused=len(report["refused"]))
        background = [
            asyncio.create_task(relay.run(), name="relay"),
            asyncio.create_task(
                sweep_for_ever(store, writer, interval_sec=settings.sweep_interval_sec, is_due=is_due), name="sweeper"
            ),
            asyncio.create_task(purge_for_ever(writer, retention_days=settings.retention_days), name="purge"),
            asyncio.create_task(learn_for_ever(store, writer, completed, now_ms=here_ms), name="learn"),
        ]
        if wakes is not None:
            background.append(asyncio.create_task(wakes.run(), name="wakes"))
        if store.is_shared:
            look = look_for_ever(store, writer, interval_sec=settings.look_interval_sec)
            background.append(asyncio.create_task(look, name="neighbours"))
            background.append(asyncio.create_task(unstick_for_ever(store), name="unstick"))
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            writer.end_waits()
            await relay.flush(limit_sec=FLUSH_SEC)
            await writer.stop()
            await client.close()
            store.close()

    app = FastAPIOffline(
        title="OMS, the tower",
        version=oms.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.settings = settings
    problems.install(app)
    for router in (jobs.router, control.router, tasks.router, lanes.router, plans.router, health.router):
        app.include_router(router)
    app.add_middleware(
        SameSiteOnly,
        allowed_origins=settings.allowed_origins,
        # A pull is a GET that leases: no page elsewhere may take work through a clerk's browser.
        changes_state=lambda method, path: method not in ("GET", "HEAD", "OPTIONS") or path == "/pull",
    )
    return app


def end_waits(app: FastAPI) -> None:
    """Answer every long poll with nothing: the service is about to stop."""
    with suppress(AttributeError):  # the stop may come before the start was through
        app.state.service.writer.end_waits()


def reload_soon(app: FastAPI) -> None:
    """Read the plan folder again, in the background; called in the loop on SIGHUP."""

    async def reload() -> None:
        try:
            report = await reload_folder(app.state.service.writer, app.state.settings.plans)
        except UnavailableError as error:
            log.error("reload_failed", detail=error.detail)  # noqa: TRY400 - the sentence says it all
        else:
            log.info("plans_loaded", loaded=len(report["loaded"]), refused=len(report["refused"]))

    # The app keeps the task: the loop itself holds only a weak reference, and could drop it half-way.
    app.state.reloading = asyncio.ensure_future(reload())


def _wakes_of(settings: Settings, store: Store, *, on_wake: Callable[[Mapping[str, int]], None]) -> Wakes | None:
    """Return the wake-ups between the towers on one database; None without a broker."""
    if settings.amqp_url is None:
        return None
    # Two sites may share a broker; two towers of one site name the same database.
    place = f"{store.url.host}:{store.url.port}/{store.url.database}"
    site = hashlib.sha256(place.encode()).hexdigest()[:16]
    return Wakes(settings.amqp_url, site=site, tower=secrets.token_hex(8), on_wake=on_wake)
