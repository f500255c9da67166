"""The bytes of a task's event, put together from parts that stay the same.

Nearly all events are of tasks, and most of one is the same in every other of its activity. `act.contract.encode_event`
writes any event; this gives the same bytes, which a test holds, for half of the time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic_core import to_json

from act.contract import JOB_SOURCE, format_time_ms
from oms.domain.task import Job, Task


def encode_task_event(
    job: Job,
    task: Task,
    status: str,
    *,
    time_ms: int,
    worker: str | None,
    actor: str | None,
    detail: dict[str, Any],
    traceparent: str | None,
) -> bytes:
    """Return the final bytes of a task's event, whose place in its job's stream is ``job.seq``.

    Args:
        job: the task's.
        task: ``lane`` and ``attempt`` are its own now.
        status: what happened to it, a word of `act.contract.Status`.
        time_ms: when, milliseconds since the epoch.
        worker: who had it.
        actor: who did it.
        detail: what else there is to say.
        traceparent: W3C trace context of the request that caused it.

    Raises:
        PydanticSerializationError: a text is none that UTF-8 can hold.
    """
    stream, name, seq = job.name, task.name, job.seq
    trace = "" if traceparent is None else f'"traceparent":{to_json(traceparent).decode()},'
    head = (
        f'{{"specversion":"1.0","id":"{stream}.{seq}","source":"{JOB_SOURCE}{stream}","type":"hms.task.{status}.v1",'
        f'"subject":"{name}","time":"{format_time_ms(time_ms)}","sequence":"{seq:020}",{trace}'
        f'"datacontenttype":"application/json","data":{{"job_id":"{stream}",{_plan(job.plan, job.plan_version)}'
    )
    rest = (
        f',"task_id":"{name}",{_activity(task.activity, task.lane, status)}{task.attempt},'
        f'"worker":{_json(worker)},"actor":{_json(actor)},"detail":'
    )
    return b"".join((head.encode(), to_json(job.reference), rest.encode(), to_json(detail), b"}}"))


@lru_cache(maxsize=1024)
def _plan(plan: str, version: int) -> str:
    return f'"plan":{_json(plan)},"plan_version":{version},"reference":'


@lru_cache(maxsize=4096)
def _activity(activity: str, lane: str, status: str) -> str:
    return f'"activity":{_json(activity)},"lane":{_json(lane)},"status":{_json(status)},"attempt":'


@lru_cache(maxsize=4096)
def _json(value: str | None) -> str:
    return to_json(value).decode()
