"""A stop in order: nothing that was accepted is dropped, what waits is answered, and SIGTERM is a success."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from hmskit.server import GRACE_SEC, CannotListenError, bind

SCRIPT = """
import asyncio, sys
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
import hmskit.server
from hmskit.server import bind, serve

hmskit.server.GRACE_SEC = 2
stop = asyncio.Event()
begun = 0

async def quick(request):
    return PlainTextResponse(str(begun))

async def slow(request):
    global begun
    begun += 1
    await asyncio.sleep(0.5)
    return PlainTextResponse("slow")

async def parked(request):
    global begun
    begun += 1
    await stop.wait()
    return PlainTextResponse("nothing")

async def stuck(request):
    global begun
    begun += 1
    await asyncio.sleep(60)
    return PlainTextResponse("never")

@asynccontextmanager
async def lifespan(app):
    if sys.argv[1:] == ["broken"]:
        raise RuntimeError("cannot start")
    yield
    print("flushed", flush=True)

routes = [Route(f"/{handler.__name__}", handler) for handler in (quick, slow, parked, stuck)]
app = Starlette(routes=routes, lifespan=lifespan)
listener = bind("127.0.0.1", 0)
serve(
    app,
    listener,
    on_ready=lambda: print(listener.getsockname()[1], flush=True),
    on_stop=stop.set,
    on_hangup=lambda: print("hangup", flush=True),
)
print("end", flush=True)
"""


class Server:
    """A process that serves on a free port."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def get_soon(self, path: str) -> tuple[threading.Thread, list[httpx.Response | Exception]]:
        """Ask for the path in a thread; return it, and the list that gets the answer."""
        answers: list[httpx.Response | Exception] = []

        def get() -> None:
            try:
                answers.append(httpx.get(self.url + path, timeout=30))
            except httpx.HTTPError as error:
                answers.append(error)

        thread = threading.Thread(target=get)
        thread.start()
        return thread, answers

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[str], float]:
        """Send the signal; return the exit code, what was printed, and how many seconds it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=20)
        return self.process.returncode, out.split(), time.monotonic() - begin


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    assert httpx.get(f"{made.url}/quick").text == "0"
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def is_refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/quick")
    except httpx.HTTPError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_a_flush(server: Server, number: int) -> None:
    code, printed, took_sec = server.stop(number)
    assert (code, printed) == (0, ["flushed", "end"])
    assert took_sec < 3


def test_what_runs_ends_and_what_waits_is_answered(server: Server) -> None:
    asked = [server.get_soon("/slow"), server.get_soon("/parked")]
    wait_until(lambda: httpx.get(f"{server.url}/quick").text == "2")
    code, printed, took_sec = server.stop()
    for thread, _ in asked:
        thread.join()
    texts = [answer.text for _, answers in asked for answer in answers if isinstance(answer, httpx.Response)]
    assert texts == ["slow", "nothing"]
    assert (code, printed) == (0, ["flushed", "end"])
    assert took_sec < 3


def test_what_is_stuck_is_given_up_in_time(server: Server) -> None:
    thread, answers = server.get_soon("/stuck")
    wait_until(lambda: httpx.get(f"{server.url}/quick").text == "1")
    code, printed, took_sec = server.stop()
    thread.join()
    assert code == 0
    assert printed == ["flushed", "end"]
    assert 2 <= took_sec < 4
    assert len(answers) == 1
    assert GRACE_SEC <= 8, "the whole stop must stay under ten seconds"


def test_a_second_signal_means_now(server: Server) -> None:
    thread, _ = server.get_soon("/stuck")
    wait_until(lambda: httpx.get(f"{server.url}/quick").text == "1")
    server.process.send_signal(signal.SIGINT)
    wait_until(lambda: is_refused(server.url))
    _, _, took_sec = server.stop(signal.SIGINT)
    thread.join()
    assert took_sec < 1.5


def test_a_second_sigterm_does_not(server: Server) -> None:
    """It comes from wrappers that pass the first one on: what runs still ends."""
    thread, answers = server.get_soon("/slow")
    wait_until(lambda: httpx.get(f"{server.url}/quick").text == "1")
    server.process.send_signal(signal.SIGTERM)
    code, printed, _ = server.stop()
    thread.join()
    (answer,) = answers
    assert isinstance(answer, httpx.Response)
    assert (answer.text, code, printed) == ("slow", 0, ["flushed", "end"])


def test_a_hangup_is_no_end(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)
    assert server.process.stdout is not None
    assert server.process.stdout.readline() == "hangup\n"
    assert httpx.get(f"{server.url}/quick").text == "0"


def test_an_app_that_cannot_start_ends_with_3() -> None:
    broken = Server("broken")
    _, err = broken.process.communicate(timeout=20)
    assert broken.process.returncode == 3
    assert "cannot start" in err or not err


def test_binding(tmp_path: Path) -> None:
    first = bind("127.0.0.1", 0)
    first.listen()
    with pytest.raises(CannotListenError, match="choose another --port"):
        bind("127.0.0.1", first.getsockname()[1])
    first.close()
    with pytest.raises(CannotListenError, match="cannot listen on"):
        bind("192.0.2.1", 0)
    if socket.has_ipv6:
        try:
            sixth = bind("::1", 0)
        except CannotListenError:
            return
        assert sixth.family == socket.AF_INET6
        sixth.close()
