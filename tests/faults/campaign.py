"""Kill the services again and again under load, and check that nothing was lost or done twice.

``python tests/faults/campaign.py --kills 200 --seed 1``: exit 0 when every promise was kept, 1 on any loss.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.load import Campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the kills' moments; default: a new one")
    chosen = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    print(f"seed {seed}, {chosen.kills} kills", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), seed, chosen.kills, say=lambda line: print(line, flush=True))
        try:
            counts = asyncio.run(campaign.run())
        except (AssertionError, KeyError) as error:
            print(f"LOST: {type(error).__name__}: {error}", flush=True)
            return 1
    print(f"nothing lost in {time.monotonic() - began:.0f} s: {dict(counts)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
