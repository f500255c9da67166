"""What expressions give: each kind on good data, and an error with its code on any other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms.domain.cel import MAX_RESULT_TEXT, MAX_RESULT_VALUES
from oms.domain.cel_scope import Scope, Shape
from oms.domain.condition import Condition, ConditionError, ConditionSyntaxError
from oms.domain.expression import Expression, Kind

SCOPE = Scope({"scan": Shape.OBJECT, "pages": Shape.LIST, "answer": Shape.ANY, "T02 x": Shape.OBJECT}, ("page", "line"))
FACTS: dict[str, Any] = {
    "input": {
        "l": [1, 2],
        "n": 7,
        "at": "2026-11-22T08:00:00.5+01:00",
        "o": {"x": [None, True]},
        "half": 1.5,
        "whole": 2.0,
    },
    "outputs": {"scan": {"ok": True, "l": ["a"]}, "pages": [{"a": {"n": 1}}, {"a": {"n": 2}}], "answer": "yes"},
    "reference": "T-1",
    "variables": {"page": {"n": 3, "l": [1]}, "line": 4},
}


def value(source: str, kind: Kind = Kind.JSON, **facts: Any) -> Any:
    return Expression(source, kind, SCOPE).value(**{**FACTS, **facts})


def refusal(source: str, kind: Kind) -> str:
    with pytest.raises(ConditionSyntaxError) as caught:
        Expression(source, kind, SCOPE)
    return caught.value.message


def undecided(source: str, kind: Kind = Kind.JSON, **facts: Any) -> str:
    with pytest.raises(ConditionError) as caught:
        value(source, kind, **facts)
    assert caught.value.source == source
    assert caught.value.message
    return caught.value.code


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("input", FACTS["input"]),
        ("input.o", {"x": [None, True]}),
        ('input["o"].x', [None, True]),
        ("input.l.map(x, x * 2)", [2, 4]),
        ('{"a": input.o, "b": [input.half, page.n, line, null]}', {"a": {"x": [None, True]}, "b": [1.5, 3, 4, None]}),
        ("outputs.scan", {"ok": True, "l": ["a"]}),
        ("outputs.pages", [{"a": {"n": 1}}, {"a": {"n": 2}}]),
        ("outputs.pages[1].a.n", 2),
        ("outputs.pages.map(p, p.a.n)", [1, 2]),
        ("size(outputs.pages) > 1", True),
        ("outputs.answer", "yes"),
        ('outputs["T02 x"]', {}),
        ("has(outputs.scan.ok)", True),
        ("has(outputs.scan.no)", False),
        ("reference", "T-1"),
        ("3u", 3),
        ('timestamp("2026-11-22T08:00:00Z")', "2026-11-22T08:00:00.000Z"),
        ('[timestamp("2026-11-22T08:00:00.25Z")]', ["2026-11-22T08:00:00.250Z"]),
        ("page", {"n": 3, "l": [1]}),
        ("page.l", [1]),
        ("-9223372036854775808", -(2**63)),
        ("1e+300", 1e300),
    ],
)
def test_any_json_is_given_as_it_is(source: str, found: Any) -> None:
    assert value(source) == found
    assert type(value(source)) is type(found)


def test_a_part_of_the_data_is_given_itself_however_large() -> None:
    large = [{"text": "x" * 1000} for _ in range(9_000)]
    assert value("input.l", input={"l": large}) is large
    assert value("input.l", Kind.LIST, input={"l": large}) is large


def test_a_part_of_the_data_may_hold_any_text_but_none_is_made_of_a_nul() -> None:
    """The engine would cut it there."""
    assert value("input.x", input={"x": "a\0b"}) == "a\0b"
    assert value("input.x", input={"x": 2**70}) == 2**70
    assert undecided("[input.x]", input={"x": "a\0b"}) == "type_mismatch"
    assert undecided("[input.x]", input={"x": {"a\0b": 1}}) == "type_mismatch"


@pytest.mark.parametrize("data", [b"x", "half \ud800", {1: 2}, float("nan")])
def test_a_part_that_is_no_json_is_an_error(data: object) -> None:
    assert undecided("input.x", input={"x": data}) == "type_mismatch"


def test_what_is_made_of_the_data_has_bounds() -> None:
    long_text = {"s": "x" * 900_000}
    assert undecided("[" + ", ".join(["input"] * 8) + "]", input=long_text) == "budget_exceeded"
    many = {"l": list(range(9_000))}
    assert undecided("[" + ", ".join(["input.l"] * 15) + "]", input=many) == "budget_exceeded"
    assert len(value("[" + ", ".join(["input.l"] * 10) + "]", input=many)) == 10
    assert (MAX_RESULT_VALUES, MAX_RESULT_TEXT) == (100_000, 4 * 1024 * 1024)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("input.missing", "missing_key"),
        ("outputs.pages[7]", "missing_key"),
        ("input.n.x", "type_mismatch"),
        ("dyn(b'x')", "type_mismatch"),
        ("[duration('3s')]", "type_mismatch"),
        ("[input.?n]", "type_mismatch"),
        ("dyn({1: 2})", "type_mismatch"),
        ("dyn(1.0) / 0.0", "type_mismatch"),
        ("input.l.map(a, input.l.map(b, input.l))", "budget_exceeded"),
        ("1 / (input.n - 7)", "other"),
    ],
)
def test_what_gives_no_json_is_an_error_with_a_code(source: str, code: str) -> None:
    many = {**FACTS["input"], "l": list(range(3000))} if "budget" in code else FACTS["input"]
    try:
        assert undecided(source, input=many) == code
    except ConditionSyntaxError as error:
        assert "JSON" in error.message or "optional" in error.message  # noqa: PT017 - refused even before


def test_a_list_has_at_most_10_000_items() -> None:
    assert value("input.l", Kind.LIST, input={"l": [0] * 10_000}) == [0] * 10_000
    assert undecided("input.l", Kind.LIST, input={"l": [0] * 10_001}) == "too_many_items"
    assert undecided("outputs.pages", Kind.LIST, outputs={"pages": [{}] * 10_001}) == "too_many_items"
    assert value("outputs.pages", Kind.LIST, outputs={}) == []


@pytest.mark.parametrize("source", ["input.n", "input.at", "input.o", "line", "outputs.scan.ok", "dyn(null)"])
def test_what_is_no_list_has_no_items(source: str) -> None:
    assert undecided(source, Kind.LIST) == "not_a_list"


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ('timestamp("2026-11-22T08:00:00Z")', "2026-11-22T08:00:00+00:00"),
        ('timestamp(input.at) + duration("90s")', "2026-11-22T07:01:30.500+00:00"),
        ("input.at", "2026-11-22T07:00:00.500+00:00"),
        ('dyn("1969-12-31t23:59:59.999999z")', "1969-12-31T23:59:59.999+00:00"),
        ("timestamp(3)", "1970-01-01T00:00:03+00:00"),
    ],
)
def test_a_moment_is_whole_milliseconds(source: str, at: str) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert value(source, Kind.MOMENT) == round((datetime.fromisoformat(at) - epoch).total_seconds() * 1000)


@pytest.mark.parametrize(
    "source",
    [
        "input.n",
        "outputs.answer",
        'dyn("2026-13-01T00:00:00Z")',
        'dyn("2026-11-22T00:00:00")',
        'dyn("2026-11-22")',
        "page",
    ],
)
def test_what_is_no_moment_is_an_error(source: str) -> None:
    assert undecided(source, Kind.MOMENT) == "type_mismatch"


@pytest.mark.parametrize(
    ("source", "number"),
    [("7", 7), ("input.n * 2", 14), ("input.whole", 2), ("input.n > 3 ? 10 : 0", 10), ("size(page.l)", 1), ("2u", 2)],
)
def test_a_priority_is_a_whole_number(source: str, number: int) -> None:
    found = value(source, Kind.PRIORITY)
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize(
    "source", ["input.half", "outputs.scan.ok", "input.at", "input.n * 1000000", "-1000001", "dyn(1e300)"]
)
def test_what_is_no_priority_is_an_error(source: str) -> None:
    assert undecided(source, Kind.PRIORITY) == "type_mismatch"


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("1", Kind.LIST, "gives int, not a list"),
        ("input", Kind.LIST, "gives map<string, dyn>, not a list"),
        ("outputs.scan", Kind.LIST, "gives map<string, dyn>, not a list"),
        ("input.?l", Kind.LIST, "optional value; end it with .orValue(...)"),
        ("reference", Kind.MOMENT, "write timestamp(...) around it"),
        ("1.5", Kind.PRIORITY, "gives double, not a whole number; write int(...) around it"),
        ("input.n > 3", Kind.PRIORITY, "gives bool, not a whole number; write (...) ? 10 : 0"),
        ("[b'x']", Kind.JSON, "not a JSON value"),
        ("{1: 2}", Kind.JSON, "not a JSON value"),
        ("type(1)", Kind.JSON, "not a JSON value"),
        ("outputs.pages[0].x + 1 +", Kind.JSON, "ends too early"),
        ("outputs.other", Kind.JSON, "there is no earlier activity"),
        ("item.x", Kind.JSON, 'there is no "item" here; expected input, outputs, reference, page, line'),
        ("input.l.map(page, page)", Kind.JSON, 'a loop\'s variable cannot be called "page"'),
        ("input.s.matches(page.p)", Kind.JSON, "must be a text in quotes"),
    ],
)
def test_what_cannot_fit_is_refused_at_load(source: str, kind: Kind, message: str) -> None:
    assert message in refusal(source, kind)


def test_an_object_alone_is_checked_as_before() -> None:
    """Where a plan reads activities only, the types of their outputs are known at load."""
    assert "cannot be applied" in refusal("outputs.scan + 1", Kind.JSON)
    assert undecided("outputs.answer + 1") == "type_mismatch"


def test_conditions_see_the_items_too() -> None:
    condition = Condition("page.n > 2 && outputs.pages.exists(p, p.a.n == 2)", SCOPE)
    assert condition.holds(**FACTS)
    assert not condition.holds(**{**FACTS, "variables": {"page": {"n": 1}}})
    assert Condition("input.n == 7", SCOPE).holds(input={"n": 7}, outputs={}, reference="r")


@pytest.mark.parametrize(
    ("source", "constant"),
    [
        ("false", False),
        ("1 > 2 || 'a' == 'b'", False),
        ("input.x && false", False),
        ("has(outputs.scan.ok) || true", True),
        ("true", True),
        ("page.n > 1 && [1].exists(x, x == 2)", False),
        ("input.x", None),
        ("!input.x || input.y", None),
        ("1 / 0 == 1", None),
    ],
)
def test_what_a_condition_gives_whatever_the_data(source: str, constant: bool | None) -> None:
    assert Condition(source, SCOPE).constant is constant


def test_expressions_are_values() -> None:
    def make(source: str, kind: Kind) -> Expression:
        return Expression(source, kind, SCOPE)

    assert make("input.x", Kind.JSON) == make("input.x", Kind.JSON) != make("input.y", Kind.JSON)
    assert make("input.x", Kind.JSON) != make("input.x", Kind.LIST)
    assert len({make("input.x", Kind.JSON), make("input.x", Kind.JSON), make("input.x", Kind.LIST)}) == 2
    assert repr(make("input.x", Kind.LIST)) == "Expression('input.x', Kind.LIST)"
    assert make("outputs.scan.ok", Kind.JSON).reads == {"scan"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(data=JSON)
@settings(deadline=None)
def test_any_json_goes_through_unchanged(data: object) -> None:
    """Also where it is not quoted but made: the engine's value is JSON again."""
    facts: dict[str, Any] = {"input": {"x": data}, "variables": {"page": data, "line": None}}
    assert value("input.x", **facts) == data
    if "\\u0000" in json.dumps(data):
        assert undecided("[input.x]", **facts) == "type_mismatch"
        return
    made = value('[input.x, {"a": page}]', **facts)
    assert made == [data, {"a": data}]
    assert repr(made) == repr([data, {"a": data}]) or isinstance(data, dict | list)


@given(data=JSON, kind=st.sampled_from(list(Kind)))
@settings(deadline=None)
def test_any_data_gives_what_the_kind_is_or_an_error(data: object, kind: Kind) -> None:
    expected = {Kind.LIST: list, Kind.MOMENT: int, Kind.PRIORITY: int, Kind.JSON: object}[kind]
    for source in ("input.x", "dyn([input.x])[0]"):
        try:
            found = value(source, kind, input={"x": data})
        except ConditionError as error:
            code: str | None = error.code
        else:
            code = None
            assert isinstance(found, expected)
            assert not isinstance(found, bool) or kind is Kind.JSON
        if "\\u0000" in json.dumps(data):
            continue
        assert code in ({None} if kind is Kind.JSON else {None, "not_a_list" if kind is Kind.LIST else "type_mismatch"})
