"""Cutting a body into the original bytes of each event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from act.contract import MAX_BATCH_EVENTS
from act.domain.errors import InvalidInputError, TooLargeError
from act.domain.split import MAX_DEPTH, _walk, split, split_plain

# No NUL and no half surrogates: both are refused on purpose, see below.
TEXTS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
SPACE = st.text(" \t\r\n", max_size=3)
PIECES = [
    b"",
    b" ",
    b"0",
    b"-0",
    b"1e400",
    b"1.0",
    b",",
    b'"a":1,',
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\\u0000",
    b"\xff",
    b"NaN",
]


@st.composite
def written(draw: st.DrawFn) -> str:
    """One value as some writer may write it: with or without escapes, spaces and line breaks."""
    return json.dumps(
        draw(VALUES),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 1])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\n")])),
    )


@given(st.lists(st.tuples(SPACE, written(), SPACE), max_size=8), SPACE, SPACE)
def test_the_slices_of_an_array_are_its_original_bytes_and_parse_to_the_same_values(
    items: list[tuple[str, str, str]], before: str, after: str
) -> None:
    text = before + "[" + ",".join("".join(item) for item in items) + "]" + after
    slices, is_array = split(text.encode())
    assert is_array
    assert [piece.raw for piece in slices] == [item[1].encode() for item in items]
    assert [piece.value for piece in slices] == json.loads(text)


EVENTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), min_size=1, max_size=4)


@given(EVENTS)
def test_what_our_own_encoder_wrote_is_not_walked(events: list[dict[str, Any]]) -> None:
    body = to_json(events)
    plain = split_plain(body)
    assert (plain is None) == (b"\\u" in body)
    assert plain is None or ([piece.raw for piece in plain], [piece.value for piece in plain]) == (
        [to_json(event) for event in events],
        events,
    )


@given(EVENTS, st.data())
def test_whatever_is_not_walked_reads_as_it_would_when_walked(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    body = to_json(events)
    at = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(at, min(len(body), at + 4)))
    spoilt = body[:at] + data.draw(st.sampled_from(PIECES)) + body[end:]
    for text in (body, spoilt):
        plain = split_plain(text)
        assert plain is None or (plain, True) == _walk(text)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"a":1,"a":1}]',
        b'[{"a":1e999}]',
        b'[{"a":NaN}]',
        b'[{"a":1.0e1}]',
        b'[{"a": 1}]',
        b'[{"a":"\\u0041"}]',
        b'[{"a":"\\ud800"}]',
        b'[{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}]",
        b'[{"a":1}] ',
        b'[{"a":1},{}',
        to_json([{}] * (MAX_BATCH_EVENTS + 1)),
    ],
)
def test_what_might_be_read_in_two_ways_is_walked(body: bytes) -> None:
    assert split_plain(body) is None


@given(st.dictionaries(TEXTS, VALUES, max_size=5), SPACE, SPACE, st.booleans())
def test_an_object_is_one_event(value: dict[str, Any], before: str, after: str, escaped: bool) -> None:
    raw = json.dumps(value, ensure_ascii=escaped)
    slices, is_array = split((before + raw + after).encode())
    assert not is_array
    assert [(piece.raw, piece.value) for piece in slices] == [(raw.encode(), value)]


@given(st.lists(written(), min_size=1, max_size=4), st.data())
def test_whatever_is_cut_off_or_put_in_is_read_exactly_or_refused(items: list[str], data: st.DataObject) -> None:
    body = ("[" + ",".join(items) + "]").encode()
    at = data.draw(st.integers(0, len(body)))
    changed = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 3)) :]
    try:
        slices, is_array = split(changed)
    except (InvalidInputError, TooLargeError):
        return
    assert [piece.value for piece in slices] == (json.loads(changed) if is_array else [json.loads(changed)])


@pytest.mark.parametrize(
    "raw",
    [
        b'{"n":1.0,"big":1e3,"neg":-0.0}',
        rb'{"escaped":"\u20ac \/ \ud83d\ude00"}',
        '{"raw":"€ 😀"}'.encode(),
        b'{ "spaced" :\t[ 1 , 2 ]\n}',
        b'{"a":{"x":1},"b":{"x":1}}',
        rb'{"no nul":"\\u0000"}',
    ],
)
def test_bytes_that_a_second_writing_would_change_stay(raw: bytes) -> None:
    assert split(b"[" + raw + b" , " + raw + b"]")[0][1].raw == raw
    assert split(raw)[0][0].raw == raw


def test_a_byte_order_mark_before_the_body_is_no_part_of_an_event() -> None:
    assert split(b'\xef\xbb\xbf[{"a":1}]')[0][0].raw == b'{"a":1}'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "must be a JSON array"),
        (b"  ", "must be a JSON array"),
        (b"null", "must be a JSON array"),
        (b'"text"', "must be a JSON array"),
        (b"[", "Expecting value"),
        (b"[1", "',' or ']' is expected"),
        (b"[1 2]", "',' or ']' is expected"),
        (b"[1,]", "Expecting value"),
        (b"[,1]", "Expecting value"),
        (b"[1]]", "something else follows"),
        (b'{"a":1}{"b":2}', "something else follows"),
        (b'[{"a":1,"a":1}]', "'a' occurs twice"),
        (b'[{"x":{"y":[{"k":1,"k":2}]}}]', "'k' occurs twice"),
        (rb'[{"a":1,"\u0061":2}]', "'a' occurs twice"),
        (b"[NaN]", "NaN"),
        (b'[{"a":Infinity}]', "Infinity"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e400]", "too large"),
        (b"[-1e999]", "too large"),
        (rb'["\ud800"]', "surrogate|escape"),
        (rb'[{"\udc00":1}]', "surrogate|escape"),
        (rb'["\ud83dx"]', "surrogate|escape"),
        (rb'["a\u0000b"]', "NUL"),
        (rb'[{"a\u0000":1}]', "NUL"),
        (rb'[{"a":[["\u0000"]]}]', "NUL"),
        (b'["a\x00b"]', "control character"),
        (b'["a\nb"]', "control character"),
        (b'["\xff"]', "UTF-8"),
        (b'["\xed\xa0\x80"]', "UTF-8"),
        (b'["\xc0\x80"]', "UTF-8"),
        ("[1]".encode("utf-16"), "UTF-8"),
        (b"[" + b"9" * 5000 + b"]", "digits"),
        (b"[\xc2\xa01]", "Expecting value"),
        (b"[0x10]", "is expected"),
        (b"[01]", "is expected"),
        (b"['a']", "Expecting value"),
        (b"[tru]", "Expecting value"),
        (b"[1]\x00", "something else follows"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        split(body)


def nested(depth: int) -> bytes:
    return b'{"d":' * (depth - 1) + b"[]" + b"}" * (depth - 1)


def test_depth_is_counted_from_the_event_itself() -> None:
    assert split(b"[" + nested(MAX_DEPTH) + b"]")[0][0].raw == nested(MAX_DEPTH)
    with pytest.raises(InvalidInputError, match="nest 32 deep"):
        split(b"[" + nested(MAX_DEPTH + 1) + b"]")


def test_brackets_in_a_text_are_no_depth() -> None:
    raw = json.dumps({"text": "[{" * 500}).encode()
    assert split(raw)[0][0].raw == raw


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_a_body_of_opening_brackets_only_ends_in_a_refusal(opening: bytes) -> None:
    with pytest.raises(InvalidInputError):
        split(b"[" + opening * 200_000)


def test_the_fault_names_the_element() -> None:
    with pytest.raises(InvalidInputError) as refused:
        split(b'[{"a":1}, {"b":2}, {"c":NaN}]')
    assert refused.value.faults[0].loc == ("body", 2)
    assert refused.value.members == {"index": 2}


def test_more_elements_than_a_batch_may_have_are_not_even_read() -> None:
    assert len(split(b"[" + b",".join([b"{}"] * MAX_BATCH_EVENTS) + b"]")[0]) == MAX_BATCH_EVENTS
    with pytest.raises(TooLargeError, match="500"):
        split(b"[" + b"{}," * MAX_BATCH_EVENTS + b"this is not even JSON")
