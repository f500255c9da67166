"""The plans in `plans/`, walked as `oms plan try` does: as it goes well, with rework or an appeal, and as it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oms.domain.plan import Plan
from oms.domain.plan_blocks import BLOCK_KEYS, WAIT_KEYS
from oms.domain.plan_lanes import LANE_KEYS
from oms.domain.plan_reader import PLAN_KEYS
from oms.domain.plan_schedules import SCHEDULE_KEYS
from oms.domain.plan_steps import STEP_KEYS
from oms.plan_tools.trial.clock import Clock
from oms.plan_tools.trial.walk import Walked, walk
from oms.plan_tools.trial.wanted import Trial
from oms.storage.plan_check import check_files
from oms.storage.plan_files import read_plan

FOLDER = Path(__file__).parents[2] / "plans"
FULL = ("passport_full", "building_permit", "records_request", "disaster_aid", "letter")
MONDAY = "2026-03-02T09:00"


def plan_of(name: str) -> Plan:
    file = f"{name}.plan.yaml"
    return read_plan((FOLDER / file).read_bytes(), file=file)


def tried(name: str, data: dict[str, Any], outputs: dict[str, Any], **wanted: Any) -> Walked:
    plan = plan_of(name)
    start_ms = Clock(plan.timezone).read(wanted.pop("at", MONDAY))
    return walk(Trial(plan, start_ms, [plan_of("letter")], input=data, outputs=outputs, **wanted))


def done(walked: Walked, job: str = "JOB-1") -> list[str]:
    """Return the activities of a job that were done, in the order in which they were."""
    return [entry.name for entry in walked.entries if entry.what == "done" and entry.job == job]


def days(walked: Walked) -> float:
    return (walked.end_ms - walked.start_ms) / 86_400_000


def test_oms_plan_check_has_nothing_to_say_of_any() -> None:
    checked = check_files(sorted(FOLDER.glob("*.yaml")))
    assert len(checked) >= 7
    assert [(one.file, one.faults, one.warnings) for one in checked if one.faults or one.warnings] == []


def words_of(value: object) -> Iterator[str]:
    """Give every key and every text of a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from words_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from words_of(inner)
    elif isinstance(value, str):
        yield value


def test_together_they_use_the_whole_grammar() -> None:
    used = {word for name in FULL for word in words_of(plan_of(name).document)}
    blocks = {key for keys in BLOCK_KEYS.values() for key in keys}
    assert {*PLAN_KEYS, *LANE_KEYS, *STEP_KEYS, *WAIT_KEYS, *SCHEDULE_KEYS, *blocks, "else"} <= used
    kinds = {"human", "vendor", "any", "all", "fail", "pause", "continue", "alert", "reroute"}
    assert kinds <= used


# Passport

PASSPORT = {"form": "scan:1", "photo": "scan:2", "expedited": True}
PASSPORT_GOOD = {
    "read_form": {"confidence": 0.97},
    "judge_photo": {"acceptable": True, "confidence": 0.99},
    "charge_fee": {"charge": "CH-1"},
    "adjudicate": {"decision": "issue"},
    "print_book": {"book": "B-1"},
}


def test_a_passport_is_printed_in_the_nights_batch_and_shipped_in_the_morning() -> None:
    walked = tried("passport_full", PASSPORT, PASSPORT_GOOD)
    assert walked.why is None
    assert done(walked) == ["read_form", "judge_photo", "charge_fee", "adjudicate", "print_book", "ship_book"]
    assert Clock("America/New_York").moment(walked.end_ms) == "Tue 2026-03-03 06:00"


def test_a_passport_with_a_bad_photo_waits_for_a_new_one() -> None:
    outputs = PASSPORT_GOOD | {
        "judge_photo": {"acceptable": True, "confidence": 0.5},
        "look_at_photo": {"acceptable": False},
        "judge_new_photo": [{"acceptable": False}, {"acceptable": True}],
    }
    photos: list[dict[str, Any]] = [{"photo": "scan:3"}, {"photo": "scan:4"}]
    walked = tried("passport_full", PASSPORT, outputs, signals={"photo_sent": photos})
    assert walked.why is None
    assert done(walked).count("judge_new_photo") == 2
    assert [task.place for task in walked.tasks if task.activity == "judge_new_photo"] == ["round 1", "round 2"]
    assert "send_letter TRY-1/photo_letter/2" in [entry.name for entry in walked.entries]


def test_a_passport_that_no_plant_can_print_fails_and_the_fee_is_paid_back() -> None:
    walked = tried("passport_full", PASSPORT, PASSPORT_GOOD, failures={"print_book": 6})
    assert (walked.state, walked.why) == ("failed", "print_book: it was told to fail")
    moved = [entry.notes[0] for entry in walked.entries if entry.what == "rerouted"]
    assert moved == ["printing_plant -> printing_plant_west"]
    assert done(walked)[-1] == "refund_fee"


