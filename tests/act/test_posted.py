"""Reading posted events: what is taken, what is refused, and what the columns get to hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from act.contract import EVENT, MAX_EVENT_BYTES, STATUSES, entry_bytes, event_bytes, format_time_ms, parse_time_ms
from act.domain.errors import InvalidInputError
from act.domain.posted import MAX_FAULTS, facts_of, read_posted
from tests.act.support import NOW_MS, array, event, plain_job

Change = Callable[[dict[str, Any]], object]


def changed(change: Change, raw: bytes | None = None) -> bytes:
    """Return an event's bytes after a change of what it says."""
    value = json.loads(raw or event())
    change(value)
    return json.dumps(value).encode()


def test_events_are_read_in_their_order_with_their_bytes() -> None:
    raws = plain_job("JOB-1")
    posted = read_posted(array(raws))
    assert [one.raw for one in posted] == raws
    assert [(one.stream, one.seq, one.event_id) for one in posted] == [
        ("JOB-1", seq, f"JOB-1.{seq}") for seq in range(1, 6)
    ]


def test_one_event_needs_no_array() -> None:
    assert [one.raw for one in read_posted(event())] == [event()]


def test_the_columns_hold_what_the_bytes_say() -> None:
    raw = event(
        "JOB-7", 3, status="done", lane="ai_extract", task="TASK-9", attempt=2, worker="w", actor="a",
        detail={"b": 1.0, "a": [None]}, later="news",
    )  # fmt: skip
    (posted,) = read_posted(raw)
    assert dict(posted.facts) == {
        "stream": "JOB-7",
        "seq": 3,
        "event_id": "JOB-7.3",
        "ts_ms": NOW_MS,
        "entity": "task",
        "status": "done",
        "job_id": "JOB-7",
        "lane": "ai_extract",
        "plan": "passport_renewal",
        "plan_version": 1,
        "reference": "ticket-of-JOB-7",
        "task_id": "TASK-9",
        "activity": "ai_extract",
        "attempt": 2,
        "worker": "w",
        "actor": "a",
        "detail": '{"b":1.0,"a":[null]}',
        "extra": '{"later":"news"}',
    }
    assert facts_of(EVENT.validate_json(raw)) == posted.facts


def test_a_lanes_event_has_a_stream_of_its_own_and_no_job() -> None:
    (posted,) = read_posted(event("LANE-höhere.stelle", 1, entity="lane", status="paused", lane="höhere.stelle"))
    assert (posted.stream, posted.seq, posted.facts["job_id"]) == ("LANE-höhere.stelle", 1, None)
    assert b"/oms/lanes/h%C3%B6here.stelle" in posted.raw


def drop(*path: str) -> Change:
    def change(value: dict[str, Any]) -> None:
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    return change


def put(*path_and_value: Any) -> Change:
    *path, new = path_and_value

    def change(value: dict[str, Any]) -> None:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = new

    return change


