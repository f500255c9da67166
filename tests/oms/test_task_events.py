"""Tests for the bytes of tasks' events: those that the contract's own function gives."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticSerializationError

from act.contract import STATUSES, encode_event
from oms.domain.task import Job, JobState, Task, TaskStatus
from oms.sequencer.task_events import encode_task_event

numbers = st.integers(1, 2**53)
texts = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\/\x00\x1f\x7f\u2028\N{POSTBOX}'), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def job_of(number: int, plan: str, version: int, reference: str, seq: int) -> Job:
    return Job(
        job_id=number,
        plan=plan,
        plan_version=version,
        reference=reference,
        state=JobState.RUNNING,
        priority=0,
        input="{}",
        position=0,
        seq=seq,
        hmac_key=None,
        error=None,
        created_at=0,
        updated_at=0,
    )


def task_of(number: int, activity: str, lane: str, attempt: int) -> Task:
    unsaid: dict[str, Any] = dict.fromkeys(field.name for field in fields(Task) if field.default is MISSING)
    said: dict[str, Any] = {
        "task_id": number,
        "activity": activity,
        "lane": lane,
        "status": TaskStatus.RUNNING,
        "attempt": attempt,
    }
    return Task(**(unsaid | said))


def both(job: Job, task: Task, status: str, time_ms: int, **told: Any) -> tuple[bytes, bytes]:
    """Return the event's bytes, and those of the contract's own function."""
    trace = told.pop("traceparent")
    expected = encode_event(
        stream=job.name,
        seq=job.seq,
        entity="task",
        subject=task.name,
        time_ms=time_ms,
        traceparent=trace,
        data={
            "job_id": job.name,
            "plan": job.plan,
            "plan_version": job.plan_version,
            "reference": job.reference,
            "task_id": task.name,
            "activity": task.activity,
            "lane": task.lane,
            "status": status,
            "attempt": task.attempt,
            **told,
        },
    )
    return encode_task_event(job, task, status, time_ms=time_ms, traceparent=trace, **told), expected


@given(
    job=st.builds(job_of, numbers, texts, numbers, texts, numbers),
    task=st.builds(task_of, numbers, texts, texts, st.integers(0, 2**53)),
    status=st.sampled_from(STATUSES),
    time_ms=st.integers(0, 253_402_300_799_999),
    worker=st.none() | texts,
    actor=st.none() | texts,
    detail=st.dictionaries(texts, values, max_size=4),
    traceparent=st.none() | texts,
)
def test_the_bytes_are_the_contract_s(job: Job, task: Task, status: str, time_ms: int, **told: Any) -> None:
    event, expected = both(job, task, status, time_ms, **told)
    assert event == expected


@pytest.mark.parametrize("place", ["worker", "actor", "traceparent", "reference", "detail"])
def test_a_text_that_no_event_can_hold_is_refused_as_by_the_contract(place: str) -> None:
    told: dict[str, Any] = {"worker": None, "actor": None, "traceparent": None, "detail": {}}
    half = "\ud800"
    job = job_of(1, "plan", 1, half if place == "reference" else "T-1", 1)
    told |= {place: {"x": half} if place == "detail" else half} if place in told else {}
    with pytest.raises(PydanticSerializationError):
        encode_task_event(job, task_of(1, "a", "b", 1), "done", time_ms=0, **told)
