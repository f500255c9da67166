"""A small OMS of the tests' own: answers what it is told to, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HANG_UP = "hang up"
"""As an answer: close the connection without one."""
LIMIT_SEC = 10.0


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]
    at: float


@dataclass
class Answer:
    """What to answer."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_sec: float = 0.0


def problem(status: int, code: str = "conflict", **headers: str) -> Answer:
    return Answer(
        {"type": f"urn:hms:problem:{code}", "title": "No", "status": status, "detail": f"No: {code}.", "code": code},
        status,
        headers,
    )


def until(is_true: Callable[[], object], limit_sec: float = LIMIT_SEC) -> None:
    """Return once it is true; fail where the limit is over first."""
    give_up_at = time.monotonic() + limit_sec
    while not is_true():
        assert time.monotonic() < give_up_at, "it did not become true in time"
        time.sleep(0.005)


class StubOms:
    """Answers each path from its own list, then from a default; a pull with nothing scripted finds nothing.

    ``clock_ahead`` is how wrong the server's clock is, as a worker on another machine sees it.
    """

    def __init__(self, *, clock_ahead: timedelta = timedelta(0), lease_sec: float = 300.0) -> None:
        self.asked: list[Asked] = []
        self.clock_ahead = clock_ahead
        self.lease_sec = lease_sec
        self._answers: dict[str, deque[Any]] = defaultdict(deque)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, *answers: Any) -> None:
        """Answer the next requests to ``path`` so, one after the other."""
        self._answers[path].extend(answers)

    def hand_out(self, *numbers: int, **fields: Any) -> None:
        """Answer the next pull with these tasks."""
        self.answer("/pull", [self.task(number, **fields) for number in numbers])

    def task(self, number: int, **fields: Any) -> dict[str, Any]:
        return {
            "task_id": f"TASK-{number}",
            "job_id": f"JOB-{number}",
            "plan": "passport_renewal",
            "activity": "ai_extract",
            "lane": "ai_extract",
            "reference": f"ticket-{number}",
            "attempt": 1,
            "token": f"token-{number}",
            "priority": 0,
            "payload": {"input": {"scan": number}, "outputs": {}},
            "lease_expires_at": self.expires_at(),
        } | fields

    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_ahead

    def expires_at(self) -> str:
        return (self.now() + timedelta(seconds=self.lease_sec)).isoformat(timespec="milliseconds")[:-6] + "Z"

    def to(self, path: str) -> list[Asked]:
        """Return the requests that came to ``path``."""
        return [asked for asked in self.asked if asked.path == path]

    def _default(self, asked: Asked) -> Any:
        if asked.path == "/pull":
            time.sleep(min(float(asked.query.get("wait", 0)), 0.05))
            return [] if "max" in asked.query else None
        if asked.path == "/heartbeat":
            return {"lease_expires_at": self.expires_at()}
        if isinstance(asked.body, list):
            return [{"task_id": item["task_id"], "status": "done"} for item in asked.body]
        return {}

    def _handler(stub) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - ``self`` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._reply()

            def do_POST(self) -> None:
                self._reply()

            def _reply(self) -> None:
                parts = urlsplit(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(
                    parts.path,
                    dict(parse_qsl(parts.query)),
                    json.loads(raw) if raw else None,
                    {name.lower(): value for name, value in self.headers.items()},
                    time.monotonic(),
                )
                stub.asked.append(asked)
                scripted = stub._answers[parts.path]
                found = scripted.popleft() if scripted else stub._default(asked)
                if callable(found):
                    found = found(asked)
                if found == HANG_UP:
                    self.close_connection = True
                    self.connection.close()
                    return
                answer = found if isinstance(found, Answer) else Answer(found)
                time.sleep(answer.delay_sec)
                content = json.dumps(answer.body).encode()
                self.send_response_only(answer.status)
                headers = {"Date": format_datetime(stub.now(), usegmt=True), "Content-Type": "application/json"}
                for name, value in (headers | answer.headers).items():
                    if value:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        return Handler
