"""Tests for connections that are kept for the next transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import QueuePool

from hmskit.kept_connections import KeptConnections

ONE = text("SELECT 1")


@pytest.fixture
def engine() -> Engine:
    return create_engine("sqlite://", poolclass=QueuePool, pool_size=2, max_overflow=0)


def lent(engine: Engine) -> int:
    """Return how many connections the pool has lent."""
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


def test_a_connection_is_kept_for_the_next_block(engine: Engine) -> None:
    kept = KeptConnections(engine)
    with kept.one() as first, first.begin():
        first.execute(ONE)
    with kept.one() as again:
        assert again is first
        with kept.one() as other:
            assert other is not first
    assert lent(engine) == 2
    kept.give_back()
    assert lent(engine) == 0
    with kept.one() as later:
        assert later is not first
    assert lent(engine) == 1


def _leave_open(connection: Connection) -> None:
    connection.execute(ONE)


@pytest.mark.parametrize("spoil", [_leave_open, Connection.invalidate, Connection.close])
def test_what_is_not_in_order_is_not_kept(engine: Engine, spoil: Callable[[Connection], None]) -> None:
    kept = KeptConnections(engine)
    with kept.one() as spoilt:
        spoil(spoilt)
    assert spoilt.closed
    assert lent(engine) == 0
    with kept.one() as next_one:
        assert not next_one.in_transaction()


def test_the_connection_of_a_block_that_raises_is_not_kept(engine: Engine) -> None:
    kept = KeptConnections(engine)
    with pytest.raises(ZeroDivisionError), kept.one() as connection:
        raise ZeroDivisionError
    assert connection.closed
    assert lent(engine) == 0


def test_what_is_lent_at_the_close_is_given_back_at_the_end_of_its_block(engine: Engine) -> None:
    kept = KeptConnections(engine)
    with kept.one() as connection:
        kept.close()
        assert connection.execute(ONE).scalar() == 1
        connection.rollback()
    assert connection.closed
    assert lent(engine) == 0


def test_whoever_waits_for_a_connection_gets_the_one_that_comes_back() -> None:
    engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=5)
    kept = KeptConnections(engine)
    waits = threading.Event()

    def take() -> float:
        began = time.monotonic()
        waits.set()
        with kept.one():
            return time.monotonic() - began

    with ThreadPoolExecutor(1) as pool:
        with kept.one():
            waiting = pool.submit(take)
            waits.wait()
            time.sleep(0.05)
        assert waiting.result() < 2
