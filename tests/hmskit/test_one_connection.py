"""A kept connection: what the relay posts over."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from hmskit.one_connection import OneConnection

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Of: act\r\n\r\nok"


class Server:
    """Takes connections, and does what the test says with each request."""

    def __init__(self, serve: Callable[[socket.socket, int], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._serve = serve
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.requests: list[bytes] = []
        self.left = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := self._read(connection):
                self.requests.append(request)
                self._serve(connection, len(self.requests))
        self.left.set()

    def _read(self, connection: socket.socket) -> bytes:
        """Return a request; they all end with an exclamation mark here, and nothing else has one."""
        data = b""
        while not data.endswith(b"!"):
            chunk = connection.recv(65_536)
            if not chunk:
                return b""
            data += chunk
        return data

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    """Make servers that are closed at the end."""
    made: list[Server] = []

    def serve(how: Callable[[socket.socket, int], None] = lambda connection, _: connection.sendall(ANSWER)) -> Server:
        made.append(Server(how))
        return made[-1]

    yield serve
    for server in made:
        server.close()


def client_of(url: str, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, transport=OneConnection(), timeout=httpx.Timeout(5, **options))


async def test_requests_share_a_connection_and_are_answered_whole(serving: Callable[..., Server]) -> None:
    server = serving()
    async with client_of(server.url) as client:
        answers = [await client.post("/events?a=1", content=b"hello!", headers={"x-a": "b"}) for _ in range(3)]
    assert [(answer.status_code, answer.content, answer.headers["x-of"]) for answer in answers] == [
        (200, b"ok", "act")
    ] * 3
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /events?a=1 HTTP/1.1\r\n")
    assert b"\r\nx-a: b\r\n" in server.requests[0].lower()
    assert server.requests[0].lower().count(b"\r\nhost:") == 1


async def test_requests_at_the_same_time_come_one_after_the_other(serving: Callable[..., Server]) -> None:
    server = serving()
    async with client_of(server.url) as client:
        answers = await asyncio.gather(*(client.post("/", content=b"%d!" % number) for number in range(5)))
    assert [answer.content for answer in answers] == [b"ok"] * 5
    assert server.connections == 1


async def test_a_connection_that_was_closed_between_two_requests_is_made_anew(serving: Callable[..., Server]) -> None:
    def hang_up_after_each(connection: socket.socket, _number: int) -> None:
        connection.sendall(ANSWER)
        connection.shutdown(socket.SHUT_RDWR)

    server = serving(hang_up_after_each)
    async with client_of(server.url) as client:
        for _ in range(3):
            assert (await client.post("/", content=b"!")).content == b"ok"
    assert server.connections == 3


async def test_a_first_request_that_is_not_answered_is_not_sent_again(serving: Callable[..., Server]) -> None:
    server = serving(lambda connection, _: connection.shutdown(socket.SHUT_RDWR))
    async with client_of(server.url) as client:
        with pytest.raises(httpx.ReadError, match="RemoteDisconnected"):
            await client.post("/", content=b"!")
    assert len(server.requests) == 1


async def test_nobody_there_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with client_of(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(httpx.ConnectError, match="ConnectionRefusedError"):
            await client.post("/", content=b"!")


async def test_what_is_no_http_is_a_read_error(serving: Callable[..., Server]) -> None:
    server = serving(lambda connection, _: connection.sendall(b"SSH-2.0-x\r\n\r\n"))
    async with client_of(server.url) as client:
        with pytest.raises(httpx.ReadError, match="BadStatusLine"):
            await client.post("/", content=b"!")


async def test_no_answer_in_time_is_a_timeout_and_the_next_request_has_a_connection_of_its_own(
    serving: Callable[..., Server],
) -> None:
    def answer_the_second(connection: socket.socket, number: int) -> None:
        if number > 1:
            connection.sendall(ANSWER)

    server = serving(answer_the_second)
    async with client_of(server.url, read=0.1) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/", content=b"!")
        assert (await client.post("/", content=b"!")).content == b"ok"
    assert server.connections == 2


async def test_who_is_cancelled_waits_for_nothing_and_leaves_no_thread_behind(serving: Callable[..., Server]) -> None:
    taken = threading.Event()
    server = serving(lambda _connection, _number: taken.set())
    async with client_of(server.url) as client:
        request = asyncio.create_task(client.post("/", content=b"!"))
        assert await asyncio.to_thread(taken.wait, 5)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert await asyncio.to_thread(server.left.wait, 5)  # the thread closed it: it does not wait any more
    assert len(server.requests) == 1
