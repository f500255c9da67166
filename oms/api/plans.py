"""Plans over HTTP: list, show, reload the folder, and put one in force."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from hmskit.bodies import read_body
from oms.api.edge import json_response, problem_responses, service_of, settings_of
from oms.api.schemas import LoadedPlanAnswer, PlansView, PlanView, ReloadedAnswer
from oms.sequencer.plan_folder import put_plan_text, reload_folder
from oms.sequencer.views import plan_view, plans_view

router = APIRouter(tags=["plans"])

_PLAN_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string", "description": "a plan file"}},
            "application/json": {"schema": {"type": "object", "description": "a plan file as JSON"}},
        },
    }
}


@router.get("/plans", responses={200: {"model": PlansView}, **problem_responses("503")})
async def list_plans(request: Request) -> Response:
    """List every plan with its versions."""
    return json_response(await service_of(request).read(plans_view))


@router.get("/plans/{plan_id}", responses={200: {"model": PlanView}, **problem_responses("404", "503")})
async def show_plan(request: Request, plan_id: str) -> Response:
    """Show a plan with its versions and its document."""
    return json_response(await service_of(request).read(lambda connection: plan_view(connection, plan_id)))


@router.post("/plans/reload", responses={200: {"model": ReloadedAnswer}, **problem_responses("403", "503")})
async def reload_plans(request: Request) -> Response:
    """Read the plan folder again. A refused file leaves its last good version in force."""
    return json_response(await reload_folder(service_of(request).writer, settings_of(request).plans))


@router.post(
    "/plans",
    openapi_extra=_PLAN_BODY,
    responses={200: {"model": LoadedPlanAnswer}, **problem_responses("403", "413", "422", "503")},
)
async def put_plan(request: Request) -> Response:
    """Put the plan in the body (YAML or JSON) in force, without a file: for a service on another machine."""
    text = await read_body(request, limit_bytes=settings_of(request).max_body)
    return json_response(await put_plan_text(service_of(request).writer, text))
