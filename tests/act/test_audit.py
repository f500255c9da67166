"""Every column that readers see, and all that is summed up, is derived again from the raw bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.contract import STATUSES, encode_event, entry_bytes, leaf_hash
from act.domain.audit import Audit, EntryError, Finding, check_rows, derive, difference
from act.domain.posted import read_posted
from act.storage.tables import events
from tests.act.support import NOW_MS, array, event, plain_job
from tests.act.trees import mth

NOW_US = NOW_MS * 1000
BLOCK = 3
COLUMNS = {str(column.key) for column in events.columns}
RAWS = [
    *plain_job("JOB-1"),
    event("LANE-ai_extract", 1, entity="lane", status="paused", lane="ai_extract", actor="m-1", future={"a": [1.5]}),
    *plain_job("JOB-2", time_ms=NOW_MS - 60_000),
]


def rows_of(raws: list[bytes]) -> list[dict[str, Any]]:
    """Return the rows that the append makes of posted events."""
    rows = []
    for index, posted in enumerate(read_posted(array(raws))):
        entry = entry_bytes(NOW_US + index, posted.raw)
        place = {"idx": index, "received_us": NOW_US + index, "leaf_hash": leaf_hash(entry), "entry": entry}
        rows.append({**posted.facts, **place})
    return rows


def finding(rows: list[dict[str, Any]]) -> Finding | None:
    return Audit(BLOCK).take(check_rows(rows, first=0))


def edited(value: object) -> object:
    """Return another value of the same kind."""
    if isinstance(value, int):
        return value + 1
    return bytes(32) if isinstance(value, bytes) else f"{value or ''} "


def test_a_column_that_is_not_derived_again_would_be_open_to_editing() -> None:
    """P2: whoever adds a column to the ledger must say how it follows from the bytes."""
    assert set(derive(rows_of(RAWS)[0]["entry"])) == COLUMNS - {"idx", "entry"}


def test_a_ledger_as_it_was_appended_has_no_finding() -> None:
    audit = Audit(BLOCK)
    rows = rows_of(RAWS)
    for at in range(0, len(rows), 3):  # in pages
        assert audit.take(check_rows(rows[at : at + 3], first=at)) is None
    assert audit.frontier.size == len(rows)
    assert audit.frontier.root == mth([row["leaf_hash"] for row in rows])
    assert audit.heads == {"JOB-1": 5, "LANE-ai_extract": 1, "JOB-2": 5}
    times = [row["ts_ms"] for row in rows]
    assert audit.spans == [(min(times[at : at + 3]), max(times[at : at + 3])) for at in (0, 3, 6)]


@pytest.mark.parametrize("column", sorted(COLUMNS - {"entry"}))
@pytest.mark.parametrize("at", range(len(RAWS)))
def test_p2_one_edited_column_is_found(column: str, at: int) -> None:
    rows = rows_of(RAWS)
    value = rows[at][column]
    rows[at][column] = edited(value)
    found = finding(rows)
    assert found is not None
    assert found.index == at
    assert column in found.detail or "missing" in found.detail
    if value is not None:
        rows[at][column] = None
        assert finding(rows) is not None


@given(st.data())
def test_p1_any_flipped_bit_of_an_entry_is_found_at_its_index(data: st.DataObject) -> None:
    rows = rows_of(RAWS)
    at = data.draw(st.integers(0, len(rows) - 1))
    entry = rows[at]["entry"]
    place = data.draw(st.integers(0, len(entry) - 1))
    rows[at]["entry"] = entry[:place] + bytes([entry[place] ^ 1 << data.draw(st.integers(0, 7))]) + entry[place + 1 :]
    found = finding(rows)
    assert found is not None
    assert found.index == at


@pytest.mark.parametrize("change", ["swap", "delete", "insert", "repeat"])
def test_p1_entries_out_of_place_are_found(change: str) -> None:
    raws = list(RAWS)
    if change == "swap":
        raws[2], raws[3] = raws[3], raws[2]
    elif change == "delete":
        del raws[2]
    elif change == "insert":
        raws.insert(2, event("JOB-1", 9))
    else:
        raws.insert(2, raws[1])
    # Rows made anew around the change: hashes, columns and indexes all fit, and only the order tells.
    found = finding(rows_of(raws))
    assert found is not None
    assert found.index == 2
    assert "JOB-1" in found.detail


def test_a_hole_in_the_index_is_named() -> None:
    rows = rows_of(RAWS)
    del rows[4]
    assert finding(rows) == Finding(4, "an entry is missing: the next one in the database has the index 5")


def test_the_order_is_kept_from_page_to_page() -> None:
    rows = rows_of([*RAWS, RAWS[0]])
    audit = Audit(BLOCK)
    assert audit.take(check_rows(rows[:-1], first=0)) is None
    found = audit.take(check_rows(rows[-1:], first=len(rows) - 1))
    assert found is not None
    assert (found.index, found.detail) == (11, "the stream 'JOB-1' goes on with 1, and 6 is its next")


def test_the_sentence_names_the_column_and_both_values() -> None:
    row = rows_of(RAWS)[1]
    derived = derive(row["entry"])
    assert difference(derived, row) is None
    row["lane"] = "x" * 300
    sentence = difference(derived, row)
    assert sentence is not None
    assert sentence.startswith("the column lane says 'xxx")
    assert sentence.endswith("..., and the entry says 'ai_extract'")


RAW = RAWS[0]


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        RAW,
        b"act-entry/v2\n1\n" + RAW,
        b"act-entry/v1\n01\n" + RAW,
        b"act-entry/v1\n-1\n" + RAW,
        b"act-entry/v1\n1 \n" + RAW,
        b"act-entry/v1\n\n" + RAW,
        b"act-entry/v1\n1\n",
        b"act-entry/v1\n1\n{}",
        b"act-entry/v1\n1\n[]",
        entry_bytes(NOW_US, RAW + b"}"),
        entry_bytes(NOW_US, RAW.replace(b'"JOB-1.1"', b'"JOB-1.2"')),
    ],
)
def test_what_is_no_entry_is_refused(entry: bytes) -> None:
    with pytest.raises(EntryError, match="the entry"):
        derive(entry)
    found = finding([{**rows_of(RAWS)[0], "entry": entry}])
    assert found is not None
    assert found.index == 0


TEXTS = st.none() | st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abcé€\\"', max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    status=st.sampled_from(STATUSES),
    lane=TEXTS,
    reference=TEXTS,
    attempt=st.none() | st.integers(0, 2**53),
    detail=st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=3),
    future_field=VALUES,
    time_ms=st.integers(0, 2**44),
    is_ascii=st.booleans(),
)
def test_what_is_derived_is_what_was_read_when_it_was_posted(
    *, status: str, time_ms: int, is_ascii: bool, **data: Any
) -> None:
    value = json.loads(event(status=status, time_ms=time_ms))
    value["data"].update(data)
    raw = json.dumps(value, ensure_ascii=is_ascii).encode()
    (posted,) = read_posted(raw)
    derived = derive(entry_bytes(time_ms, raw))
    assert {name: derived[name] for name in posted.facts} == dict(posted.facts)
    assert derived["received_us"] == time_ms


def test_an_event_with_line_breaks_in_it_is_one_entry() -> None:
    raw = json.dumps(json.loads(RAW), indent=1).encode()
    assert derive(entry_bytes(NOW_US, raw))["event_id"] == "JOB-1.1"


def test_every_kind_of_stream_is_derived() -> None:
    lane = "Büro / Süd"
    data = json.loads(event("LANE-x", entity="lane", status="paused"))["data"]
    raw = encode_event(
        stream=f"LANE-{lane}", seq=1, entity="lane", subject=f"LANE-{lane}", time_ms=NOW_MS, data={**data, "lane": lane}
    )
    derived = derive(entry_bytes(NOW_US, raw))
    assert (derived["stream"], derived["lane"], derived["job_id"]) == (f"LANE-{lane}", lane, None)
