"""The balancer of deploy/haproxy.cfg before towers that are told what to do. Needs HAProxy, and is skipped without."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from tests.e2e.conftest import ROOT, until

CONFIGURATION = ROOT / "deploy" / "haproxy.cfg"
ADDRESSES = ("127.0.0.11", "127.0.0.12")

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None or sys.platform != "linux",
    reason="there is no haproxy, or this system has one loopback address only",
)


class Tower(ThreadingHTTPServer):
    """A tower that notes what reaches it.

    Attributes:
        is_ready: what /readyz says.
        loses_answers: it takes requests, and closes the connection instead of answering.
        taken: the method and path of each request but those of the health check.
        left: set once a client has gone while its pull was parked.
        go_on: lets a stream write its second event.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, port), Handler)
        self.is_ready = True
        self.loses_answers = False
        self.taken: list[str] = []
        self.left = threading.Event()
        self.go_on = threading.Event()
        self.connections: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def die(self) -> None:
        """Stop listening and close every connection, as a process does that ends: a thread would go on answering."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with suppress(OSError):  # it was closed before
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections are meant to break here."""


class Handler(BaseHTTPRequestHandler):
    """Answers with the address of its tower."""

    protocol_version = "HTTP/1.1"
    server: Tower
    timeout: ClassVar[float] = 30

    def do_GET(self) -> None:
        if self.path == "/readyz":
            self._answer(200 if self.server.is_ready else 503)
        elif not self._is_lost():
            answer = {"/stream": self._stream, "/pull?wait=60": self._park}.get(self.path, lambda: self._answer(200))
            answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if not self._is_lost():
            self._answer(200)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def _is_lost(self) -> bool:
        self.server.taken.append(f"{self.command} {self.path}")
        self.close_connection = self.server.loses_answers
        return self.server.loses_answers

    def _answer(self, status: int) -> None:
        body = str(self.server.server_address[0]).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _park(self) -> None:
        """Wait until the client goes, as it should be told: it sends nothing more."""
        with suppress(ConnectionResetError):
            assert not self.connection.recv(1)
        self.server.left.set()
        self.close_connection = True

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"9\r\ndata: 1\n\n\r\n")
        self.server.go_on.wait(30)
        self.wfile.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")


