"""Reading event logs, and the plans that are made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from oms.demo.event_log import Case, EventLogError, LoggedEvent, read_event_log
from oms.demo.variants import MAX_NAME_CHARS, variants_of
from oms.domain.plan_reader import parse_plan

HEAD = "case:concept:name,concept:name,org:group,time:timestamp\n"


def log(folder: Path, text: str | bytes) -> Path:
    file = folder / "log.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def read(folder: Path, text: str) -> dict[str, tuple[str, ...]]:
    return {case.case_id: case.activities for case in read_event_log(log(folder, text))}


def test_events_are_in_the_order_of_their_moments_then_of_the_file(tmp_path: Path) -> None:
    text = HEAD + (
        "a,third,g,2026-10-25T02:05:00+01:00\n"
        "a,first,g,2026-10-25T02:10:00+02:00\n"
        "a,second,g,2026-10-25T00:30:00Z\n"
        "a,fourth,g,2026-10-25T01:05:00\n"
    )
    assert read(tmp_path, text) == {"a": ("first", "second", "third", "fourth")}


def test_cases_are_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    text = HEAD + "late,x,g,2026-02-01\nearly,x,g,2026-01-01\nlate,y,g,2025-01-01T00:00:00Z\n"
    assert list(read(tmp_path, text)) == ["late", "early"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEAD + "a,x,g,2026-01-01\n",
        HEAD.replace(",", ";") + "a;x;g;2026-01-01\n",
        HEAD.replace(",", "\t") + "a\tx\tg\t2026-01-01\n",
        HEAD.replace("\n", "\r\n") + 'a,"x",g,2026-01-01 00:00:00.5+01:00\r\n',
        "z," + HEAD + "1,a,x,g,2026-01-01\n",
        HEAD + "\na,x,g,2026-01-01\n\n",
    ],
)
def test_the_ways_in_which_people_write_csv(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {"a": ("x",)}


def test_where_starts_are_told_apart_completions_count(tmp_path: Path) -> None:
    text = HEAD.strip() + ",lifecycle:transition\na,x,g,2026-01-01,start\na,x,g,2026-01-02,COMPLETE\n"
    assert read(tmp_path, text) == {"a": ("x",)}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (HEAD, "no events"),
        ("case:concept:name,concept:name\na,x\n", ":1: has no column org:group, time:timestamp"),
        ("{}", ":1: has no column"),
        (HEAD + "a,x,g,yesterday\n", ":2: time:timestamp is 'yesterday'"),
        (HEAD + "a,x,g,2026-01-01\na,,g,2026-01-01\n", ":3: concept:name is empty"),
        (HEAD + "a,x\n", ":2: time:timestamp is empty"),
        (HEAD + "a" * 200 + ",x,g,2026-01-01\n", ":2: case:concept:name is longer"),
        (HEAD.encode() + b"a,\xff,g,2026-01-01\n", "no text in UTF-8"),
        (HEAD.encode() + b"a,\x00,g,2026-01-01\n", ""),
        (HEAD + 'a,"' + "x" * 200_000 + '",g,2026-01-01\n', ":2: is no CSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ""),
    ],
)
def test_a_bad_log_is_refused_with_its_place(tmp_path: Path, text: str | bytes, fault: str) -> None:
    if fault:
        with pytest.raises(EventLogError) as caught:
            read_event_log(log(tmp_path, text))
        assert fault in str(caught.value)
        assert str(tmp_path / "log.csv") in str(caught.value)
        return
    try:
        read_event_log(log(tmp_path, text))
    except EventLogError:
        return


def case(case_id: str, *events: tuple[str, str]) -> Case:
    from datetime import UTC, datetime

    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Case(case_id, tuple(LoggedEvent(activity, group, at) for activity, group in events))


def test_a_variant_is_a_sequence_and_its_lanes_are_the_most_frequent_groups() -> None:
    cases = [
        case("1", ("Check", "A"), ("File", "A")),
        case("2", ("File", "A")),
        case("3", ("Check", "B"), ("File", "B")),
        case("4", ("Check", "B"), ("File", "A")),
    ]
    first, second = variants_of(cases)
    assert [step["lane"] for step in first.plan["sequence"]] == ["B", "A"]
    assert [case.case_id for case in first.cases] == ["1", "3", "4"]
    assert second.lanes == ["A"]
    assert first.plan_id != second.plan_id
    assert variants_of(cases)[0].plan == first.plan


def test_a_repeated_activity_gets_a_name_of_its_own_that_is_mapped_back() -> None:
    events = ["T02 Check", "T02 Check (2)", "T02 Check", "T02 Check"]
    (variant,) = variants_of([case("1", *[(name, "g") for name in events])])
    names = [step["activity"] for step in variant.plan["sequence"]]
    assert names == ["T02 Check", "T02 Check (2)", "T02 Check (3)", "T02 Check (4)"]
    assert [variant.logged_as[name] for name in names] == events


def test_whatever_stands_in_a_log_makes_a_plan_that_is_taken() -> None:
    names = ["x" * 300, "x" * 300, "a\tb\x00c", "NO", "null", " ", "ü\u2028", "12", "a\x85b", "{{}}"]
    (variant,) = variants_of([case("1", *[(name, name) for name in names])])
    plan = parse_plan(variant.plan)
    assert len(plan.steps) == len(names)
    assert all(len(step.activity) <= MAX_NAME_CHARS for step in plan.steps)
    assert [variant.logged_as[step.activity] for step in plan.steps] == names
