"""The rules of the flow, on any plan and in any order of what can happen: pure, in memory (`tests.oms.flow_world`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms.domain import flow_share
from oms.domain.errors import ConflictError
from oms.domain.plan_reader import parse_plan
from oms.domain.run import RunState
from oms.domain.task import FINISHED, JobState
from tests.oms.flow_world import LIVE, World
from tests.oms.random_plans import SIGNALS, random_plans

EXAMPLES = int(os.environ.get("FLOW_EXAMPLES", "150"))
"""For a longer campaign set it, and ``--hypothesis-seed`` for one that can be run again."""
SLICE = 2
MOST_EVENTS = 25
MOST_ANSWERS = 3_000
GOOD = {"good": True}

Event = tuple[str, Any]

bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(autouse=True, scope="module")
def small_slices() -> Any:
    """Let a change begin few items, so that short lists come in slices, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_share, "MAX_BEGUN", SLICE)
        yield


def what_can_happen(world: World) -> list[Event]:
    """Return all that may happen to a job now."""
    found: list[Event] = []
    for task in world.tasks.values():
        if task.status in LIVE:
            found += [("complete", task.number), ("complete well", task.number), ("fail", task.number)]
        elif task.status == "failed":
            found += [("retry", task.number), ("complete", task.number)]
    found += [("ring", number) for number in world.alarms]
    for child in world.children.values():
        found += [("child", (child.number, state)) for state in _next_states(child.state)]
    if world.state not in FINISHED:
        found += [("signal", name) for name in SIGNALS]
    return found


def what_managers_do(world: World) -> list[Event]:
    """Return what somebody may do to the job as a whole."""
    is_undoing = world.how is not None and world.state not in FINISHED
    found: list[Event] = []
    if not is_undoing and world.state is not JobState.CANCELLED:
        found += [("restart", position) for position in range(len(world.plan.sequence))]
    if not is_undoing and world.state not in FINISHED:
        found.append(("cancel", None))
    return found


def _next_states(state: JobState) -> list[JobState]:
    if state is JobState.RUNNING:
        return [JobState.DONE, JobState.FAILED, JobState.CANCELLED]
    return [JobState.RUNNING] if state is JobState.FAILED else []


def happen(world: World, event: Event) -> None:
    """Let something happen; what the rules refuse changes nothing."""
    kind, what = event
    verbs: dict[str, Callable[[], None]] = {
        "start": world.start,
        "complete": lambda: world.complete(what, {}),
        "complete well": lambda: world.complete(what, GOOD),
        "fail": lambda: world.fail(what),
        "retry": lambda: world.retry(what),
        "ring": lambda: world.ring(what),
        "child": lambda: world.child_becomes(*what),
        "signal": lambda: world.signal(what),
        "restart": lambda: world.restart(what),
        "cancel": world.cancel,
    }
    before = len(world.calls)
    try:
        verbs[kind]()
    except ConflictError:
        assert len(world.calls) == before, f"{event} was refused, and did something"


def answer_all(world: World) -> None:
    """Bring a job to its end: everything that is open gets an answer, a good one."""
    for _ in range(MOST_ANSWERS):
        if world.state in FINISHED and not world.alarms:
            return
        stuck = world.stuck()
        live = [task.number for task in world.tasks.values() if task.status in LIVE]
        running = [child.number for child in world.children.values() if child.state is JobState.RUNNING]
        signals = [one.signal for one in world.blocks.values() if one.signal and one.state is RunState.RUNNING]
        if world.alarms:
            happen(world, ("ring", min(world.alarms.values(), key=lambda one: (one.due_ms, one.number)).number))
        elif live:
            happen(world, ("complete well", live[0]))
        elif stuck:
            happen(world, ("complete well", stuck[0].number))
        elif running:
            happen(world, ("child", (running[0], JobState.DONE)))
        else:
            assert signals, "nothing is open, and the job does not end"
            happen(world, ("signal", signals[0]))
        world.check()
    raise AssertionError("there is no end to it")


@bounded
@given(document=random_plans(), data=st.data())
def test_whatever_happens_a_job_comes_to_a_legal_end_and_the_same_again_does_the_same(
    document: dict[str, Any], data: st.DataObject
) -> None:
    plan = parse_plan(document)
    world = World(plan)
    events: list[Event] = [("start", None)]
    happen(world, events[0])
    world.check()
    for _ in range(data.draw(st.integers(0, MOST_EVENTS), label="events")):
        choices = what_can_happen(world)
        rare = what_managers_do(world)
        if rare and (not choices or data.draw(st.integers(0, 14), label="rare") == 0):
            choices = rare
        if not choices:
            break
        event = choices[data.draw(st.integers(0, len(choices) - 1), label="which")]
        events.append(event)
        happen(world, event)
        world.check()
    answer_all(world)
    again = World(plan)
    for event in events:
        happen(again, event)
    answer_all(again)
    assert again.calls == world.calls
