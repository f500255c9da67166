"""What a plan is, and how a document that is none is told so."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms.domain.plan import (
    DEFAULT_LEASE_SEC,
    Lane,
    LaneKind,
    Plan,
    Step,
    plan_digest,
)
from oms.domain.plan_faults import PlanError, PlanFault
from oms.domain.plan_reader import parse_plan
from oms.domain.retry import RetryPolicy
from oms.storage.plan_files import plan_file_schema

SEED: dict[str, Any] = {
    "id": "passport_renewal",
    "lanes": ["ai_extract", "human_verify", "external_print"],
    "sequence": ["ai_extract", "human_verify", "external_print"],
    "retry_policy": {"attempts": 3, "backoff_sec": 30},
}
FULL: dict[str, Any] = {
    "id": "passport_renewal",
    "lanes": [
        "ai_extract",
        {"human_verify": "human"},
        {"id": "external_print", "kind": "vendor", "title": "Printing", "lease_sec": 600_000},
        {"id": "human_verify_backup", "kind": "human"},
    ],
    "sequence": [
        "ai_extract",
        {
            "activity": "check_photo",
            "lane": "human_verify",
            "when": "outputs.ai_extract.confidence < 0.9",
            "output_schema": {"type": "object", "required": ["photo"]},
            "retry_policy": {"attempts": 1},
        },
        {"lane": "external_print"},
        {"activity": "human_verify"},
    ],
    "retry_policy": {"attempts": 5, "backoff_sec": 10, "jitter": 0.5},
}


def faults_of(document: object) -> tuple[PlanFault, ...]:
    with pytest.raises(PlanError) as caught:
        parse_plan(document)
    return caught.value.faults


def altered(**parts: Any) -> dict[str, Any]:
    return copy.deepcopy(SEED) | parts


def test_the_seeds_plan() -> None:
    plan = parse_plan(SEED)
    policy = RetryPolicy(attempts=3, backoff_sec=30.0)
    steps = tuple(Step(name, name, None, None, policy, number) for number, name in enumerate(SEED["sequence"]))
    assert plan == Plan(
        id="passport_renewal",
        lanes=tuple(Lane(name, LaneKind.MACHINE, None, 300) for name in SEED["lanes"]),
        sequence=steps,
        steps=steps,
        retry_policy=policy,
        document=SEED,
    )


def test_every_form_of_an_entry() -> None:
    plan = parse_plan(FULL)
    assert plan.lanes == (
        Lane("ai_extract", LaneKind.MACHINE, None, 300),
        Lane("human_verify", LaneKind.HUMAN, None, 28_800),
        Lane("external_print", LaneKind.VENDOR, "Printing", 600_000),
        Lane("human_verify_backup", LaneKind.HUMAN, None, 28_800),
    )
    places = [(step.activity, step.lane) for step in plan.steps]
    assert places == [
        ("ai_extract", "ai_extract"),
        ("check_photo", "human_verify"),
        ("external_print", "external_print"),
        ("human_verify", "human_verify"),
    ]
    check_photo = plan.steps[1]
    assert check_photo.when is not None
    assert check_photo.when.reads == {"ai_extract"}
    assert check_photo.output_schema is not None
    assert check_photo.output_schema.faults({}) != ()
    assert check_photo.retry_policy == RetryPolicy(1, 10.0, 1.0, 3600.0, 0.5)
    assert plan.steps[0].retry_policy == plan.retry_policy == RetryPolicy(5, 10.0, 1.0, 3600.0, 0.5)


def test_default_leases_follow_the_kind() -> None:
    assert DEFAULT_LEASE_SEC == {"machine": 300, "human": 28_800, "vendor": 604_800}


def test_lanes_and_steps_are_found_by_name() -> None:
    plan = parse_plan(FULL)
    assert plan.lane("human_verify") == plan.lanes[1]
    assert plan.step("external_print") is plan.steps[2]
    assert plan.lane("print") is None
    assert plan.step("human_verify_backup") is None


def test_reads_after() -> None:
    plan = parse_plan(FULL)
    assert [plan.reads_after(index) for index in range(-1, 4)] == [True, True, False, False, False]


def test_a_wait_beyond_the_default_maximum_raises_it_unless_one_is_given() -> None:
    assert parse_plan(altered(retry_policy={"backoff_sec": 86_400})).retry_policy.max_backoff_sec == 86_400
    capped = {"backoff_sec": 86_400, "max_backoff_sec": 60}
    assert parse_plan(altered(retry_policy=capped)).retry_policy.max_backoff_sec == 60


def test_a_lane_may_be_called_like_a_key() -> None:
    plan = parse_plan({"id": "p", "lanes": ["id", {"id": "kind", "kind": "human"}], "sequence": ["id", "kind"]})
    assert [(lane.id, lane.kind) for lane in plan.lanes] == [("id", LaneKind.MACHINE), ("kind", LaneKind.HUMAN)]


def test_any_text_can_be_a_name() -> None:
    names = ["T02 Check confirmation of receipt", "Prüfung №1", "NO", "12:30", "a" * 100]
    steps = [*names, {"activity": "last", "lane": "NO", "when": 'outputs["Prüfung №1"].ok'}]
    plan = parse_plan({"id": "p", "lanes": names, "sequence": steps})
    assert [step.activity for step in plan.steps] == [*names, "last"]


LANE_NAME = "its name is a text of 1 to 100 characters"
REFUSED: list[tuple[object, tuple[str | int, ...], bool, int, str]] = [
    ([], (), False, 0, "a plan is a mapping of id, lanes, sequence, retry_policy, title"),
    (altered(id="1st"), ("id",), False, 0, 'found the text "1st"'),
    (altered(id="a" * 101), ("id",), False, 0, "a letter and up to 99 more"),
    (altered(id=12), ("id",), False, 0, "found the number 12"),
    (altered(colour="red"), ("colour",), True, 0, 'has no key "colour"; expected one of id, lanes'),
    (altered(retry_polcy={}), ("retry_polcy",), True, 0, 'no key "retry_polcy"; did you mean "retry_policy"?'),
    (altered(lanes=[]), ("lanes",), False, 0, "lanes has 1 to 1000 entries; found 0"),
    (altered(lanes="a"), ("lanes",), False, 0, "lanes is a list of names or mappings; found the text"),
    (altered(sequence=[]), ("sequence",), False, 0, "sequence has 1 to 1000 entries; found 0"),
    (altered(sequence=["ai_extract"] * 1001), ("sequence",), False, 0, "found 1001"),
    (altered(sequence=["ai_extrct"]), ("sequence", 0), False, 0, 'not declared in lanes; did you mean "ai_extract"?'),
    (altered(sequence=[{"activity": "x"}]), ("sequence", 0, "activity"), False, 0, "the step names no lane"),
    (
        altered(sequence=[{"activity": "x", "lane": "human_verfy"}]),
        ("sequence", 0, "lane"),
        False,
        0,
        'the lane "human_verfy" is not declared in lanes; did you mean "human_verify"?',
    ),
    (altered(sequence=["ai_extract", "ai_extract"]), ("sequence", 1), False, 0, "the other is step 1"),
    (
        altered(sequence=["ai_extract", {"lane": "ai_extract"}]),
        ("sequence", 1, "lane"),
        False,
        0,
        'two steps have the activity "ai_extract"; the other is step 1',
    ),
    (altered(sequence=[{}]), ("sequence", 0), False, 0, 'a step needs the key "activity" or "lane"'),
    (
        altered(sequence=[{"paralel": {}}]),
        ("sequence", 0, "paralel"),
        True,
        0,
        'key "paralel"; did you mean "parallel"?',
    ),
    (altered(sequence=[{"activty": "x"}]), ("sequence", 0, "activty"), True, 0, 'did you mean "activity"?'),
    (altered(sequence=[["ai_extract"]]), ("sequence", 0), False, 0, "found a list of 1"),
    (altered(sequence=[12]), ("sequence", 0), False, 0, "found the number 12; put it in quotes to make it a name"),
    (
        altered(sequence=[{"lane": "ai_extract", "colour": "x"}]),
        ("sequence", 0, "colour"),
        True,
        0,
        'a step has no key "colour"; expected one of activity, lane, when, output_schema, retry_policy',
    ),
    (
        altered(sequence=["ai_extract", {"lane": "human_verify", "when": "outputs.ai_extrct.ok"}]),
        ("sequence", 1, "when"),
        False,
        8,
        'when: there is no earlier activity "ai_extrct"; did you mean "ai_extract"?',
    ),
    (
        altered(sequence=[{"lane": "ai_extract", "when": "outputs.human_verify.ok"}, "human_verify"]),
        ("sequence", 0, "when"),
        False,
        8,
        '"human_verify" is not an earlier step',
    ),
    (
        altered(sequence=[{"lane": "ai_extract", "when": "outputs.ai_extract.ok"}]),
        ("sequence", 0, "when"),
        False,
        8,
        '"ai_extract" is not an earlier step',
    ),
    (
        altered(sequence=[{"lane": "ai_extract", "when": True}]),
        ("sequence", 0, "when"),
        False,
        0,
        "when is a CEL expression, written as text; found true",
    ),
    (
        altered(sequence=[{"lane": "ai_extract", "output_schema": {"properties": {"a": {"type": "strng"}}}}]),
        ("sequence", 0, "output_schema", "properties", "a", "type"),
        False,
        0,
        'output_schema: there is no type "strng"; did you mean "string"?',
    ),
    (
        altered(sequence=[{"lane": "ai_extract", "output_schema": None}]),
        ("sequence", 0, "output_schema"),
        False,
        0,
        "output_schema: expected a JSON Schema, which is a mapping; found null",
    ),
    (
        altered(sequence=[{"lane": "ai_extract", "retry_policy": {"attempts": 1.5}}]),
        ("sequence", 0, "retry_policy", "attempts"),
        False,
        0,
        "attempts is a whole number from 1 to 1000; found the number 1.5",
    ),
    (altered(retry_policy={"attempts": 0}), ("retry_policy", "attempts"), False, 0, "found the number 0"),
    (altered(retry_policy={"attempts": True}), ("retry_policy", "attempts"), False, 0, "found true"),
    (altered(retry_policy={"jitter": 1.1}), ("retry_policy", "jitter"), False, 0, "a number from 0 to 1"),
    (altered(retry_policy={"backoff_factor": 0.5}), ("retry_policy", "backoff_factor"), False, 0, "from 1 to 100"),
    (altered(retry_policy={"backof_sec": 1}), ("retry_policy", "backof_sec"), True, 0, 'mean "backoff_sec"?'),
    (altered(retry_policy=3), ("retry_policy",), False, 0, "retry_policy is a mapping of attempts"),
    (
        altered(lanes=[*SEED["lanes"], "ai_extract"]),
        ("lanes", 3),
        False,
        0,
        'two lanes are called "ai_extract"; the other is lane 1',
    ),
    (altered(lanes=[*SEED["lanes"], {"ai_extract": "human"}]), ("lanes", 3, "ai_extract"), True, 0, "two lanes"),
    (altered(lanes=[*SEED["lanes"], {"x": "humn"}]), ("lanes", 3, "x"), False, 0, 'mean "human"?'),
    (altered(lanes=[*SEED["lanes"], {"x": {}}]), ("lanes", 3, "x"), False, 0, "one of machine, human, vendor"),
    (altered(lanes=[*SEED["lanes"], {"id": "x", "kind": None}]), ("lanes", 3, "kind"), False, 0, "found null"),
    (altered(lanes=[*SEED["lanes"], {"kind": "human"}]), ("lanes", 3), False, 0, 'a lane needs the key "id"'),
    (altered(lanes=[*SEED["lanes"], {"id": "x", "lease": 1}]), ("lanes", 3, "lease"), True, 0, 'mean "lease_sec"?'),
    (altered(lanes=[*SEED["lanes"], {"id": "x", "lease_sec": 0}]), ("lanes", 3, "lease_sec"), False, 0, "whole number"),
    (altered(lanes=[*SEED["lanes"], {"id": "x", "title": ""}]), ("lanes", 3, "title"), False, 0, "1 to 200"),
    (altered(lanes=[*SEED["lanes"], 12]), ("lanes", 3), False, 0, LANE_NAME),
    (altered(lanes=[*SEED["lanes"], " x"]), ("lanes", 3), False, 0, "without blanks at its ends"),
    (altered(lanes=[*SEED["lanes"], "x\ny"]), ("lanes", 3), False, 0, "without control characters"),
    (altered(lanes=[*SEED["lanes"], "x" * 101]), ("lanes", 3), False, 0, "found 101"),
    (altered(lanes=[*SEED["lanes"], None]), ("lanes", 3), False, 0, "found null"),
]


@pytest.mark.parametrize(
    ("document", "path", "on_key", "offset", "message"), REFUSED, ids=lambda value: str(value)[:40]
)
def test_a_fault_is_told_at_its_own_place(
    document: object, path: tuple[str | int, ...], on_key: bool, offset: int, message: str
) -> None:
    (fault,) = faults_of(document)
    assert (fault.path, fault.on_key, fault.offset) == (path, on_key, offset)
    assert message in fault.message


def test_missing_keys_are_told_once() -> None:
    assert [fault.message for fault in faults_of({"lanse": ["a"], "id": "p"})] == [
        'a plan has no key "lanse"; did you mean "lanes"?',
        'a plan needs the key "sequence"',
    ]


def test_all_faults_are_told_at_once() -> None:
    document = altered(
        id="1",
        lanes=["a", "a"],
        sequence=["b", {"lane": "a", "when": "outputs.x.y && foo", "retry_policy": {"jitter": 3}}],
        extra=1,
    )
    assert len(faults_of(document)) == 7


def test_of_very_many_names_the_nearest_is_still_told() -> None:
    lanes = [f"{letter}{number}" for letter in "abcdefghij" for number in range(99)]
    (fault,) = faults_of(altered(lanes=[*lanes, "zoning_review"], sequence=["zoning_reviw"]))
    assert fault.message.endswith('did you mean "zoning_review"?')


def digest_of(document: dict[str, Any]) -> str:
    return plan_digest(parse_plan(document))


def test_the_digest_counts_the_content_only() -> None:
    reordered = json.loads(json.dumps(SEED, sort_keys=True))
    assert digest_of(SEED) == digest_of(reordered)
    assert len(digest_of(SEED)) == 64
    changed = altered(sequence=[*SEED["sequence"][::-1]])
    assert digest_of(changed) != digest_of(SEED)


def test_a_plan_can_be_made_again_of_its_document() -> None:
    plan = parse_plan(FULL)
    assert parse_plan(json.loads(json.dumps(plan.document))) == plan
    assert hash(parse_plan(FULL)) == hash(plan)


# What follows holds the published JSON Schema against the parser.

NAMES = st.sampled_from(
    ["a", "b", "T02 Check", "NO", "id", "kind", "ü", "a\u00a0b", "\u2003x", "x\u2028y", "", "a" * 101]
)
JUNK: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**7)
    | st.floats(-1, 200)
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
)
GOOD_KINDS = st.sampled_from(["machine", "human", "vendor"])
KINDS = GOOD_KINDS | st.just("humn")


def mapping(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return mappings with any of these keys, mostly with good values."""
    good: dict[str, st.SearchStrategy[Any]] = dict(parts)
    return st.fixed_dictionaries({}, optional=good | {"zz": JUNK}) | st.fixed_dictionaries({}, optional=good)


