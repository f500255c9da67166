"""The event contract: what OMS and ACT share, and all that they share. ACT owns it; OMS may import it.

An event is a CloudEvents 1.0 JSON object, kept byte for byte. Its place in its stream is ``sequence``: counted
from 1 per ``source``, without a gap. A stream is a job (``/oms/jobs/JOB-123``) or a lane (``/oms/lanes/<lane>``).
Golden events in ``tests/contract`` pin every version that was ever written: ACT takes them all, for ever.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from pydantic_core import to_json

MAX_EVENT_BYTES = 64_000
"""A C2SP entry bundle carries a 16-bit length; the entry's own prefix must fit too."""
MAX_BATCH_EVENTS = 500
MAX_BATCH_BYTES = 4 * 1024 * 1024
ENTRY_PREFIX = b"act-entry/v1\n"

BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
EVENT_CONTENT_TYPE = "application/cloudevents+json"

JOB_SOURCE = "/oms/jobs/"
LANE_SOURCE = "/oms/lanes/"
LANE_PREFIX = "LANE-"
"""A lane's stream is named ``LANE-<lane>``; every other stream is a job's, and named like it."""

Entity = Literal["job", "task", "step", "lane"]
Status = Literal[
    "queued",
    "started",
    "done",
    "failed",
    "expired",
    "released",
    "rerouted",
    "skipped",
    "restarted",
    "cancelled",
    "paused",
    "resumed",
    "stalled",
    "signalled",
    "erased",
]

STATUSES: tuple[Status, ...] = get_args(Status)

_TYPE = re.compile(r"hms\.(job|task|step|lane)\.([a-z]+)\.v1")
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,32}")
# ``datetime.fromisoformat`` reads more than RFC 3339 allows (weeks, days without dashes, a comma).
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What four digits of a year can write in UTC.
_FIRST_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).days * 86_400_000
_LAST_MS = ((datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH).days + 1) * 86_400_000 - 1

# Control characters are no part of a CloudEvents string (and would forge lines in logs).
_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]+$"
Text = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_NO_CONTROLS)]
# A stream's name is a Text, and in a source each of its characters may take twelve: %F0%9F%93%AE.
Source = Annotated[str, StringConstraints(min_length=1, max_length=6_100, pattern=_NO_CONTROLS)]


class EventData(BaseModel):
    """Facts about the work, never the citizen's data: inputs and outputs appear as keyed digests only."""

    model_config = ConfigDict(extra="allow", frozen=True)

    job_id: Text | None
    plan: Text | None
    plan_version: Annotated[int, Field(strict=True, ge=1, le=2**53)] | None
    reference: Text | None
    task_id: Text | None
    activity: Text | None
    lane: Text | None
    status: Status
    attempt: Annotated[int, Field(strict=True, ge=0, le=2**53)] | None
    worker: Text | None
    actor: Text | None
    detail: dict[str, Any]


class Event(BaseModel):
    """One state change of a job, task, step or lane, as it is on the wire.

    CloudEvents extension attributes that are not named here are allowed and kept.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    specversion: Literal["1.0"]
    id: Text
    source: Source
    type: Text
    subject: Text
    time: Text
    sequence: Annotated[str, StringConstraints(pattern=r"^[0-9]{20}$")]
    traceparent: Text | None = None
    datacontenttype: Literal["application/json"]
    data: EventData

    @property
    def seq(self) -> int:
        """The event's place in its stream, from 1."""
        return int(self.sequence)

    @property
    def entity(self) -> str:
        """What changed: a job, a task, a step or a lane."""
        return _read_type(self.type)[0]

    @property
    def stream(self) -> str:
        """The stream's short name, ``JOB-123`` or ``LANE-<lane>``: the id without its sequence."""
        return self.id.rpartition(".")[0]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        """An event says most things twice; both must agree, or a reader of one half would be misled."""
        self._check_type()
        self._check_stream()
        parse_time_ms(self.time)
        for name in self.__pydantic_extra__ or ():
            if _EXTENSION_NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no CloudEvents attribute name (lower-case letters and digits)")
        return self

    def _check_type(self) -> None:
        entity, status = _read_type(self.type)
        if status != self.data.status:
            raise ValueError(f"type says {status!r} and data.status says {self.data.status!r}")
        if entity == "task" and (self.data.task_id is None or self.subject != self.data.task_id):
            raise ValueError("subject must be data.task_id on an event of a task")

    def _check_stream(self) -> None:
        stream, seq = self.stream, self.seq
        if seq < 1:
            raise ValueError("sequence counts from 1")
        if self.id != f"{stream}.{seq}":
            raise ValueError("id must read <stream>.<sequence without leading zeros>")
        source = stream_source(stream)
        if self.source != source:
            raise ValueError(f"source must read {source!r} for the stream {stream!r}")
        if stream.startswith(LANE_PREFIX):
            if self.data.job_id is not None:
                raise ValueError("an event of a lane has no data.job_id")
        elif self.data.job_id != stream:
            raise ValueError("data.job_id must be the id without its sequence")


