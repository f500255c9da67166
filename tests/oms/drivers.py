"""Two ways to drive OMS with the same wishes: the verbs on a store, and HTTP on the real application."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from starlette.testclient import TestClient

from oms.app import create_app
from oms.domain.errors import OmsError
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.heartbeat import Heartbeat, heartbeat
from oms.sequencer.pull import Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.retry import Retry, retry
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.sequencer.views import job_view, lanes_view
from oms.storage.store import Store, open_store
from tests.oms.model import PLANS, Refused
from tests.oms.support import LIMIT_SEC, Clock, ScriptedLedger, Site, Tower, event_rows, make_settings

Wish = Start | Pull | Complete | Fail | Heartbeat | Release | Reroute | Retry
VERBS: dict[type[Any], Callable[..., Any]] = {
    Start: start,
    Complete: complete,
    Fail: fail,
    Heartbeat: heartbeat,
    Release: release,
    Reroute: reroute,
    Retry: retry,
    Pull: pull,
}


def in_turn(wishes: Sequence[Wish]) -> list[Wish]:
    """Return the wishes of a batch in the order in which the writer runs them: by verb, and pulls last."""
    kinds = list(dict.fromkeys(type(wish) for wish in wishes))
    kinds.sort(key=lambda kind: kind is Pull)
    return [wish for kind in kinds for wish in wishes if type(wish) is kind]


class Driver(Protocol):
    """OMS, as the state machine drives it."""

    notes_workers: bool

    def do(self, wishes: Sequence[Wish]) -> list[Any]:
        """Do wishes that are in turn; return an answer or `Refused` for each."""

    def sweep(self) -> None:
        """Let the sweeper look."""

    def restart(self) -> None:
        """Stop the service and start it on the same database."""

    def views(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the named jobs."""

    def lanes(self) -> list[dict[str, Any]]:
        """Return the lanes."""

    def rows(self) -> list[Any]:
        """Return the outbox."""

    def close(self) -> None:
        """Stop the service; check what only its end can show."""


class VerbDriver:
    """Runs all wishes of a step in one transaction, as the writer does with requests that came together."""

    notes_workers = False

    def __init__(self, site: Site, clock: Clock) -> None:
        self._url = site.database.url
        self._tower = Tower(open_store(self._url, writers=1), clock)
        for document in PLANS:
            self._tower.put_plan(document)

    def do(self, wishes: Sequence[Wish]) -> list[Any]:
        answers: list[Any] = []
        with self._tower.transaction() as tx:
            for kind in dict.fromkeys(type(wish) for wish in wishes):
                answers += VERBS[kind](tx, [wish for wish in wishes if type(wish) is kind])
        return [_plain(answer) for answer in answers]

    def sweep(self) -> None:
        self._tower.sweep()

    def restart(self) -> None:
        self._tower.store.close()
        self._tower.store = open_store(self._url, writers=1)

    def views(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._tower.store.reading() as connection:
            return {name: job_view(connection, name) for name in names}

    def lanes(self) -> list[dict[str, Any]]:
        store = self._tower.store
        with store.reading() as connection:
            items: list[dict[str, Any]] = lanes_view(connection, store.plans, now_ms=self._tower.clock())["items"]
            return items

    def rows(self) -> list[Any]:
        return event_rows(self._tower.store)

    def close(self) -> None:
        self._tower.store.close()


def _plain(answer: Any) -> Any:
    if isinstance(answer, OmsError):
        return Refused(answer.status)
    if isinstance(answer, list):
        return [asdict(task) for task in answer]
    return {key: value for key, value in asdict(answer).items() if key != "warning" or value is not None}


class HttpDriver:
    """Sends each wish as a request to the application; those of one verb that takes lists, as one list."""

    notes_workers = True

    def __init__(self, site: Site, clock: Clock) -> None:
        self._site = site
        self._clock = clock
        self._ledger = ScriptedLedger()
        self._begin()
        for document in PLANS:
            assert self._client.post("/plans", json=document).status_code == 200

    def _begin(self) -> None:
        settings = make_settings(self._site)
        self._store: Store = open_store(settings.database_url, writers=settings.writers)
        app = create_app(settings, self._store, ledger=self._ledger.client(), now_ms=self._clock)
        self._client = TestClient(app, base_url="http://oms")
        self._client.__enter__()
        self._writer = app.state.service.writer

    def do(self, wishes: Sequence[Wish]) -> list[Any]:
        answers: list[Any] = []
        for kind in dict.fromkeys(type(wish) for wish in wishes):
            group = [wish for wish in wishes if type(wish) is kind]
            if kind in (Start, Complete, Fail) and len(group) > 1:
                answers += self._post_list(group)
            else:
                answers += [self._send(wish) for wish in group]
        return answers

    def _post_list(self, group: Sequence[Wish]) -> list[Any]:
        answer = self._client.post(_path(group[0]), json=[_body(wish) for wish in group])
        assert answer.status_code == 200, answer.text
        return [Refused(item["error"]["status"]) if "error" in item else item for item in answer.json()]

    def _send(self, wish: Wish) -> Any:
        if isinstance(wish, Pull):
            query: dict[str, Any] = {"lane": wish.lane, "max": wish.limit}
            answer = self._client.get(
                "/pull", params=query if wish.worker is None else {**query, "worker": wish.worker}
            )
        else:
            answer = self._client.post(_path(wish), json=_body(wish))
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json", answer.text
            return Refused(answer.status_code)
        return answer.json()

    def sweep(self) -> None:
        assert self._client.portal is not None
        self._client.portal.call(self._writer.run_each, sweep, [Sweep()])

    def restart(self) -> None:
        self._client.__exit__(None, None, None)
        self._begin()

    def views(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {name: self._client.get(f"/jobs/{name}").json() for name in names}

    def lanes(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._client.get("/lanes").json()["items"]
        return items

    def rows(self) -> list[Any]:
        return event_rows(self._store)

    def close(self) -> None:
        try:
            self._check_ledger()
        finally:
            self._client.__exit__(None, None, None)

    def _check_ledger(self) -> None:
        """Wait until the ledger has every event, and check that it has just these, in their order."""
        ends = time.monotonic() + LIMIT_SEC
        while any(not row.delivered for row in self.rows()):
            assert time.monotonic() < ends, "the ledger does not get what is in the outbox"
            time.sleep(0.005)
        streams: dict[str, list[bytes]] = {}
        for row in self.rows():
            streams.setdefault(row.stream, []).append(row.body)
            assert row.ledger_index == self._ledger.places[f"{row.stream}.{row.seq}"]
        assert streams == dict(self._ledger.streams)


def _path(wish: Wish) -> str:
    return f"/{type(wish).__name__.lower()}"


def _body(wish: Wish) -> dict[str, Any]:
    body = {key: value for key, value in asdict(wish).items() if value is not None and key not in ("trace", "strict")}
    if isinstance(wish, Fail):
        kind, message = body.pop("error_type"), body.pop("message")
        body["error"] = message if kind == "error" else {"type": kind, "message": message}
    return body