POLICIES = mapping(
    attempts=st.integers(1, 1000) | JUNK,
    backoff_sec=st.floats(0, 100) | JUNK,
    backoff_factor=st.integers(1, 100) | JUNK,
    max_backoff_sec=st.integers(0, 10**6),
    jitter=st.floats(0, 1),
)
LANES = (
    NAMES
    | st.dictionaries(NAMES, KINDS, min_size=1, max_size=2)
    | mapping(id=NAMES, kind=KINDS, title=NAMES | JUNK, lease_sec=st.integers(1, 10**6) | JUNK)
    | JUNK
)
STEPS = (
    NAMES
    | mapping(
        activity=NAMES,
        lane=NAMES,
        when=st.sampled_from(["true", "input.x", "", "no such"]) | JUNK,
        output_schema=st.sampled_from([{}, True, {"type": "object"}, {"type": "x"}, {"properties": {"a": {}}}]) | JUNK,
        retry_policy=POLICIES,
    )
    | JUNK
)
DOCUMENTS = mapping(
    id=st.sampled_from(["p", "passport_renewal", "1", "x" * 101]),
    lanes=st.lists(LANES, max_size=3) | JUNK,
    sequence=st.lists(STEPS, max_size=3) | JUNK,
    retry_policy=POLICIES,
)
ANY_NAME = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=100).filter(
    lambda name: name == name.strip()
)
GOOD_POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "attempts": st.integers(1, 1000),
        "backoff_sec": st.floats(0, 2_592_000) | st.integers(0, 2_592_000),
        "backoff_factor": st.floats(1, 100),
        "max_backoff_sec": st.integers(0, 31_536_000),
        "jitter": st.floats(0, 1),
    },
)


