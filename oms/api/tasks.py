"""What workers and managers call: pull, complete, fail, heartbeat, release, reroute, retry, and the tasks' pages."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from hmskit.problems import invalid
from oms.api.edge import (
    Call,
    body_of,
    json_response,
    problem_responses,
    read_object,
    read_value,
    service_of,
    settings_of,
    trace_of,
    validated,
)
from oms.api.lane_schemas import ReroutedManyAnswer, RerouteManyBody
from oms.api.schemas import (
    CompleteBody,
    ErrorDetail,
    FailBody,
    HeartbeatAnswer,
    HeartbeatBody,
    LeasedTaskAnswer,
    PullQuery,
    ReleaseBody,
    RerouteBody,
    ReroutedAnswer,
    RetryBody,
    TaskAnswered,
    TasksPage,
    TasksQuery,
    TaskView,
)
from oms.domain.task import TaskStatus
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.heartbeat import Heartbeat, heartbeat
from oms.sequencer.lists import TaskFilter, tasks_page
from oms.sequencer.pull import LeasedTask, Pull
from oms.sequencer.release import Release, release
from oms.sequencer.reroute import Reroute, Rerouted, reroute
from oms.sequencer.reroute_many import RerouteMany, Where, reroute_many
from oms.sequencer.retry import Retry, retry
from oms.sequencer.views import task_view
from oms.sequencer.writer import Writer

DEFAULT_ERROR_TYPE = "error"

router = APIRouter(tags=["tasks"])


def _complete_wish(body: CompleteBody, trace: str | None) -> Complete:
    return Complete(task_id=body.task_id, output=body.output, token=body.token, worker=body.worker, trace=trace)


def _fail_wish(body: FailBody, trace: str | None) -> Fail:
    error = body.error
    kind, message = (error.type, error.message) if isinstance(error, ErrorDetail) else (DEFAULT_ERROR_TYPE, error)
    return Fail(
        task_id=body.task_id,
        error_type=kind,
        message=message,
        retryable=body.retryable,
        token=body.token,
        worker=body.worker,
        trace=trace,
    )


COMPLETE = Call(CompleteBody, _complete_wish, complete)
FAIL = Call(FailBody, _fail_wish, fail)


@router.get(
    "/pull",
    responses={
        200: {"model": LeasedTaskAnswer | list[LeasedTaskAnswer] | None},
        **problem_responses("403", "422", "503"),
    },
)
async def pull_tasks(request: Request, query: Annotated[PullQuery, Query()]) -> Response:
    """Lease the next task of a lane. An empty lane answers 200 ``null``, so that ``.json()`` parses.

    With ``max`` the answer is a list, maybe empty. With ``wait`` the call waits for work.
    """
    wish = Pull(lane=query.lane, limit=query.max or 1, worker=query.worker, trace=trace_of(request))
    leased = await _pull_while_connected(request, service_of(request).writer, wish, query.wait)
    if query.max is None:
        return json_response(leased[0] if leased else None)
    return json_response(leased)


async def _pull_while_connected(request: Request, writer: Writer, wish: Pull, wait_sec: float) -> list[LeasedTask]:
    """Pull; a long poll ends when its client goes away, so that no task is handed to nobody."""
    if wait_sec <= 0:
        return await writer.pull(wish)
    pulling = asyncio.ensure_future(writer.pull(wish, wait_sec=wait_sec))
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({pulling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not pulling.done():
            pulling.cancel()
            return []
        return pulling.result()
    finally:
        leaving.cancel()
        pulling.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.post(
    "/complete",
    openapi_extra=body_of(CompleteBody, or_list=True),
    responses={
        200: {"model": TaskAnswered | list[Any]},
        **problem_responses("403", "404", "409", "413", "422", "503"),
    },
)
async def complete_tasks(request: Request) -> Response:
    """Complete a task, or a list of them. The same again gets the same answer."""
    return await COMPLETE.plain(request)


@router.post(
    "/fail",
    openapi_extra=body_of(FailBody, or_list=True),
    responses={
        200: {"model": TaskAnswered | list[Any]},
        **problem_responses("403", "404", "409", "413", "422", "503"),
    },
)
async def fail_tasks(request: Request) -> Response:
    """Report a failed attempt. The retry policy decides: queued again later, or failed for good."""
    return await FAIL.plain(request)


@router.post(
    "/heartbeat",
    openapi_extra=body_of(HeartbeatBody),
    responses={200: {"model": HeartbeatAnswer}, **problem_responses("403", "404", "409", "413", "422", "503")},
)
async def heartbeat_task(request: Request) -> Response:
    """Show a sign of life: the lease starts anew."""
    body = await read_object(request, HeartbeatBody)
    wish = Heartbeat(task_id=body.task_id, token=body.token, progress=body.progress, note=body.note)
    return json_response(await service_of(request).writer.run(heartbeat, wish))


@router.post(
    "/release",
    openapi_extra=body_of(ReleaseBody),
    responses={200: {"model": TaskAnswered}, **problem_responses("403", "404", "409", "413", "422", "503")},
)
async def release_task(request: Request) -> Response:
    """Give a task back, to its old place; it does not count for the retry policy."""
    body = await read_object(request, ReleaseBody)
    wish = Release(task_id=body.task_id, token=body.token, reason=body.reason, trace=trace_of(request))
    return json_response(await service_of(request).writer.run(release, wish))


@router.post(
    "/reroute",
    openapi_extra=body_of(RerouteBody, RerouteManyBody),
    responses={
        200: {"model": ReroutedAnswer | ReroutedManyAnswer},
        **problem_responses("403", "404", "409", "413", "422", "503"),
    },
)
async def reroute_task(request: Request) -> Response:
    """Move a task to the end of another lane, whoever has it: a running one is taken from its worker.

    With `where` instead of `task_id` all tasks that it means are moved, and `dry_run` tells which those are.
    """
    value = await read_value(request)
    if isinstance(value, dict) and ("task_id" in value) == ("where" in value):
        raise invalid("Give either task_id, to move one task, or where, to move many.")
    if isinstance(value, dict) and "where" in value:
        return await _reroute_many(request, validated(value, RerouteManyBody))
    body = validated(value, RerouteBody)
    wish = Reroute(
        task_id=body.task_id,
        new_lane=body.new_lane,
        reason=body.reason,
        priority=body.priority,
        actor=body.actor,
        strict=settings_of(request).strict_lanes,
        trace=trace_of(request),
    )
    return json_response(_rerouted(await service_of(request).writer.run(reroute, wish)))


async def _reroute_many(request: Request, body: RerouteManyBody) -> Response:
    order = RerouteMany(
        where=Where(
            lane=body.where.lane,
            plan=body.where.plan,
            status=None if body.where.status is None else TaskStatus(body.where.status),
            older_than_sec=body.where.older_than_sec,
            worker=body.where.worker,
        ),
        new_lane=body.new_lane,
        reason=body.reason,
        limit=body.max,
        is_dry_run=body.dry_run,
        actor=body.actor,
        strict=settings_of(request).strict_lanes,
        trace=trace_of(request),
    )
    answer = asdict(await reroute_many(service_of(request), order))
    if answer["warning"] is None:
        del answer["warning"]
    return json_response(answer)


def _rerouted(rerouted: Rerouted) -> dict[str, Any]:
    answer = {"task_id": rerouted.task_id, "lane": rerouted.lane, "status": rerouted.status}
    return answer if rerouted.warning is None else {**answer, "warning": rerouted.warning}


@router.post(
    "/retry",
    openapi_extra=body_of(RetryBody),
    responses={200: {"model": TaskAnswered}, **problem_responses("403", "404", "409", "413", "422", "503")},
)
async def retry_task(request: Request) -> Response:
    """Queue a failed task again, with fresh attempts; its job runs again."""
    body = await read_object(request, RetryBody)
    wish = Retry(task_id=body.task_id, reason=body.reason, actor=body.actor, trace=trace_of(request))
    return json_response(await service_of(request).writer.run(retry, wish))


@router.get("/tasks", responses={200: {"model": TasksPage}, **problem_responses("422", "503")})
async def list_tasks(request: Request, query: Annotated[TasksQuery, Query()]) -> Response:
    """List tasks, the oldest first."""
    wanted = TaskFilter(
        lane=query.lane,
        status=query.status,
        job=query.job,
        plan=query.plan,
        reference=query.reference,
        older_than_sec=query.older_than_sec,
        stalled=query.stalled,
    )
    service = service_of(request)
    now_ms = service.now_ms()
    page = await service.read(
        lambda connection: tasks_page(connection, wanted, limit=query.limit, cursor=query.cursor, now_ms=now_ms)
    )
    return json_response(page)


@router.get("/tasks/{task_id}", responses={200: {"model": TaskView}, **problem_responses("404", "503")})
async def show_task(request: Request, task_id: str) -> Response:
    """Show a task."""
    return json_response(await service_of(request).read(lambda connection: task_view(connection, task_id)))
