"""The OpenAPI document says what the service does, and whatever is sent, the service answers as it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema_rs import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import ASGIApp, Message, Receive, Scope
from starlette.types import Send as AsgiSend

from act.api.query import KNOWN
from act.contract import BATCH_CONTENT_TYPE, STATUSES
from act.keys import make_keys
from tests.act.support import event, plain_job, run, running

PLAIN = "text/plain; charset=utf-8"


async def document_of(url: str) -> dict[str, Any]:
    async with running(url) as act:
        document: dict[str, Any] = (await act.http.get("/openapi.json")).json()
        return document


def test_every_call_is_described_with_its_refusals(url: str) -> None:
    document = run(document_of(url))
    proofs = {"/checkpoint", "/tile/{level}/{index}", "/proof/inclusion", "/proof/consistency"}
    assert set(document["paths"]) == {
        "/",
        "/events",
        "/stream",
        "/export",
        "/forks",
        "/jobs/{job_id}",
        "/healthz",
        "/metrics",
        "/readyz",
        *proofs,
    }
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            assert call["summary"], path
            assert call["description"], path
            for status, answer in call["responses"].items():
                own = dict.fromkeys(proofs, PLAIN) | {
                    "/metrics": "text/plain",
                    "/tile/{level}/{index}": "application/octet-stream",
                }
                kind = own.get(path, "application/json") if status == "200" else "application/problem+json"
                assert answer["content"][kind]["schema"], (path, method, status)
                assert path not in proofs or list(answer["content"]) == [kind], "nothing else comes"
                assert answer["description"], (path, method, status)
            for parameter in call.get("parameters", []):
                assert parameter["schema"], (path, parameter["name"])
    refusals = {path: set(calls[next(iter(calls))]["responses"]) for path, calls in document["paths"].items()}
    assert refusals["/events"] == {"200", "403", "409", "413", "415", "422", "500", "503"}
    assert refusals["/proof/inclusion"] == {"200", "404", "422", "500", "503"}
    assert refusals["/stream"] == {"200", "404", "422", "500", "503"}
    parameters = {parameter["name"] for parameter in document["paths"]["/stream"]["get"]["parameters"]}
    assert parameters == {*KNOWN, "Last-Event-ID"}


def test_the_event_schema_takes_our_events_and_refuses_others(url: str) -> None:
    document = run(document_of(url))
    body = document["paths"]["/events"]["post"]["requestBody"]["content"][BATCH_CONTENT_TYPE]["schema"]
    validator = Draft202012Validator({**body, "components": document["components"]})
    events = [json.loads(raw) for raw in plain_job("JOB-1")]
    events += [json.loads(event("JOB-2", 1, entity="job", status=status)) for status in STATUSES]
    assert validator.is_valid(events)
    assert not validator.is_valid([])
    assert not validator.is_valid([{**events[0], "sequence": "1"}])
    assert not validator.is_valid([{**events[0], "data": {}}])


def test_the_pages_need_nothing_from_the_internet(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            page = (await act.http.get("/docs")).text
            assert "http://" not in page
            assert "https://" not in page
            assert "/openapi.json" in page
            (script,) = [part.split('"')[0] for part in page.split('src="')[1:]]
            assert (await act.http.get(script)).status_code == 200

    run(scenario())


def test_the_root_says_where_to_go_on(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            body = (await act.http.get("/")).json()
            assert body["service"] == "act"
            for link in (body["docs"], body["openapi"]):
                assert (await act.http.get(link)).status_code == 200

    run(scenario())


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


Case = schemathesis.Case[Any]
Send = Callable[[Case], httpx.Response]


class FirstChunkOnly:
    """ASGI middleware: the reader of a live stream leaves after its first chunk."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        is_live, has_left = False, asyncio.Event()

        async def receive_or_leave() -> Message:
            if is_live:
                await has_left.wait()
                return {"type": "http.disconnect"}
            return await receive()

        async def send_first(message: Message) -> None:
            nonlocal is_live
            if message["type"] == "http.response.start":
                is_live = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
            elif is_live:
                if has_left.is_set():
                    return
                has_left.set()
                message = {**message, "more_body": False}
            await send(message)

        await self._app(scope, receive_or_leave, send_first)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Send]]:
    """The schema of a service with a job in its ledger, and what sends it a case."""
    folder = tmp_path_factory.mktemp("openapi")
    url = f"sqlite:///{folder / 'act.db'}"
    with start_blocking_portal() as portal:  # noqa: SIM117 - the second needs the first
        with portal.wrap_async_context_manager(
            running(url, raises=False, keys=make_keys(folder / "act.key", name="log.example/act"))
        ) as act:
            portal.call(act.append, *plain_job("JOB-1"))
            portal.call(act.signed)
            http = httpx.AsyncClient(
                transport=httpx.ASGITransport(FirstChunkOnly(act.app), raise_app_exceptions=False),
                base_url="http://act",
            )
            schema = schemathesis.openapi.from_dict(portal.call(http.get, "/openapi.json").json())

            def send(case: Case) -> httpx.Response:
                wanted: Any = requests.Request(**case.as_transport_kwargs(base_url="http://act")).prepare()

                async def request() -> httpx.Response:
                    return await http.request(wanted.method, wanted.url, content=wanted.body, headers=wanted.headers)

                return portal.call(request)

            yield schema, send
            portal.call(http.aclose)


CALLS = [
    ("POST", "/events"),
    ("GET", "/stream"),
    ("GET", "/jobs/{job_id}"),
    ("GET", "/checkpoint"),
    ("GET", "/tile/{level}/{index}"),
    ("GET", "/proof/inclusion"),
    ("GET", "/proof/consistency"),
    ("GET", "/readyz"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/"),
]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_whatever_is_sent_is_answered_as_described(
    service: tuple[Any, Send], method: str, path: str, mode: GenerationMode
) -> None:
    schema, send = service
    operation = schema[path][method]
    statuses: set[int] = set()

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case) -> None:
        answer = send(case)
        case.validate_response(answer, checks=CHECKS)
        statuses.add(answer.status_code)

    try:
        check()
    except Unsatisfiable:
        # There is nothing to get wrong: any text may be a job's id.
        assert {parameter["in"] for parameter in operation.definition.raw.get("parameters", [])} <= {"path"}
        return
    expected = {200} if mode is GenerationMode.POSITIVE and method == "GET" and "{" not in path else set()
    assert statuses >= expected
    assert statuses