@st.composite
def good_documents(draw: st.DrawFn) -> dict[str, Any]:
    """Documents that are plans, in all their forms."""
    names = draw(st.lists(ANY_NAME | st.sampled_from(["id", "kind", "NO", "x y"]), min_size=1, max_size=4, unique=True))
    details = st.fixed_dictionaries(
        {}, optional={"kind": GOOD_KINDS, "title": ANY_NAME, "lease_sec": st.integers(1, 31_536_000)}
    )
    lanes = []
    for name in names:
        pair = {name: draw(GOOD_KINDS)} if name not in ("id", "kind") else name
        lanes.append(draw(st.sampled_from([name, pair, {"id": name, **draw(details)}])))
    activities = draw(st.lists(st.sampled_from(names) | ANY_NAME, min_size=1, max_size=5, unique=True))
    steps: list[Any] = []
    for index, activity in enumerate(activities):
        whens = [
            "true",
            "input.x > 3",
            *(f"outputs[{json.dumps(name, ensure_ascii=False)}].ok" for name in activities[:index]),
        ]
        optional: dict[str, st.SearchStrategy[Any]] = {
            "when": st.sampled_from(whens),
            "output_schema": st.sampled_from([{}, True, {"type": "object", "required": ["ok"]}]),
            "retry_policy": GOOD_POLICIES,
        }
        more = draw(st.fixed_dictionaries({}, optional=optional))
        own: list[Any] = [{"activity": activity, "lane": draw(st.sampled_from(names)), **more}]
        if activity in names:
            own += [{"lane": activity, **more}, {"activity": activity, **more}, activity]
        steps.append(draw(st.sampled_from(own)))
    policy = draw(GOOD_POLICIES)
    return {"id": draw(st.from_regex(r"\A[A-Za-z][A-Za-z0-9_-]{0,99}\Z")), "lanes": lanes, "sequence": steps} | (
        {"retry_policy": policy} if policy else {}
    )