@contextmanager
def names() -> Iterator[int]:
    """Serve a DNS that answers every question with the towers' addresses, as Docker's does; give its port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                query, client = server.recvfrom(4096)
            except OSError:
                return
            end = query.index(b"\0", 12) + 5
            is_ipv4 = query[end - 4 : end - 2] == b"\0\1"
            records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(ip) for ip in ADDRESSES]
            answers = records if is_ipv4 else []
            head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(answers), 0, 0)
            server.sendto(head + query[12:end] + b"".join(answers), client)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def towers() -> Iterator[tuple[Tower, Tower]]:
    port = free_port()
    first, second = (Tower(address, port) for address in ADDRESSES)
    for tower in (first, second):
        threading.Thread(target=tower.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield first, second
    for tower in (first, second):
        tower.go_on.set()
        tower.die()


@pytest.fixture
def balancer(towers: tuple[Tower, Tower], tmp_path: Path) -> Iterator[httpx.Client]:
    """The balancer, once it has asked both towers: a client of it."""
    port = free_port()
    text = CONFIGURATION.read_text(encoding="utf-8")
    with names() as dns_port:
        for from_, to in (
            ("bind :80", f"bind 127.0.0.1:{port}"),
            ('"${TOWERS}:80"', f'"${{TOWERS}}:{towers[0].server_port}"'),
            ("127.0.0.11:53", f"127.0.0.1:{dns_port}"),
            ("maxconn 20000", "maxconn 200"),  # a file descriptor limit need not be raised for it
        ):
            assert text.count(from_) == 1
            text = text.replace(from_, to)
        file = tmp_path / "haproxy.cfg"
        file.write_text(text, encoding="utf-8")
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                ["haproxy", "-db", "-f", str(file)], env=os.environ | {"TOWERS": "towers"}, stdout=log, stderr=log
            )
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, trust_env=False) as client:
                until(lambda: answered_by(client) == set(ADDRESSES))
            for tower in towers:
                tower.taken.clear()
            # A client without a connection yet: HAProxy hides the end of a tower from one that it kept open, and lets
            # the client find out by itself.
            with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
                yield client
        finally:
            process.kill()
            process.wait()


def answered_by(client: httpx.Client, requests: int = 6) -> set[str]:
    """Return the towers that answer, each with its address; what is no 200 is there as its status."""
    try:
        answers = [client.get("/lanes") for _ in range(requests)]
    except httpx.TransportError:
        return set()
    return {answer.text if answer.is_success else str(answer.status_code) for answer in answers}


def test_a_tower_that_is_not_ready_gets_nothing(balancer: httpx.Client, towers: tuple[Tower, Tower]) -> None:
    towers[0].is_ready = False
    until(lambda: answered_by(balancer) == {ADDRESSES[1]})
    towers[0].is_ready = True
    until(lambda: answered_by(balancer) == set(ADDRESSES))


def test_a_tower_that_is_gone_costs_no_request(balancer: httpx.Client, towers: tuple[Tower, Tower]) -> None:
    balancer.headers["connection"] = "close"  # each request over a connection of its own, as from many clients
    towers[0].die()
    assert answered_by(balancer, requests=20) == {ADDRESSES[1]}


def test_without_a_tower_it_says_so_as_the_towers_would(balancer: httpx.Client, towers: tuple[Tower, Tower]) -> None:
    for tower in towers:
        tower.is_ready = False
    until(lambda: answered_by(balancer) == {"503"})
    answer = balancer.post("/start", json={})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (503, "unavailable")
    assert balancer.get("/balancer").status_code == 503


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/start"), ("POST", "/complete"), ("POST", "/events"), ("GET", "/jobs/JOB-1")]
)
def test_what_may_be_sent_twice_survives_a_tower_that_dies_with_it(
    balancer: httpx.Client, towers: tuple[Tower, Tower], method: str, path: str
) -> None:
    balancer.headers["connection"] = "close"
    towers[0].loses_answers = True
    body = {"task_id": "TASK-1"} if method == "POST" else None
    answers = [balancer.request(method, path, json=body) for _ in range(6)]
    assert [answer.text for answer in answers] == [ADDRESSES[1]] * 6
    assert towers[0].taken, "none was sent to the tower that dies"


@pytest.mark.parametrize(("method", "path"), [("GET", "/pull?lane=a"), ("POST", "/heartbeat"), ("POST", "/reroute")])
def test_what_may_not_is_sent_once(balancer: httpx.Client, towers: tuple[Tower, Tower], method: str, path: str) -> None:
    balancer.headers["connection"] = "close"
    towers[0].loses_answers = True
    body = {"task_id": "TASK-1"} if method == "POST" else None
    answers = [balancer.request(method, path, json=body) for _ in range(6)]
    lost = [answer for answer in answers if not answer.is_success]
    assert len(lost) == len(towers[0].taken) > 0
    assert len(towers[0].taken) + len(towers[1].taken) == len(answers)
    assert {answer.status_code for answer in lost} == {502}
    assert {answer.json()["code"] for answer in lost} == {"unavailable"}


def test_a_stream_comes_as_it_is_written(balancer: httpx.Client, towers: tuple[Tower, Tower]) -> None:
    with balancer.stream("GET", "/stream") as stream:
        lines = (line for line in stream.iter_lines() if line)
        assert next(lines) == "data: 1"
        for tower in towers:
            tower.go_on.set()  # only now is the second one written
        assert next(lines) == "data: 2"


def test_a_client_that_leaves_while_it_waits_is_gone_for_the_tower(
    balancer: httpx.Client, towers: tuple[Tower, Tower]
) -> None:
    with socket.create_connection((balancer.base_url.host, balancer.base_url.port or 80)) as client:
        client.sendall(b"GET /pull?wait=60 HTTP/1.1\r\nHost: oms\r\n\r\n")
        until(lambda: towers[0].taken or towers[1].taken)
    until(lambda: towers[0].left.is_set() or towers[1].left.is_set())
