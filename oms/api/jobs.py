"""What portals and dashboards call: start, and the jobs' pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from oms.api.control_schemas import JobView
from oms.api.edge import Call, body_of, json_response, problem_responses, read_object, service_of, trace_of
from oms.api.receipt_schemas import ReceiptsQuery, ReceiptsView
from oms.api.schemas import (
    EraseBody,
    JobsPage,
    JobsQuery,
    JobStands,
    StartBody,
    StartedAnswer,
)
from oms.sequencer.erase import Erase
from oms.sequencer.erase_family import erase_family
from oms.sequencer.lists import JobFilter, jobs_page
from oms.sequencer.receipts import receipts_view
from oms.sequencer.start import Start, start
from oms.sequencer.views import job_view

router = APIRouter(tags=["jobs"])


def _start_wish(body: StartBody, trace: str | None) -> Start:
    return Start(plan=body.plan, reference=body.reference, input=body.input, priority=body.priority, trace=trace)


START = Call(StartBody, _start_wish, start)


@router.post(
    "/start",
    openapi_extra=body_of(StartBody, or_list=True),
    responses={
        200: {"model": StartedAnswer | list[Any]},
        **problem_responses("403", "404", "409", "413", "422", "503"),
    },
)
async def start_jobs(request: Request) -> Response:
    """Start a job, or a list of them. The same plan and reference again: the same job."""
    return await START.plain(request)


@router.get("/jobs", responses={200: {"model": JobsPage}, **problem_responses("422", "503")})
async def list_jobs(request: Request, query: Annotated[JobsQuery, Query()]) -> Response:
    """List jobs, the newest first."""
    wanted = JobFilter(
        plan=query.plan, state=query.state, reference=query.reference, older_than_sec=query.older_than_sec
    )
    service = service_of(request)
    now_ms = service.now_ms()
    page = await service.read(
        lambda connection: jobs_page(connection, wanted, limit=query.limit, cursor=query.cursor, now_ms=now_ms)
    )
    return json_response(page)


@router.get("/jobs/{job_id}", responses={200: {"model": JobView}, **problem_responses("404", "503")})
async def show_job(request: Request, job_id: str) -> Response:
    """Show a job, its tasks, its outputs by activity, and when it will be done as far as can be told."""
    service = service_of(request)
    eta = service.estimates.at(service.now_ms())
    return json_response(await service.read(lambda connection: job_view(connection, job_id, eta=eta)))


@router.get(
    "/jobs/{job_id}/receipts", responses={200: {"model": ReceiptsView}, **problem_responses("404", "422", "503")}
)
async def show_receipts(request: Request, job_id: str, query: Annotated[ReceiptsQuery, Query()]) -> Response:
    """Show what OMS holds against the ledger: how the job stands, and ACT's receipt for each of its events."""
    return json_response(
        await service_of(request).read(
            lambda connection: receipts_view(connection, job_id, limit=query.limit, cursor=query.cursor)
        )
    )


@router.post(
    "/jobs/{job_id}/erase",
    openapi_extra=body_of(EraseBody),
    responses={200: {"model": JobStands}, **problem_responses("403", "404", "409", "413", "422", "503")},
)
async def erase_job(request: Request, job_id: str) -> Response:
    """Destroy the citizen's data of a finished job, and the key of its digests in the ledger. Cannot be undone."""
    body = await read_object(request, EraseBody, may_be_empty=True)
    wish = Erase(job_id=job_id, reason=body.reason, actor=body.actor, trace=trace_of(request))
    return json_response(await erase_family(service_of(request), wish))
