"""The relay's own verbs: what ACT acknowledged, refused, or asks for again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from act.contract import Receipt
from oms.storage.leases import hold, let_go
from oms.storage.outbox import Pending, mark_delivered, resume_streams, rewind, stop_stream
from oms.storage.transaction import Transaction

RELAY = "relay"


@dataclass(slots=True)
class RelayHealth:
    """How the delivery goes, as the relay last saw it.

    Attributes:
        act_error: None while ACT is there.
        failing_since_ms: since when it has not been.
        delivered: how many events this tower has delivered since its start.
        is_active: this tower is the one that sends.
    """

    act_error: str | None = "not reached yet"
    failing_since_ms: int | None = None
    delivered: int = 0
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class Delivered:
    """ACT has these events, and gave these receipts."""

    events: Sequence[tuple[Pending, Receipt]]


@dataclass(frozen=True, slots=True)
class Rewind:
    """ACT expects ``from_seq`` next in ``stream``: everything from there on is to be sent again."""

    stream: str
    from_seq: int


@dataclass(frozen=True, slots=True)
class StopStream:
    """ACT will never take ``event_id``: nothing after it in its stream can be sent."""

    stream: str
    event_id: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class HoldRelay:
    """This tower wants to be the one that sends; ``for_ms`` 0: no longer."""

    holder: str
    for_ms: int


@dataclass(frozen=True, slots=True)
class ResumeStreams:
    """Try the stopped streams again."""


def deliver(tx: Transaction, wishes: Sequence[Delivered]) -> list[None]:
    """Keep the receipts; these events are not sent again."""
    for wish in wishes:
        mark_delivered(tx, wish.events)
    return [None] * len(wishes)


def rewind_streams(tx: Transaction, wishes: Sequence[Rewind]) -> list[bool]:
    """Send a stream again from where ACT lacks it; False where OMS no longer keeps that event."""
    return [rewind(tx, wish.stream, from_seq=wish.from_seq) for wish in wishes]


def stop_streams(tx: Transaction, wishes: Sequence[StopStream]) -> list[None]:
    """Send nothing more of these streams; all others go on."""
    for wish in wishes:
        stop_stream(tx, stream=wish.stream, event_id=wish.event_id, code=wish.code, detail=wish.detail)
    return [None] * len(wishes)


def resume(tx: Transaction, wishes: Sequence[ResumeStreams]) -> list[int]:
    """Let every stopped stream try again; the answers say how many there were."""
    resumed = resume_streams(tx)
    return [resumed] * len(wishes)


def hold_relay(tx: Transaction, wishes: Sequence[HoldRelay]) -> list[bool]:
    """Take the relay's lease, hold it longer, or let it go; False for who does not have it afterwards."""
    answers = []
    for wish in wishes:
        if wish.for_ms == 0:
            let_go(tx, RELAY, holder=wish.holder)
        answers.append(wish.for_ms > 0 and hold(tx, RELAY, holder=wish.holder, for_ms=wish.for_ms))
    return answers
