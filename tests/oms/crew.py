"""Threads that work on one PostgreSQL database at the same moment, each with a connection of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from oms.domain.errors import UnavailableError
from oms.sequencer.writer import Verb
from oms.storage.store import RunAgainError, Store
from oms.storage.transaction import Transaction
from tests.oms.support import START_MS

R = TypeVar("R")
W = TypeVar("W")

LIMIT_SEC = 60.0
"""How long a crew may take: it is a bound for what hangs, and nothing waits for it."""


class CrashError(Exception):
    """A tower that dies before its commit."""


def together(count: int, work: Callable[[int], R]) -> list[R]:
    """Run ``work`` in so many threads that begin in one moment; return what each came to."""
    gate = threading.Barrier(count)

    def begin(number: int) -> R:
        gate.wait(LIMIT_SEC)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        begun = [pool.submit(begin, number) for number in range(count)]
        return [each.result(LIMIT_SEC) for each in begun]


@dataclass(frozen=True)
class Hand:
    """One of those who write: a connection, and a thread that uses it."""

    store: Store
    connection: Connection
    number: int

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction; it is committed at the end of the block."""
        with self.store.begin(self.connection, now_ms=START_MS, writer=self.number) as tx:
            yield tx

    def lose(self, verb: Verb[W, R], *wishes: W) -> list[R]:
        """Run a verb in a transaction that is lost, after all of it was written."""
        answers: list[R] = []
        with suppress(CrashError), self.transaction() as tx:
            answers += verb(tx, wishes)
            tx.flush()
            raise CrashError
        return answers

    def run(self, verb: Verb[W, R], *wishes: W) -> list[R]:
        """Run a verb, again when another transaction was in the way, as the writer does."""
        ends = time.monotonic() + LIMIT_SEC
        while True:
            try:
                with self.transaction() as tx:
                    answers = list(verb(tx, wishes))
            except RunAgainError:
                assert time.monotonic() < ends, "others are in the way all the time"
                continue
            if not any(isinstance(answer, UnavailableError) for answer in answers):
                return answers
            assert time.monotonic() < ends, "another works on the same job all the time"


@contextmanager
def hand(store: Store, number: int) -> Iterator[Hand]:
    """Give one of the writing connections."""
    with store.connect_writer() as connection:
        yield Hand(store, connection, number)


def hands(count: int, store: Store, work: Callable[[Hand], R]) -> list[R]:
    """Run ``work`` in so many threads at once, each with a writing connection."""

    def begin(number: int) -> R:
        with hand(store, number) as one:
            return work(one)

    return together(count, begin)


def check_each_once(given: Sequence[Any], all_: Sequence[Any]) -> None:
    """Check that each was given, and none twice."""
    twice = sorted({item for item in given if given.count(item) > 1})
    assert not twice, f"{len(given) - len(set(given))} given twice, {twice[:5]} among them"
    never = sorted(set(all_) - set(given))
    assert not never, f"{len(never)} given to nobody, {never[:5]} among them"
