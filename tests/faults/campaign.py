"""Bring one trouble after the other over the services under load, and check that nothing was lost or done twice.

``python tests/faults/campaign.py --kills 200 --seed 1``: one OMS and one ACT on SQLite, killed again and again.
``python tests/faults/campaign.py --database postgres --towers 3 --acts 2 --minutes 10``: several of each on a
PostgreSQL server of their own, which crashes, too. Exit 0 when every promise was kept, 1 on any loss.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.broker import SETTING
from tests.faults.load import Campaign
from tests.faults.site import Shape


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many troubles, of whatever kind")
    parser.add_argument("--minutes", type=float, default=None, help="troubles for so long, instead of a number of them")
    parser.add_argument("--seed", type=int, default=None, help="of all that is left to chance; default: a new one")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--towers", type=int, default=None, help="how many OMS; default: 3 on PostgreSQL")
    parser.add_argument("--acts", type=int, default=None, help="how many ACT; default: 2 on PostgreSQL")
    parser.add_argument("--amqp", default=None, metavar="URL", help="a RabbitMQ for them; the way to it breaks, too")
    parser.add_argument(
        "--keep", type=Path, default=None, help="a new folder for logs and files; default: none is kept"
    )
    chosen = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    is_shared = chosen.database == "postgres"
    shape = Shape(chosen.database, chosen.towers or (3 if is_shared else 1), chosen.acts or (2 if is_shared else 1))
    if chosen.amqp is not None:
        os.environ[SETTING] = chosen.amqp
    print(f"seed {seed}, {shape.towers} OMS and {shape.ledgers} ACT on {shape.kind}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        campaign = Campaign(
            folder,
            seed,
            goes_on=_until(began, chosen.kills, chosen.minutes),
            shape=shape,
            has_broker=chosen.amqp is not None,
            say=lambda line: print(f"{time.monotonic() - began:.0f} s: {line}", flush=True),
        )
        try:
            asyncio.run(campaign.run())
        except* (AssertionError, LookupError, TimeoutError) as errors:
            _tell(errors)
    if campaign.is_over:
        print(f"nothing lost in {time.monotonic() - began:.0f} s: {dict(campaign.counts)}", flush=True)
    return 0 if campaign.is_over else 1


def _until(began: float, troubles: int, minutes: float | None) -> Callable[[int], bool]:
    if minutes is None:
        return lambda number: number < troubles
    return lambda _number: time.monotonic() < began + 60 * minutes


def _tell(errors: BaseExceptionGroup[BaseException]) -> None:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _tell(error)
        else:
            print(f"LOST: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
