"""The append rule, against a model that is too simple to be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.domain.errors import ActError, ForkError, GapError
from act.domain.order import Kept, is_new


@dataclass(frozen=True)
class Some:
    """An event of which only the place and the bytes matter."""

    stream: str
    seq: int
    raw: bytes


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[str, list[bytes]], list[Some]]:
    """A ledger, and a batch that fits it more often than chance would have it."""
    history = {
        stream: [b"%d" % draw(st.integers(0, 1)) for _ in range(draw(st.integers(0, 3)))] for stream in ("A", "B")
    }
    heads = {stream: len(raws) for stream, raws in history.items()}
    batch = []
    for _ in range(draw(st.integers(1, 6))):
        stream = draw(st.sampled_from(["A", "B"]))
        step = draw(st.sampled_from([1, 1, 1, 1, 0, 0, -1, 2, 3]))
        seq = max(1, heads[stream] + step)
        heads[stream] = max(heads[stream], seq) if step == 1 else heads[stream]
        batch.append(Some(stream, seq, b"%d" % draw(st.sampled_from([0, 0, 0, 1]))))
    return history, batch


def by_the_book(history: dict[str, list[bytes]], batch: list[Some]) -> list[bool] | type[ActError]:
    """The rule, one event after the other, on plain lists."""
    streams = {stream: list(raws) for stream, raws in history.items()}
    answer = []
    for event in batch:
        raws = streams.setdefault(event.stream, [])
        if event.seq > len(raws) + 1:
            return GapError
        if event.seq == len(raws) + 1:
            raws.append(event.raw)
            answer.append(True)
        elif raws[event.seq - 1] != event.raw:
            return ForkError
        else:
            answer.append(False)
    return answer


@given(situations())
def test_the_rule_agrees_with_the_model(situation: tuple[dict[str, list[bytes]], list[Some]]) -> None:
    history, batch = situation
    heads = {stream: len(raws) for stream, raws in history.items() if raws}
    kept = {
        (stream, seq): Kept(index=seq, raw=raw, leaf_hash=b"")
        for stream, raws in history.items()
        for seq, raw in enumerate(raws, 1)
    }
    expected = by_the_book(history, batch)
    if isinstance(expected, list):
        assert is_new(batch, heads=heads, kept=kept) == expected
    else:
        with pytest.raises(expected):
            is_new(batch, heads=heads, kept=kept)


def test_a_fork_names_the_event_both_places_and_who_must_look() -> None:
    with pytest.raises(ForkError) as refused:
        is_new([Some("A", 2, b"x"), Some("A", 1, b"x")], heads={"A": 1}, kept={("A", 1): Kept(7, b"y", b"")})
    assert refused.value.members == {"event_id": "A.1", "stream": "A", "seq": 1, "index": 1, "ledger_index": 7}
    assert "index 7" in refused.value.detail


def test_a_fork_inside_one_batch_has_no_index_in_the_ledger() -> None:
    with pytest.raises(ForkError) as refused:
        is_new([Some("A", 1, b"x"), Some("A", 1, b"y")], heads={}, kept={})
    assert refused.value.members["ledger_index"] is None
    assert refused.value.members["index"] == 1


def test_a_gap_names_the_one_event_that_is_expected() -> None:
    with pytest.raises(GapError) as refused:
        is_new([Some("JOB-9", 1, b"x"), Some("JOB-9", 4, b"x")], heads={}, kept={})
    assert refused.value.members == {
        "event_id": "JOB-9.4",
        "stream": "JOB-9",
        "seq": 4,
        "index": 1,
        "expected_seq": 2,
        "expected_id": "JOB-9.2",
        "expected_sequence": "00000000000000000002",
    }
    assert "JOB-9.2" in refused.value.detail
