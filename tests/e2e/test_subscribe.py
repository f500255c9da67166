"""``examples/subscribe.py``, as users run it: each event once, in order, also across a crash of the subscriber."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import aio_pika
import httpx
import pytest

from tests.act.process import Served, environment
from tests.act.support import array, plain_job
from tests.broker import find_broker, own_name

EXAMPLE = Path(__file__).parents[2] / "examples" / "subscribe.py"
LIMIT_SEC = 20.0


@pytest.fixture
def name() -> Iterator[str]:
    """A name for an exchange and a queue, which are removed at the end."""
    made = own_name("subscriber")
    yield made

    async def remove() -> None:
        async with await aio_pika.connect(find_broker()) as connection:
            channel = await connection.channel()
            await channel.queue_delete(made)
            await channel.exchange_delete(made)

    asyncio.run(remove())


@contextmanager
def subscriber(folder: Path, act_url: str, name: str, *arguments: str) -> Iterator[None]:
    """Run the example; at the end it is killed. What it printed is in ``out.txt``."""
    names = {"ACT_URL": act_url, "ACT_AMQP_URL": find_broker(), "ACT_AMQP_EXCHANGE": name, "QUEUE": name}
    with (folder / "out.txt").open("ab") as out, (folder / "errors.txt").open("ab") as errors:
        command = [sys.executable, str(EXAMPLE), *arguments]
        process = subprocess.Popen(command, cwd=folder, env={**environment(), **names}, stdout=out, stderr=errors)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def taken(folder: Path, count: int) -> list[list[str]]:
    """Wait until so many events were taken; return the words of each line."""
    limit = time.monotonic() + LIMIT_SEC
    while time.monotonic() < limit:
        lines = (folder / "out.txt").read_text().splitlines()
        if len(set(lines)) >= count:
            return [line.split() for line in lines]
        time.sleep(0.02)
    pytest.fail((folder / "errors.txt").read_text() or "nothing came")


def committed(folder: Path, count: int) -> list[int]:
    """Wait until the subscriber has committed so many events; return their indexes as it took them."""
    limit = time.monotonic() + LIMIT_SEC
    while time.monotonic() < limit:
        with closing(sqlite3.connect(folder / "subscriber.db")) as state:
            kept = [int(index) for (index,) in state.execute("SELECT idx FROM taken ORDER BY rowid")]
        if len(kept) >= count:
            return kept
        time.sleep(0.02)
    pytest.fail(f"only {len(kept)} were committed")


def test_each_event_is_taken_once_and_in_order_also_across_a_crash(tmp_path: Path, name: str) -> None:
    def post(job: str) -> None:
        assert httpx.post(f"{act.url}/events", content=array(plain_job(job))).status_code == 200

    flags = ("--amqp-url", find_broker(), "--amqp-exchange", name)
    with Served(tmp_path, "--database-url", f"sqlite:///{tmp_path / 'act.db'}", *flags) as act:
        post("JOB-1")
        with subscriber(tmp_path, act.url, name):
            taken(tmp_path, 5)
            post("JOB-2")
            taken(tmp_path, 10)
        post("JOB-3")
        with subscriber(tmp_path, act.url, name):
            taken(tmp_path, 15)
            post("JOB-4")
            lines = taken(tmp_path, 20)
            kept = committed(tmp_path, 20)
    shown = [int(line[0]) for line in lines]
    assert list(dict.fromkeys(shown)) == list(range(20))
    assert len(shown) <= 21, "only what was shown and not committed when it was killed is shown again"
    assert kept == list(range(20))
    assert lines[7] == ["7", "JOB-2.3", "passport_renewal", "ai_extract", "started"]


def test_only_what_is_asked_for_is_taken(tmp_path: Path, name: str) -> None:
    flags = ("--amqp-url", find_broker(), "--amqp-exchange", name)
    with Served(tmp_path, "--database-url", f"sqlite:///{tmp_path / 'act.db'}", *flags) as act:
        httpx.post(f"{act.url}/events", content=array(plain_job("JOB-1")))
        with subscriber(tmp_path, act.url, name, "*.ai_extract.*"):
            taken(tmp_path, 3)
            httpx.post(f"{act.url}/events", content=array(plain_job("JOB-2")))
            lines = taken(tmp_path, 6)
    assert [line[1] for line in lines] == ["JOB-1.2", "JOB-1.3", "JOB-1.4", "JOB-2.2", "JOB-2.3", "JOB-2.4"]
