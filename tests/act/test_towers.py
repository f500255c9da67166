"""Several ACT processes on one PostgreSQL: one ledger, whoever appends, and whatever happens to their sessions."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from act.domain.posted import read_posted
from act.ledger import append
from act.storage.postgres import PostgresDatabase
from act.storage.store import Store, open_store
from act.storage.tables import SCHEMA_REVISION
from act.writer import Appended
from tests.act.process import Served
from tests.act.support import (
    LIMIT_SEC,
    LiveClient,
    array,
    check_ledger,
    event,
    opened,
    plain_job,
    run,
    running,
    until,
)
from tests.database import Database
from tests.databases import NewDatabase, postgres_only

SHARED = [event("JOB-SHARED", seq) for seq in range(1, 121)]


class Relay(threading.Thread):
    """Posts a stream's events in order, to any of the towers, again until each is acknowledged."""

    def __init__(self, urls: list[str], raws: list[bytes], seed: int) -> None:
        super().__init__(daemon=True)
        self._urls = urls
        self._order = random.Random(seed)
        self._raws = raws
        self.acknowledged: dict[bytes, tuple[int, str]] = {}
        self.statuses: list[int] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with httpx.Client(timeout=30) as client:
                self._post_all(client)
        except BaseException as error:  # noqa: BLE001 - it is raised by `finish`
            self.error = error

    def _post_all(self, client: httpx.Client) -> None:
        ends = time.monotonic() + 60
        while len(self.acknowledged) < len(self._raws):
            assert time.monotonic() < ends, "it is never acknowledged"
            batch = self._raws[len(self.acknowledged) :][: self._order.randint(1, 6)]
            answer = client.post(f"{self._order.choice(self._urls)}/events", content=array(batch))
            self.statuses.append(answer.status_code)
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
                continue
            assert answer.status_code == 200, answer.text
            for raw, result in zip(batch, answer.json()["results"], strict=True):
                self.acknowledged[raw] = (result["index"], result["leaf_hash"])

    def finish(self) -> None:
        """Wait for the end."""
        self.join(90)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def relays_to(urls: list[str], *, streams: int) -> list[Relay]:
    """Return relays with a stream each, and two that post the same one."""
    own = [[event(f"JOB-{number}", seq) for seq in range(1, 121)] for number in range(streams)]
    return [Relay(urls, raws, seed) for seed, raws in enumerate([*own, SHARED, SHARED])]


def check_all(database: Database, relays: list[Relay]) -> None:
    """Check that all that was acknowledged is in the ledger, where it was said to be, and once."""
    with opened(database.url) as store:
        kept = check_ledger(store)
    assert len(kept) == len(set(kept)) == 120 * (len(relays) - 1)
    for relay in relays:
        for raw, (index, _) in relay.acknowledged.items():
            assert kept[index] == raw
    assert relays[-1].acknowledged == relays[-2].acknowledged, "one event, one receipt, whichever tower was asked"


@postgres_only
def test_p8_three_processes_append_to_one_ledger(new_database: NewDatabase, tmp_path: Path) -> None:
    database = new_database()  # they start at the same moment, on a database without a schema
    with ExitStack() as stack:
        towers = list(
            ThreadPoolExecutor(3).map(
                lambda number: stack.enter_context(_served(tmp_path / str(number), database)), range(3)
            )
        )
        relays = relays_to([tower.url for tower in towers], streams=6)
        for relay in relays:
            relay.start()
        for relay in relays:
            relay.finish()
        assert {status for relay in relays for status in relay.statuses} == {200}
        sizes = [httpx.get(f"{tower.url}/stream?limit=1000").text for tower in towers]
        assert len(set(sizes)) == 1, "each shows the same ledger"
        assert [tower.stop()[0] for tower in towers] == [0, 0, 0]
    check_all(database, relays)


def _served(folder: Path, database: Database) -> Served:
    folder.mkdir()
    return Served(folder, "--database-url", database.url)


@postgres_only
def test_sessions_that_are_ended_under_load_cost_nothing_but_a_503(new_database: NewDatabase, tmp_path: Path) -> None:
    database = new_database("act")
    with ExitStack() as stack:
        towers = [stack.enter_context(_served(tmp_path / str(number), database)) for number in range(2)]
        relays = relays_to([tower.url for tower in towers], streams=6)
        for relay in relays:
            relay.start()
        ended = 0
        while any(relay.is_alive() for relay in relays):
            ended += _end_all_sessions(database)
            reads = [httpx.get(f"{tower.url}/stream?limit=3").status_code for tower in towers]
            assert set(reads) <= {200, 503}
        for relay in relays:
            relay.finish()
        assert ended > 5, "the load was over before it began"
        # Without a restart, and at once: nobody ends their sessions any more.
        for tower in towers:
            _until(lambda url=tower.url: httpx.get(f"{url}/readyz").status_code == 200)  # type: ignore[misc]
            assert "Traceback" not in "".join(
                line for line in tower.errors.read_text().splitlines() if "poll_failed" not in line
            )
    check_all(database, relays)


