"""Drawings of plans: what they show, and that nothing in a plan can break out of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from oms.cli import cli
from oms.domain.plan import Plan, steps_in
from oms.domain.plan_reader import parse_plan
from oms.plan_tools.drawing.mermaid import draw_mermaid
from oms.plan_tools.drawing.svg import draw_svg
from oms.plan_tools.drawing.text import draw_text
from oms.plan_tools.drawing.words import spelled
from tests.oms.plan_documents import Made, full_plans

EVERYTHING: dict[str, Any] = {
    "id": "everything",
    "title": "Everything at once",
    "timezone": "America/New_York",
    "lanes": [
        "a",
        {
            "id": "clerk",
            "kind": "human",
            "title": "Our desk",
            "open": "Mon-Fri 08:00-17:00",
            "holidays": "US",
            "max_running": 3,
            "backup": "clerk2",
            "stall_after_sec": 86_400,
            "on_stall": "reroute",
        },
        {"clerk2": "human"},
        {
            "id": "print",
            "kind": "vendor",
            "batch": {"at": "03:00", "max": 500},
            "rate": {"tasks": 10, "per_sec": 60},
            "stall_after_sec": 5400,
        },
    ],
    "sequence": [
        {
            "parallel": {
                "photo": [
                    {"activity": "ai_photo", "lane": "a", "output_schema": {"type": "object"}},
                    {
                        "activity": "check_photo",
                        "lane": "clerk",
                        "title": "We look at your photo",
                        "when": 'outputs.ai_photo.confidence < 0.9 && input.kind == "first"',
                        "priority": "input.rush ? 10 : 0",
                        "due": "P5D",
                        "on_failure": "pause",
                    },
                ],
                "fee": [{"activity": "charge", "lane": "a", "undo": [{"activity": "refund", "lane": "a"}]}],
            },
            "join": "any",
        },
        {
            "id": "pages",
            "for_each": "input.pages",
            "as": "page",
            "max_parallel": 5,
            "do": [{"activity": "scan", "lane": "a", "input": {"page": "page"}, "due_sec": 90, "priority": 3}],
        },
        {
            "repeat": [{"activity": "draft", "lane": "a"}, {"activity": "review", "lane": "clerk"}],
            "until": 'outputs.review.verdict == "good"',
            "max_rounds": 3,
        },
        {
            "choose": [
                {"when": "outputs.review.risk > 3", "do": [{"activity": "senior", "lane": "clerk"}]},
                {"else": [{"activity": "file_it", "lane": "a"}]},
            ]
        },
        {"id": "answer", "wait": {"signal": "answered", "timeout_sec": 1_209_600, "on_timeout": "continue"}},
        {"wait": {"for_sec": 3600}},
        {"wait": {"until": "timestamp(input.at)"}, "when": "has(input.at)"},
        {"id": "letters", "plan": "send_letter", "input": {"to": "reference"}, "when": "has(outputs.answer.text)"},
        "print",
    ],
    "schedules": [{"cron": "0 6 * * MON", "reference": "week-{date}", "input": {}}],
}

TEXT = """\
everything  "Everything at once"  (America/New_York)
├─ parallel: any of 2
│  ├─ photo
│  │  ├─ ai_photo  [a]
│  │  │     its output is checked
│  │  └─ check_photo  [clerk]
│  │        when outputs.ai_photo.confidence < 0.9 && input.kind == "first"
│  │        "We look at your photo"
│  │        priority: input.rush ? 10 : 0
│  │        due: P5D
│  │        on failure: pause
│  └─ fee
│     └─ charge  [a]
│        └─ undo
│           └─ refund  [a]
├─ for each page of input.pages, 5 at once
│  │  output: pages
│  └─ scan  [a]
│        input: page = page
│        priority: 3
│        due: 1 min 30 s
├─ repeat until outputs.review.verdict == "good", 3 rounds at most
│  ├─ draft  [a]
│  └─ review  [clerk]
├─ choose
│  ├─ when outputs.review.risk > 3
│  │  └─ senior  [clerk]
│  └─ else
│     └─ file_it  [a]
├─ wait for the signal answered, 14 d at most, then continue
│     output: answer
├─ wait for 1 h
├─ wait until timestamp(input.at)
│     when has(input.at)
├─ a job of plan send_letter
│     when has(outputs.answer.text)
│     input: to = reference
│     output: letters
└─ print  [print]

