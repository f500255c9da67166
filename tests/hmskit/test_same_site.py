"""A page of another site cannot act through a user's browser; everyone else passes."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hmskit.same_site import SameSiteOnly
from tests.act.support import run


async def _ok(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("done")


def send(headers: dict[str, str], *, method: str = "POST", path: str = "/x", base: str = "http://oms:8001") -> int:
    async def scenario() -> int:
        inner = Starlette(routes=[Route("/{path}", _ok, methods=["GET", "POST"])])
        guarded = SameSiteOnly(
            inner,
            allowed_origins=["https://Portal.example/"],
            changes_state=lambda method, path: method == "POST" or path == "/pull",
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url=base) as http:
            answer = await http.request(method, path, headers=headers)
        assert answer.status_code != 403 or answer.json()["code"] == "cross-site"
        return answer.status_code

    return run(scenario())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-site"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "Cross-Site"}, 403),
        ({"origin": "http://oms:8001"}, 200),
        ({"origin": "HTTP://OMS:8001"}, 200),
        ({"origin": "https://oms:8001"}, 200),
        ({"origin": "http://oms"}, 403),
        ({"origin": "http://oms:8002"}, 403),
        ({"origin": "http://oms:8001.evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://xoms:8001"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "http://[broken"}, 403),
        ({"origin": "http://oms:8001", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://portal.example"}, 200),
        ({"origin": "https://portal.example", "sec-fetch-site": "cross-site"}, 200),
        ({"origin": "http://portal.example"}, 403),
        ({"origin": "https://sub.portal.example"}, 403),
    ],
)
def test_who_may_change_something(headers: dict[str, str], status: int) -> None:
    assert send(headers) == status


def test_reading_is_free_and_a_get_that_changes_is_not() -> None:
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert send(foreign, method="GET") == 200
    assert send(foreign, method="GET", path="/pull") == 403


@pytest.mark.parametrize("origin", ["http://oms", "http://oms:80"])
def test_a_default_port_may_be_left_out(origin: str) -> None:
    assert send({"origin": origin}, base="http://oms") == 200
