"""Read posted events: their original bytes, and the facts in them that the ledger's columns hold."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json

from act.contract import EVENT, MAX_EVENT_BYTES, Event, parse_time_ms
from act.domain.errors import Fault, InvalidInputError
from act.domain.plain import cut, plain_values
from act.domain.split import Slice, split, split_plain

MAX_FAULTS = 20
"""How many faults one answer lists: enough to see what is wrong with a producer."""

FACTS = (
    "stream", "seq", "event_id", "ts_ms", "entity", "status", "job_id", "lane", "plan", "plan_version", "reference",
    "task_id", "activity", "attempt", "worker", "actor", "detail", "extra",
)  # fmt: skip
"""What `facts_of` says of an event, in the order of the ledger's columns."""

_in_order = itemgetter(*FACTS)


class Posted(NamedTuple):
    """One event as it was posted.

    Attributes:
        raw: its bytes; they are what is hashed and kept.
        stream: ``JOB-123``, or ``LANE-<lane>``.
        seq: its place in the stream, from 1.
        values: its `FACTS`, in their order: they become a row, and a mapping of each would be made for nothing.
    """

    raw: bytes
    stream: str
    seq: int
    values: tuple[Any, ...]

    @property
    def event_id(self) -> str:
        """The event's id: stream and place."""
        return f"{self.stream}.{self.seq}"

    @property
    def facts(self) -> dict[str, Any]:
        """What `facts_of` says of it."""
        return dict(zip(FACTS, self.values, strict=True))


def facts_of(event: Event) -> dict[str, Any]:
    """Return what the ledger's columns hold of an event: all that readers see of it comes from its bytes.

    ``detail`` is JSON text, ``extra`` the JSON text of fields of ``data`` that this version has no column for (None
    where there are none: a later OMS may say more).
    """
    data = event.data
    return {
        **data.__dict__,  # the model's own fields; those that it does not know are beside it
        "stream": event.stream,
        "seq": event.seq,
        "event_id": event.id,
        "entity": event.entity,
        "ts_ms": parse_time_ms(event.time),
        "detail": to_json(data.detail).decode(),
        "extra": to_json(data.__pydantic_extra__).decode() if data.__pydantic_extra__ else None,
    }


def read_posted(body: bytes) -> list[Posted]:
    """Return the events of a posted body, in its order: an array of them, or one.

    Raises:
        InvalidInputError: the body or an event in it is not valid; ``members`` names the first such event.
        TooLargeError: more events than one batch may have.
    """
    plain = _read_plain(body)
    return _read_any(body) if plain is None else plain


def _read_plain(body: bytes) -> list[Posted] | None:
    """Do `read_posted` for an array of events as OMS writes them; None for others, and where one is not valid."""
    pieces = cut(body)
    if pieces is None:
        return None
    posted: list[Posted] = []
    for raw in pieces:
        values = plain_values(raw)
        if values is not None:
            posted.append(Posted(raw, values[0], values[1], values))
            continue
        slices = split_plain(b"[%b]" % raw)  # of a lane, or with an escape in a text: one such is no reason to walk all
        if slices is None or len(slices) != 1:
            return None
        try:
            posted.append(_read(slices[0]))
        except ValueError:
            return None
    return posted


def _read_any(body: bytes) -> list[Posted]:
    """Do `read_posted` for whatever body."""
    slices, is_array = split(body)
    if not slices:
        raise InvalidInputError("The array is empty: post at least one event.")
    posted: list[Posted] = []
    faults: list[Fault] = []
    refused: int | None = None
    for position, piece in enumerate(slices):
        loc: tuple[str | int, ...] = ("body", position) if is_array else ("body",)
        try:
            posted.append(_read(piece))
        except ValidationError as error:
            found = [Fault((*loc, *at), msg) for at, msg in _faults(error)]
        except ValueError as error:
            found = [Fault(loc, str(error))]
        else:
            continue
        faults += found
        refused = position if refused is None else refused
        if len(faults) >= MAX_FAULTS:
            break
    if refused is not None:
        raise _refusal(slices[refused], refused, faults[:MAX_FAULTS])
    return posted


def _read(piece: Slice) -> Posted:
    """Raises: ValueError (of which ValidationError is one): it is no event."""
    if not isinstance(piece.value, dict):
        raise ValueError("an event must be a JSON object")  # noqa: TRY004 - the sender's value, not ours
    if len(piece.raw) > MAX_EVENT_BYTES:
        raise ValueError(f"an event may have {MAX_EVENT_BYTES:,} bytes at most; this one has {len(piece.raw):,}")
    event = EVENT.validate_python(piece.value)
    return Posted(piece.raw, event.stream, event.seq, _in_order(facts_of(event)))


def _faults(error: ValidationError) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each fault's place and message, without the value: that is the sender's, and not for logs."""
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        yield fault["loc"], fault["msg"].removeprefix("Value error, ")


def _refusal(piece: Slice, position: int, faults: list[Fault]) -> InvalidInputError:
    members: dict[str, Any] = {"index": position}
    event_id = piece.value.get("id") if isinstance(piece.value, dict) else None
    name = f"Event {position}"
    if isinstance(event_id, str) and 0 < len(event_id) <= 500 and event_id.isprintable():  # noqa: PLR2004 - as Text
        members["event_id"] = event_id
        name = f"Event {position} ({event_id})"
    where = ".".join(part for part in faults[0].loc[1:] if isinstance(part, str))
    return InvalidInputError(
        f"{name} is not valid: {where + ': ' if where else ''}{faults[0].msg}. Nothing of the batch was taken.",
        faults=tuple(faults),
        members=members,
    )
