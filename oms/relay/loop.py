"""Post what ACT does not have, until it has it; nothing here can block or slow a verb.

The relay remembers no position: what is undelivered is read again each time (design rule 4). It may die between
ACT's answer and its mark, be paused, or run twice: ACT appends an event once and checks each stream's order, so
the worst is a batch of duplicates. Of several towers one sends at a time, which is for efficiency only.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable

import structlog

from act.client import (
    LedgerClient,
    LedgerError,
    LedgerGapError,
    LedgerRefusedError,
    LedgerTooLargeError,
    LedgerUnavailableError,
)
from act.contract import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Receipt
from oms.domain.errors import UnavailableError
from oms.sequencer.deliver import (
    Delivered,
    HoldRelay,
    RelayHealth,
    ResumeStreams,
    Rewind,
    StopStream,
    deliver,
    hold_relay,
    resume,
    rewind_streams,
    stop_streams,
)
from oms.sequencer.writer import Writer
from oms.storage.outbox import Pending, pending_events
from oms.storage.store import Store

log = structlog.get_logger(__name__)

FIRST_BACKOFF_SEC = 0.05
MAX_BACKOFF_SEC = 5.0
"""A probe every few seconds costs ACT nothing, and the ledger is current soon after it is back."""
GATHER_BELOW_EVENTS = 400
GATHER_SEC = 0.04
"""After a small batch the relay waits for more: a round of its own for every few commits would cost both services more
than the work that it tells of."""
IDLE_POLL_SEC = 1.0
"""A net below the wake-ups."""
SHARED_POLL_SEC = 0.1
"""How often what other towers recorded is looked for."""
LEASE_SEC = 6.0
"""After so long without a sign of life of the tower that sends, another does."""
RENEW_SEC = 2.0
PROBE_EVERY_SEC = 2.0
"""How often an idle relay asks whether ACT is there, so that /readyz knows before the next event does."""
RESUME_EVERY_SEC = 600.0
"""How often stopped streams are tried again: what stopped them may have been mended on ACT's side."""


