"""Bodies are counted while they arrive, and read as strict JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from hmskit.bodies import MAX_DEPTH, read_body, read_json
from hmskit.problems import Problem
from tests.act.support import run


def request_of(
    chunks: list[bytes], *, declared: str | None = None, leaves: bool = False
) -> tuple[Request, list[bytes]]:
    """Return a request whose body comes in these chunks, and the list of those that were asked for."""
    asked: list[bytes] = []

    async def messages() -> AsyncIterator[Message]:
        for place, chunk in enumerate(chunks):
            asked.append(chunk)
            yield {"type": "http.request", "body": chunk, "more_body": leaves or place < len(chunks) - 1}
        yield {"type": "http.disconnect"}

    stream = messages()

    async def receive() -> Message:
        return await anext(stream)

    headers = [] if declared is None else [(b"content-length", declared.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive), asked


def test_a_body_up_to_the_limit_is_read() -> None:
    request, _ = request_of([b"abc", b"", b"de"])
    assert run(read_body(request, limit_bytes=5)) == b"abcde"


@pytest.mark.parametrize("declared", [None, "2", "nonsense"])
def test_a_body_over_the_limit_is_refused_where_it_passes_it(declared: str | None) -> None:
    """What it says of its own length is not trusted."""
    request, asked = request_of([b"abc", b"def", b"ghi"], declared=declared)
    with pytest.raises(Problem) as refused:
        run(read_body(request, limit_bytes=5))
    assert (refused.value.status, refused.value.code) == (413, "body-too-large")
    assert asked == [b"abc", b"def"]


@pytest.mark.parametrize("declared", ["6", "9" * 5000])
def test_a_body_that_says_it_is_too_large_is_not_read_at_all(declared: str) -> None:
    request, asked = request_of([b"abc"], declared=declared)
    with pytest.raises(Problem, match="5 bytes"):
        run(read_body(request, limit_bytes=5))
    assert asked == []


def test_a_connection_that_closes_half_way_is_no_body() -> None:
    request, _ = request_of([b"abc"], leaves=True)
    with pytest.raises(Problem, match="closed") as refused:
        run(read_body(request, limit_bytes=5))
    assert refused.value.status == 422


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(VALUES, st.booleans(), st.booleans())
def test_any_json_is_read(value: object, escaped: bool, marked: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped).encode()
    assert read_json((b"\xef\xbb\xbf" if marked else b"") + text) == value


@pytest.mark.parametrize(
    "body",
    [
        b"", b"  \n", b"{", b"[1,]", b"{'a':1}", b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b'{"a":[-1e400]}',
        b'{"a":' + b"9" * 400 + b".0}", rb'"\ud800"', b'"\xff"', b"1 2", b"[" * 5000, b'"\x00"', b"task_id=1",
    ],
)  # fmt: skip
def test_what_is_no_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        read_json(body)
    assert refused.value.status == 422
    assert len(refused.value.detail) > 10


def test_a_value_nests_only_so_deep() -> None:
    assert read_json(b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH)
    assert read_json(b'["' + b"[" * 500 + b'"]') == ["[" * 500], "brackets in a text are no depth"
    with pytest.raises(Problem, match="100 levels"):
        read_json(b"[" * (MAX_DEPTH + 1) + b"1" + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("value", [10**400, {"a": 1e300}, "1e999", ["x" * 400, "9" * 400]])
def test_large_is_not_infinite(value: Any) -> None:
    assert read_json(json.dumps(value).encode()) == value
