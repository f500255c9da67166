"""Plan files: words stay text, places are exact, and nothing that a file can hold is worse than a fault."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oms.domain.plan import Plan
from oms.storage.plan_files import (
    DocumentError,
    PlanFileError,
    PlanFileFault,
    PlanFolder,
    load_document,
    read_folder,
    read_plan,
)

ROOT = Path(__file__).parents[2]
PASSPORT = """\
# file: passport.plan.yaml
id: passport_renewal
lanes:
  - ai_extract
  - human_verify
  - external_print
sequence:
  - ai_extract
  - human_verify
  - external_print
retry_policy: {attempts: 3, backoff_sec: 30}
"""


def faults_of(text: str | bytes) -> list[str]:
    """Return the faults of a file as ``line:column: detail``."""
    with pytest.raises(PlanFileError) as caught:
        read_plan(text, file="f")
    return [str(fault).removeprefix("f:") for fault in caught.value.faults]


def step(rest: str) -> str:
    """Return a plan whose second step ends with ``rest``, a line that stands at column 5 of line 6."""
    return f"id: p\nlanes: [a, b]\nsequence:\n  - a\n  - activity: b\n    {rest}\n"


def test_the_seeds_file_is_byte_for_byte_the_seeds() -> None:
    assert (ROOT / "plans" / "passport.plan.yaml").read_text(encoding="utf-8") == PASSPORT


def test_the_plans_that_are_shipped_are_good() -> None:
    folder = read_folder(ROOT / "plans")
    assert folder.refused == []
    assert {"passport_renewal", "building_permit", "benefit_claim"} <= {loaded.plan.id for loaded in folder.loaded}


def test_words_are_text_and_numbers_are_numbers() -> None:
    words = (
        "[NO, on, yes, Off, y, 012, 0x1F, 0o17, 12:30:45, 2026-11-22, 1_000, .inf, .nan, Null, TRUE, true, '5', <<, =]"
    )
    numbers = "[5, -3, +4, 0, 1.5, 1e3, .5, 2., -0.25, 9223372036854775807]"
    document, _ = load_document(f"words: {words}\nnumbers: {numbers}\nnothing: [null, ~, ]\n")
    assert document["words"] == words[1:-1].replace("'", "").split(", ")
    assert document["numbers"] == [5, -3, 4, 0, 1.5, 1000.0, 0.5, 2.0, -0.25, 9223372036854775807]
    assert document["nothing"] == [None, None]


def test_true_is_a_boolean_only_in_data() -> None:
    plan = read_plan(step("output_schema: {const: true, enum: [NO, false, 1]}"), file="f")
    schema = plan.steps[1].output_schema
    assert schema is not None
    assert schema.document == {"const": True, "enum": ["NO", False, 1]}
    named = read_plan("id: true\nlanes: [true]\nsequence: [{lane: true, when: true}]\n", file="f")
    assert (named.id, named.lanes[0].id, named.steps[0].activity) == ("true", "true", "true")


def test_a_name_that_is_a_number_is_put_in_quotes() -> None:
    assert faults_of('id: p\nlanes: [12]\nsequence: ["12"]\n')[0].startswith("2:9: ")
    assert read_plan('id: p\nlanes: ["12"]\nsequence: ["12"]\n', file="f").lanes[0].id == "12"


FAULTS = [
    ("", "1:1: a plan is a mapping (id, lanes, sequence); found nothing"),
    ("[]", "1:1: a plan is a mapping (id, lanes, sequence); found a list"),
    ("plan", "1:1: a plan is a mapping (id, lanes, sequence); found a single value"),
    (step("whn: 'true'"), '6:5: a step has no key "whn"; did you mean "when"?'),
    (step("lane: c"), '6:11: the lane "c" is not declared in lanes; expected one of a, b'),
    (step("activity: c"), '6:5: the key "activity" is given twice'),
    (step("? [when]\n    : x"), "6:7: a key is a text; found a list or a mapping"),
    (step("12: x"), '6:5: a key is a text; found "12"; put it in quotes'),
    (step("when: &x 'true'"), "6:11: anchors are not allowed: &x; a text that starts with & is put in quotes"),
    (step("when: *x"), "6:11: aliases are not allowed: *x; a text that starts with * is put in quotes"),
    (step("when: !input.x"), '6:11: tags are not allowed: "!input.x"; a text that starts with ! is put in quotes'),
    (step("when: !!python/object:os.system x"), '6:11: tags are not allowed: "!!python/object:os.system"'),
    (step("when: outputs.c.x"), '6:19: when: there is no earlier activity "c"'),
    (step("when: 'outputs[\"it''s\"].x && foo'"), '6:21: when: there is no earlier activity "it\'s"'),
    (step('when: "outputs.\\x61.x\\u0020&& foo"'), '6:35: when: there is no "foo" here'),
    (step("when: \"'\\ud83d\\ude00' == foo\""), '6:30: when: there is no "foo" here'),
    (step("when: >\n      outputs.c.x"), '6:11: when: there is no earlier activity "c"'),
    (step("when: true &&\n      outputs.c.x"), '6:11: when: there is no earlier activity "c"'),
    (step("when:"), "6:10: when is a CEL expression, written as text; found null"),
    (step('when: "a" == input.x'), "6:15: not valid YAML: expected <block end>, but found '<scalar>'; a text with"),
    (step("when: has(input.x) ? true : false"), "6:31: not valid YAML: mapping values are not allowed here; a text"),
    (step("\twhen: x"), "6:5: a tab stands where YAML takes blanks only"),
    (step("retry_policy: {attempts: 99999999999999999999}"), "6:30: the number has more than 64 bits"),
    (step("retry_policy: {backoff_sec: 1e999}"), "6:33: the number is too large"),
    (step("output_schema: {properties: {a: {type: strng}}}"), '6:44: output_schema: there is no type "strng"'),
    (step("output_schema: {$ref: 'http://example.org'}"), "6:27: output_schema: a remote $ref is refused"),
    (step("lane: \x01"), "6:11: the control character '\\x01' is not allowed"),
    (step("lane: \u2028"), "6:11: the control character '\\u2028' is not allowed"),
    (step('lane: "\\UFFFFFFFF"'), "6:14: not valid YAML before this place"),
    (step('lane: "\\ud800"'), "6:11: the text holds half of a character"),
    (PASSPORT + "---\nid: second\n", "12:1: a second document starts here; a file holds one plan"),
    ("%YAML 1.2\n---\n" + PASSPORT, "1:1: directives (%YAML, %TAG) are not allowed"),
    ("a: " + "[" * 130, "1:103: nested deeper than 100 levels"),
    ("[" * 60_000, "1:101: nested deeper than 100 levels"),
    ("a:\n" + "".join(" " * n + "- \n" for n in range(1, 130)), "101:101: nested deeper than 100 levels"),
    ("x" * 65_537, "1:1: the file is larger than 64 KiB"),
    ("ü" * 32_769, "1:1: the file is larger than 64 KiB"),
]


@pytest.mark.parametrize(("text", "fault"), FAULTS, ids=lambda value: ascii(value)[-50:])
def test_a_fault_has_its_line_and_column(text: str, fault: str) -> None:
    assert faults_of(text)[0].startswith(fault)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"id: p\nlanes: [\xc3\xbc, \xff]", "2:12: the file is not UTF-8: the byte 0xff starts no character"),
        (PASSPORT.encode("utf-16"), "1:1: the file is not UTF-8"),
        (b"\xff" * 65_537, "1:1: the file is larger than 64 KiB"),
    ],
)
def test_bytes_are_utf8(content: bytes, fault: str) -> None:
    assert faults_of(content)[0].startswith(fault)


def test_faults_of_text_and_of_plan_are_told_together_in_the_order_of_the_file() -> None:
    text = "idd: p\nlanes: [&x a, *x]\nid: q\nid: r\nsequence: [a, b]\n"
    assert faults_of(text) == [
        '1:1: a plan has no key "idd"; did you mean "id"?',
        "2:9: anchors are not allowed: &x; a text that starts with & is put in quotes",
        "2:15: aliases are not allowed: *x; a text that starts with * is put in quotes",
        '4:1: the key "id" is given twice',
        '5:15: the lane "b" is not declared in lanes; expected one of a',
    ]


def test_a_fault_reads_like_a_compilers() -> None:
    assert str(PlanFileFault("plans/p.yaml", 3, 7, "what is wrong")) == "plans/p.yaml:3:7: what is wrong"


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    windows = PASSPORT.replace("\n", "\r\n")
    assert read_plan("\ufeff" + windows, file="f") == read_plan(PASSPORT, file="f")
    assert read_plan(b"\xef\xbb\xbf" + windows.encode(), file="f") == read_plan(PASSPORT, file="f")
    assert faults_of(step("whn: 'true'").replace("\n", "\r\n"))[0].startswith("6:5: ")
    assert faults_of(step("whn: 'true'").replace("\n", "\r"))[0].startswith("6:5: ")


def test_json_is_taken_with_tabs_and_escapes() -> None:
    text = (
        '{\n\t"id": "p",\n\t"lanes":\t["a\\/b", "\\ud83d\\ude00"],\n'
        '\t"sequence": [{"lane": "a\\/b", "output_schema": {"const": true}}]\t}\n'
    )
    plan = read_plan(text, file="f")
    assert [lane.id for lane in plan.lanes] == ["a/b", "😀"]
    assert plan.document["sequence"][0]["output_schema"] == {"const": True}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{\t"id": "p",\n\t"lanes": ["a"],\n\t"sequence": ["c"]}', '3:15: the lane "c" is not declared'),
        ('{"id": "p",\n\t"lanes": ["a"]\n\t"sequence": ["a"]}', "3:2: not valid YAML: expected ',' or '}'"),
        ('{"id": "p", "id": "q"}', '1:13: the key "id" is given twice'),
        ('{"id": "p",\n "lanes": ["a"], "sequence": [{"lane": "a", "when": "\\"x\\" == foo"}]}', "2:63: when: "),
    ],
)
def test_faults_in_json_have_their_line_and_column(text: str, fault: str) -> None:
    assert any(found.startswith(fault) for found in faults_of(text)), faults_of(text)


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
DATA = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=80), inner, max_size=4),
    max_leaves=15,
)


@given(data=DATA, indent=st.sampled_from([None, 2, "\t"]))
@example(data={"\0": None, "": 1}, indent=None)
@example(data={"true": [True, "true", "NO", 1.0, 1e-7, 1e300, "\u2028", "\t", 'it\'s "x" \\', "😀"]}, indent="\t")
def test_any_json_is_read_as_json_reads_it(data: object, indent: int | str | None) -> None:
    document, _ = load_document(json.dumps({"output_schema": data}, indent=indent))
    assert document == {"output_schema": data}
    assert json.dumps(document) == json.dumps({"output_schema": data})


def outcome(text: str | bytes) -> Plan | tuple[PlanFileFault, ...]:
    try:
        return read_plan(text, file="f")
    except PlanFileError as error:
        return error.faults


def assert_inside(faults: tuple[PlanFileFault, ...], text: str) -> None:
    """Check that each fault is at a place that the text has, and says something, in the order of the text."""
    lines = re.split(r"\r\n|\r|\n", text)
    assert faults
    assert list(faults) == sorted(faults)
    for fault in faults:
        assert fault.detail
        assert "\n" not in fault.detail
        assert 1 <= fault.line <= len(lines)
        assert 1 <= fault.column <= len(lines[fault.line - 1]) + 1


PIECES = st.sampled_from(
    [
        *(
            "id",
            "lanes",
            "sequence",
            "when",
            "lane",
            "activity",
            "output_schema",
            "retry_policy",
            ": ",
            ":",
            "\n",
            "\n  ",
        ),
        *(
            "\n  - ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "'",
            '"',
            "\\",
            "\\u",
            "\\U",
            "&a ",
            "*a",
            "!x ",
            "!!str ",
            "#",
            "? ",
        ),
        *(
            "| ",
            "> ",
            "|\n",
            "---",
            "...",
            "%YAML 9.9\n",
            "%TAG ! x\n",
            "\t",
            "\r",
            "\x85",
            "\ufeff",
            "\x00",
            "é",
            "😀",
        ),
        *("<<", "~", "1", "1e5", "0x", "true", "@", "`", "outputs.a.b", "a"),
    ]
)
BASES = st.sampled_from([PASSPORT, step("when: outputs.a.x"), '{"id": "p",\t"lanes": ["a"],\n "sequence": ["a"]}'])


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Return a good file with some pieces of it overwritten."""
    text = draw(BASES)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(PIECES) + text[at + draw(st.integers(0, 6)) :]
    return text