class Relay:
    """Sends the outbox to ACT for as long as the service runs.

    Args:
        store: where the outbox is read.
        writer: runs the marks: it owns the write connection.
        ledger: ACT.
        now_ms: the clock.
        random_unit: from 0 to below 1, for the backoff's jitter.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        ledger: LedgerClient,
        *,
        now_ms: Callable[[], int],
        random_unit: Callable[[], float] = random.random,
    ) -> None:
        self.health = RelayHealth()
        self._store = store
        self._writer = writer
        self._ledger = ledger
        self._now_ms = now_ms
        self._random_unit = random_unit
        self._news = asyncio.Event()
        self._failures = 0
        self._contact = float("-inf")
        self._sent = MAX_BATCH_EVENTS
        self._limit = MAX_BATCH_EVENTS
        self._tower = secrets.token_hex(8)
        self._marking: asyncio.Task[None] | None = None
        self._being_marked: set[int] = set()
        self._renew_at = float("-inf")
        self._poll_sec = SHARED_POLL_SEC if store.is_shared else IDLE_POLL_SEC

    def wake(self) -> None:
        """Say that there is something to send. Called in the loop."""
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        resume_at = time.monotonic()
        while True:
            try:
                if time.monotonic() >= resume_at and await self._is_active():
                    await self._resume_stopped()
                    resume_at = time.monotonic() + RESUME_EVERY_SEC
                self._news.clear()
                if not await self._is_active():
                    await self._probe()
                    await asyncio.sleep(RENEW_SEC)
                elif not await self.send_once():
                    await self._probe()
                    await self._wait_for_news(self._poll_sec)
                elif self._sent < GATHER_BELOW_EVENTS:
                    await asyncio.sleep(GATHER_SEC)
            except (LedgerUnavailableError, UnavailableError) as error:
                await self._back_off(error)
            except Exception as error:
                # A fault of ours must not end the delivery for good.
                log.exception("relay_failed")
                await self._back_off(error)

    async def flush(self, *, limit_sec: float) -> None:
        """Send what is left, for so long at most; what does not get through is sent after the next start."""
        try:
            async with asyncio.timeout(limit_sec):
                while await self._is_active() and await self.send_once():
                    pass
                await self._marked()
                if self._store.is_shared:
                    await self._writer.run_each(hold_relay, [HoldRelay(self._tower, for_ms=0)])
        except (TimeoutError, LedgerUnavailableError, UnavailableError):
            pass

    async def _is_active(self) -> bool:
        """Tell whether this tower is the one that sends; a tower that has the database alone always is."""
        if self._store.is_shared and time.monotonic() >= self._renew_at:
            for_ms = int(LEASE_SEC * 1000)
            (active,) = await self._writer.run_each(hold_relay, [HoldRelay(self._tower, for_ms=for_ms)])
            if active != self.health.is_active:
                log.info("relay_taken_over" if active else "relay_stands_by")
            self.health.is_active = active
            self._renew_at = time.monotonic() + (RENEW_SEC if active else 0.0)
        return self.health.is_active

    async def send_once(self) -> bool:
        """Send one batch; False where there was nothing to send.

        Raises:
            LedgerUnavailableError: ACT does not take it now.
            UnavailableError: our own database does not answer now.
        """
        batch = await asyncio.to_thread(self._read)
        if not batch:
            await self._marked()
            return False
        try:
            receipts = await self._ledger.append([event.body for event in batch])
        except LedgerError as error:
            await self._marked()  # a mark that came after what is done now would undo it
            await self._not_taken(batch, error)
        else:
            await self._marked()
            self._marking = asyncio.create_task(self._mark(batch, receipts))
            self._being_marked = {event.id for event in batch}
            self._limit = MAX_BATCH_EVENTS
            self._sent = len(batch)
            self._succeeded()
        return True

    async def _mark(self, batch: list[Pending], receipts: list[Receipt]) -> None:
        await self._writer.run_each(deliver, [Delivered(list(zip(batch, receipts, strict=True)))])
        self.health.delivered += len(batch)

    async def _marked(self) -> None:
        """Wait until the batch that ACT took last is marked, which goes on while the next one is sent.

        Raises:
            UnavailableError: it could not be marked, and will be sent again.
        """
        marking, self._marking = self._marking, None
        try:
            if marking is not None:
                await marking
        finally:
            self._being_marked = set()

    def _read(self) -> list[Pending]:
        """Return the next batch, no larger than ACT takes."""
        skipped = self._being_marked
        with self._store.reading() as connection:
            events = pending_events(connection, limit=self._limit + len(skipped))
        events = [event for event in events if event.id not in skipped][: self._limit]
        size_bytes = 2
        for place, event in enumerate(events):
            size_bytes += len(event.body) + 1
            if size_bytes > MAX_BATCH_BYTES and place:
                return events[:place]
        return events

    async def _not_taken(self, batch: list[Pending], error: LedgerError) -> None:
        """Do what lets the next batch get through.

        Raises:
            LedgerUnavailableError: only time can.
        """
        match error:
            case LedgerTooLargeError():
                await self._shrink(batch, error)
            case LedgerGapError():
                await self._mend_gap(batch, error)
            case LedgerRefusedError():
                await self._refused(batch, error)
            case _:
                raise error

    async def _shrink(self, batch: list[Pending], error: LedgerTooLargeError) -> None:
        if len(batch) == 1:
            await self._stop(batch[0], code="too-large", detail=str(error))
        else:
            self._limit = len(batch) // 2

    async def _mend_gap(self, batch: list[Pending], error: LedgerGapError) -> None:
        """Send a stream again from where ACT lacks it: ACT lost what it had acknowledged, say to an old back-up."""
        event = next((event for event in batch if f"{event.stream}.{event.seq}" == error.event_id), batch[0])
        log.error(
            "ledger_lost_events",
            stream=event.stream,
            expected_seq=error.expected_seq,
            detail="ACT no longer has events that it had acknowledged; they are sent again",
        )
        (kept,) = await self._writer.run_each(rewind_streams, [Rewind(event.stream, error.expected_seq)])
        if not kept or error.expected_seq >= event.seq:
            await self._stop(event, code="gap", detail=str(error))

    async def _refused(self, batch: list[Pending], error: LedgerRefusedError) -> None:
        event = next((event for event in batch if f"{event.stream}.{event.seq}" == error.event_id), None)
        if event is None and len(batch) == 1:
            event = batch[0]
        if event is None:
            self._limit = len(batch) // 2  # ACT could not say which: halve until it is alone
        else:
            await self._stop(event, code=error.code, detail=str(error))

    async def _stop(self, event: Pending, *, code: str, detail: str) -> None:
        event_id = f"{event.stream}.{event.seq}"
        log.error("stream_stopped", stream=event.stream, event_id=event_id, code=code, detail=detail)
        await self._writer.run_each(stop_streams, [StopStream(event.stream, event_id, code, detail)])
        self._limit = MAX_BATCH_EVENTS

    async def _resume_stopped(self) -> None:
        (streams,) = await self._writer.run_each(resume, [ResumeStreams()])
        if streams:
            log.info("stopped_streams_tried_again", streams=streams)

    async def _probe(self) -> None:
        if time.monotonic() - self._contact >= PROBE_EVERY_SEC:
            await self._ledger.ping()
            self._succeeded()

    def _succeeded(self) -> None:
        if self.health.failing_since_ms is not None:
            log.info("ledger_is_back", was=self.health.act_error)
        self._contact = time.monotonic()
        self._failures = 0
        self.health.act_error = None
        self.health.failing_since_ms = None

    async def _back_off(self, error: Exception) -> None:
        """Wait with full jitter, for ever if need be: an outage ends when it ends."""
        if not isinstance(error, UnavailableError):  # that is our own database, and no fault of ACT's
            if self.health.failing_since_ms is None:
                log.warning("ledger_unavailable", detail=str(error))
                self.health.failing_since_ms = self._now_ms()
            self.health.act_error = str(error)
        ceiling_sec = min(MAX_BACKOFF_SEC, FIRST_BACKOFF_SEC * 2 ** min(self._failures, 16))
        self._failures += 1
        asked_sec = getattr(error, "retry_after_sec", None) or 0.0
        await asyncio.sleep(min(MAX_BACKOFF_SEC, max(asked_sec, ceiling_sec * self._random_unit())))

    async def _wait_for_news(self, limit_sec: float) -> None:
        try:
            async with asyncio.timeout(limit_sec):
                await self._news.wait()
        except TimeoutError:
            pass
