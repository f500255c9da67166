"""What the formats have in common: a row of an export, and what writes rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from act.contract import event_bytes
from act.domain.entry import Entry


@dataclass(frozen=True, slots=True)
class Row:
    """One event: its facts, its bytes, and the hash of its entry."""

    facts: Entry
    entry: bytes
    leaf_hash: bytes

    @property
    def received_us(self) -> int:
        """ACT's clock when it took the event, as it is in the entry: that is what was hashed."""
        return int(self.entry.split(b"\n", 2)[1])

    @property
    def event(self) -> str:
        """The event's bytes as they were posted, which are UTF-8."""
        return event_bytes(self.entry).decode()

    @property
    def type(self) -> str:
        """The event's CloudEvents type."""
        return f"hms.{self.facts.entity}.{self.facts.status}.v1"


class Writing(Protocol):
    """Writes one export. All that it holds between two calls does not grow with the ledger."""

    def begin(self) -> bytes:
        """Return what comes before the first row."""

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return what the next rows add."""

    def end(self) -> Iterator[bytes]:
        """Yield what comes after the last row."""

    def close(self) -> None:
        """Give back what it holds, also where the end was not reached."""