def test_a_passport_without_a_new_photo_in_90_days_fails() -> None:
    outputs = PASSPORT_GOOD | {
        "judge_photo": {"acceptable": False, "confidence": 1},
        "look_at_photo": {"acceptable": False},
    }
    walked = tried("passport_full", PASSPORT, outputs)
    assert walked.state == "failed"
    assert walked.why == "no 'photo_sent' came within 7776000 s"
    assert 90 < days(walked) < 95
    assert done(walked)[-1] == "refund_fee"


def test_where_no_officer_is_there_the_reserve_decides() -> None:
    walked = tried("passport_full", PASSPORT, PASSPORT_GOOD, absent=frozenset({"adjudicator"}))
    assert walked.why is None
    assert [task.lane for task in walked.tasks if task.activity == "adjudicate"] == ["adjudicator_reserve"]


# Building permit

PERMIT = {"plans": "drawing:1", "protected_site": True}
VISITS = [{"what": "shell", "on": "2026-06-01T08:00:00Z"}, {"what": "final", "on": "2026-09-07T08:00:00Z"}]
PERMIT_GOOD = {
    "classify_application": {"complete": True, "floors": 4, "risk": "low"},
    "charge_fee": {"charge": "CH-1"},
    "review_zoning": {"ok": True},
    "review_fire_safety": {"ok": True},
    "check_structure": {"ok": True},
    "weigh_reviews": {"verdict": "approve", "inspections": VISITS},
}


def test_a_permit_is_given_and_the_site_inspected_on_its_days() -> None:
    walked = tried("building_permit", PERMIT, PERMIT_GOOD)
    assert walked.why is None
    assert [task.place for task in walked.tasks if task.activity == "inspect"] == [
        "option 1, visit 1",
        "option 1, visit 2",
    ]
    assert Clock("Europe/Berlin").moment(walked.end_ms) == "Mon 2026-09-07 10:00"
    board = {task.activity: task.status.value for task in walked.tasks if task.activity.startswith("hear_")}
    assert sorted(board.values()) == ["cancelled", "done", "done", "done"], "two of three members and the neighbours"


def test_a_permit_goes_round_with_revised_plans() -> None:
    outputs = PERMIT_GOOD | {
        "classify_application": {"complete": False, "floors": 1, "risk": "low"},
        "check_papers": {"complete": True},
        "weigh_reviews": [{"verdict": "revise"}, {"verdict": "refuse"}],
    }
    walked = tried(
        "building_permit",
        {"plans": "drawing:1"},
        outputs,
        signals={"papers_sent": [{"plans": "drawing:2"}], "plans_revised": [{"plans": "drawing:3"}]},
    )
    assert walked.why is None
    rounds = [task.place for task in walked.tasks if task.activity == "review_zoning"]
    assert rounds == ["round 1, branch zoning", "round 2, branch zoning"]
    assert "check_structure" not in done(walked), "one floor and a low risk need no engineer"
    assert done(walked)[-2:] == ["weigh_reviews", "write_refusal"]
    assert {"TRY-1/missing_letter", "TRY-1/revision_letter", "TRY-1/refusal_letter"} == {
        entry.name.split()[1] for entry in walked.entries if entry.what == "job" and entry.job != "JOB-1"
    }


def test_a_permit_whose_revised_plans_never_come_fails_and_the_fee_is_paid_back() -> None:
    outputs = PERMIT_GOOD | {"weigh_reviews": {"verdict": "revise"}}
    walked = tried("building_permit", PERMIT, outputs)
    assert walked.state == "failed"
    assert done(walked)[-1] == "refund_fee"
    assert 60 < days(walked) < 65


def test_neighbours_who_cannot_be_heard_hold_nobody_up() -> None:
    walked = tried("building_permit", PERMIT, PERMIT_GOOD, failures={"hear_neighbours": 1})
    assert walked.why is None


# Records request

REQUEST = {"kind": "request", "description": "all about the bridge", "offices": ["roads", "mayor"]}
REQUEST_GOOD = {
    "log_request": {
        "clear": True,
        "day_15": "2026-03-23T21:00:00Z",
        "day_20": "2026-03-30T21:00:00Z",
        "day_30": "2026-04-13T21:00:00Z",
    },
    "collect_documents": {"documents": [{"id": "D-1"}, {"id": "D-2", "pages": 300}, {"id": "D-3"}]},
    "review_exemptions": [
        {"release": "full", "exemptions": []},
        {"release": "partial", "exemptions": ["b6"], "consult": True},
        {"release": "withheld", "exemptions": ["b1"]},
    ],
    "review_determination": {"approved": True},
}


def test_a_request_is_answered_and_the_clock_is_stopped() -> None:
    walked = tried("records_request", REQUEST, REQUEST_GOOD)
    assert walked.why is None
    assert done(walked).count("search") == 2
    assert [task.place for task in walked.tasks if task.activity == "redact"] == ["branch answer, doc 2"]
    assert "warn_supervisor" not in [task.activity for task in walked.tasks]
    assert done(walked)[-1] == "publish"
    assert days(walked) > 90, "there are 90 days for an appeal"