def _end_all_sessions(database: Database) -> int:
    rows = database.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'act %'"
    )
    return len(rows)


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + LIMIT_SEC
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@postgres_only
@pytest.mark.parametrize("is_locked", [True, False], ids=["with-the-lock", "without-it"])
def test_the_lock_is_what_makes_two_appends_take_turns(
    url: str, is_locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: without it both take the same index, and the database has to refuse one of them."""
    if not is_locked:
        monkeypatch.setattr(PostgresDatabase, "lock_appends", lambda _store, _tx: None)
    with opened(url) as one, opened(url) as other, ThreadPoolExecutor(1) as pool:
        with one.writer.begin() as tx:
            one.lock_appends(tx)
            append(tx, [read_posted(array(plain_job("JOB-1")))], now_us=1)
            second = pool.submit(_append, other, plain_job("JOB-2"))
            _until(lambda: bool(one.reader.connect().exec_driver_sql(_WAITING).all()))
        if is_locked:
            assert [index for index, _, _ in second.result(LIMIT_SEC).places] == [5, 6, 7, 8, 9]
        else:
            with pytest.raises(DBAPIError, match="events_pkey"):
                second.result(LIMIT_SEC)
        assert len(check_ledger(one)) == (10 if is_locked else 5)


_WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def _append(store: Store, raws: list[bytes]) -> Appended:
    with store.writer.begin() as tx:
        store.lock_appends(tx)
        (outcome,) = append(tx, [read_posted(array(raws))], now_us=2)
    assert isinstance(outcome, Appended)
    return outcome


@postgres_only
def test_without_its_row_there_is_no_lock_and_nothing_is_taken(new_database: NewDatabase) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url) as act:
            database.rows("DELETE FROM append_lock")
            answer = await act.post(event())
            assert answer.status_code == 503
            assert "INSERT INTO append_lock" in answer.json()["detail"]
            database.rows("INSERT INTO append_lock (id) VALUES (1)")
            await act.append(event())

    run(scenario())


@postgres_only
@pytest.mark.parametrize("target", ["/stream", "/stream?job=JOB-2", "/stream?lane=clerk"])
def test_a_follower_sees_what_another_tower_appends_within_250_ms(url: str, target: str) -> None:
    async def scenario() -> None:
        async with running(url) as one, running(url) as other:
            await one.append(event("JOB-2", 1, lane="clerk"))
            async with LiveClient(one.app, target) as client:
                await client.rows_up_to(1)
                took: list[float] = []
                for seq in range(2, 12):
                    await other.append(event("JOB-2", seq, lane="clerk"))
                    begin = time.monotonic()
                    assert len(await client.rows_up_to(seq)) == seq
                    took.append(time.monotonic() - begin)
                assert sorted(took)[len(took) // 2] < 0.25
                assert one.ledger.size == 11

    run(scenario())


def test_another_towers_events_are_noticed_also_where_an_own_append_came_after_them(url: str) -> None:
    """The own append makes the ledger's size known before anybody has looked at what is in between."""

    async def scenario() -> None:
        async with running(url, poll_sec=0.2) as act:
            await act.append(event("JOB-1", 1), event("JOB-2", 1))
            async with LiveClient(act.app, "/stream?job=JOB-2") as client:
                await client.rows_up_to(1)
                _append(act.store, [event("JOB-2", 2)])  # behind its back
                await act.append(event("JOB-1", 2))
                assert act.ledger.size == 4
                assert [row_id for row_id, _ in await client.rows_up_to(2)] == [1, 2]

    run(scenario())


def test_followers_of_other_streams_are_left_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(url, poll_sec=0.05) as act:
            woken: list[set[str]] = []
            monkeypatch.setattr(act.ledger.followers, "wake", lambda streams: woken.append(set(streams)))
            await act.append(event("JOB-1", 1))
            _append(act.store, [event("JOB-2", 1)])
            await until(lambda: len(woken) == 2, what="the look at what another process appended")
            await asyncio.sleep(0.2)  # several looks: an own append is not told twice
            assert woken == [{"JOB-1"}, {"JOB-2"}]

    run(scenario())


@postgres_only
def test_processes_that_start_at_once_migrate_once(new_database: NewDatabase) -> None:
    for _ in range(3):
        database = new_database()
        with ThreadPoolExecutor(6) as pool:
            stores = list(pool.map(lambda url: open_store(url, migrate=True), [database.url] * 6))
        for store in stores:
            store.close()
        assert database.rows("SELECT version_num FROM alembic_version") == [(SCHEMA_REVISION,)]


def test_no_name_is_too_long_for_an_index(url: str) -> None:
    long: dict[str, Any] = dict.fromkeys(("lane", "plan", "reference", "worker", "actor"), "\U0001f6eb" * 490)

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(event("J" * 490, 1, task="T" * 490, **long))
            (row,) = await act.rows(f"lane={long['lane']}")
            assert row["plan"] == long["plan"]

    run(scenario())
