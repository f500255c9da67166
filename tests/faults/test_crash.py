"""Whatever was acknowledged survives kills at any moment, and nothing is done twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.load import Campaign

KILLS = 12


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a busy machine; alone it takes a tenth of that
def test_p6_nothing_is_lost_and_nothing_done_twice_whoever_is_killed_and_when(tmp_path: Path) -> None:
    """The same with more kills: ``python tests/faults/campaign.py --kills 200``."""
    seed = random.randrange(1_000_000)
    counts = asyncio.run(Campaign(tmp_path, seed, goes_on=lambda number: number < KILLS).run())
    assert counts["kill a tower"] + counts["kill a ledger"] == KILLS
    assert counts["jobs"] > KILLS
    assert counts["unanswered"] > 0, "no client ever noticed a kill"