def test_a_request_is_appealed_after_three_drafts() -> None:
    outputs = REQUEST_GOOD | {
        "review_determination": [{"approved": False, "note": "b5?"}, {"approved": False}, {"approved": True}],
        "decide_appeal": {"outcome": "release"},
    }
    walked = tried("records_request", REQUEST, outputs, signals={"appeal_filed": [{"grounds": "b6 is wrong"}]})
    assert walked.why is None
    assert done(walked).count("draft_determination") == 3
    assert done(walked)[-1] == "decide_appeal"
    assert walked.outputs["appeal_letter"] == {"compose_letter": {}, "post_letter": {}}


def test_the_clock_runs_out_where_nobody_searches_and_counsel_closes_the_request() -> None:
    walked = tried(
        "records_request",
        REQUEST,
        REQUEST_GOOD,
        absent=frozenset({"records_office"}),
        signals={"counsel_closed": [{"reason": "no records"}]},
    )
    assert walked.why is None
    assert done(walked) == ["log_request", "warn_supervisor", "report_overdue", "close_file"]
    assert {task.status.value for task in walked.tasks if task.activity == "search"} == {"cancelled"}
    assert Clock("America/New_York").moment(walked.end_ms) == "Mon 2026-04-13 17:00"


def test_a_request_that_is_withdrawn_is_closed() -> None:
    walked = tried("records_request", REQUEST, REQUEST_GOOD, signals={"requester_withdrew": [{}]})
    assert walked.why is None
    assert done(walked)[-1] == "close_file"


def test_a_request_that_cannot_be_logged_fails() -> None:
    walked = tried("records_request", REQUEST, REQUEST_GOOD, failures={"log_request": 3})
    assert (walked.state, walked.why) == ("failed", "log_request: it was told to fail")


def test_what_the_office_publishes_by_itself_has_no_letters_and_no_appeal() -> None:
    (schedule,) = plan_of("records_request").schedules
    walked = tried("records_request", dict(schedule.input), REQUEST_GOOD)
    assert walked.why is None
    assert {entry.job for entry in walked.entries} == {"JOB-1"}
    assert days(walked) < 2


# Disaster aid

AID = {"household": 4, "damages": [{"room": "roof", "what": "gone"}, {"room": "cellar", "what": "wet"}]}
AID_GOOD = {
    "register": {"declared_area": True, "duplicate": False},
    "check_identity": {"verified": True},
    "inspect": [{"cents": 900_000}, {"cents": 100_000}],
    "decide": {"granted": True, "cents": 1_000_000},
    "pay": {"payment": "P-1"},
}


def test_aid_is_paid_in_the_afternoons_batch() -> None:
    walked = tried("disaster_aid", AID, AID_GOOD)
    assert walked.why is None
    assert done(walked)[-3:] == ["decide", "pay", "confirm_payment"]
    assert "check_papers" not in [task.activity for task in walked.tasks], "a machine's proof was enough"
    paid = next(entry for entry in walked.entries if (entry.what, entry.name) == ("done", "pay"))
    assert Clock("America/Chicago").moment(paid.at_ms) == "Mon 2026-03-02 09:30"
    assert days(walked) > 60, "there are 60 days for an appeal"


def test_an_appeal_brings_another_inspection_and_more_money() -> None:
    outputs = AID_GOOD | {
        "hear_appeal": [{"outcome": "inspect_again"}, {"outcome": "more", "cents": 5_000}],
        "inspect_again": {"cents": 905_000},
    }
    walked = tried(
        "disaster_aid",
        AID,
        outputs,
        signals={"appeal_filed": [{"grounds": "the roof is worth more"}], "access_given": [{}]},
    )
    assert walked.why is None
    assert done(walked)[-4:] == ["hear_appeal", "inspect_again", "hear_appeal", "pay_difference"]
    assert walked.outputs["appeal_letter"] == {"compose_letter": {}, "post_letter": {}}


def test_a_payment_that_the_bank_returns_is_stopped_and_the_applicant_told() -> None:
    walked = tried("disaster_aid", AID, AID_GOOD, failures={"confirm_payment": 2})
    assert (walked.state, walked.why) == ("failed", "confirm_payment: it was told to fail")
    assert done(walked)[-1] == "stop_payment"
    assert "send_letter TRY-1/recall_letter" in [entry.name for entry in walked.entries]


def test_who_lives_elsewhere_is_told_so() -> None:
    walked = tried("disaster_aid", AID, {"register": {"declared_area": False, "duplicate": False}})
    assert walked.why is None
    assert done(walked) == ["register", "write_reasons"]


def test_an_identity_that_cannot_be_checked_waits_for_a_decision() -> None:
    outputs = AID_GOOD | {"check_identity": {"verified": False}, "check_identity_by_hand": {"verified": True}}
    walked = tried("disaster_aid", AID, outputs, failures={"check_identity_by_hand": 6})
    assert walked.state == "paused"
    assert tried("disaster_aid", AID, outputs).why is None


@pytest.mark.parametrize("name", FULL[:-1])
def test_each_says_what_it_needs(name: str) -> None:
    plan = plan_of(name)
    assert plan.input_schema is not None
    assert plan.input_schema.faults({})
    assert plan.title is not None
    assert all(lane.title is not None for lane in plan.lanes if lane.kind.value == "human")
