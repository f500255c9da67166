"""What OMS's verbs cost without HTTP: ``python bench/verbs.py``.

The mixed load of ``oms bench``: clients start jobs of three steps, pull and complete their tasks, and the events are
marked as delivered; every transaction is committed with its sync. Printed is CPU time by request (7 a job), the median
of the rounds, by how many requests share a transaction. ``--profile`` prints where it goes instead, and
``--database-url`` names a database to use in place of a new SQLite file.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import pstats
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from act.contract import Receipt
from oms.bench.plans import LANES, PLAN, plan_files
from oms.domain.plan_reader import parse_plan
from oms.sequencer.batch import run_verbs
from oms.sequencer.command import Command
from oms.sequencer.complete import Complete, complete
from oms.sequencer.deliver import Delivered, deliver
from oms.sequencer.load_plans import PutPlan, put_plans
from oms.sequencer.pull import Pull, pull
from oms.sequencer.start import Start, start
from oms.sequencer.wishes import is_about_task, lock_wished
from oms.storage.outbox import pending_events
from oms.storage.store import Store, open_store
from oms.storage.tasks import wake_due

SIZES = (1, 10, 32)
"""How many requests share a transaction."""
ROUNDS = 5
REQUESTS = 3_200
"""How many requests a round runs, at any size."""
JOB_REQUESTS = 1 + 2 * len(LANES)
DELIVER_EVERY = 4
"""The relay gathers: it marks the events of so many transactions at once."""


def transact(store: Store, commands: Sequence[Command]) -> list[Any]:
    """Run the requests in one transaction, in the order in which `oms.sequencer.writer` runs them."""
    with store.connect_writer() as connection, store.begin(connection) as tx:
        lock_wished(tx, [wish for command in commands for wish in command.wishes if is_about_task(wish)])
        answers = run_verbs(tx, [command for command in commands if command.verb is not pull])
        wake_due(tx)
        answers += run_verbs(tx, [command for command in commands if command.verb is pull])
    given = {id(command): result for command, result in answers}
    return [given[id(command)] for command in commands]


def request(verb: Callable[..., Any], wish: object) -> Command:
    """Return a request on its way; nobody waits for it here."""
    return Command(verb, [wish], reply=None)  # type: ignore[arg-type]


def client(prefix: str) -> Generator[Command, Any, None]:
    """Yield a client's requests, one job after the other; takes each one's answer."""
    for number in itertools.count():
        yield request(start, Start(PLAN, f"{prefix}-{number}", {"applicant": "T-1"}, 0))
        for lane in LANES:
            ((task,),) = yield request(pull, Pull(lane, 1, "w-1"))
            yield request(complete, Complete(task.task_id, {"ok": True}, task.token, "w-1"))


def run_clients(store: Store, *, size: int, prefix: str) -> None:
    """Let ``size`` clients send `REQUESTS` in all, one of each in every transaction, at different places of jobs."""
    clients = [client(f"{prefix}-{number}") for number in range(size)]
    waiting = [next(one) for one in clients]
    for turn in range(REQUESTS // size):
        asking = [place for place in range(size) if turn >= JOB_REQUESTS or place % JOB_REQUESTS <= turn]
        answers = transact(store, [waiting[place] for place in asking])
        for place, answer in zip(asking, answers, strict=True):
            waiting[place] = clients[place].send(answer)
        if turn % DELIVER_EVERY == 0:
            deliver_all(store)
    deliver_all(store)


def deliver_all(store: Store) -> None:
    """Mark every event as delivered, as the relay does."""
    while True:
        with store.reading() as connection:
            events = pending_events(connection, limit=500)
        if not events:
            return
        receipts = [Receipt(f"{event.stream}.{event.seq}", event.id, "appended", "00" * 32) for event in events]
        transact(store, [request(deliver, Delivered(list(zip(events, receipts, strict=True))))])


def measure(store: Store, size: int) -> float:
    """Return microseconds of CPU by request, the median of the rounds."""
    figures = []
    for number in range(ROUNDS + 1):
        began = time.process_time()
        run_clients(store, size=size, prefix=f"{size}-{number}-{began}")
        figures.append((time.process_time() - began) / REQUESTS * 1e6)
    return statistics.median(figures[1:])


def print_shares(stats: pstats.Stats) -> None:
    """Print where the time goes by share; the profiler itself makes Python's own look larger than it is."""
    shares: Counter[str] = Counter()
    for (file, _line, name), (_calls, _all_calls, own_sec, _cumulative_sec, _callers) in stats.stats.items():  # type: ignore[attr-defined]
        shares[_whose(file, name)] += own_sec
    for whose, sec in shares.most_common():
        sys.stdout.write(f"{sec / shares.total():6.1%}  {whose}\n")


def _whose(file: str, name: str) -> str:
    if "commit" in name and "sqlite3" in name:
        return "SQLite: COMMIT, with its sync"
    if "sqlite3" in name:
        return "SQLite: statements"
    for part in ("oms/sequencer", "oms/domain", "oms/storage", "hmskit", "act/contract", "sqlalchemy", "bench"):
        if f"/{part}" in file:
            return part
    return "the interpreter's own: built-ins and the standard library"


def main() -> None:
    """Print a row for each size, or a profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, with 32 requests together")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(options.database_url or f"sqlite:///{Path(folder) / 'oms.db'}", writers=1)
        transact(store, [request(put_plans, PutPlan(parse_plan(from_json(plan)))) for plan in plan_files()])
        if options.profile:
            run_clients(store, size=32, prefix="warm")
            profile = cProfile.Profile()
            profile.runcall(run_clients, store, size=32, prefix="profiled")
            stats = pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime")
            print_shares(stats)
            stats.print_stats(45)
        else:
            for size in SIZES:
                sys.stdout.write(
                    f"{size:>3} requests a transaction: {measure(store, size):6.1f} us of CPU by request\n"
                )
        store.close()


if __name__ == "__main__":
    main()
