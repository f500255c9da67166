"""The composition root: settings and an open store in, a running service out."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

import act
from act.api import events, export, forks, health, jobs, metrics, problems, proofs, schemas, stream
from act.config import Settings
from act.fanout.publisher import Fanout
from act.keys import Keys, memory_of
from act.ledger import Clock, Ledger, system_clock
from act.signer import Signer
from act.storage.store import Store
from act.tree_builder import keep_up
from act.web import pages
from hmskit.same_site import SameSiteOnly

DESCRIPTION = """
The flight log: an append-only ledger of every state change of jobs and tasks. It takes CloudEvents, keeps their bytes
as they were posted, once each and in the order of their stream, and shows them as rows, as a list or live. Errors are
`application/problem+json` (RFC 9457).
"""


def create_app(settings: Settings, store: Store, *, keys: Keys | None = None, clock: Clock = system_clock) -> FastAPI:
    """Return the ACT application on an open store. Its lifespan runs the writer; its end closes the store.

    Args:
        settings: as read.
        store: from `act.storage.store.open_store`.
        keys: sign checkpoints with them; None: this process signs nothing, and serves what others sign.
        clock: gives the events' time of receipt, microseconds since the epoch.

    Raises:
        UnavailableError: the store cannot be read.
    """
    ledger = Ledger(store, clock=clock, max_followers=settings.max_followers, poll_sec=settings.poll_sec)
    fanout = (
        None
        if settings.amqp_url is None
        else Fanout(settings.amqp_url, ledger, exchange=settings.amqp_exchange, holder=_own_name())
    )
    signer = (
        None
        if keys is None
        else Signer(ledger, keys, memory=memory_of(keys, settings.signer_state), holder=_own_name())
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await ledger.open()
        tasks = [asyncio.create_task(keep_up(ledger), name="tree")]
        tasks += [
            asyncio.create_task(part.run(), name=name)
            for name, part in (("fanout", fanout), ("signer", signer))
            if part
        ]
        try:
            yield
        finally:
            for task in tasks:  # before the ledger: they still save how far they came
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await ledger.close()

    app = FastAPIOffline(
        title="ACT, the flight log",
        version=act.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.ledger = ledger
    app.state.fanout = fanout
    app.state.signer = signer
    problems.install(app)
    routers = (events, stream, jobs, export, forks, proofs, health, metrics, pages)
    for router in (module.router for module in routers):
        app.include_router(router)
    app.add_middleware(
        SameSiteOnly,
        allowed_origins=settings.allowed_origins,
        changes_state=lambda method, _path: method not in ("GET", "HEAD", "OPTIONS"),
    )
    _describe(app)
    return app


def end_streams(app: FastAPI) -> None:
    """End every live stream: the service is about to stop."""
    app.state.ledger.followers.stop()


def _own_name() -> str:
    """Return a name that no other process has, and that says where it runs."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


def _describe(app: FastAPI) -> None:
    """Complete the OpenAPI document with the schemas that the calls refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas.COMPONENTS)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