EVENT = TypeAdapter(Event)
"""Validates one event from its bytes: ``EVENT.validate_json(raw)``."""


@dataclass(slots=True)
class Receipt:
    """What ACT answers for one event: where it is in the ledger, and the hash that binds its bytes to it.

    Attributes:
        id: the event's id.
        index: the ledger's index, from 0 without a gap.
        outcome: ``appended``, or ``duplicate`` where the ledger had these very bytes already.
        leaf_hash: lower-case hex of SHA-256(0x00, entry); see `leaf_hash`.
    """

    id: str
    index: int
    outcome: str
    leaf_hash: str


def stream_source(stream: str) -> str:
    """Return the CloudEvents ``source`` of a stream: ``JOB-1`` gives ``/oms/jobs/JOB-1``.

    A lane's name may hold any text, and a source is a URI reference: it is percent-encoded there.
    """
    if stream.startswith(LANE_PREFIX):
        return LANE_SOURCE + quote(stream.removeprefix(LANE_PREFIX), safe="")
    return JOB_SOURCE + stream


def encode_event(
    *,
    stream: str,
    seq: int,
    entity: Entity,
    subject: str,
    time_ms: int,
    data: dict[str, Any],
    traceparent: str | None = None,
) -> bytes:
    """Return the event's final bytes. They are hashed and kept as they are, so they are made only once.

    Args:
        stream: ``JOB-123``, or ``LANE-<lane>``.
        seq: the event's place in its stream, from 1.
        entity: what changed; with ``data["status"]`` it makes the type.
        subject: ``TASK-55``, or the stream for what is not about one task.
        time_ms: when, milliseconds since the epoch.
        data: the fields of `EventData`, all of them.
        traceparent: W3C trace context of the request that caused it.
    """
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{stream}.{seq}",
        "source": stream_source(stream),
        "type": f"hms.{entity}.{data['status']}.v1",
        "subject": subject,
        "time": format_time_ms(time_ms),
        "sequence": f"{seq:020}",
    }
    if traceparent is not None:
        event["traceparent"] = traceparent
    event["datacontenttype"] = "application/json"
    event["data"] = data
    return to_json(event)


def entry_bytes(received_us: int, raw: bytes) -> bytes:
    """Return the ledger's entry: what is hashed, stored and exported.

    Args:
        received_us: ACT's clock when it took the event, microseconds since the epoch.
        raw: the event's bytes as they were posted.
    """
    return b"%b%d\n%b" % (ENTRY_PREFIX, received_us, raw)


def event_bytes(entry: bytes) -> bytes:
    """Return the event's bytes as they were posted, out of the ledger's entry."""
    return entry.split(b"\n", 2)[2]


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00, entry), the leaf hash of RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


@lru_cache(maxsize=256)  # there are some dozen
def _read_type(text: str) -> tuple[str, str]:
    """Return the entity and the status that a type names.

    Raises:
        ValueError: it is none.
    """
    kind = _TYPE.fullmatch(text)
    if kind is None:
        raise ValueError("type must read hms.<job|task|step|lane>.<status>.v1")
    return kind[1], kind[2]


@lru_cache(maxsize=1024)  # a transaction has one clock: all its events write the same time
def format_time_ms(time_ms: int) -> str:
    """Write milliseconds since the epoch as RFC 3339 UTC: ``2026-11-22T14:05:09.123Z``."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{ms:03}Z"


@lru_cache(maxsize=1024)  # as above; and who validates an event reads its time again for the ledger's column
def parse_time_ms(text: str) -> int:
    """Read an RFC 3339 time with its offset; return milliseconds since the epoch, the rest cut off.

    Raises:
        ValueError: the text is no such time, or its year in UTC has not four digits.
    """
    try:
        if _RFC3339.fullmatch(text) is None:
            raise ValueError("no RFC 3339")
        since = datetime.fromisoformat(text.upper()) - _EPOCH
        time_ms = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
        if not _FIRST_MS <= time_ms <= _LAST_MS:
            raise ValueError("out of range")
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is no RFC 3339 time such as 2026-11-22T14:05:09.123Z") from None
    return time_ms