SCHEMA = jsonschema_rs.Draft202012Validator(plan_file_schema())


def is_plan(document: object) -> bool:
    try:
        parse_plan(document)
    except PlanError:
        return False
    return True


@given(document=good_documents())
@settings(deadline=None)
def test_the_schema_takes_every_plan_in_all_its_forms(document: dict[str, Any]) -> None:
    plan = parse_plan(document)
    assert [lane.lease_sec >= 1 for lane in plan.lanes] == [True] * len(document["lanes"])
    assert len(plan.steps) == len(document["sequence"])
    assert SCHEMA.is_valid(document)


@given(document=DOCUMENTS)
@settings(deadline=None)
def test_what_the_schema_refuses_is_no_plan(document: object) -> None:
    assert SCHEMA.is_valid(document) or not is_plan(document)


@given(document=DOCUMENTS | JUNK)
@settings(deadline=None)
def test_any_document_is_a_plan_or_its_faults_lie_inside_it(document: object) -> None:
    try:
        parse_plan(document)
    except PlanError as error:
        faults = error.faults
    else:
        return
    for fault in faults:
        found: Any = document
        for part in fault.path:
            found = found[part]
        assert fault.message


@pytest.mark.parametrize("document", [SEED, FULL], ids=["seed", "full"])
def test_the_schema_takes_the_known_good(document: object) -> None:
    assert SCHEMA.is_valid(document)
    assert is_plan(document)


