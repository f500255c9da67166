"""What managers, and the world outside, do to jobs: cancel, pause, resume, restart, signal, skip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from oms.api.control_schemas import ControlBody, RestartBody, SignalBody, SkipBody
from oms.api.edge import body_of, json_response, problem_responses, read_object, service_of, trace_of
from oms.api.schemas import JobStands, TaskAnswered
from oms.sequencer.cancel import Cancel, cancel
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.restart import Restart, restart
from oms.sequencer.signal import Signal, signal
from oms.sequencer.skip import Skip, skip
from oms.storage.transaction import Transaction

router = APIRouter(tags=["control"])

_JOB: dict[int | str, dict[str, Any]] = {
    200: {"model": JobStands},
    **problem_responses("403", "404", "409", "413", "422", "503"),
}
_Verb = Callable[[Transaction, Sequence[Any]], Sequence[Any]]


async def _run(request: Request, job_id: str, verb: _Verb, wish: Callable[..., Any]) -> Response:
    body = await read_object(request, ControlBody, may_be_empty=True)
    made = wish(job_id=job_id, reason=body.reason, actor=body.actor, trace=trace_of(request))
    return json_response(await service_of(request).writer.run(verb, made))


@router.post("/jobs/{job_id}/cancel", openapi_extra=body_of(ControlBody), responses=_JOB)
async def cancel_job(request: Request, job_id: str) -> Response:
    """Stop a job for good. What it had done is undone first, where its plan says how; until then it runs."""
    return await _run(request, job_id, cancel, Cancel)


@router.post("/jobs/{job_id}/pause", openapi_extra=body_of(ControlBody), responses=_JOB)
async def pause_job(request: Request, job_id: str) -> Response:
    """Let a job hand out nothing. What runs may still be completed."""
    return await _run(request, job_id, pause, Pause)


@router.post("/jobs/{job_id}/resume", openapi_extra=body_of(ControlBody), responses=_JOB)
async def resume_job(request: Request, job_id: str) -> Response:
    """Let a paused job go on."""
    return await _run(request, job_id, resume, Resume)


@router.post("/jobs/{job_id}/signal", openapi_extra=body_of(SignalBody), responses=_JOB)
async def signal_job(request: Request, job_id: str) -> Response:
    """Tell a job of an event that it waits for, or will: it serves one wait."""
    body = await read_object(request, SignalBody)
    wish = Signal(
        job_id=job_id,
        name=body.name,
        data=body.data,
        signal_id=body.signal_id,
        actor=body.actor,
        trace=trace_of(request),
    )
    return json_response(await service_of(request).writer.run(signal, wish))


@router.post("/jobs/{job_id}/restart", openapi_extra=body_of(RestartBody), responses=_JOB)
async def restart_job(request: Request, job_id: str) -> Response:
    """Run a job again from an activity on. What was given from there on counts no more; the ledger keeps it."""
    body = await read_object(request, RestartBody)
    wish = Restart(job_id=job_id, start=body.start, reason=body.reason, actor=body.actor, trace=trace_of(request))
    return json_response(await service_of(request).writer.run(restart, wish))


@router.post(
    "/skip",
    openapi_extra=body_of(SkipBody),
    responses={200: {"model": TaskAnswered}, **problem_responses("403", "404", "409", "413", "422", "503")},
)
async def skip_task(request: Request) -> Response:
    """Stand in for a worker: the task is done, with this output."""
    body = await read_object(request, SkipBody)
    wish = Skip(task_id=body.task_id, output=body.output, reason=body.reason, actor=body.actor, trace=trace_of(request))
    return json_response(await service_of(request).writer.run(skip, wish))
