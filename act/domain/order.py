"""The append rule: which events go on at the end of their stream, which the ledger has, and which it refuses.

Per stream the next ``seq`` is appended; a known one with the same bytes is a duplicate; with other bytes it is a
fork; one beyond the next is a gap. The rule needs no trust in the sender's order, and no window: an event that is
posted again after years is still a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from act.domain.errors import ForkError, GapError

Place = tuple[str, int]
"""A stream and a ``seq``: one place in the ledger, which one event has for ever."""


class Placed(Protocol):
    """What has a place: an event as it was posted."""

    @property
    def raw(self) -> bytes:
        """The event's bytes."""

    @property
    def stream(self) -> str:
        """The stream's name."""

    @property
    def seq(self) -> int:
        """The place in the stream, from 1."""


@dataclass(slots=True)
class Kept:
    """What the ledger has, or is about to have, in one place.

    Attributes:
        index: the ledger's index.
        raw: the event's bytes as they were posted.
        leaf_hash: of its entry.
    """

    index: int
    raw: bytes
    leaf_hash: bytes


def is_new(batch: Sequence[Placed], *, heads: Mapping[str, int], kept: Mapping[Place, Kept]) -> list[bool]:
    """Say of each event whether it is appended (True) or a duplicate (False).

    Args:
        batch: the events in the order in which they were posted; it stands or falls as a whole.
        heads: the last ``seq`` of each stream; a stream that is not in it has no event yet.
        kept: what stands in those places of the batch that are not beyond their stream's head.

    Raises:
        ForkError: a place is taken by other bytes.
        GapError: a place is beyond the next one of its stream.
    """
    grown: dict[str, int] = {}
    first: dict[Place, bytes] = {}  # looked up only where a place comes twice in the batch, and made only then
    answer: list[bool] = []
    for position, event in enumerate(batch):
        stream, seq = event.stream, event.seq
        head = grown.get(stream) or heads.get(stream, 0)
        if seq == head + 1:
            grown[stream] = seq
            answer.append(True)
            continue
        if seq > head + 1:
            raise _gap(event, position, expected_seq=head + 1)
        place = (stream, seq)
        if seq > heads.get(stream, 0):
            first = first or _first_bytes(batch)
            if first[place] != event.raw:
                raise _fork(event, position, ledger_index=None)
        elif kept[place].raw != event.raw:
            raise _fork(event, position, ledger_index=kept[place].index)
        answer.append(False)
    return answer


def _first_bytes(batch: Sequence[Placed]) -> dict[Place, bytes]:
    """Return what stands first in each place: of a batch without a gap, what is appended there."""
    return {(event.stream, event.seq): event.raw for event in reversed(batch)}


def _fork(event: Placed, position: int, *, ledger_index: int | None) -> ForkError:
    where = "earlier in this batch" if ledger_index is None else f"in the ledger, at index {ledger_index}"
    return ForkError(
        f"{event.stream}.{event.seq} stands {where} with other bytes. It is never overwritten, and nothing of this "
        "batch was appended: find out who wrote this stream twice.",
        stream=event.stream,
        seq=event.seq,
        position=position,
        ledger_index=ledger_index,
        event=event.raw,
    )


def _gap(event: Placed, position: int, *, expected_seq: int) -> GapError:
    event_id, expected_id = f"{event.stream}.{event.seq}", f"{event.stream}.{expected_seq}"
    return GapError(
        f"{event_id} cannot follow: of this stream the ledger expects {expected_id} next. Nothing of this batch was "
        f"appended: post from {expected_id} on, in order.",
        members={
            "event_id": event_id,
            "stream": event.stream,
            "seq": event.seq,
            "index": position,
            "expected_seq": expected_seq,
            "expected_id": expected_id,
            "expected_sequence": f"{expected_seq:020}",
        },
    )
