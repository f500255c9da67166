"""Run a real event log (CSV, XES columns) through OMS again and check that ACT tells the same story.

Usage: python replay_log.py receipt.csv --oms http://127.0.0.1:8001 --act http://127.0.0.1:8002
"""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from oms.demo.event_log import EventLogError, read_event_log
from oms.demo.ledger import Ledger, LedgerError
from oms.demo.meters import StalledError
from oms.demo.replay import ReplayError, print_replayed, replay
from oms.worker import OmsClient, OmsClientError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, help="the event log")
    parser.add_argument("--oms", default=os.getenv("OMS_URL", "http://127.0.0.1:8001"), help="OMS's address")
    parser.add_argument("--act", default=os.getenv("ACT_URL", "http://127.0.0.1:8002"), help="ACT's address")
    parser.add_argument("--workers-per-lane", type=int, default=1, choices=range(1, 33), metavar="1..32")
    given = parser.parse_args()
    console = Console()
    try:
        cases = read_event_log(given.log)
        with OmsClient(given.oms) as oms, Ledger(given.act) as ledger:
            replayed = replay(cases, oms, ledger, console, workers_per_lane=given.workers_per_lane)
    except (EventLogError, LedgerError, OmsClientError, ReplayError, StalledError) as error:
        console.print(f"replay: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    print_replayed(console, replayed)
    return 1 if replayed.differences else 0


sys.exit(main())