@given(text=st.lists(PIECES, max_size=30).map("".join) | damaged() | st.text(max_size=40))
@settings(max_examples=600, deadline=None)
def test_any_text_is_a_plan_or_has_faults_inside_it(text: str) -> None:
    found = outcome(text)
    if not isinstance(found, Plan):
        assert_inside(found, text)


@given(content=st.binary(max_size=60) | damaged().map(lambda text: text.encode("utf-16")))
def test_any_bytes_are_a_plan_or_have_faults(content: bytes) -> None:
    found = outcome(content)
    if not isinstance(found, Plan):
        assert_inside(found, content.decode(errors="replace"))


@given(key=st.sampled_from(["zz", "whe", "lanez"]), at=st.integers(0, 20), indent=st.sampled_from([1, 4, "\t"]))
def test_an_unknown_key_is_found_wherever_it_stands(key: str, at: int, indent: int | str) -> None:
    document: dict[str, Any] = {
        "id": "p",
        "lanes": [{"id": "a"}, {"id": "b", "kind": "human"}],
        "sequence": [{"lane": "a", "retry_policy": {"attempts": 1}}, {"lane": "b"}],
        "retry_policy": {},
    }
    mappings = [document, *document["lanes"], *document["sequence"], document["sequence"][0]["retry_policy"]]
    mappings[at % len(mappings)][key] = 1
    text = json.dumps(document, indent=indent)
    (fault,) = (found for found in faults_of(text) if f'no key "{key}"' in found)
    line, column = map(int, fault.split(":")[:2])
    assert text.split("\n")[line - 1][column - 1 :].startswith(f'"{key}"')


