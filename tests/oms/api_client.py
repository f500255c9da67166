"""The application, called as programs call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select
from starlette.testclient import TestClient

from oms.app import create_app
from oms.storage.store import Store, open_store
from oms.storage.tables import metadata
from tests.oms.support import CHECKED, RENEWAL, SINGLE, Clock, ScriptedLedger, Site, make_settings

CALLS = [
    ("POST", "/start"),
    ("GET", "/pull"),
    ("POST", "/complete"),
    ("POST", "/fail"),
    ("POST", "/heartbeat"),
    ("POST", "/release"),
    ("POST", "/reroute"),
    ("POST", "/retry"),
    ("GET", "/jobs"),
    ("GET", "/jobs/{job_id}"),
    ("GET", "/jobs/{job_id}/receipts"),
    ("POST", "/jobs/{job_id}/erase"),
    ("POST", "/jobs/{job_id}/cancel"),
    ("POST", "/jobs/{job_id}/pause"),
    ("POST", "/jobs/{job_id}/resume"),
    ("POST", "/jobs/{job_id}/signal"),
    ("POST", "/jobs/{job_id}/restart"),
    ("POST", "/skip"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{task_id}"),
    ("GET", "/tasks/{task_id}/why"),
    ("GET", "/lanes"),
    ("GET", "/lanes/receipts"),
    ("GET", "/lanes/{lane}/receipts"),
    ("POST", "/lanes/{lane}/pause"),
    ("POST", "/lanes/{lane}/resume"),
    ("GET", "/plans"),
    ("POST", "/plans"),
    ("GET", "/plans/{plan_id}"),
    ("POST", "/plans/reload"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
]
"""Every call of the contract."""


class Client:
    """The application, and what callers do with it. Its ledger is away, so that nothing moves by itself."""

    def __init__(self, http: TestClient, store: Store, clock: Clock) -> None:
        self.http = http
        self.store = store
        self.clock = clock

    def post(self, path: str, body: object, **headers: str) -> Any:
        answer = self.http.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def start(self, reference: str = "T-1", plan: str = "renewal", **more: Any) -> Any:
        return self.post("/start", {"plan": plan, "reference": reference, **more})

    def refused(self, path: str, body: object, **headers: str) -> tuple[int, dict[str, Any]]:
        """Post what must be refused."""
        answer = self.http.post(path, json=body, headers=headers)
        return answer.status_code, check_problem(answer)

    def tables(self) -> dict[str, list[Any]]:
        """Return every row of every table."""
        with self.store.reading() as connection:
            return {table.name: list(connection.execute(select(table))) for table in metadata.sorted_tables}


def check_problem(answer: Any) -> dict[str, Any]:
    """Check that an answer is a problem as RFC 9457 and the contract have it."""
    assert answer.headers["content-type"] == "application/problem+json", (answer.status_code, answer.text[:200])
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] == f"urn:hms:problem:{body['code']}"
    assert body["title"]
    assert len(body["detail"].split()) >= 3, "a sentence that says what to do"
    for fault in body.get("errors", []):
        assert isinstance(fault["loc"], list)
        assert fault["msg"]
    return body


@contextmanager
def serving(site: Site, **settings: Any) -> Iterator[Client]:
    """Run the application with the common plans in force."""
    ledger = ScriptedLedger()
    ledger.is_up = False
    chosen = make_settings(site, **settings)
    store = open_store(chosen.database_url, writers=chosen.writers)
    clock = Clock()
    app = create_app(chosen, store, ledger=ledger.client(), now_ms=clock)
    with TestClient(app, base_url="http://oms", raise_server_exceptions=False) as http:
        client = Client(http, store, clock)
        for document in (RENEWAL, CHECKED, SINGLE):
            client.post("/plans", document)
        yield client
