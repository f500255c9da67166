"""The running service, as the edge sees it: verbs go to the writer, read models to a reading connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from act.contract import format_time_ms
from oms.domain.errors import UnavailableError
from oms.sequencer.deliver import RelayHealth
from oms.sequencer.estimates import Estimates
from oms.sequencer.writer import Writer
from oms.storage.outbox import backlog, stopped
from oms.storage.store import Store

V = TypeVar("V")

MAX_SET_ASIDE_SHOWN = 20


class BrokerHealth(Protocol):
    """Whatever can say how a broker's connection goes."""

    @property
    def health(self) -> dict[str, Any]:
        """``ok``, ``error`` and ``since``."""


@dataclass(frozen=True, slots=True)
class Service:
    """What runs.

    Attributes:
        store: the database.
        writer: runs the verbs.
        relay: how the delivery to ACT goes.
        act_url: where ACT is.
        now_ms: the clock.
        estimates: tell when jobs will be done.
        broker: how the wake-ups between towers go; None where there are none.
    """

    store: Store
    writer: Writer
    relay: RelayHealth
    act_url: str
    now_ms: Callable[[], int]
    estimates: Estimates
    broker: BrokerHealth | None = None

    async def read(self, view: Callable[[Connection], V]) -> V:
        """Run a read model in a thread, on a connection that sees one moment.

        Raises:
            UnavailableError: the database cannot answer now.
        """

        def run() -> V:
            with self.store.reading() as connection:
                return view(connection)

        return await asyncio.to_thread(run)

    async def report(self) -> dict[str, Any]:
        """Return whether the service can work, and how the delivery to ACT goes; ``ready`` does not need ACT."""
        return await asyncio.to_thread(self._report)

    def _report(self) -> dict[str, Any]:
        fault = self.store.is_ready()
        if fault is None and not self.writer.is_alive:
            fault = "the writer has ended: restart the service"
        outbox: dict[str, Any] | None = None
        if fault is None:
            try:
                outbox = self._outbox()
            except UnavailableError as error:
                fault = error.detail
        return {
            "ready": fault is None,
            "database": {"ok": fault is None, "error": fault, "warning": self.store.warning},
            "act": {
                "ok": self.relay.act_error is None,
                "url": self.act_url,
                "error": self.relay.act_error,
                "failing_since": None
                if self.relay.failing_since_ms is None
                else format_time_ms(self.relay.failing_since_ms),
            },
            "relay": outbox,
            "rabbitmq": None if self.broker is None else self.broker.health,
            "waiting_pulls": self.writer.parked,
            "set_aside": self._set_aside(),
        }

    def _set_aside(self) -> dict[str, Any]:
        entries = self.store.set_aside.entries
        return {
            "count": len(entries),
            "items": [
                {
                    "what": entry.what,
                    "of": entry.of,
                    "tries": entry.tries,
                    "error": entry.error,
                    "since": format_time_ms(entry.since),
                    "again_at": format_time_ms(entry.again_at),
                }
                for entry in entries[:MAX_SET_ASIDE_SHOWN]
            ],
        }

    def _outbox(self) -> dict[str, Any]:
        with self.store.reading() as connection:
            pending, since_ms = backlog(connection)
            streams = stopped(connection)
        return {
            "pending": pending,
            "oldest_undelivered_sec": None if since_ms is None else max(0.0, (self.now_ms() - since_ms) / 1000),
            "active": self.relay.is_active,
            "delivered_since_start": self.relay.delivered,
            "stopped": [
                {
                    "stream": stream.stream,
                    "event_id": stream.event_id,
                    "code": stream.code,
                    "detail": stream.detail,
                    "since": format_time_ms(stream.since),
                }
                for stream in streams
            ],
        }