def test_load_document_raises_what_it_cannot_read() -> None:
    with pytest.raises(DocumentError) as caught:
        load_document("a: 1\na: 2\n")
    (fault,) = caught.value.faults
    assert (fault.line, fault.column, fault.detail) == (2, 1, 'the key "a" is given twice')


# Folders.


def folder_of(path: Path, **files: str) -> PlanFolder:
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return read_folder(path)


def plan_text(plan_id: str) -> str:
    return f"id: {plan_id}\nlanes: [a]\nsequence: [a]\n"


def test_a_folder_gives_its_plans_by_name_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub.yaml").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.yaml").write_text(plan_text("deep"), encoding="utf-8")
    (tmp_path / ".hidden.yaml").write_text("not a plan", encoding="utf-8")
    json_text = json.dumps({"id": "c", "lanes": ["a"], "sequence": ["a"]})
    folder = folder_of(tmp_path, z__yaml=plan_text("z"), b__yml=plan_text("b"), c__json=json_text, notes__txt="x")
    assert [(loaded.file, loaded.plan.id) for loaded in folder.loaded] == [
        ("b.yml", "b"),
        ("c.json", "c"),
        ("z.yaml", "z"),
    ]
    assert folder.refused == []
    assert folder.readable


def test_a_faulty_file_is_refused_with_the_plan_it_is_about_and_the_others_load(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        good__yaml=plan_text("good"),
        broken__yaml="id: broken # the id can still be read\nlanes: [a\n",
        faulty__yaml="id: faulty\nlanes: [a]\n",
        twice__yaml="id: one\nid: two\nlanes: [a]\nsequence: [a]\n",
        json__json='{"id": "as_json", "lanes": [}',
        nameless__yaml="lanes: [\n",
    )
    assert [loaded.plan.id for loaded in folder.loaded] == ["good"]
    assert {refused.file: refused.plan_id for refused in folder.refused} == {
        "broken.yaml": "broken",
        "faulty.yaml": "faulty",
        "json.json": "as_json",
        "nameless.yaml": None,
        "twice.yaml": "one",
    }
    assert all(fault.file == refused.file for refused in folder.refused for fault in refused.faults)


