"""``output_schema``: what is refused at load, and what a worker is told about an output that does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.errors import Fault
from oms.domain.schema import DIALECT, MAX_FAULTS, OutputSchema, SchemaError

REMOTE = "http://127.0.0.1:9/never-asked"
PHOTO: dict[str, Any] = {
    "type": "object",
    "required": ["photo"],
    "properties": {
        "photo": {"type": "string", "minLength": 2},
        "taken": {"type": "string", "format": "date"},
        "pages": {"type": "array", "items": {"type": ["integer", "null"]}},
        "kind": {"enum": ["colour", "grey"]},
    },
}


def test_an_output_that_fits_has_no_faults() -> None:
    schema = OutputSchema(PHOTO)
    assert schema.faults({"photo": "ok", "taken": "2026-11-22", "pages": [1, None], "kind": "grey", "more": 1}) == ()
    assert schema.document is PHOTO


@pytest.mark.parametrize(
    ("output", "loc", "expected"),
    [
        ({}, ("output", "photo"), 'the key "photo" is required, and missing'),
        ([], ("output",), "expected object, found a list of 0"),
        (None, ("output",), "expected object, found null"),
        ({"photo": 3}, ("output", "photo"), "expected string, found the number 3"),
        ({"photo": "x"}, ("output", "photo"), "shorter than 2"),
        ({"photo": "ok", "pages": [1, "x"]}, ("output", "pages", 1), 'expected integer or null, found the text "x"'),
        ({"photo": "ok", "taken": "2026-13-01"}, ("output", "taken"), 'is not a "date"'),
        ({"photo": "ok", "kind": "gray"}, ("output", "kind"), 'is not one of "colour" or "grey"'),
        ({"photo": "ok", "pages": object()}, ("output",), "a value of type object is not JSON"),
        ({"photo": "\ud800"}, ("output",), "half of a character"),
        ({"photo": float("nan")}, ("output",), "no JSON number"),
    ],
)
def test_a_fault_says_where_and_what_was_expected(output: object, loc: tuple[str | int, ...], expected: str) -> None:
    (fault,) = OutputSchema(PHOTO).faults(output)
    assert fault.loc == loc
    assert expected in fault.msg


def test_all_faults_of_an_output_are_told_at_once() -> None:
    faults = OutputSchema(PHOTO).faults({"pages": ["x"], "kind": 3})
    assert {fault.loc for fault in faults} == {("output", "photo"), ("output", "pages", 0), ("output", "kind")}


def test_at_most_twenty_faults_are_told_and_of_a_huge_output_the_first() -> None:
    schema = OutputSchema({"items": {"type": "string"}})
    assert len(schema.faults([1] * 500)) == MAX_FAULTS
    assert schema.faults([1] * 50_000) == (Fault(("output", 0), "expected string, found the number 1"),)


def test_a_message_is_short_whatever_the_value() -> None:
    (fault,) = OutputSchema({"maxLength": 3}).faults("x\n" * 50_000)
    assert len(fault.msg) <= 300
    assert "\n" not in fault.msg


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        ({"$ref": REMOTE}, ("$ref",), "a remote $ref is refused"),
        ({"$ref": "other.json"}, ("$ref",), "a remote $ref is refused"),
        ({"$ref": "file:///etc/passwd"}, ("$ref",), "a remote $ref is refused"),
        ({"$dynamicRef": f"{REMOTE}#x"}, ("$dynamicRef",), "a remote $dynamicRef is refused"),
        ({"properties": {"a": {"items": {"$ref": REMOTE}}}}, ("properties", "a", "items", "$ref"), "remote"),
        ({"allOf": [{}, {"not": {"$ref": REMOTE}}]}, ("allOf", 1, "not", "$ref"), "remote"),
        ({"$ref": "#/$defs/pers", "$defs": {"person": {}}}, ("$ref",), 'no "pers"; did you mean "person"?'),
        ({"$ref": "#pers"}, ("$ref",), 'no $anchor "pers"'),
        ({"$defs": {"a": {"$id": "b"}}}, ("$defs", "a", "$id"), "an inner $id is not supported"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ("$schema",), f"expected {DIALECT}"),
        ({"type": "objct"}, ("type",), 'no type "objct"; did you mean "object"?'),
        ({"items": {"type": ["string", "int"]}}, ("items", "type", 1), 'no type "int"'),
        ({"properties": {"a": {"required": "photo"}}}, ("properties", "a", "required"), "expected array"),
        ({"pattern": "("}, ("pattern",), "regex"),
        ({"minimum": "3"}, ("minimum",), "expected number, found the text"),
        ({"minimum": float("inf")}, (), "no JSON number"),
        ({"const": object()}, (), "is not JSON"),
        ("object", (), "expected a JSON Schema"),
        (None, (), "expected a JSON Schema"),
        ([], (), "expected a JSON Schema"),
    ],
)
def test_a_schema_is_refused_at_the_place_of_its_fault(
    document: object, path: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        OutputSchema(document)
    assert caught.value.path == path
    assert message in caught.value.message


@pytest.mark.parametrize(
    "document",
    [
        {"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"type": "integer"}}},
        {"$ref": "#number", "$defs": {"x": {"$anchor": "number", "type": "integer"}}},
        {"$id": "https://example.org/a", "$ref": "https://example.org/a#/$defs/x", "$defs": {"x": {"type": "integer"}}},
        {"$schema": DIALECT, "type": "integer"},
        {"$ref": "#/allOf/1", "allOf": [True, {"type": "integer"}]},
    ],
)
def test_references_inside_the_schema_work(document: object) -> None:
    schema = OutputSchema(document)
    assert schema.faults(3) == ()
    assert schema.faults("x") != ()


def test_what_only_looks_like_a_reference_is_data() -> None:
    schema = OutputSchema({"properties": {"$ref": {"type": "string"}}, "not": {"const": {"$ref": REMOTE}}})
    assert schema.faults({"$ref": REMOTE}) != ()
    assert schema.faults({"$ref": "x"}) == ()


def test_true_and_false_are_schemas() -> None:
    assert OutputSchema(document=True).faults({"a": 1}) == ()
    assert OutputSchema(document=False).faults({"a": 1}) == (Fault(("output",), "expected nothing here"),)


def doubled(levels: int) -> dict[str, Any]:
    """Return a schema of some lines whose references double at each level."""
    names = [f"d{level}" for level in range(levels)]
    below = {name: {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level, name in enumerate(names)}
    return {"$ref": "#/$defs/d0", "$defs": {**below, f"d{levels}": {"type": "object"}}}


def test_references_that_multiply_are_refused_before_they_take_for_ever() -> None:
    assert OutputSchema(doubled(10)).faults({}) == ()
    with pytest.raises(SchemaError, match="multiply"):
        OutputSchema(doubled(40))


@pytest.mark.parametrize("document", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"items": {"$ref": "#"}}])
def test_a_schema_may_refer_to_itself(document: object) -> None:
    assert OutputSchema(document).faults([[[]]]) == ()


def test_deep_schemas_and_outputs_are_refused() -> None:
    deep: Any = {}
    for _ in range(50_000):
        deep = {"items": deep}
    with pytest.raises(SchemaError, match="nested deeper"):
        OutputSchema(deep)
    (fault,) = OutputSchema({"items": {"$ref": "#"}}).faults(deep)
    assert "nested deeper" in fault.msg


def test_a_pattern_that_backtracks_ends() -> None:
    (fault,) = OutputSchema({"pattern": r"^(?=a)(a|a)*\1$"}).faults("a" * 5000 + "b")
    assert fault.loc == ("output",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["type", "properties", "items", "required", "$ref", "$defs", "allOf", "not", "enum", "$id", "a"]
)
SCHEMAS = st.recursive(
    JSON | st.sampled_from(["object", "string", "#", "#/$defs/a", "#/properties/a", REMOTE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(document=SCHEMAS, output=JSON)
def test_any_document_is_a_schema_or_refused_at_a_place_inside_it(document: object, output: object) -> None:
    try:
        schema = OutputSchema(document)
    except SchemaError as error:
        refused = error
    else:
        assert all(fault.loc[0] == "output" and fault.msg for fault in schema.faults(output))
        return
    found: Any = document
    for part in refused.path:
        found = found[part]
    assert refused.message


def test_schemas_are_values() -> None:
    assert OutputSchema({"a": 1, "b": 2}) == OutputSchema({"b": 2, "a": 1})
    assert hash(OutputSchema({"a": 1, "b": 2})) == hash(OutputSchema({"b": 2, "a": 1}))
    assert OutputSchema({}) != OutputSchema({"a": 1})
