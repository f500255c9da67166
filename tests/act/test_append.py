"""Appending: one order, each event once, all of a batch or nothing, and only what is on disk is acknowledged."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from act.contract import entry_bytes, leaf_hash
from act.domain.errors import ForkError, GapError, UnavailableError
from act.domain.posted import Posted, read_posted
from act.ledger import append
from act.storage.store import Store, open_store
from act.writer import MAX_WAITING_EVENTS, Appended, Outcome
from tests.act.conftest import LendUrl
from tests.act.support import NOW_MS, array, batches, check_ledger, event, plain_job, run, running

STREAMS = ("JOB-1", "JOB-2", "LANE-clerk")


def raw_of(stream: str, seq: int, variant: int) -> bytes:
    """Return one of the two histories' event in a place."""
    if stream.startswith("LANE-"):
        return event(stream, seq, entity="lane", status="paused", lane="clerk", detail={"variant": variant})
    return event(stream, seq, status="queued", detail={"variant": variant})


class Model:
    """The ledger as plain lists."""

    def __init__(self) -> None:
        self.streams: dict[str, list[bytes]] = {}
        self.entries: list[bytes] = []
        self.index: dict[bytes, int] = {}

    def post(self, batch: Sequence[tuple[str, int, bytes]]) -> list[tuple[int, bool]] | type[Exception]:
        """Return the index of each event and whether it is new; or the error, and then nothing has changed."""
        streams = {stream: list(raws) for stream, raws in self.streams.items()}
        entries, places = list(self.entries), []
        for stream, seq, raw in batch:
            raws = streams.setdefault(stream, [])
            if seq > len(raws) + 1:
                return GapError
            if seq <= len(raws) and raws[seq - 1] != raw:
                return ForkError
            if seq == len(raws) + 1:
                raws.append(raw)
                entries.append(raw)
                places.append((len(entries) - 1, True))
            else:
                places.append((entries.index(raw), False))
        self.streams, self.entries = streams, entries
        return places


BATCHES = st.lists(
    st.tuples(
        st.sampled_from(STREAMS),
        st.sampled_from([1, 1, 1, 1, 1, 1, 0, 0, -1, 2]),
        st.sampled_from([0] * 12 + [1]),
    ),
    min_size=1,
    max_size=6,
)


class LedgerMachine(RuleBasedStateMachine):
    """Random groups of batches, with duplicates, forks, gaps and restarts, against the model."""

    lend_url: ClassVar[LendUrl]

    @initialize()
    def begin(self) -> None:
        self.lent = ExitStack()
        self.url = self.lent.enter_context(type(self).lend_url())
        self.store = open_store(self.url, migrate=True)
        self.model = Model()
        self.now_us = NOW_MS * 1000
        self.receipts: dict[bytes, tuple[int, bytes]] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        if hasattr(self, "lent"):
            self.lent.close()

    def _near_the_end(self, steps: list[tuple[str, int, int]]) -> list[tuple[str, int, bytes]]:
        """Turn steps from each stream's end into events, so that most of them fit."""
        ends = {stream: len(raws) for stream, raws in self.model.streams.items()}
        batch = []
        for stream, step, variant in steps:
            seq = max(1, ends.get(stream, 0) + step)
            if step == 1:
                ends[stream] = seq
            batch.append((stream, seq, raw_of(stream, seq, variant)))
        return batch

    @rule(group=st.lists(BATCHES, min_size=1, max_size=4))
    def post_a_group(self, group: list[list[tuple[str, int, int]]]) -> None:
        wanted = [self._near_the_end(steps) for steps in group]
        self.now_us += 1
        with self.store.writer.begin() as tx:
            outcomes = append(
                tx, [read_posted(array(raw for *_, raw in batch)) for batch in wanted], now_us=self.now_us
            )
        for batch, outcome in zip(wanted, outcomes, strict=True):
            self._compare(batch, outcome)

    def _compare(self, batch: list[tuple[str, int, bytes]], outcome: Outcome) -> None:
        expected = self.model.post(batch)
        if isinstance(expected, type):
            assert type(outcome) is expected
            return
        assert isinstance(outcome, Appended)
        assert [(index, new) for index, new, _ in outcome.places] == expected
        assert outcome.size == len(self.model.entries)
        assert outcome.streams == {stream for (stream, *_), (_, new) in zip(batch, expected, strict=True) if new}
        for (*_, raw), (index, new, leaf) in zip(batch, outcome.places, strict=True):
            if new:
                assert leaf == leaf_hash(entry_bytes(self.now_us, raw))
            assert self.receipts.setdefault(raw, (index, leaf)) == (index, leaf), "a receipt has changed"

    @rule(size=st.integers(1, 5))
    def post_everything_again(self, size: int) -> None:
        for batch in batches(self.model.entries, size):
            with self.store.writer.begin() as tx:
                (outcome,) = append(tx, [read_posted(array(batch))], now_us=self.now_us + 99)
            assert isinstance(outcome, Appended)
            assert [(index, leaf) for index, _, leaf in outcome.places] == [self.receipts[raw] for raw in batch]
            assert not outcome.streams

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = open_store(self.url, migrate=True)

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        if hasattr(self, "store"):
            assert check_ledger(self.store) == self.model.entries


