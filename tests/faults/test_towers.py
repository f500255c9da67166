"""Three towers and two ledgers on one PostgreSQL keep every promise, whatever happens to any of them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.broker import find_broker
from tests.faults.load import Campaign
from tests.faults.site import Shape
from tests.faults.troubles import kinds_of


def has_broker() -> bool:
    """Whether there is a RabbitMQ to test with: without one, towers and ledgers must do as well."""
    try:
        find_broker()
    except pytest.skip.Exception:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a busy machine; alone it takes half a minute
def test_nothing_is_lost_doubled_or_out_of_order_whatever_happens_to_any_of_them(tmp_path: Path) -> None:
    """For longer: ``python tests/faults/campaign.py --database postgres --towers 3 --acts 2 --minutes 10``."""
    seed = random.randrange(1_000_000)
    broker = has_broker()
    kinds = kinds_of(is_shared=True, has_broker=broker)
    shape = Shape("postgres", towers=3, ledgers=2)
    campaign = Campaign(tmp_path, seed, goes_on=lambda number: number < len(kinds), shape=shape, has_broker=broker)
    counts = asyncio.run(campaign.run())
    assert all(counts[kind] == 1 for kind in kinds), counts
    assert counts["jobs"] > 20
    assert counts["unanswered"] > 0, "no client ever noticed a kill"
    assert counts["not now"] > 0, "no client ever noticed that the database was away"
