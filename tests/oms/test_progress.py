"""What comes next in a job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.condition import ConditionError
from oms.domain.plan import Plan, Step
from oms.domain.plan_reader import parse_plan
from oms.domain.progress import Advance, Facts, Undecided, advance


def plan_of(*whens: str | None) -> Plan:
    """Return a plan of the activities a0, a1, ... with these conditions."""
    lanes = [f"a{index}" for index in range(len(whens))]
    steps = [{"activity": name} | ({"when": when} if when else {}) for name, when in zip(lanes, whens, strict=True)]
    return parse_plan({"id": "p", "lanes": lanes, "sequence": steps})


def facts(outputs: dict[str, Any] | None = None, **given: Any) -> Facts:
    return Facts(input=given, outputs=outputs or {}, reference="T-1")


def test_a_new_job_starts_with_the_first_step() -> None:
    plan = plan_of(None, None)
    assert advance(plan, after=-1, facts=facts()) == Advance((), 0, plan.steps[0])


def test_the_last_step_ends_the_job() -> None:
    plan = plan_of(None, None)
    assert advance(plan, after=1, facts=facts()) == Advance((), 2, None)


def test_steps_that_do_not_apply_are_skipped_in_order() -> None:
    plan = plan_of(None, "input.x > 3", "outputs.a0.ok", "reference == 'T-1'")
    ahead = advance(plan, after=0, facts=facts({"a0": {"ok": False}}, x=1))
    assert ahead == Advance((plan.steps[1], plan.steps[2]), 3, plan.steps[3])


def test_a_job_whose_last_steps_are_skipped_is_through() -> None:
    plan = plan_of(None, "false", "false")
    assert advance(plan, after=0, facts=facts()) == Advance((plan.steps[1], plan.steps[2]), 3, None)


def test_a_skipped_step_has_no_output() -> None:
    plan = plan_of("false", "has(outputs.a0.ok)", "!has(outputs.a0)")
    ahead = advance(plan, after=-1, facts=facts())
    assert (ahead.index, len(ahead.skipped)) == (2, 2)


def test_an_undecided_step_stops_the_job_and_tells_what_was_skipped_before() -> None:
    plan = plan_of(None, "false", "outputs.a0.missing", None)
    with pytest.raises(Undecided) as caught:
        advance(plan, after=0, facts=facts({"a0": {}}))
    undecided = caught.value
    assert (undecided.skipped, undecided.index, undecided.step) == ((plan.steps[1],), 2, plan.steps[2])
    assert (undecided.cause.code, undecided.cause.source) == ("missing_key", "outputs.a0.missing")
    assert str(undecided) == "a2: missing_key"


WHENS = st.sampled_from(
    [None, "true", "false", "input.x > 3", "input.x", "input.y == 1", "has(input.y)", "input.x < 'a'"]
)
GIVEN = st.dictionaries(st.sampled_from("xy"), st.integers(0, 6) | st.booleans() | st.just("text"))


def applies(step: Step, known: Facts) -> bool | None:
    """Decide one step by itself; None where it cannot be decided."""
    try:
        return step.when is None or step.when.holds(input=known.input, outputs=known.outputs, reference=known.reference)
    except ConditionError:
        return None


def walked(plan: Plan, known: Facts) -> tuple[list[int], list[str], int | None]:
    """Run a job to its end: the steps it did, those it skipped, and the one it could not decide."""
    done: list[int] = []
    skipped: list[str] = []
    after = -1
    while True:
        try:
            ahead = advance(plan, after=after, facts=known)
        except Undecided as undecided:
            return done, [*skipped, *(step.activity for step in undecided.skipped)], undecided.index
        skipped += [step.activity for step in ahead.skipped]
        if ahead.step is None:
            return done, skipped, None
        assert plan.steps[ahead.index] is ahead.step
        done.append(ahead.index)
        after = ahead.index


@given(whens=st.lists(WHENS, min_size=1, max_size=8), given_=GIVEN)
def test_a_job_does_and_skips_what_each_step_says_in_order_until_one_is_undecided(
    whens: list[str | None], given_: dict[str, Any]
) -> None:
    plan, known = plan_of(*whens), facts(**given_)
    answers = [applies(step, known) for step in plan.steps]
    end = answers.index(None) if None in answers else len(answers)
    done = [index for index in range(end) if answers[index]]
    skipped = [plan.steps[index].activity for index in range(end) if not answers[index]]
    assert walked(plan, known) == (done, skipped, end if end < len(answers) else None)
    assert walked(plan, known) == walked(plan_of(*whens), known), "a replay takes the same branch"


@given(whens=st.lists(WHENS, min_size=1, max_size=6))
def test_outputs_need_be_loaded_only_when_a_condition_lies_ahead(whens: list[str | None]) -> None:
    plan = plan_of(*whens)
    for after in range(-1, len(whens)):
        assert plan.reads_after(after) == any(when is not None for when in whens[after + 1 :])
