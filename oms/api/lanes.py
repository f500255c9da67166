"""What managers call for a lane as a whole: the list of lanes, pause and resume; and why a task does not move."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from oms.api.control_schemas import ControlBody
from oms.api.edge import body_of, json_response, problem_responses, read_object, service_of, trace_of
from oms.api.lane_schemas import LaneStandsAnswer, LanesView, WhyView
from oms.api.receipt_schemas import LaneReceiptsView, LaneStreamsView, ReceiptsQuery
from oms.api.schemas import Name
from oms.sequencer.pause_lane import PauseLane, ResumeLane, pause_lanes, resume_lanes
from oms.sequencer.receipts import lane_receipts_view, lane_streams_view
from oms.sequencer.views import lanes_view
from oms.sequencer.why import why_view

router = APIRouter(tags=["lanes"])


@router.get("/lanes", responses={200: {"model": LanesView}, **problem_responses("503")})
async def list_lanes(request: Request) -> Response:
    """List the lanes: what waits, what runs, for how long, what holds them back, and who was seen."""
    service = service_of(request)
    now_ms = service.now_ms()
    view = await service.read(lambda connection: lanes_view(connection, service.store.plans, now_ms=now_ms))
    return json_response(view)


@router.get("/lanes/receipts", responses={200: {"model": LaneStreamsView}, **problem_responses("503")})
async def list_lane_streams(request: Request) -> Response:
    """List the lanes that have events of their own, for who compares OMS with the ledger."""
    return json_response(await service_of(request).read(lane_streams_view))


@router.get(
    "/lanes/{lane:path}/receipts",
    responses={200: {"model": LaneReceiptsView}, **problem_responses("404", "422", "503")},
)
async def show_lane_receipts(request: Request, lane: Name, query: Annotated[ReceiptsQuery, Query()]) -> Response:
    """Show what OMS holds of a lane's own events against the ledger: whether it is paused, and ACT's receipts."""
    return json_response(
        await service_of(request).read(
            lambda connection: lane_receipts_view(connection, lane, limit=query.limit, cursor=query.cursor)
        )
    )


# A lane's name may hold any text, a slash too.
@router.post(
    "/lanes/{lane:path}/pause",
    openapi_extra=body_of(ControlBody),
    responses={200: {"model": LaneStandsAnswer}, **problem_responses("403", "404", "413", "422", "503")},
)
async def pause_lane(request: Request, lane: Name) -> Response:
    """Let the lane hand out nothing until it is resumed; what runs may still be completed."""
    body = await read_object(request, ControlBody, may_be_empty=True)
    wish = PauseLane(lane=lane, reason=body.reason, actor=body.actor, trace=trace_of(request))
    return json_response(await service_of(request).writer.run(pause_lanes, wish))


@router.post(
    "/lanes/{lane:path}/resume",
    openapi_extra=body_of(ControlBody),
    responses={200: {"model": LaneStandsAnswer}, **problem_responses("403", "404", "413", "422", "503")},
)
async def resume_lane(request: Request, lane: Name) -> Response:
    """Let the lane hand out again, and wake the pulls that wait for it."""
    body = await read_object(request, ControlBody, may_be_empty=True)
    wish = ResumeLane(lane=lane, reason=body.reason, actor=body.actor, trace=trace_of(request))
    return json_response(await service_of(request).writer.run(resume_lanes, wish))


@router.get("/tasks/{task_id}/why", responses={200: {"model": WhyView}, **problem_responses("404", "503")})
async def explain_task(request: Request, task_id: str) -> Response:
    """Say why a task does not move: one reason, and what would change it."""
    service = service_of(request)
    now_ms, waited_for = service.now_ms(), service.writer.waited_for
    view = await service.read(
        lambda connection: why_view(connection, service.store, task_id, now_ms=now_ms, waited_for=waited_for)
    )
    return json_response(view)