def test_p8_any_history_of_posts_and_restarts_gives_the_models_ledger(lend_url: LendUrl) -> None:
    run_state_machine_as_test(
        type("Machine", (LedgerMachine,), {"lend_url": staticmethod(lend_url)}),
        settings=settings(
            max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_many_at_once_share_commits_and_each_stands_alone(url: str) -> None:
    """One fork and one gap among sixty posts at once: they are refused, the others are all there, in order."""

    async def scenario() -> None:
        async with running(url) as act:
            await act.append(event("JOB-0", 1, entity="job", status="queued"))
            jobs = {f"JOB-{number}": plain_job(f"JOB-{number}") for number in range(1, 61)}
            posts = [act.ledger.append(read_posted(array(raws))) for raws in jobs.values()]
            posts.insert(20, act.ledger.append(read_posted(array([event("JOB-0", 1, status="failed")]))))
            posts.insert(40, act.ledger.append(read_posted(array([event("JOB-99", 1), event("JOB-99", 3)]))))
            outcomes = await asyncio.gather(*posts, return_exceptions=True)
            refused = [outcome for outcome in outcomes if not isinstance(outcome, Appended)]
            assert [type(outcome) for outcome in refused] == [ForkError, GapError]
            assert len(check_ledger(act.store)) == 1 + 60 * 5
            assert {row["job_id"] for row in await act.rows("limit=1000")} == {"JOB-0", *jobs}

    run(scenario())


def test_posts_that_wait_for_the_disk_go_into_one_commit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            commits = 0
            real = act.store.writer.dialect.do_commit

            def count(connection: object) -> None:
                nonlocal commits
                commits += 1
                real(connection)  # type: ignore[arg-type]

            monkeypatch.setattr(act.store.writer.dialect, "do_commit", count)
            await asyncio.gather(*(act.append(*plain_job(f"JOB-{number}")) for number in range(80)))
            assert 1 <= commits < 40
            assert len(check_ledger(act.store)) == 400

    run(scenario())


def test_one_job_posted_by_many_at_once_is_there_once(url: str) -> None:
    """The relay may be doubled: whoever comes second gets the same receipts, or is told what to wait for."""

    async def scenario() -> None:
        async with running(url) as act:
            raws = [event("JOB-1", seq) for seq in range(1, 41)]
            order = random.Random(5)

            async def relay() -> list[tuple[int, str]]:
                receipts: list[tuple[int, str]] = []
                while len(receipts) < len(raws):
                    some = raws[len(receipts) : len(receipts) + order.randint(1, 7)]
                    answer = await act.post(*some)
                    assert answer.status_code == 200
                    receipts += [(result["index"], result["leaf_hash"]) for result in answer.json()["results"]]
                return receipts

            first, *others = await asyncio.gather(*(relay() for _ in range(6)))
            assert all(receipts == first for receipts in others)
            assert [index for index, _ in first] == list(range(40))
            assert check_ledger(act.store) == raws

    run(scenario())


def test_a_post_whose_sender_has_left_stands_all_the_same(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            lost = asyncio.ensure_future(act.ledger.append(read_posted(array(plain_job("JOB-1")))))
            await asyncio.sleep(0)
            lost.cancel()
            again = await act.append(*plain_job("JOB-1"))
            assert (again["accepted"], again["duplicates"], again["size"]) == (0, 5, 5)

    run(scenario())


def test_what_waits_is_committed_and_answered_before_the_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[Appended]:
        async with running(url) as act:
            real = act.store.writer.dialect.do_commit

            def slow(connection: Any) -> None:
                time.sleep(0.1)  # a slow disk: the end comes while the first commit is on its way
                real(connection)

            monkeypatch.setattr(act.store.writer.dialect, "do_commit", slow)
            posts = [
                asyncio.ensure_future(act.ledger.append(read_posted(array(plain_job(f"JOB-{number}")))))
                for number in range(20)
            ]
            await asyncio.sleep(0)
        assert all(post.done() for post in posts)
        return [await post for post in posts]

    assert len(run(scenario())) == 20
    store = open_store(url, migrate=True)
    assert len(check_ledger(store)) == 100
    store.close()


def test_after_the_end_posts_are_told_to_come_again(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            ledger = act.ledger
        with pytest.raises(UnavailableError, match="stopping"):
            await ledger.append(read_posted(event()))

    run(scenario())


def test_more_than_memory_should_hold_is_told_to_come_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_WAITING_EVENTS >= 500
    monkeypatch.setattr("act.writer.MAX_WAITING_EVENTS", 12)

    async def scenario() -> None:
        async with running(url) as act:
            answers = await asyncio.gather(*(act.post(*plain_job(f"JOB-{number}")) for number in range(5)))
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) == {200, 503}
            assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 503)
            assert len(check_ledger(act.store)) == 5 * statuses.count(200)
            await act.append(*plain_job("JOB-77"))

    run(scenario())


def test_a_block_is_summed_up_when_it_is_full(store: Store) -> None:
    posted: list[list[Posted]] = [
        read_posted(array(event(f"JOB-{number}", 1, time_ms=NOW_MS - number) for number in some))
        for some in (range(500), range(500, 1000), range(1000, 1023), [1023], range(1024, 1500))
    ]
    for batch in posted:
        with store.writer.begin() as tx:
            append(tx, [batch], now_us=1)
        check_ledger(store)