RULES_BETWEEN_PARTS = ("not declared", "names no lane", "two steps", "the other is", "two lanes", "earlier")
BAD_SHAPES = [entry[0] for entry in REFUSED if not any(rule in entry[-1] for rule in RULES_BETWEEN_PARTS)]


@pytest.mark.parametrize("document", BAD_SHAPES, ids=lambda value: str(value)[-60:])
def test_the_schema_refuses_the_known_bad(document: object) -> None:
    """All but what only a rule between parts forbids, which a schema cannot say."""
    assert len(BAD_SHAPES) > 30
    assert not SCHEMA.is_valid(document)


def test_the_published_schema_is_one() -> None:
    jsonschema_rs.meta.validate(plan_file_schema())


def test_the_order_of_branches_is_content() -> None:
    """They begin in it."""

    def branched(*names: str) -> dict[str, Any]:
        parallels = [{"parallel": {name: [f"{name}{number}"] for name in names}} for number in (1, 2)]
        lanes = [f"{name}{number}" for name in sorted(names) for number in (1, 2)]
        return {"id": "branched", "lanes": lanes, "sequence": parallels}

    one, other = branched("a", "b"), branched("b", "a")
    mixed = [{**one, "sequence": [of["sequence"][0], than["sequence"][1]]} for of, than in ((one, other), (other, one))]
    assert len({digest_of(document) for document in (one, other, *mixed)}) == 4
    # What was in the order of its names already is the version that it was when only names counted.
    canonical = json.dumps(one, sort_keys=True, separators=(",", ":"))
    assert digest_of(one) == hashlib.sha256(canonical.encode()).hexdigest()
