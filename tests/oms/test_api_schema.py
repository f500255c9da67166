"""The description of the calls is true: whatever it allows is answered as it says, and nothing is a fault of ours."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from oms.app import create_app
from oms.storage.store import open_store
from tests.database import KINDS
from tests.databases import Databases
from tests.oms.api_client import CALLS
from tests.oms.support import CHECKED, RENEWAL, SINGLE, Clock, ScriptedLedger, Site, make_settings

Case = schemathesis.Case[Any]

NAMES = {
    "job_id": ["JOB-1", "JOB-2"],
    "task_id": ["TASK-1", "TASK-2", "TASK-3"],
    "plan_id": ["renewal", "single"],
    "plan": ["renewal", "checked", "single"],
    "lane": ["extract", "verify", "only"],
    "new_lane": ["extract", "only"],
}


class Described:
    """A running service with some work in it, and what it says of itself."""

    def __init__(self, http: TestClient) -> None:
        self.http = http
        self.schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())

    def call_and_validate(self, case: Case) -> int:
        """Send a case; return the status of its answer, which must be as described."""
        request = case.as_transport_kwargs(base_url="http://oms")
        answer = self.http.request(
            request["method"],
            request["url"],
            params=request.get("params"),
            headers=dict(request.get("headers") or {}),
            **{key: request[key] for key in ("json",) if key in request},
            **({"content": request["data"]} if "data" in request else {}),
        )
        case.validate_response(
            answer,
            checks=[not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance],
        )
        return answer.status_code


@pytest.fixture(scope="module", params=KINDS)
def described(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Described]:
    with ExitStack() as stack:
        database = stack.enter_context(databases.lend(request.param, "oms"))
        chosen = make_settings(Site(tmp_path_factory.mktemp("described"), database))
        app = create_app(chosen, open_store(chosen.database_url), ledger=ScriptedLedger().client(), now_ms=Clock())
        http = stack.enter_context(TestClient(app, base_url="http://oms", raise_server_exceptions=False))
        for plan in (RENEWAL, CHECKED, SINGLE):
            assert http.post("/plans", json=plan).status_code == 200
        for number in range(20):
            for name in ("renewal", "checked", "single"):
                http.post("/start", json={"plan": name, "reference": f"T-{number}"})
        yield Described(http)


def aim(case: Case) -> None:
    """Name things that are there, in half of the cases: a generator alone would never hit one."""
    chance = random.Random(repr(case.body) + repr(case.query))
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            for name, values in NAMES.items():
                if name in part and chance.random() < 0.5:
                    part[name] = chance.choice(values)
    if isinstance(case.query, dict) and "wait" in case.query:
        case.query["wait"] = 0  # nobody here waits for work


BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def test_every_call_that_is_described_is_tried(described: Described) -> None:
    operations = [found.ok() for found in described.schema.get_all_operations() if isinstance(found, Ok)]
    assert {(operation.method.upper(), operation.path) for operation in operations} == set(CALLS)


@pytest.mark.parametrize(("method", "path"), CALLS, ids=[" ".join(call) for call in CALLS])
def test_every_answer_is_as_described(described: Described, method: str, path: str) -> None:
    answered: list[int] = []

    @BOUNDED
    @given(case=described.schema[path][method].as_strategy())
    def try_it(case: Case) -> None:
        aim(case)
        answered.append(described.call_and_validate(case))

    try_it()
    assert answered
