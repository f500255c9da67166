"""Derive everything again from the entries' bytes: what ``act verify`` compares the database with.

Only the bytes are hashed, but readers see columns. A column that could be edited unnoticed would make the proofs
worthless to whoever looks at a dashboard, so each of them must say what its entry says. The same holds for what is
summed up beside the entries: the head of each stream, and the times in each block.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from act.contract import ENTRY_PREFIX, EVENT, entry_bytes, event_bytes, leaf_hash
from act.domain.posted import facts_of
from act.domain.tree import Frontier, append

_RECEIVED = re.compile(re.escape(ENTRY_PREFIX) + rb"(0|[1-9][0-9]{0,18})\n")
_SHOWN = 60


class EntryError(ValueError):
    """The bytes are no entry of the ledger."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the ledger that is not as it must be.

    Attributes:
        index: the first bad entry.
        detail: what is wrong, as a sentence without a full stop.
    """

    index: int
    detail: str


def derive(entry: bytes) -> dict[str, Any]:
    """Return every column that comes from an entry: what `facts_of` says, ``received_us`` and ``leaf_hash``.

    Raises:
        EntryError: it is not what ACT writes for an event that it takes.
    """
    head = _RECEIVED.match(entry)
    if head is None:
        raise EntryError("the entry does not begin with 'act-entry/v1' and the time it was received")
    try:
        facts = facts_of(EVENT.validate_json(entry[head.end() :]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise EntryError(f"the entry holds no event: {place + ': ' if place else ''}{first['msg']}") from None
    facts["received_us"] = int(head[1])
    facts["leaf_hash"] = leaf_hash(entry)
    return facts


def difference(derived: Mapping[str, Any], stored: Mapping[str, Any]) -> str | None:
    """Return a sentence about the first column that does not say what the entry says; None where all do.

    Args:
        derived: from `derive`.
        stored: the row, by column; it must have all columns of ``derived``.
    """
    for name, value in derived.items():
        if stored[name] != value:
            return f"the column {name} says {_short(stored[name])}, and the entry says {_short(value)}"
    return None


def fork_fault(fork: Mapping[str, Any], entry: bytes | None) -> str | None:
    """Return what is wrong with the record of an event that was refused as a fork; None where nothing is.

    Args:
        fork: the row.
        entry: what stands at its ``idx``, an entry that is sound; None where there is none.
    """
    event = fork["event"]
    if not isinstance(event, bytes) or hashlib.sha256(event).digest() != fork["sha256"]:
        return "its bytes are not those of its digest"
    try:
        place = _place(entry_bytes(0, event))
    except EntryError as error:
        return str(error)
    if place != (fork["stream"], fork["seq"]):
        return f"its columns say {_short(fork['stream'])}.{fork['seq']}, and its bytes {_short(place[0])}.{place[1]}"
    if fork["idx"] is not None and (entry is None or _place(entry) != place or event_bytes(entry) == event):
        return f"the entry {fork['idx']} is not another event in its place"
    return None


def _place(entry: bytes) -> tuple[str, int]:
    derived = derive(entry)
    return derived["stream"], derived["seq"]


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries that follow each other, each good by itself: what `Audit` needs of them.

    Attributes:
        leaf_hashes: made of their bytes.
        places: the stream and ``seq`` of each.
        times: the ``ts_ms`` of each.
        finding: what is wrong with the entry after them; None: nothing is.
    """

    leaf_hashes: list[bytes]
    places: list[tuple[str, int]]
    times: list[int]
    finding: Finding | None = None

    def upto(self, count: int) -> Page:
        """Return the first ``count`` entries."""
        return Page(self.leaf_hashes[:count], self.places[:count], self.times[:count])

    def since(self, count: int) -> Page:
        """Return all behind the first ``count`` entries."""
        return Page(self.leaf_hashes[count:], self.places[count:], self.times[count:], self.finding)


def check_rows(rows: Iterable[Mapping[str, Any]], *, first: int) -> Page:
    """Check each row by itself: its index, its entry, and that every column says what the entry says.

    Args:
        rows: with all columns of ``events``.
        first: the index that the first of them must have.
    """
    page = Page([], [], [])
    for index, row in enumerate(rows, start=first):
        try:
            derived = _checked(row, index)
        except EntryError as error:
            return replace(page, finding=Finding(index, str(error)))
        page.leaf_hashes.append(derived["leaf_hash"])
        page.places.append((derived["stream"], derived["seq"]))
        page.times.append(derived["ts_ms"])
    return page


def _checked(row: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what the row's entry says.

    Raises:
        EntryError: the row is not the one of this index, or says something else than its entry.
    """
    if row["idx"] != index:
        raise EntryError(f"an entry is missing: the next one in the database has the index {row['idx']}")
    if not isinstance(row["entry"], bytes):
        raise EntryError("the entry is no longer bytes")
    derived = derive(row["entry"])
    if {**derived, "idx": index, "entry": row["entry"]} != row:  # all at once: a million rows are like this
        wrong = difference(derived, row)
        if wrong is not None:
            raise EntryError(wrong)
    return derived


@dataclass(slots=True)
class Audit:
    """Goes over the ledger from its first entry on, in the order of the index, and keeps what must hold at its end.

    Its memory is one number for each stream, and two for each block.

    Attributes:
        block_events: how many events a block of times sums up.
        frontier: of the tree over the entries taken so far, hashed from their bytes.
        heads: the last ``seq`` of each stream so far.
        spans: the lowest and highest ``ts_ms`` of each full block so far.
    """

    block_events: int
    frontier: Frontier = field(default_factory=Frontier)
    heads: dict[str, int] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    _open: tuple[int, int] | None = None

    def take(self, page: Page) -> Finding | None:
        """Take the next entries; return the first that is bad.

        After a finding the audit is over: what it keeps is worth nothing. To compare a checkpoint's root with
        ``frontier.root``, let a page end where ``frontier.size`` is the checkpoint's.
        """
        size = self.frontier.size
        for index, ((stream, seq), ts_ms) in enumerate(zip(page.places, page.times, strict=True), start=size):
            wrong = self._misplaced(stream, seq)
            if wrong is not None:
                return Finding(index, wrong)
            self._span(index, ts_ms)
        self.frontier, _ = append(self.frontier, page.leaf_hashes)
        return page.finding

    def _misplaced(self, stream: str, seq: int) -> str | None:
        expected = self.heads.get(stream, 0) + 1
        if seq != expected:
            return f"the stream {stream[:_SHOWN]!r} goes on with {seq}, and {expected} is its next"
        self.heads[stream] = seq
        return None

    def _span(self, index: int, ts_ms: int) -> None:
        low, high = self._open or (ts_ms, ts_ms)
        self._open = (min(low, ts_ms), max(high, ts_ms))
        if (index + 1) % self.block_events == 0:
            self.spans.append(self._open)
            self._open = None


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