def test_a_second_file_of_a_plan_is_refused_and_names_the_first(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a__yaml=plan_text("p"), b__yaml="# a copy\n" + plan_text("p"))
    assert [loaded.file for loaded in folder.loaded] == ["a.yaml"]
    assert [str(fault) for refused in folder.refused for fault in refused.faults] == [
        'b.yaml:2:5: the plan "p" is already in a.yaml; a plan has one file'
    ]


def test_an_old_copy_does_not_come_into_force_when_the_new_file_is_broken(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a__yaml="id: p\nlanes: []\n", b__yaml=plan_text("p"))
    assert folder.loaded == []
    assert [refused.plan_id for refused in folder.refused] == ["p", "p"]


def test_what_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    folder = folder_of(tmp_path, good__yaml=plan_text("good"))
    assert [str(fault) for refused in folder.refused for fault in refused.faults] == [
        "gone.yaml:1:1: cannot be read: No such file or directory"
    ]
    missing = read_folder(tmp_path / "missing")
    assert (missing.loaded, missing.readable) == ([], False)
    assert missing.refused[0].faults[0].detail == "cannot be read: No such file or directory"


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as stream:
        stream.truncate(2**40)
    (refused,) = read_folder(tmp_path).refused
    assert refused.faults[0].detail == "the file is larger than 64 KiB"


# The reference shows files and what is said about them; both are true.

DOC = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")
GOOD_EXAMPLES = re.findall(r"```yaml\n(id: .*?)```", DOC, re.DOTALL)
BAD_EXAMPLES = re.findall(r"```yaml\n# (\S+)\n(.*?)```\n.*?```text\n(.*?)```", DOC, re.DOTALL)


@pytest.mark.parametrize("text", GOOD_EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_the_references_examples_are_plans(text: str) -> None:
    assert read_plan(text, file="f").steps


@pytest.mark.parametrize(("file", "text", "said"), BAD_EXAMPLES, ids=lambda value: value.splitlines()[0][:30])
def test_the_references_refusals_are_what_is_said(file: str, text: str, said: str) -> None:
    with pytest.raises(PlanFileError) as caught:
        read_plan(f"# {file}\n{text}", file=file)
    assert str(caught.value) == said.rstrip("\n")


def test_the_reference_has_examples_of_both() -> None:
    assert len(GOOD_EXAMPLES) >= 2
    assert len(BAD_EXAMPLES) >= 2