lanes
├─ a
│     machine, lease 5 min
├─ clerk
│     human, "Our desk", lease 8 h, open Mon-Fri 08:00-17:00, holidays US, 3 at
│       once, stalls after 1 d: to its backup, backup clerk2
├─ clerk2
│     human, lease 8 h
└─ print
      vendor, lease 7 d, a batch at 03:00 of 500 at most, 10 in any 1 min,
        stalls after 1 h 30 min: told

schedules
└─ 0 6 * * MON
      reference week-{date}
"""

# Mermaid's flowchart, as far as it is used here: nothing but these lines.
LABEL = r'"(?:[\w .,:=+()\'/?!-]|#\d+;|<br/>)+"'
SHAPES = "|".join(
    re.escape(opening) + LABEL + re.escape(closing)
    for opening, closing in [("([", "])"), ("[", "]"), ("[[", "]]"), ("{", "}"), ("{{", "}}")]
)
LINE = re.compile(
    rf"n\d+(?:{SHAPES})(?::::(?:maybe|undo))?"
    rf"|n\d+ -->(?:\|{LABEL}\|)? n\d+"
    rf'|n\d+ -\.->\|"undo"\| n\d+'
    rf"|subgraph n\d+\[{LABEL}\]|end|class n\d+ maybe|classDef \w+ stroke-dasharray: \d \d"
)
HOSTILE = st.sampled_from(
    [
        '"]; click n0 "javascript:alert(1)"',
        "</text><script>alert(1)</script>",
        "]]>",
        "&lt;b&gt; &#60;",
        "%%{init: {}}%%",
        "end",
        "1. list",
        "- item",
        "_x_ **y** `z`",
        "a|b",
        "\u202egnp.exe",
        "\ufffe",
        "#35;",
        "{{x}}",
        "W" * 100,
        "名前" * 20,
    ]
)
SVG = "{http://www.w3.org/2000/svg}"


def svg_texts(drawn: str) -> list[str]:
    """Return the texts of a drawing, which is read as XML."""
    root = ET.fromstring(drawn)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "style", "defs", "marker", "path", "rect", "polyline", "text")
    }
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_the_text_shows_everything_in_80_columns() -> None:
    drawn = draw_text(parse_plan(EVERYTHING))
    assert drawn == TEXT
    assert max(map(len, drawn.splitlines())) <= 80


def test_the_mermaid_chart_leads_from_step_to_step() -> None:
    drawn = draw_mermaid(parse_plan(EVERYTHING))
    arrows = set(re.findall(r"(n\d+) -->(?:\|\"(.*?)\"\|)? (n\d+)", drawn))
    box = {
        re.split(r"<br/>|\"", label)[0]: name
        for name, label in re.findall(r'(n\d+)(?:\(\[|\[\[|\[|\{\{|\{)"(.*?)"[\])}]', drawn)
    }
    expected = [
        ("Everything at once (everything)", "", "parallel: any of 2"),
        ("parallel: any of 2", "photo", "ai_photo"),
        ("ai_photo", "", "check_photo"),
        ("check_photo", "", "joined"),
        ("charge", "", "joined"),
        ("joined", "", "for each page of input.pages, 5 at once#59; output: pages"),
        ("draft", "", "review"),
        ("outputs.review.verdict == #34;good#34;", "no: again", "draft"),
        ("choose", "when outputs.review.risk #62; 3", "senior"),
        ("choose", "else", "file_it"),
        ("senior", "", "wait for the signal answered, 14 d at most, then continue"),
        ("print", "", "done"),
    ]
    for begins, label, ends in expected:
        assert (box[begins], label, box[ends]) in arrows, (begins, ends)
    assert f'{box["charge"]} -.->|"undo"| {box["refund"]}' in drawn


def test_a_choose_without_an_else_has_a_way_past_it() -> None:
    document = {
        "id": "p",
        "lanes": ["a"],
        "sequence": [{"choose": [{"when": "input.x", "do": ["a"]}]}],
    }
    drawn = draw_mermaid(parse_plan(document))
    assert re.search(r'n1 -->\|"else"\| n3', drawn)
    assert "else" in svg_texts(draw_svg(parse_plan(document)))


def test_the_svg_shows_everything_and_no_two_boxes_overlap() -> None:
    drawn = draw_svg(parse_plan(EVERYTHING))
    texts = svg_texts(drawn)
    for step in steps_in(parse_plan(EVERYTHING).sequence):
        assert step.activity in texts
    for text in ("refund", "photo", "fee", "when outputs.review.risk > 3", "else", "wait for 1 h", "done"):
        assert text in texts
    assert "prefers-color-scheme: dark" in drawn
    assert no_overlap(drawn)


def no_overlap(drawn: str) -> bool:
    """Whether the boxes of activities are apart, and inside the page."""
    root = ET.fromstring(drawn)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        tuple(float(element.attrib[key]) for key in ("x", "y", "width", "height"))
        for element in root.iter(f"{SVG}rect")
        if element.attrib["class"].startswith("task")
    ]
    inside = all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    apart = all(
        a[0] + a[2] <= b[0] or b[0] + b[2] <= a[0] or a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1]
        for number, a in enumerate(boxes)
        for b in boxes[:number]
    )
    return inside and apart


def check_all(plan: Plan) -> None:
    for line in draw_text(plan).splitlines():
        assert line.isprintable()
    first, *lines = draw_mermaid(plan).splitlines()
    assert first == "flowchart TD"
    for line in lines:
        assert LINE.fullmatch(line.strip()), line
    drawn = draw_svg(plan)
    assert no_overlap(drawn)
    assert len(svg_texts(drawn)) > len(plan.steps)


@settings(max_examples=60, deadline=None)
@given(full_plans(st.one_of(HOSTILE, st.sampled_from(["a", "scan it", "prüfen"]))))
def test_nothing_in_a_plan_breaks_out_of_a_drawing(made: Made) -> None:
    check_all(parse_plan(made.document))


def test_titles_and_conditions_stay_inside_too() -> None:
    document = {
        "id": "p",
        "title": '</title><script>"',
        "lanes": ["a"],
        "sequence": [{"activity": "x", "lane": "a", "when": 'input.x == "</text>%%"\n\n || true', "title": '"]'}],
    }
    check_all(parse_plan(document))


def test_twenty_blocks_deep_are_drawn() -> None:
    steps: list[Any] = ["a"]
    for _ in range(20):
        steps = [{"repeat": steps, "until": "outputs.a.ok"}]
    check_all(parse_plan({"id": "deep", "lanes": ["a"], "sequence": steps}))


@pytest.mark.parametrize(
    ("sec", "words"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3661, "1 h 1 min"),
        (86_400, "1 d"),
        (90_061, "1 d 1 h"),
        (86_460, "1 d"),
    ],
)
def test_a_time_span_in_words(sec: int, words: str) -> None:
    assert spelled(sec) == words


def test_the_command_draws_one_or_says_why_not(tmp_path: Path) -> None:
    runner = CliRunner()
    good, bad = tmp_path / "good.plan.yaml", tmp_path / "bad.plan.yaml"
    good.write_text("id: p\nlanes: [a]\nsequence: [a]\n")
    bad.write_text("id: p\nlanes: [a]\nsequence: [b]\n")
    drawn = {flag: runner.invoke(cli, ["plan", "show", str(good), *flag]).stdout for flag in [(), ("--svg",)]}
    assert drawn[()].startswith("p  (UTC)\n└─ a  [a]\n")
    assert drawn["--svg",].startswith("<svg ")
    assert runner.invoke(cli, ["plan", "show", str(good), "--mermaid"]).stdout.startswith("flowchart TD\n")
    assert runner.invoke(cli, ["plan", "show", str(good), "--mermaid", "--svg"]).exit_code == 2
    refused = runner.invoke(cli, ["plan", "show", str(bad)])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "bad.plan.yaml:3:" in refused.stderr
    missing = runner.invoke(cli, ["plan", "show", str(tmp_path / "none")])
    assert missing.exit_code == 1
    assert "cannot be read" in missing.stderr
