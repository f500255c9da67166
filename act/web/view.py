"""What the auditor's pages show, read from one moment of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection

from act import proofs
from act.contract import ENTRY_PREFIX, event_bytes, format_time_ms, leaf_hash
from act.domain.entry import Entry
from act.domain.errors import NotFoundError, UnavailableError
from act.domain.filters import Filters
from act.domain.tlog_proof import TlogProof
from act.ledger import last_index, start, stream
from act.storage.checkpoints import Signed, last_signed, recent_signed, stored_entries
from act.storage.forks import Fork, newest_forks

ROWS = 50
"""How many of a job's events one page lists."""

NEWEST = 10
"""How many of the newest entries, checkpoints and forks are listed."""

# What is shown of an entry, and where its event says so. The browser compares each with the bytes that it has proven.
_FACTS = (
    ("Time of the event", "time"),
    ("Type", "type"),
    ("Job", "data.job_id"),
    ("Plan", "data.plan"),
    ("Version of the plan", "data.plan_version"),
    ("Reference", "data.reference"),
    ("Task", "data.task_id"),
    ("Activity", "data.activity"),
    ("Lane", "data.lane"),
    ("Status", "data.status"),
    ("Attempt", "data.attempt"),
    ("Worker", "data.worker"),
    ("Actor", "data.actor"),
    ("Event", "id"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """Where the ledger stands.

    Attributes:
        size: how many entries it has now.
        checkpoints: the newest, newest first; the first covers what can be proven.
        forks: the newest events that were refused as forks, newest first.
    """

    size: int
    checkpoints: Sequence[Signed]
    forks: Sequence[Fork]

    @property
    def signed(self) -> Signed | None:
        """The newest checkpoint; None where none has been signed yet."""
        return self.checkpoints[0] if self.checkpoints else None


@dataclass(frozen=True, slots=True)
class Rows:
    """Some entries.

    Attributes:
        entries: in the order in which they are shown.
        more_after: the job's ``seq`` that the next page comes after; None where there is none.
    """

    entries: Sequence[Entry]
    more_after: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One entry, as its own bytes tell it: a column that somebody edited is not shown.

    Attributes:
        leaf: the hash of its bytes, computed now.
        received: ACT's time of receipt, as text; None where the bytes do not say.
        facts: label, where the event says it, and what.
        raw: the event as it was posted.
        proof: of the newest checkpoint; None where there is none.
        why_no_proof: a sentence.
        is_damaged: it cannot be proven although it should be.
        signed: the newest checkpoint.
    """

    index: int
    last: int
    job: str | None
    leaf: bytes
    received: str | None
    facts: Sequence[tuple[str, str, str]]
    raw: str
    proof: TlogProof | None
    why_no_proof: str
    is_damaged: bool
    signed: Signed | None


def head(tx: Connection) -> Head:
    """Return where the ledger stands."""
    return Head(last_index(tx) + 1, recent_signed(tx, NEWEST), newest_forks(tx, NEWEST))


def newest_rows(tx: Connection) -> Rows:
    """Return the newest entries, newest first."""
    last = last_index(tx)
    page = stream(tx, Filters(), position=last - NEWEST, count=NEWEST, last=last)
    return Rows(page.entries[::-1])


def job_rows(tx: Connection, job: str, *, after_seq: int) -> Rows:
    """Return a page of a job's events, oldest first.

    Raises:
        NotFoundError: the ledger has no event of the job.
    """
    filters = Filters(job=job)
    start(tx, filters, after=-1)
    page = stream(tx, filters, position=after_seq, count=ROWS)
    return Rows(page.entries, None if page.is_last else page.position)


def entry(tx: Connection, index: int) -> Shown:
    """Return what there is to show of an entry.

    Raises:
        NotFoundError: the ledger has no such entry.
    """
    last = last_index(tx)
    found = stored_entries(tx, index, index + 1) if index <= last else ()
    if not found:
        has = f"its last one is {last}" if last >= 0 else "it is empty"
        raise NotFoundError(f"The ledger has no entry {index}: {has}.")
    data = found[0][2]
    received, raw = _parts(data)
    event = _event(raw)
    proof, why, is_damaged = _proof(tx, index)
    facts = [(label, path, str(value)) for label, path in _FACTS if (value := _at(event, path)) is not None]
    job = _at(event, "data.job_id")
    return Shown(
        index=index,
        last=last,
        job=job if isinstance(job, str) else None,
        leaf=leaf_hash(data),
        received=received,
        facts=facts,
        raw=raw.decode(errors="replace"),
        proof=proof,
        why_no_proof=why,
        is_damaged=is_damaged,
        signed=last_signed(tx),
    )


def _proof(tx: Connection, index: int) -> tuple[TlogProof | None, str, bool]:
    """Return the proof, or why there is none and whether that is damage."""
    try:
        return proofs.inclusion(tx, index), "", False
    except (NotFoundError, UnavailableError) as error:
        return None, error.detail, False
    except proofs.DamagedError as error:
        return None, error.detail, True


def _parts(data: bytes) -> tuple[str | None, bytes]:
    """Return the time of receipt and the event's bytes; of a damaged entry all of its bytes."""
    try:
        received_us = int(data.removeprefix(ENTRY_PREFIX).partition(b"\n")[0])
        return format_time_ms(received_us // 1000), event_bytes(data)
    except (ValueError, IndexError, OverflowError):
        return None, data


def _event(raw: bytes) -> Any:  # noqa: ANN401 - JSON of any kind: a damaged entry may hold anything
    try:
        return from_json(raw)
    except ValueError:
        return None


def _at(event: Any, path: str) -> Any:  # noqa: ANN401 - as above
    for name in path.split("."):
        event = event.get(name) if isinstance(event, dict) else None
    return event
