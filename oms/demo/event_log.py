"""Reads an event log: a CSV file with the columns of the XES standard, one event a row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

CASE, ACTIVITY, GROUP, TIME = "case:concept:name", "concept:name", "org:group", "time:timestamp"
COLUMNS = (CASE, ACTIVITY, GROUP, TIME)
LIFECYCLE = "lifecycle:transition"
NO_GROUP = "nobody"
MAX_CASE_CHARS = 150
_DELIMITERS = ",;\t"


class EventLogError(Exception):
    """The file is no event log; the message says where and what was expected."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One activity that was done.

    Attributes:
        activity: what.
        group: who did it: an organisational group.
        at: when, aware.
    """

    activity: str
    group: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the logged process, its events in the order in which they happened."""

    case_id: str
    events: tuple[LoggedEvent, ...]

    @property
    def activities(self) -> tuple[str, ...]:
        """What was done, in order."""
        return tuple(event.activity for event in self.events)


def read_event_log(path: Path) -> list[Case]:
    """Return the cases of a log, in the order in which they began.

    A case's events are ordered by their time, and where two have the same time, as they stand in the file. Times
    are compared as moments, whatever their offsets say: on the day that summer time ends, 02:10+02:00 comes before
    02:05+01:00. A time without an offset is taken as UTC. Where the log tells starts from completions
    (``lifecycle:transition``), the completions count.

    Raises:
        EventLogError: the file cannot be read as such a log.
    """
    cases: dict[str, list[LoggedEvent]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for case_id, event in _events(file, path):
                cases.setdefault(case_id, []).append(event)
    except OSError as error:
        raise EventLogError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise EventLogError(
            f"{path}: is no text in UTF-8 (at byte {error.start}); an event log is a CSV file"
        ) from None
    if not cases:
        raise EventLogError(f"{path}: has no events, only a head")
    # Sorting is stable: events of the same time stay as they stand in the file.
    ordered = [Case(case_id, tuple(sorted(events, key=lambda event: event.at))) for case_id, events in cases.items()]
    return sorted(ordered, key=lambda case: case.events[0].at)


def _events(file: Iterable[str], path: Path) -> Iterator[tuple[str, LoggedEvent]]:
    lines = iter(file)
    head = next(lines, "")
    if not head.strip():
        raise EventLogError(f"{path}: is empty; an event log begins with the names of its columns")
    columns, delimiter = _columns(head, path)
    rows = csv.DictReader(lines, fieldnames=columns, delimiter=delimiter)
    try:
        for row in rows:
            if (row.get(LIFECYCLE) or "complete").lower() == "complete":
                yield _event(row, f"{path}:{rows.line_num + 1}")
    except csv.Error as error:
        raise EventLogError(f"{path}:{rows.reader.line_num + 1}: is no CSV: {error}") from None


def _columns(head: str, path: Path) -> tuple[list[str], str]:
    """Return the columns' names and what separates them."""
    try:
        found = [(next(csv.reader([head], delimiter=delimiter)), delimiter) for delimiter in _DELIMITERS]
    except csv.Error as error:
        raise EventLogError(f"{path}:1: is no CSV: {error}") from None
    columns, delimiter = max(found, key=lambda candidate: len(set(COLUMNS) & set(candidate[0])))
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise EventLogError(
            f"{path}:1: has no column {', '.join(missing)}; an event log has {', '.join(COLUMNS)} "
            f"(the XES standard's names). It has: {', '.join(columns)[:300]}"
        )
    return columns, delimiter


def _event(row: dict[str, str | None], where: str) -> tuple[str, LoggedEvent]:
    values = {column: (row.get(column) or "").strip() for column in COLUMNS}
    empty = [column for column in (CASE, ACTIVITY, TIME) if not values[column]]
    if empty:
        raise EventLogError(f"{where}: {', '.join(empty)} is empty")
    case_id = values[CASE]
    if len(case_id) > MAX_CASE_CHARS or not case_id.isprintable():
        raise EventLogError(f"{where}: {CASE} is longer than {MAX_CASE_CHARS} characters, or holds control characters")
    try:
        at = datetime.fromisoformat(values[TIME])
    except ValueError:
        raise EventLogError(
            f"{where}: {TIME} is {values[TIME][:40]!r}, and no ISO 8601 time such as 2011-10-11T13:45:40.276+02:00"
        ) from None
    return case_id, LoggedEvent(
        values[ACTIVITY], values[GROUP] or NO_GROUP, at if at.tzinfo else at.replace(tzinfo=UTC)
    )
