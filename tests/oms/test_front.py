"""The front answers the hot calls just as the framework's routes do: held against each other, request by request."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from oms.api.front import front
from oms.sequencer.writer import Writer
from tests.database import Database, Kind
from tests.databases import Databases
from tests.oms.support import Clock, Hold, Site, in_loop, running, until
from tests.serving import serving

MAX_BODY_BYTES = 2_000

Request = tuple[str, str, dict[str, str], bytes]
"""Method, path with query, headers, body; ``{token0}`` in a body stands for the first token that was handed out."""

REFERENCES = st.sampled_from(["T-1", "T-2", "T-3", "", "x" * 201, "line\\nbreak", "Müller"])
START_BODIES = st.one_of(
    st.builds(
        lambda plan, reference, rest: f'{{"plan":"{plan}","reference":"{reference}"{rest}}}',
        st.sampled_from(["single", "single", "single", "sinlge"]),
        REFERENCES,
        st.sampled_from(
            ["", "", ',"priority":3', ',"priority":"3"', ',"input":{"a":1}', ',"inptu":{}', ',"input":[1]']
        ),
    ),
    st.sampled_from(["", "null", "[]", "[1]", "{", '"text"', "NaN", '{"plan":1e400}', "[" * 150, "x" * 3_000]),
)
COMPLETE_BODIES = st.one_of(
    st.builds(
        lambda task, token, output: f'{{"task_id":"{task}"{token}{output}}}',
        st.sampled_from(["TASK-1", "TASK-1", "TASK-2", "TASK-3", "TASK-99", "TASK-0", "JOB-1", ""]),
        st.sampled_from(["", ',"token":"{token0}"', ',"token":"{token1}"', ',"token":"nonsense"', ',"token":7']),
        st.sampled_from(["", ',"output":{"a":1}', ',"output":{"a":2}', ',"output":[]', ',"output":{"a":1e999}']),
    ),
    st.sampled_from(["", "[]", "[null]", "{}", "\ufeff{}", '{"task_id":"TASK-1","task_id":"TASK-2"}']),
)
QUERIES = st.sampled_from(
    [
        "lane=only",
        "lane=only",
        "lane=only&max=2",
        "lane=only&worker=w-1",
        "lane=only&wait=0",
        "lane=only&wait=0.001",
        "lane=only&wait=-1",
        "lane=only&wait=nan",
        "lane=only&max=0",
        "lane=only&max=two",
        "lane=only&limit=1",
        "lane=",
        "lane",
        "",
        "lane=nobody&lane=only",
        "lane=on%6Cy",
        "lane=%FF",
        "lane=a%00b",
        "%",
    ]
)
HEADERS = st.sampled_from(
    [
        {},
        {},
        {},
        {"content-type": "application/x-www-form-urlencoded"},
        {"origin": "https://elsewhere.example"},
        {"origin": "http://oms"},
        {"sec-fetch-site": "cross-site"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ]
)


def lists_of(bodies: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return bodies | st.lists(bodies, min_size=1, max_size=3).map(lambda items: f"[{','.join(items)}]")


REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.tuples(st.just("POST"), st.just("/start"), HEADERS, lists_of(START_BODIES).map(str.encode)),
    st.tuples(st.just("GET"), QUERIES.map(lambda query: f"/pull?{query}"), HEADERS, st.just(b"")),
    st.tuples(st.just("POST"), st.just("/complete"), HEADERS, lists_of(COMPLETE_BODIES).map(str.encode)),
    st.tuples(st.sampled_from(["GET", "PUT", "HEAD"]), st.sampled_from(["/start", "/complete"]), HEADERS, st.just(b"")),
    st.tuples(st.just("POST"), st.just("/pull?lane=only"), HEADERS, st.just(b"")),
)


@dataclass
class Side:
    """One of the two: a service of its own, and the tokens that it handed out."""

    http: httpx.AsyncClient
    tokens: list[str] = field(default_factory=list)

    async def answer(self, request: Request) -> tuple[int, dict[str, str], str]:
        """Send a request; return status, headers and body, with numbers in the place of tokens."""
        method, path, headers, body = request
        for number, token in enumerate(self.tokens):
            body = body.replace(b"{token%d}" % number, token.encode())
        answer = await self.http.request(method, path, headers=headers, content=body)
        if path.startswith("/pull") and answer.status_code == 200:
            leased = answer.json() or []
            self.tokens += [task["token"] for task in (leased if isinstance(leased, list) else [leased])]
        text = answer.text
        for number, token in enumerate(self.tokens):
            text = text.replace(token, f"<token{number}>")
        return answer.status_code, dict(answer.headers), text


async def both_answers(
    requests: Sequence[Request], lend: Callable[[], AbstractContextManager[Database]]
) -> list[tuple[Any, Any]]:
    """Send the requests to a service behind the front, and to another without it."""
    clock = Clock()
    async with AsyncExitStack() as stack:
        sides = []
        for has_front in (True, False):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            site = Site(folder, stack.enter_context(lend()))
            oms = await stack.enter_async_context(running(site, clock=clock, max_body=MAX_BODY_BYTES))
            served = await stack.enter_async_context(serving(oms.app, front(oms.app) if has_front else "httptools"))
            http = httpx.AsyncClient(base_url=served.url, headers={"host": "oms"})
            sides.append(Side(await stack.enter_async_context(http)))
        return [(await sides[0].answer(request), await sides[1].answer(request)) for request in requests]


EVERY_KIND: list[Request] = [
    ("POST", "/start", {}, b'{"plan":"single","reference":"T-1"}'),
    ("POST", "/start", {}, b"x" * (MAX_BODY_BYTES + 1)),
    ("POST", "/start", {"origin": "https://elsewhere.example"}, b'{"plan":"single","reference":"T-2"}'),
    ("GET", "/pull?lane=only&max=2", {"sec-fetch-site": "cross-site"}, b""),
    ("GET", "/pull?lane=only&max=2", {}, b""),
    ("GET", "/pull?lane=only&limit=2", {}, b""),
    ("POST", "/complete", {}, b'[{"task_id":"TASK-1","token":"{token0}"},{"task_id":"TASK-2"},{"task":1}]'),
    ("POST", "/complete", {}, b'{"task_id":"TASK-1","output":{"other":1}}'),
]


EXAMPLES = {"sqlite": 40, "postgres": 12}
"""Which database is behind makes no difference to either."""


def test_the_front_answers_as_the_routes_do(databases: Databases, database_kind: Kind) -> None:
    # Not shrunk: a list of a dozen requests can be read, and each try makes two services.
    @settings(
        max_examples=EXAMPLES[database_kind],
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @example(requests=EVERY_KIND)
    @given(requests=st.lists(REQUESTS, min_size=1, max_size=12))
    def check(requests: list[Request]) -> None:
        answers = asyncio.run(both_answers(requests, lambda: databases.lend(database_kind, "oms")))
        for request, (hot, plain) in zip(requests, answers, strict=True):
            assert hot == plain, request

    check()


async def nobody_home(scope: Scope, _receive: Receive, _send: Send) -> None:
    """Be an application that no request may reach."""
    raise AssertionError(f"{scope['method']} {scope['path']} reached the framework")


@in_loop
async def test_everyday_calls_do_not_reach_the_framework(site: Site) -> None:
    async with (
        running(site) as oms,
        serving(nobody_home, front(oms.app)) as served,
        httpx.AsyncClient(base_url=served.url) as http,
    ):
        assert (await http.post("/start", json={"plan": "single", "reference": "T-1"})).json()["created"]
        task = (await http.get("/pull", params={"lane": "only"})).json()
        assert (await http.get("/pull", params={"lane": "only"})).json() is None
        assert (await http.get("/pull", params={"lane": "only", "max": 3})).json() == []
        done = await http.post("/complete", json={"task_id": task["task_id"], "token": task["token"]})
        assert done.json()["job_state"] == "done"
        assert (await http.post("/complete", content=b"nonsense")).status_code == 422
        assert (await http.post("/complete", json=[1])).status_code == 422
        assert "error" in (await http.post("/complete", json=[{"task": 1}])).json()[0]
        assert (await http.post("/complete", json={"task_id": "TASK-9"})).status_code == 404


@in_loop
async def test_a_long_poll_waits_behind_the_front_too(site: Site) -> None:
    async with (
        running(site) as oms,
        serving(oms.app, front(oms.app)) as served,
        httpx.AsyncClient(base_url=served.url) as http,
    ):
        pulling = asyncio.ensure_future(http.get("/pull", params={"lane": "only", "wait": 60}))
        await oms.parked(1)
        await http.post("/start", json={"plan": "single", "reference": "T-1"})
        assert (await pulling).json()["reference"] == "T-1"


@in_loop
async def test_what_is_handed_to_a_client_that_has_gone_comes_back(site: Site) -> None:
    async with (
        running(site) as oms,
        serving(oms.app, front(oms.app)) as served,
        httpx.AsyncClient(base_url=served.url) as http,
    ):
        await http.post("/start", json={"plan": "single", "reference": "T-1"})
        async with Hold(oms.writer):
            _, gone = await asyncio.open_connection("127.0.0.1", served.port)
            gone.write(b"GET /pull?lane=only HTTP/1.1\r\nhost: oms\r\n\r\n")
            await gone.drain()
            await until(
                lambda: any(connection._exchange is not None for connection in served.state.connections),  # type: ignore[union-attr]
                what="the pull is in the queue",
            )
            gone.transport.abort()
            await until(lambda: len(served.state.connections) == 1, what="it is noticed that the client has gone")
        task = (await http.get("/pull", params={"lane": "only", "wait": 10})).json()
        assert (task["reference"], task["attempt"]) == ("T-1", 2)


@in_loop
async def test_too_many_that_wait_are_refused_as_the_routes_refuse_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("oms.sequencer.writer.MAX_QUEUED_COMMANDS", -1)

    answers = await both_said(site, monkeypatch, spoil)
    assert answers[0] == answers[1]
    assert [status for status, *_ in answers[0]] == [503, 503]


@in_loop
async def test_a_fault_of_ours_is_the_same_500(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    def spoil(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Writer, "submit", fail)

    answers = await both_said(site, monkeypatch, spoil)
    assert answers[0] == answers[1]
    assert [status for status, *_ in answers[0]] == [500, 500]


async def both_said(
    site: Site, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None]
) -> list[list[tuple[int, Any, Any]]]:
    """Start and pull at a service that is spoilt: first with the front, then without it."""
    answers = []
    async with running(site) as oms:
        for protocol in (front(oms.app), None):
            async with (
                serving(oms.app, protocol or "httptools") as served,
                httpx.AsyncClient(base_url=served.url) as http,
            ):
                with monkeypatch.context() as patch:
                    spoil(patch)
                    asked = [
                        await http.post("/start", json={"plan": "single", "reference": "T-1"}),
                        await http.get("/pull", params={"lane": "only"}),
                    ]
                answers.append([(answer.status_code, dict(answer.headers), answer.json()) for answer in asked])
    return answers
