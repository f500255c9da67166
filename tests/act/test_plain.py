"""Events as OMS writes them are read without parsing: that reads what the parser and the contract's models read."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from act.contract import (
    MAX_BATCH_EVENTS,
    MAX_EVENT_BYTES,
    STATUSES,
    Entity,
    EventData,
    encode_event,
    format_time_ms,
)
from act.domain.errors import ActError
from act.domain.plain import cut, plain_values
from act.domain.posted import FACTS, Posted, _read_any, _read_plain, read_posted
from act.domain.split import MAX_DEPTH
from tests.act.support import NOW_MS, array, event, plain_job
from tests.act.test_split import VALUES

# Beside plain ones: what a text must not hold, what JSON escapes, and what two alphabets would take differently.
CHARACTERS = st.sampled_from([*'aZ09.-_ /%:{}[],"\\', "ä", "\xa0", "\x7f", "\x85", "\n", "\0", "\u2028", "٣", "📮"])
PLAIN = st.sampled_from(["w-1", "ticket-9", "Jürgen W.", "x" * 500])
ODD = st.text(CHARACTERS, max_size=6) | st.just("x" * 501)
STREAMS = st.sampled_from(["JOB-1", "JOB-2", "A.B", "x" * 400])
ODD_STREAMS = st.sampled_from(["LANE-scan", "LANE-ä", "x" * 490]) | ODD
COUNTS = st.none() | st.sampled_from([1, 7, 10**15 - 1])
ODD_COUNTS = st.sampled_from([0, 10**15, 2**53, 2**53 + 1, -1, 1.0, True])
DETAILS = st.dictionaries(st.sampled_from(["by", "priority", "final"]) | ODD, VALUES | PLAIN | ODD_COUNTS, max_size=3)
TOKEN = re.compile(rb'"[^"]*"|[0-9]+|null|true|[{}\[\],:]')
PIECES = [
    b"", b" ", b"\n", b"null", b"true", b"0", b"-0", b"00", b"1.0", b"1e400", b"NaN", b'""', b'"\\u0000"', b'"\\ud800"',
    b'"\\n"', b'"\x7f"', b'"\xc2\x85"', b'"\xff"', b'"\xd9\xa3"', b'"20"', b'"JOB-1"', b'"LANE-scan"', b'"detail":{},',
    b'"detail":{}}},{"specversion":"1.0","id":"', b"{}", b"[]", b"{", b"}", b",", b'"a":1,', b"}}", b"}}}",
]  # fmt: skip


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """One event as OMS would write it if it let pass whatever it is given; about half of them are valid."""

    def some(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> Any:
        return draw(odd if is_odd and draw(st.integers(0, 4)) == 0 else usual)

    is_odd = draw(st.booleans())
    stream, seq = some(STREAMS, ODD_STREAMS), some(st.integers(1, 3), st.sampled_from([0, 10**17, 10**18, 10**20]))
    entity: Entity = draw(st.sampled_from(get_args(Entity)))
    task = some(st.just("TASK-5"), st.none() | ODD)
    texts = {
        name: some(st.none() | PLAIN, ODD) for name in ("plan", "reference", "activity", "lane", "worker", "actor")
    }
    data: dict[str, Any] = {
        "job_id": None if stream.startswith("LANE-") else stream,
        **texts,
        "plan_version": some(COUNTS, ODD_COUNTS),
        "task_id": task,
        "status": draw(st.sampled_from(STATUSES)),
        "attempt": some(COUNTS, ODD_COUNTS),
        "detail": draw(DETAILS),
    }
    return encode_event(
        stream=stream,
        seq=seq,
        entity=entity,
        subject=task if entity == "task" and task is not None else some(PLAIN, ODD),
        time_ms=draw(st.integers(0, 2**42)),
        data={name: data[name] for name in EventData.model_fields},
        traceparent=some(st.none() | PLAIN, ODD),
    )


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """The body of a batch of which some places were replaced, doubled or left out."""
    raws = draw(st.lists(st.sampled_from(plain_job("JOB-1")) | written(), min_size=1, max_size=3))
    body = array(raws)
    for _ in range(draw(st.integers(0, 2))):
        tokens = list(TOKEN.finditer(body))
        first = draw(st.integers(0, len(tokens) - 1))
        last = draw(st.integers(first, min(first + 3, len(tokens) - 1)))
        begin, end = tokens[first].start(), tokens[last].end()
        piece = draw(st.sampled_from([*PIECES, body[begin:end] * 2]))
        body = body[:begin] + piece + body[end:]
    return body


def read(body: bytes) -> list[Posted] | None:
    """Return what the parser and the models say of a body; None where they refuse it."""
    try:
        return _read_any(body)
    except ActError:
        return None


@given(spoilt())
def test_what_is_read_without_parsing_reads_the_same_when_parsed(body: bytes) -> None:
    plain = _read_plain(body)
    assert plain is None or plain == read(body)


@given(written())
def test_each_event_that_is_admitted_has_the_facts_that_the_models_find(raw: bytes) -> None:
    values = plain_values(raw)
    assert values is None or [one.values for one in read(raw) or ()] == [values]


@given(st.lists(written(), min_size=1, max_size=4))
def test_a_batch_of_events_as_oms_writes_them_is_only_parsed_where_it_is_refused_or_escaped(raws: list[bytes]) -> None:
    body = array(raws)
    assert _read_plain(body) == (None if b"\\u" in body else read(body))


@pytest.mark.parametrize(
    "detail",
    [
        {},
        {"priority": 0},
        {"lease_expires_at": format_time_ms(NOW_MS)},
        {"priority": 3, "input_hmac": "ab" * 32},
        {"error": {"type": 'a "b"', "lines": ["\n", 1.5, -1, None]}},
    ],
)
@pytest.mark.parametrize("entity", ["job", "task", "step"])
def test_a_jobs_events_are_admitted(entity: Entity, detail: dict[str, Any]) -> None:
    raw = event("JOB-7", 12, entity=entity, status="done", attempt=2, worker="Jürgen", actor="a", detail=detail)
    values = plain_values(raw)
    assert values is not None
    assert [Posted(raw, "JOB-7", 12, values)] == _read_any(raw)
    assert dict(zip(FACTS, values, strict=True))["detail"] == to_json(detail).decode()


@pytest.mark.parametrize(
    "change",
    [
        (b'"status":"queued"', b'"status":"queued","status":"queued"'),
        (b'"detail":{}', b'"detail":{"a":1,"a":1}'),
        (b'"detail":{}', b'"detail":{"a":1e999}'),
        (b'"detail":{}', b'"detail":{"a":NaN,"b":1}'),
        (b'"detail":{}', b'"detail":{"a":01}'),
        (b'"detail":{}', b'"detail":{"a":"\\u0000"}'),
        (b'"detail":{}', b'"detail":' + b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH),
        (b'"detail":{}', b'"detail":{},"more":1'),
        (b'"detail":{}', b'"detail":{"a":"' + b"x" * MAX_EVENT_BYTES + b'"}'),
        (b'"plan_version":1', b'"plan_version":0'),
        (b'"plan_version":1', b'"plan_version":true'),
        (b'"attempt":null', b'"attempt":01'),
        (b"JOB-1", b"LANE-1"),
        (b".2", b".02"),
        (b"00000000000000000002", b"0000000000000000002"),
        (b"00000000000000000002", b"00000000000000000003"),
        (b'"subject":"TASK-1"', b'"subject":"TASK-2"'),
        (b"hms.task.queued.v1", b"hms.task.done.v1"),
        (b"passport", b"pass\xc2\x85port"),
        (b"passport", b"pass\xffport"),
        (b"passport", b"pass\\tport"),
        (b"Z", b""),
    ],
)
def test_what_might_be_refused_or_read_in_two_ways_is_not_admitted(change: tuple[bytes, bytes]) -> None:
    raw = event("JOB-1", 2)
    assert plain_values(raw) is not None
    assert plain_values(raw.replace(*change)) is None


def test_an_event_that_begins_inside_another_is_no_place_to_cut() -> None:
    inner = from_json(event("JOB-2", 1))
    for detail in ({"a": [1, inner]}, {"a": [inner, inner]}):
        body = array([event("JOB-1", 1, detail=detail), event("JOB-1", 2)])
        assert _read_plain(body) is None
        assert [one.event_id for one in read_posted(body)] == ["JOB-1.1", "JOB-1.2"]


def test_a_batch_that_is_too_long_is_not_cut() -> None:
    raws = [event("JOB-1", 1)] * MAX_BATCH_EVENTS
    assert cut(array(raws)) == raws
    assert cut(array([*raws, raws[0]])) is None
