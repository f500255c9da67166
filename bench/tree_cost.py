"""What the Merkle tree costs of ACT's append throughput: with it and without, in turns. ``python bench/tree_cost.py``.

``--database-url postgresql+psycopg://...`` names a server that may make databases; by default it is SQLite. Measured is
all that a batch costs but HTTP: reading it, the append rule, the rows, the tree, the commit and its sync. A row is the
median of the rounds; what the tree costs is the part of the throughput that it takes, which may be 15 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from sqlalchemy import create_engine, make_url, text

from act.contract import encode_event
from act.domain.posted import read_posted
from act.ledger import append
from act.storage.store import Store, open_store

ROUNDS = 7
EVENTS = {1: 300, 10: 2_000, 100: 6_000}
"""How many events a round appends, by the size of its batches."""
NOW_MS = 1_763_820_309_123


def batches(first: int, count: int, size: int) -> list[bytes]:
    """Return bodies of ``size`` events each, of jobs of four events."""
    events = [
        encode_event(
            stream=f"JOB-{first + number // 4}",
            seq=number % 4 + 1,
            entity="task",
            subject=f"TASK-{first + number // 4}",
            time_ms=NOW_MS + number,
            data={
                "job_id": f"JOB-{first + number // 4}",
                "plan": "passport_renewal",
                "plan_version": 1,
                "reference": "T-1",
                "task_id": f"TASK-{first + number // 4}",
                "activity": "ai_extract",
                "lane": "ai_extract",
                "status": ("queued", "started", "done", "stalled")[number % 4],
                "attempt": 1,
                "worker": "w-1",
                "actor": None,
                "detail": {"output_hmac": "ab" * 32},
            },
        )
        for number in range(count)
    ]
    return [b"[" + b",".join(events[at : at + size]) + b"]" for at in range(0, count, size)]


def run(store: Store, bodies: list[bytes]) -> tuple[float, float]:
    """Append them; return the wall time and this process's CPU time, seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    for body in bodies:
        posted = read_posted(body)
        with store.writer.begin() as tx:
            store.lock_appends(tx)
            append(tx, [posted], now_us=time.time_ns() // 1000)
    return time.perf_counter() - began, time.process_time() - cpu


def without_tree(*_: object, **__: object) -> None:
    """Let no tree grow."""


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """Lend an empty database."""
    if url is None:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'act.db'}"
        return
    name = f"tree_cost_{uuid.uuid4().hex[:8]}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"))
        try:
            yield make_url(url).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def measure(url: str | None, size: int) -> None:
    """Print one row."""
    count, first = EVENTS[size], 0
    rates: dict[bool, list[float]] = {True: [], False: []}
    costs: list[float] = []
    with database(url) as with_url, database(url) as bare_url:
        stores = {True: open_store(with_url, migrate=True), False: open_store(bare_url, migrate=True)}
        for _ in range(ROUNDS):
            bodies = batches(first, count, size)
            first += count
            cpu: dict[bool, float] = {}
            for has_tree in (True, False):
                with patch("act.ledger.grown", without_tree) if not has_tree else patch("act.ledger.PAGE", 1_000):
                    wall, cpu[has_tree] = run(stores[has_tree], bodies)
                rates[has_tree].append(count / wall)
            costs.append((cpu[True] - cpu[False]) / count * 1e6)
        for store in stores.values():
            store.close()
    parts = [1 - ours / bare for ours, bare in zip(rates[True], rates[False], strict=True)]
    print(
        f"batches of {size:>3}: {statistics.median(rates[True]):>8,.0f} events/s with the tree, "
        f"{statistics.median(rates[False]):>8,.0f} without: it takes {statistics.median(parts):.1%} "
        f"({min(parts):.1%} to {max(parts):.1%}); {statistics.median(costs):.1f} us of CPU an event"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", help="of a PostgreSQL server; default: SQLite")
    given = parser.parse_args()
    for size in EVENTS:
        measure(given.database_url, size)


if __name__ == "__main__":
    main()
