"""Every error is a problem: ours, the framework's and the unexpected."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Query
from jsonschema_rs import validator_for
from pydantic import BaseModel, Field, ValidationError, model_validator
from structlog.testing import capture_logs

from hmskit.problems import (
    PROBLEM_CONTENT_TYPE,
    PROBLEM_SCHEMA,
    Problem,
    faults_of,
    install_problems,
    invalid,
    unavailable,
)
from tests.act.support import run


def app() -> FastAPI:
    made = FastAPI()
    install_problems(made)

    @made.get("/gap")
    async def gap() -> None:
        raise Problem(409, "gap", "Missing", "Send it first.", extra={"expected": 3}, headers={"X-Hint": "yes"})

    @made.get("/busy")
    async def busy() -> None:
        raise unavailable("The disk is full.", retry_after_sec=7)

    @made.get("/crash")
    async def crash() -> None:
        raise RuntimeError("secret inside")

    @made.get("/number")
    async def number(n: Annotated[int, Query(le=5)]) -> int:
        return n

    return made


def get(path: str, method: str = "GET") -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.request(method, path)

    answer = run(scenario())
    if answer.status_code != 200:
        assert answer.headers["content-type"] == PROBLEM_CONTENT_TYPE
        problem = answer.json()
        assert validator_for(PROBLEM_SCHEMA).is_valid(problem)
        assert problem["status"] == answer.status_code
        assert problem["type"] == f"urn:hms:problem:{problem['code']}"
    return answer


def test_a_problem_carries_its_members_and_headers() -> None:
    answer = get("/gap")
    assert answer.json() == {
        "type": "urn:hms:problem:gap",
        "title": "Missing",
        "status": 409,
        "detail": "Send it first.",
        "code": "gap",
        "expected": 3,
    }
    assert answer.headers["x-hint"] == "yes"


def test_not_now_says_when_to_try_again() -> None:
    answer = get("/busy")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize(
    ("path", "method", "status", "says"),
    [
        ("/nothing/here", "GET", 404, "/nothing/here"),
        ("/gap", "DELETE", 405, "DELETE"),
        ("/number", "GET", 422, "n"),
        ("/number?n=x", "GET", 422, "integer"),
        ("/number?n=6", "GET", 422, "less than"),
    ],
)
def test_the_frameworks_errors_are_problems_too(path: str, method: str, status: int, says: str) -> None:
    answer = get(path, method)
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert status != 422 or answer.json()["errors"][0]["loc"] == ["query", "n"]


def test_the_unexpected_is_logged_and_tells_nothing_of_the_inside() -> None:
    with capture_logs() as logs:
        answer = get("/crash")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    (line,) = [line for line in logs if line["event"] == "unexpected_error"]
    assert isinstance(line["exc_info"], RuntimeError)
    assert line["path"] == "/crash"


class Model(BaseModel):
    """Something with a rule for a field and a rule of its own."""

    name: Annotated[str, Field(max_length=3)]

    @model_validator(mode="after")
    def _not_bob(self) -> Model:
        if self.name == "bob":
            raise ValueError("bob may not")
        return self


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (
            {"name": "a-citizens-secret"},
            [{"loc": ["body", 3, "name"], "msg": "String should have at most 3 characters"}],
        ),
        ({}, [{"loc": ["body", 3, "name"], "msg": "Field required"}]),
        ({"name": "bob"}, [{"loc": ["body", 3], "msg": "bob may not"}]),
    ],
)
def test_faults_say_where_and_what_but_never_the_value(value: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError) as refused:
        Model.model_validate(value)
    assert faults_of(refused.value, "body", 3) == faults
    assert invalid("x", faults).body()["errors"] == faults
