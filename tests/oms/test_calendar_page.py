"""docs/calendars.md says what the rules do: its examples can be read, and its messages are those that come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oms.domain.calendar import CalendarError, lane_calendar
from oms.domain.due import due_ms, read_due
from oms.domain.local_time import shown_moment, zone
from oms.domain.opening_hours import read_hours
from oms.domain.schedule import Schedule, check_reference
from tests.oms.clocks import ms

PAGE = (Path(__file__).parents[2] / "docs" / "calendars.md").read_text()
READERS: dict[str, Callable[[str], object]] = {
    "timezone": lambda text: lane_calendar(timezone=text, open=None, batch_at=None, holidays=None),
    "open": read_hours,
    "batch": lambda text: lane_calendar(timezone="UTC", open=None, batch_at=text, holidays=None),
    "holidays": lambda text: lane_calendar(timezone="UTC", open=None, batch_at=None, holidays=text),
    "cron": lambda text: Schedule(text, "UTC"),
    "reference": check_reference,
    "due": read_due,
}
EXAMPLES = {"open": "`open` | means", "cron": "`cron` | fires", "due": "`due` | a task"}


def rows(head: str) -> Iterator[list[str]]:
    """Yield the rows of the table whose headings begin with ``head``."""
    assert PAGE.count(f"\n| {head}") == 1
    table = PAGE.partition(f"\n| {head}")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize("key", EXAMPLES)
def test_every_example_of_the_page_is_read(key: str) -> None:
    examples = [row[0].strip("`") for row in rows(EXAMPLES[key])]
    assert len(examples) >= 4
    for example in examples:
        READERS[key](example)


@pytest.mark.parametrize(("key", "text", "message"), list(rows("key | text")))
def test_every_refusal_of_the_page_is_what_comes(key: str, text: str, message: str) -> None:
    with pytest.raises(CalendarError) as refused:
        READERS[key.strip("`")](text.strip("`"))
    assert refused.value.message == message
    assert refused.value.key == key.strip("`")


def test_the_due_times_of_the_page_are_what_comes() -> None:
    begins = ms("2026-11-25T10:00-05:00")
    for text, said in rows(EXAMPLES["due"]):
        due = due_ms(begins, read_due(text.strip("`")), timezone="America/New_York", holidays="US")
        shown = shown_moment(due, zone("America/New_York"))
        day, clock = re.match(r"(?:\w+, (\d+) \w+|the same day), (\d\d:\d\d)", said).groups()  # type: ignore[union-attr]
        assert (shown[12:14], shown[-5:]) == (day or "25", clock)


def test_the_phrases_of_the_page_are_what_comes() -> None:
    at = ms("2026-11-24T22:30Z")
    for hours, batch, holidays in [("Mon-Fri 08:00-17:00", None, "US"), (None, "03:00", None)]:
        calendar = lane_calendar(timezone="America/New_York", open=hours, batch_at=batch, holidays=holidays)
        assert calendar is not None
        assert f"\n{calendar.describe(at)}\n" in PAGE
