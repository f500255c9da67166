"""Sign a checkpoint within a second of the ledger's growth, and never one that contradicts an earlier one.

What is signed was read back from the database just before, and hashed anew. What was signed is kept in the database,
and, before anybody can see it, in a file beside the key: a database that was restored from a backup has forgotten it,
and the file has not. Any contradiction stops the signing until somebody has looked and restarts ACT. It does not stop
the taking of events: an event that is refused is lost to the evidence for good.

Several ACT processes may run this: one signs while there is something to sign, the others remember what it signed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from act.contract import format_time_ms
from act.domain.checkpoint import Checkpoint, CheckpointError, sign_checkpoint
from act.domain.errors import ActError, LedgerDamagedError, UnavailableError
from act.domain.note import NoteError, read_note, verify_note
from act.domain.tree import Frontier
from act.files import write_whole
from act.keys import Keys
from act.ledger import Ledger
from act.readback import check_grown, read_back, signed_frontier
from act.storage.checkpoints import Signed, add_signed, claim_signing, is_signed, last_signed, leave_signing
from act.storage.entries import size_of
from act.storage.tree import frontier_of

EVERY_SEC = 0.75
"""The least time between two checkpoints; with reading back, a new one is there within a second of growth."""
STANDBY_SEC = 1.0
LEASE_SEC = 3.0
LEAVE_SEC = 2.0
PAGE = 2_000
"""How many entries are read back at once."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """The ledger and what is signed of it, at one moment.

    Attributes:
        size: of the ledger.
        frontier: of the stored tree; None where it cannot be read.
        signed: the last checkpoint.
        is_ours: this process's key has signed one of the tree's size.
    """

    size: int
    frontier: Frontier | None
    signed: Signed | None
    is_ours: bool


def state_of(tx: Connection, *, key: str) -> State:
    """Return how far the ledger is, and how far it is signed."""
    frontier = frontier_of(tx)
    return State(size_of(tx), frontier, last_signed(tx), frontier is not None and is_signed(tx, frontier.size, key=key))


class Signer:
    """Signs for as long as the service runs. Belongs to the event loop.

    Args:
        ledger: open.
        keys: the log's.
        memory: the file that keeps the last checkpoint; made when there is none.
        holder: this process, unlike every other one.
        steady: a clock for waiting, seconds.
    """

    def __init__(
        self, ledger: Ledger, keys: Keys, *, memory: Path, holder: str, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._key = str(keys.signing.verifier)
        self._memory = memory
        self._holder = holder
        self._steady = steady
        self._news = asyncio.Event()
        self._checked: Frontier | None = None
        self._remembered: Checkpoint | None = None
        self._last: Signed | None = None
        self._leased_until = 0.0
        self._error: str | None = None
        self._bad_index: int | None = None
        self._since = ""
        self._is_stopped = False
        self.checkpoints_signed = 0
        self.stops = 0

    @property
    def health(self) -> dict[str, Any]:
        """How it goes, for ``/readyz``.

        ``ok`` and ``error``; ``stopped``: it will not sign again before a restart, ``bad_index`` the first entry
        that this concerns, if known, and ``since`` when; ``size`` and ``signed_at`` of the last checkpoint;
        ``behind`` how many events no checkpoint covers yet; ``signs`` whether this process does so now;
        ``checkpoints_signed`` by it since its start.
        """
        size = None if self._last is None else self._last.size
        return {
            "ok": self._error is None,
            "error": self._error,
            "stopped": self._is_stopped,
            "bad_index": self._bad_index,
            "since": self._since or None,
            "log": self._keys.origin,
            "size": size,
            "signed_at": None if self._last is None else format_time_ms(self._last.signed_ms),
            "behind": max(0, self._ledger.size - (size or 0)),
            "signs": self._steady() < self._leased_until,
            "checkpoints_signed": self.checkpoints_signed,
        }

    async def run(self) -> None:
        """Sign, until something is wrong with the ledger; otherwise returns only by being cancelled."""
        self._ledger.followers.listen(self._news)
        try:
            while not self._is_stopped:
                self._news.clear()
                await self._try()
                await self._wait()
        finally:
            if self._steady() < self._leased_until:
                self._leased_until = 0.0
                with suppress(UnavailableError, TimeoutError):
                    async with asyncio.timeout(LEAVE_SEC):
                        await self._ledger.write(leave_signing, holder=self._holder)

    async def _wait(self) -> None:
        """Wait for growth, and long enough for a batch of it to come together."""
        spaced_at = self._steady() + EVERY_SEC
        with suppress(TimeoutError):
            async with asyncio.timeout(STANDBY_SEC):
                await self._news.wait()
        await asyncio.sleep(max(0.0, spaced_at - self._steady()))

    async def _try(self) -> None:
        try:
            await self._step()
        except LedgerDamagedError as error:
            self._stop(error)
        except ActError as error:
            self._note(error.detail)
        except OSError as error:
            self._note(f"the last checkpoint cannot be kept in {self._memory}: {error.strerror}")
        except Exception as error:
            log.exception("signing_failed")
            self._note(f"unexpected {type(error).__name__}; the log has the rest")
        else:
            self._error, self._since = None, ""

    async def _step(self) -> None:
        """Sign the tree as it is, if it has grown and no other process does.

        Raises:
            LedgerDamagedError: the database contradicts itself, or what was signed.
        """
        state = await self._ledger.read(state_of, key=self._key)
        if state.frontier is None:
            raise LedgerDamagedError("the row of the table tree is gone, or is none")
        if state.frontier.size > state.size:
            raise LedgerDamagedError(
                f"the tree has {state.frontier.size} entries, and the ledger {state.size}", index=state.size
            )
        if self._checked is None:
            self._checked = await self._begin(state)
        if state.signed is not None and state.signed != self._last:
            await self._take_over(state.signed, state.frontier)
        if self._last is not None and self._last.size == state.frontier.size and self._last.root != state.frontier.root:
            raise LedgerDamagedError(f"the stored tree of {state.frontier.size} entries is not the one that was signed")
        if state.is_ours or not await self._may_sign():
            return
        self._checked = await self._read_back(self._checked, state.frontier)
        await self._sign(self._checked)

    async def _begin(self, state: State) -> Frontier:
        """Return the frontier that is vouched for by what was signed; from there on entries are read back."""
        assert state.frontier is not None
        self._remembered = await asyncio.to_thread(self._recall)
        remembered, signed = self._remembered, state.signed
        if remembered is not None and remembered.size > state.size:
            raise LedgerDamagedError(
                f"a checkpoint of {remembered.size} entries was signed, and the ledger has {state.size}: "
                "it was put back to an older state",
                index=state.size,
            )
        if signed is None:
            return Frontier()
        self._open(signed.note)
        if remembered is not None and remembered.size <= signed.size:
            await self._ledger.read(check_grown, (remembered.size, remembered.root), (signed.size, signed.root))
        return await self._ledger.read(signed_frontier, signed.size, signed.root)

    async def _take_over(self, signed: Signed, frontier: Frontier) -> None:
        """Take note of a checkpoint that another process signed, or this one before it was restarted."""
        checkpoint = self._open(signed.note)
        if (checkpoint.size, checkpoint.root) != (signed.size, signed.root) or signed.size > frontier.size:
            raise LedgerDamagedError(f"the last checkpoint, of {signed.size} entries, is not one of this tree")
        if self._remembered is None or self._remembered.size < signed.size:
            await self._remember(checkpoint, signed.note)
        self._last = signed

    async def _may_sign(self) -> bool:
        """Become the signer, or stay it."""
        now = self._steady()
        if now < self._leased_until - LEASE_SEC / 2:
            return True
        is_mine = await self._ledger.write(claim_signing, holder=self._holder, lease_ms=round(LEASE_SEC * 1000))
        self._leased_until = now + LEASE_SEC if is_mine else 0.0
        return is_mine

    async def _read_back(self, base: Frontier, target: Frontier) -> Frontier:
        """Return the frontier of the target's size, computed anew; at each size that was signed it has that root."""
        signed = {one.size: one.root for one in (self._remembered, self._last) if one is not None}
        while base.size < target.size:
            stops = [size for size in signed if base.size < size]
            base = await self._ledger.read(read_back, base, end=min(base.size + PAGE, target.size, *stops))
            if base.root != signed.get(base.size, base.root):
                raise LedgerDamagedError(f"the first {base.size} entries are not those that were signed")
        if base.peaks != target.peaks:
            raise LedgerDamagedError(f"the stored tree of {base.size} entries is not the one of its entries")
        return base

    async def _sign(self, tree: Frontier) -> None:
        checkpoint = Checkpoint(self._keys.origin, tree.size, tree.root)
        note = sign_checkpoint(checkpoint, self._keys.signing).encoded()
        signed = Signed(tree.size, self._key, tree.root, self._ledger.now_ms(), note)
        await self._remember(checkpoint, note)
        now = self._steady()
        if await self._ledger.write(add_signed, signed, holder=self._holder, lease_ms=round(LEASE_SEC * 1000)):
            self._leased_until = now + LEASE_SEC
            self._last = signed
            self.checkpoints_signed += 1

    def _recall(self) -> Checkpoint | None:
        """Return the checkpoint in the file; None where there is none, or one of a log with another name.

        Raises:
            LedgerDamagedError: it holds something else.
        """
        try:
            note = self._memory.read_bytes()
        except FileNotFoundError:
            return None
        try:
            checkpoint = Checkpoint.parse(read_note(note).text)
            if checkpoint.origin != self._keys.origin:
                log.warning("another_logs_checkpoint", file=str(self._memory), log=checkpoint.origin)
                return None
            return self._open(note)
        except (NoteError, CheckpointError) as error:
            raise LedgerDamagedError(f"the file {self._memory}: {error}") from None

    async def _remember(self, checkpoint: Checkpoint, note: bytes) -> None:
        await asyncio.to_thread(write_whole, self._memory, note)
        self._remembered = checkpoint

    def _open(self, note: bytes) -> Checkpoint:
        """Return the checkpoint in a note that one of our keys signed.

        Raises:
            LedgerDamagedError: none of them did.
        """
        try:
            read = read_note(note)
            verify_note(read, self._keys.verifiers)
            return Checkpoint.parse(read.text)
        except (NoteError, CheckpointError) as error:
            raise LedgerDamagedError(
                f"the last checkpoint cannot be gone on from: {error}. Give this process the key file of the one that "
                "signed it"
            ) from None

    def _note(self, error: str) -> None:
        """Remember what keeps it from signing now; it is tried again."""
        if self._error is None:
            self._since = format_time_ms(self._ledger.now_ms())
            log.warning("signing_waits", why=error)
        self._error = error

    def _stop(self, error: LedgerDamagedError) -> None:
        self._is_stopped = True
        self.stops += 1
        self._error, self._bad_index = f"{error.detail}. Nothing is signed any more: docs/incident.md", error.index
        self._since = format_time_ms(self._ledger.now_ms())
        log.error("signing_stopped", why=error.detail, index=error.index)