@pytest.mark.parametrize(
    ("change", "loc", "says"),
    [
        (drop("id"), ["id"], "required"),
        (drop("data", "detail"), ["data", "detail"], "required"),
        (drop("data", "actor"), ["data", "actor"], "required"),
        (put("specversion", "0.3"), ["specversion"], "1.0"),
        (put("specversion", 1.0), ["specversion"], "1.0"),
        (put("datacontenttype", "text/plain"), ["datacontenttype"], "application/json"),
        (put("id", "JOB-1.2"), [], "id must read"),
        (put("id", "JOB-1.01"), [], "id must read"),
        (put("id", "JOB-2.1"), [], "source must read"),
        (put("id", "JOB-1"), [], "id must read"),
        (put("id", 5), ["id"], "string"),
        (put("id", ""), ["id"], "at least 1"),
        (put("id", "x" * 501), ["id"], "at most 500"),
        (put("id", "JOB\n-1.1"), ["id"], "pattern"),
        (put("source", "/oms/jobs/JOB-2"), [], "source must read"),
        (put("sequence", "1"), ["sequence"], "pattern"),
        (put("sequence", "0" * 20), [], "counts from 1"),
        (put("sequence", "\u0660" * 19 + "1"), ["sequence"], "pattern"),
        (put("sequence", 1), ["sequence"], "string"),
        (put("type", "hms.task.done.v1"), [], "status"),
        (put("type", "hms.task.queued.v2"), [], "type must read"),
        (put("type", "com.github.pull"), [], "type must read"),
        (put("subject", "TASK-2"), [], "subject must be"),
        (put("time", "yesterday"), [], "RFC 3339"),
        (put("time", "2026-11-22 14:05:09Z"), [], "RFC 3339"),
        (put("time", "2026-11-22T14:05:09"), [], "RFC 3339"),
        (put("time", "2026-W47-7T14:05:09Z"), [], "RFC 3339"),
        (put("time", "0001-01-01T00:00:00+01:00"), [], "RFC 3339"),
        (put("time", "9999-12-31T23:59:59-01:00"), [], "RFC 3339"),
        (put("data", "status", "finished"), ["data", "status"], "queued"),
        (put("data", "job_id", "JOB-2"), [], "job_id"),
        (put("data", "job_id", None), [], "job_id"),
        (put("data", "plan_version", 1.5), ["data", "plan_version"], "integer"),
        (put("data", "plan_version", "1"), ["data", "plan_version"], "integer"),
        (put("data", "plan_version", True), ["data", "plan_version"], "integer"),
        (put("data", "plan_version", 2**53 + 1), ["data", "plan_version"], "less than"),
        (put("data", "plan_version", 0), ["data", "plan_version"], "greater than"),
        (put("data", "attempt", -1), ["data", "attempt"], "greater than"),
        (put("data", "attempt", 2**63), ["data", "attempt"], "less than"),
        (put("data", "detail", []), ["data", "detail"], "dict"),
        (put("data", "detail", None), ["data", "detail"], "dict"),
        (put("data", "lane", "a\u0085b"), ["data", "lane"], "pattern"),
        (put("data", []), ["data"], "dict"),
        (put("data", None), ["data"], "dict"),
        (put("traceparent", 5), ["traceparent"], "string"),
        (put("Big-Name", "x"), [], "attribute name"),
        (put("data_base64", "x"), [], "attribute name"),
    ],
)
def test_an_event_that_is_none_is_refused_with_its_place(change: Change, loc: list[str], says: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_posted(array([event("JOB-5", 1), changed(change)]))
    fault = refused.value.faults[0]
    assert fault.loc == ("body", 1, *loc)
    assert says in fault.msg
    assert says in refused.value.detail
    assert refused.value.members["index"] == 1


def test_of_one_event_the_place_is_in_the_body_itself() -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_posted(changed(put("data", "attempt", -1)))
    assert refused.value.faults[0].loc == ("body", "data", "attempt")
    assert refused.value.members == {"index": 0, "event_id": "JOB-1.1"}


@pytest.mark.parametrize("element", [b"1", b"null", b'"x"', b"[]", b"true"])
def test_an_element_must_be_an_object(element: bytes) -> None:
    with pytest.raises(InvalidInputError, match="must be a JSON object"):
        read_posted(b"[" + element + b"]")


@pytest.mark.parametrize("name", ["a\nb", "", 7, None, "x" * 501])
def test_an_id_that_is_none_is_not_repeated(name: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_posted(changed(put("id", name)))
    assert "event_id" not in refused.value.members


def test_an_empty_array_is_a_mistake() -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        read_posted(b" [ ] ")


def test_the_largest_event_fits_a_c2sp_entry_and_one_byte_more_does_not() -> None:
    room = MAX_EVENT_BYTES - len(event(detail={"x": ""}))
    largest = event(detail={"x": "y" * room})
    (posted,) = read_posted(largest)
    assert len(posted.raw) == MAX_EVENT_BYTES
    assert len(entry_bytes(2**62, posted.raw)) < 2**16
    with pytest.raises(InvalidInputError, match="64,000 bytes"):
        read_posted(event(detail={"x": "y" * (room + 1)}))
    with pytest.raises(InvalidInputError, match="64,000 bytes"):
        read_posted(largest[:-1] + b" }")


def test_an_answer_lists_only_so_many_faults() -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_posted(b"[" + b",".join([b"{}"] * 100) + b"]")
    assert len(refused.value.faults) == MAX_FAULTS


def test_every_status_is_taken() -> None:
    for status in STATUSES:
        assert read_posted(event("JOB-1", 1, entity="job", status=status))[0].facts["status"] == status


def test_extension_attributes_and_a_trace_are_allowed() -> None:
    raw = changed(lambda value: value.update(traceparent="00-ab-cd-01", partitionkey="7", flag=True))
    assert read_posted(raw)[0].raw == raw


def test_the_events_bytes_come_back_out_of_the_entry() -> None:
    for raw in (b"{}", b"", b"a\nb\n", event()):
        assert event_bytes(entry_bytes(5, raw)) == raw


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-22T14:05:09.123Z", "2026-11-22T14:05:09.123Z"),
        ("2026-11-22t14:05:09z", "2026-11-22T14:05:09.000Z"),
        ("2026-11-22T16:05:09.1239+02:00", "2026-11-22T14:05:09.123Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ("2024-02-29T00:00:00.1234567891Z", "2024-02-29T00:00:00.123Z"),
    ],
)
def test_times_are_shown_in_utc_with_milliseconds(text: str, shown: str) -> None:
    assert format_time_ms(parse_time_ms(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-11-22", "2026-11-22T14:05Z", "20261122T140509Z", "2026-11-22T24:00:00Z",
        "2026-02-30T00:00:00Z", "2026-11-22T14:05:60Z", "2026-11-22T14:05:09,5Z", "2026-11-22T14:05:09+24:00",
        "2026-11-22T14:05:09Z\n", "\u0662\u0660\u0662\u0666-11-22T14:05:09Z", "10000-01-01T00:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time_ms(text)
