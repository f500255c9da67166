"""``act serve`` as a process: it starts or says why not, survives being killed, and stops in order."""

from __future__ import annotations

import random
import resource
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from act.storage.store import open_store
from act.storage.tables import SCHEMA_REVISION
from tests.act.process import Served, act
from tests.act.support import array, check_ledger, event, plain_job


def wait_until(condition: Callable[[], bool], limit_sec: float = 15.0) -> None:
    end = time.monotonic() + limit_sec
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def _is_longer(raws: list[bytes], length: int) -> bool:
    return len(raws) > length


def post(url: str, raws: list[bytes]) -> httpx.Response:
    return httpx.post(f"{url}/events", content=array(raws), timeout=10)


def ledger_of(folder: Path) -> list[bytes]:
    store = open_store(f"sqlite:///{folder / 'act.db'}", migrate=False)
    try:
        return check_ledger(store)
    finally:
        store.close()


def test_it_says_where_it_listens_and_what_it_has(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        assert served.line == f"act: listening on {served.url}, ledger act.db, 0 events"
        assert post(served.url, plain_job("JOB-1")).json()["size"] == 5
        assert httpx.get(f"{served.url}/readyz").json()["size"] == 5
        assert served.stop()[0] == 0
    with Served(tmp_path, "--database-url", "sqlite:///act.db") as served:
        assert served.line.endswith("ledger act.db, 5 events")
        assert [row["seq"] for row in httpx.get(f"{served.url}/stream?job=JOB-1").json()] == [1, 2, 3, 4, 5]
    assert len(ledger_of(tmp_path)) == 5


def test_p5_whatever_was_acknowledged_survives_being_killed(tmp_path: Path) -> None:
    """Killed in the middle of appends, several times: every acknowledged event is there, once, in order."""
    order = random.Random(1)
    acknowledged: list[bytes] = []
    receipts: dict[bytes, tuple[int, str]] = {}
    for round_ in range(4):
        with Served(tmp_path) as served:
            stop = threading.Event()

            def relay(job: str, url: str = served.url, stop: threading.Event = stop) -> None:
                raws = [event(job, seq) for seq in range(1, 400)]
                at = 0
                with httpx.Client(base_url=url) as client:
                    while not stop.is_set() and at < len(raws):
                        batch = raws[at : at + 3]
                        try:
                            answer = client.post("/events", content=array(batch))
                        except httpx.HTTPError:
                            return
                        assert answer.status_code == 200
                        for raw, result in zip(batch, answer.json()["results"], strict=True):
                            receipts[raw] = (result["index"], result["leaf_hash"])
                        acknowledged.extend(batch)
                        at += 3

            relays = [threading.Thread(target=relay, args=(f"JOB-{round_}-{number}",)) for number in range(4)]
            enough = len(acknowledged) + order.randint(20, 200)
            for thread in relays:
                thread.start()
            wait_until(partial(_is_longer, acknowledged, enough))
            served.kill()
            stop.set()
            for thread in relays:
                thread.join()
    kept = ledger_of(tmp_path)
    assert len(acknowledged) > 80
    assert len(set(kept)) == len(kept)
    for raw in acknowledged:
        assert kept[receipts[raw][0]] == raw
    with sqlite3.connect(tmp_path / "act.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    with Served(tmp_path) as served:
        again = post(served.url, acknowledged[:3]).json()
        assert [(result["index"], result["leaf_hash"]) for result in again["results"]] == [
            receipts[raw] for raw in acknowledged[:3]
        ]


def test_sigterm_ends_live_streams_cleanly_and_exits_0(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        post(served.url, plain_job("JOB-1"))
        text = ""
        with httpx.stream("GET", f"{served.url}/stream?follow=true", timeout=10) as live:
            chunks = live.iter_text()
            while text.count("\n\n") < 6:
                text += next(chunks)
            code, took_sec = served.stop()
            rest = list(chunks)  # raises if the stream breaks off without its end
        assert code == 0
        assert took_sec < 5
        assert "".join(rest).count("data:") == 0


def test_sigterm_does_not_wait_for_a_reader_that_never_reads(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        for number in range(4):
            post(
                served.url,
                [event(f"JOB-{number}-{place}", 1, detail={"x": "y" * 60_000}) for place in range(60)],
            )
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.sendall(b"GET /stream?follow=true HTTP/1.1\r\nhost: act\r\n\r\n")
            wait_until(lambda: httpx.get(f"{served.url}/readyz").json()["followers"] == 1)
            code, took_sec = served.stop()
        assert code == 0
        assert took_sec < 10


def test_sigterm_lets_the_running_appends_end(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        answers: list[httpx.Response] = []

        def relay(number: int) -> None:
            with httpx.Client(base_url=served.url, timeout=10) as client:
                for place in range(200):
                    try:
                        answers.append(client.post("/events", content=array(plain_job(f"JOB-{number}-{place}"))))
                    except httpx.HTTPError:
                        return

        relays = [threading.Thread(target=relay, args=(number,)) for number in range(4)]
        for thread in relays:
            thread.start()
        wait_until(lambda: len(answers) > 20)
        assert served.stop()[0] == 0
        for thread in relays:
            thread.join()
    taken = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert len(ledger_of(tmp_path)) == 5 * taken, "what was taken was answered, and what was answered was taken"


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The files may not grow past a limit, as on a full disk; then the limit is lifted, without a restart."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))

    with Served(tmp_path, before=limit) as served:
        taken: list[bytes] = []
        refused = 0
        for number in range(60):
            raws = [event(f"JOB-{number}", seq, detail={"x": "y" * 5_000}) for seq in range(1, 4)]
            answer = post(served.url, raws)
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                taken += raws
            else:
                refused += 1
                assert answer.headers["retry-after"] == "1"
        assert taken
        assert refused
        assert len(httpx.get(f"{served.url}/stream").json()) == len(taken)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        last = plain_job("JOB-LAST")
        wait_until(lambda: post(served.url, last).status_code == 200)
        assert served.stop()[0] == 0
    assert ledger_of(tmp_path) == taken + last


def test_a_second_process_on_the_file_is_refused(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        for command in (("serve", "--port", "0"), ("migrate",)):
            second = act(tmp_path, *command)
            assert second.returncode == 1
            assert f"pid {served.process.pid}" in second.stderr
            assert second.stdout == ""
        assert post(served.url, plain_job("JOB-1")).status_code == 200


def test_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = act(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 1
    assert "choose another --port" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "act.db").exists()


@pytest.mark.parametrize(
    ("arguments", "env", "code", "says"),
    [
        (["serve", "--database-url", "sqlite:///no/folder/act.db"], {}, 1, "does not exist"),
        (["serve", "--database-url", "sqlite://"], {}, 1, "memory"),
        (["serve", "--database-url", "mysql://u:secret@h/d"], {}, 1, "not supported"),
        (["migrate", "--database-url", "sqlite:///no/folder/act.db"], {}, 1, "does not exist"),
        (["serve", "--migrate", "0", "--port", "0"], {}, 1, "act migrate"),
        (["serve", "--port", "70000"], {}, 2, "ACT_PORT"),
        (["serve", "--port", "many"], {}, 2, "ACT_PORT"),
        (["serve"], {"ACT_LOG_LEVEL": "loud"}, 2, "ACT_LOG_LEVEL"),
        (["serve", "--host", "no.such.host.invalid", "--port", "0"], {}, 1, "cannot listen"),
        (["serve", "--prot", "0"], {}, 2, "--prot"),
    ],
)
def test_what_cannot_start_says_why(
    tmp_path: Path, arguments: list[str], env: dict[str, str], code: int, says: str
) -> None:
    refused = act(tmp_path, *arguments, env=env)
    assert refused.returncode == code
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stderr


def test_an_unwritable_folder_says_so(tmp_path: Path) -> None:
    """A plain file in the folder's place: root may write anywhere else."""
    (tmp_path / "file").write_text("")
    refused = act(tmp_path, "serve", "--port", "0", "--database-url", "sqlite:///file/act.db")
    assert refused.returncode == 1
    assert "does not exist" in refused.stderr or "cannot write" in refused.stderr


def test_the_other_commands(tmp_path: Path) -> None:
    version = act(tmp_path, "--version")
    assert (version.returncode, version.stdout) == (0, "act 0.1.0\n")
    migrated = act(tmp_path, "migrate", env={"ACT_DATABASE_URL": "sqlite:///other.db", "ACT_URL": "http://unknown"})
    assert (migrated.returncode, migrated.stdout) == (0, f"act: other.db is at {SCHEMA_REVISION}\n")
    shown = act(tmp_path, "settings", env={"ACT_PORT": "7", "COLUMNS": "200"})
    assert shown.returncode == 0
    for word in ("ACT_DATABASE_URL", "sqlite:///act.db", "ACT_MAX_FOLLOWERS", "ACT_PORT"):
        assert word in shown.stdout
    help_ = act(tmp_path, "serve", "--help", env={"COLUMNS": "200"})
    assert "--max-followers" in help_.stdout
    assert "--allowed-origins" in help_.stdout


def test_an_unknown_variable_is_none_of_our_business_and_a_flag_beats_the_environment(tmp_path: Path) -> None:
    env = {"ACT_URL": "http://act", "ACT_DATABASE_URL": "sqlite:///env.db", "ACT_PORT": "not used"}
    with Served(tmp_path, "--database-url", "sqlite:///flag.db", env=env) as served:
        assert "ledger flag.db" in served.line
    assert not (tmp_path / "env.db").exists()
