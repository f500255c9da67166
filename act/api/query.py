"""Read what a query asks for.

A parameter that is misspelt or cannot be read is refused, never passed over: the answer would silently be about
something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from starlette.datastructures import Headers, QueryParams

from act.contract import STATUSES, parse_time_ms
from act.domain.errors import Fault, InvalidInputError
from act.domain.filters import Filters

T = TypeVar("T")

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
MAX_FORKS_LISTED = 100
"""A fork comes with its bytes, 64,000 at most."""
MAX_LANES = 50
EVENT_STREAM = "text/event-stream"

_REPEATABLE = frozenset({"lane", "status"})
KNOWN = ("job", "lane", "status", "since", "until", "older_than_sec", "view", "limit", "after", "follow")
# What the whole list can have and a stream that never ends cannot.
_NOT_FOLLOWED = ("limit", "view", "older_than_sec")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_INDEX = re.compile(r"-1|[0-9]{1,18}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """What ``GET /stream`` is asked for.

    Attributes:
        filters: which entries.
        after: the index that they come after; -1: from the beginning.
        limit: how many at most; None: all of the job.
        is_latest: only the newest of each lane and status.
        is_followed: as a live stream.
    """

    filters: Filters
    after: int
    limit: int | None
    is_latest: bool
    is_followed: bool


EXPORT_FORMATS = ("cloudevents", "ocel2", "csv", "parquet")
_EXPORT_KNOWN = ("format", "job", "stream", "since", "until")


class _Reader:
    """Reads parameters one by one and collects what is wrong with them."""

    def __init__(self, params: QueryParams) -> None:
        self._params = params
        self.faults: list[Fault] = []

    def fault(self, name: str, msg: str, *, where: str = "query") -> None:
        self.faults.append(Fault((where, name), msg))

    def one(self, name: str, read: Callable[[str], T]) -> T | None:
        """Return the parameter as ``read`` reads it; None where it is not given, or cannot be read."""
        text = self._params.get(name)
        if text is None:
            return None
        try:
            return read(text)
        except ValueError as error:
            self.fault(name, str(error))
            return None

    def many(self, name: str, read: Callable[[str], str], *, most: int) -> tuple[str, ...]:
        """Return each different value of a repeatable parameter."""
        texts = list(dict.fromkeys(self._params.getlist(name)))
        if len(texts) > most:
            self.fault(name, f"may be given {most} times at most")
            return ()
        values: list[str] = []
        for text in texts:
            try:
                values.append(read(text))
            except ValueError as error:
                self.fault(name, str(error))
        return tuple(values)


def read_stream_query(params: QueryParams, headers: Headers, *, now_ms: int) -> StreamQuery:
    """Return what the query asks for.

    Args:
        params: the query's parameters.
        headers: ``Accept`` may ask for a live stream, ``Last-Event-ID`` says where it goes on.
        now_ms: what ``older_than_sec`` counts back from, milliseconds since the epoch.

    Raises:
        InvalidInputError: a parameter is unknown or cannot be used.
    """
    refuse_unknown(params, KNOWN, repeatable=_REPEATABLE)
    reader = _Reader(params)
    until_ms = reader.one("until", _time_ms)
    older_than_sec = reader.one("older_than_sec", _seconds)
    if older_than_sec is not None:
        aged_ms = now_ms - int(older_than_sec * 1000)
        until_ms = aged_ms if until_ms is None else min(until_ms, aged_ms)
    filters = Filters(
        job=reader.one("job", _name),
        lanes=reader.many("lane", _name, most=MAX_LANES),
        statuses=reader.many("status", _status, most=len(STATUSES)),
        since_ms=reader.one("since", _time_ms),
        until_ms=until_ms,
    )
    limit = reader.one("limit", _limit)
    after = reader.one("after", _index)
    is_latest = reader.one("view", _view) is not None
    is_followed = reader.one("follow", _boolean)
    if is_followed is None:
        is_followed = _accepts_event_stream(headers)
    if is_followed:
        for name in _NOT_FOLLOWED:
            if name in params:
                reader.fault(name, "does not go with a live stream: leave it out, or ask with follow=false")
        last_seen = headers.get("last-event-id")
        if last_seen:
            try:
                after = _index(last_seen)  # a reconnecting client repeats its first URL: the header is newer
            except ValueError as error:
                reader.fault("last-event-id", str(error), where="header")
    if reader.faults:
        raise _refusal(reader.faults)
    if limit is None and filters.job is None:
        limit = DEFAULT_LIMIT
    return StreamQuery(filters, -1 if after is None else after, limit, is_latest, is_followed)


def read_export_query(params: QueryParams) -> tuple[str, Filters]:
    """Return the format and the filters that ``GET /export`` is asked for.

    Raises:
        InvalidInputError: the format is missing, or a parameter is unknown or cannot be used.
    """
    refuse_unknown(params, _EXPORT_KNOWN)
    reader = _Reader(params)
    name = reader.one("format", _format)
    if "format" not in params:
        reader.fault("format", f"must be given: one of {', '.join(EXPORT_FORMATS)}")
    if "job" in params and "stream" in params:
        reader.fault("stream", "does not go with job: a job's stream has its name")
    filters = Filters(
        job=reader.one("job", _name),
        since_ms=reader.one("since", _time_ms),
        until_ms=reader.one("until", _time_ms),
        stream=reader.one("stream", _name),
    )
    if reader.faults or name is None:
        raise _refusal(reader.faults)
    return name, filters


def read_forks_query(params: QueryParams) -> tuple[int, int]:
    """Return after which fork ``GET /forks`` begins, and how many it lists.

    Raises:
        InvalidInputError: a parameter is unknown or cannot be used.
    """
    refuse_unknown(params, ("after", "limit"))
    reader = _Reader(params)
    after = reader.one("after", _index)
    limit = reader.one("limit", lambda text: _limit(text, most=MAX_FORKS_LISTED))
    if reader.faults:
        raise _refusal(reader.faults)
    return -1 if after is None else after, MAX_FORKS_LISTED if limit is None else limit


def refuse_unknown(params: QueryParams, known: Collection[str], *, repeatable: Collection[str] = ()) -> None:
    """Refuse parameters that are not ``known``, or that are given twice and not ``repeatable``.

    Raises:
        InvalidInputError: with the nearest known name.
    """
    faults: list[Fault] = []
    for name in dict.fromkeys(name for name, _ in params.multi_items()):
        if name not in known:
            nearest = get_close_matches(name.lower(), known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known) or 'none'}"
            faults.append(Fault(("query", name[:80]), f"is no parameter of this call; {hint}"))
        elif name not in repeatable and len(params.getlist(name)) > 1:
            faults.append(Fault(("query", name), "may be given once only"))
    if faults:
        raise _refusal(faults)


def _refusal(faults: list[Fault]) -> InvalidInputError:
    first = faults[0]
    end = "" if first.msg.endswith("?") else "."
    return InvalidInputError(f"{first.loc[-1]}: {first.msg}{end}", faults=tuple(faults))


def _accepts_event_stream(headers: Headers) -> bool:
    """Tell whether a live stream is what ``Accept`` names, and JSON is not."""
    accepted = [kind.partition(";")[0].strip().lower() for kind in headers.get("accept", "").split(",")]
    return EVENT_STREAM in accepted and "application/json" not in accepted


def _name(text: str) -> str:
    if not text or _CONTROL.search(text):
        raise ValueError("must be a name")
    return text


def _format(text: str) -> str:
    if text not in EXPORT_FORMATS:
        nearest = get_close_matches(text.lower(), EXPORT_FORMATS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(EXPORT_FORMATS)}"
        raise ValueError(f"no format is called {text[:40]!r}; {hint}")
    return text


def _status(text: str) -> str:
    if text not in STATUSES:
        nearest = get_close_matches(text.lower(), STATUSES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(STATUSES)}"
        raise ValueError(f"no status is called {text[:40]!r}; {hint}")
    return text


def _time_ms(text: str) -> int:
    try:
        return parse_time_ms(text)
    except ValueError as error:
        hint = " (in a URL, + is written %2B)" if " " in text else ""
        raise ValueError(f"{error}{hint}") from None


def _seconds(text: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("must be a number of seconds, such as 3600")
    return float(text)


def _limit(text: str, *, most: int = MAX_LIMIT) -> int:
    if _INDEX.fullmatch(text) is None or not 1 <= int(text) <= most:
        raise ValueError(f"must be a number from 1 to {most}; go on with after=<the last id>")
    return int(text)


def _index(text: str) -> int:
    if _INDEX.fullmatch(text) is None:
        raise ValueError("must be the id of a row, a number from 0 up; -1 is before the first")
    return int(text)


def _view(text: str) -> str:
    if text != "latest":
        raise ValueError("there is one view, 'latest'; without it every row is shown")
    return text


def _boolean(text: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise ValueError("must be true or false")
    return value
