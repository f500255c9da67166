"""What a statement costs: executed by SQLAlchemy Core, and as a `Prepared`. ``python bench/statements.py``.

Each row: microseconds per execution inside one open transaction, the median of five rounds (docs/adr/0007).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import bindparam, insert, select

from hmskit.prepared import Prepared
from oms.storage.store import open_store
from oms.storage.tables import outbox, sequences

ROUNDS = 5
EXECUTIONS = 2_000
ROWS = 100
EVENT = ("stream", "seq", "body", "created_at", "delivered")


def median_us(work: Callable[[], None], executions: int) -> float:
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(executions):
            work()
        rounds.append((time.perf_counter() - began) / executions * 1e6)
    return statistics.median(rounds)


def main() -> None:
    look = select(sequences.c.value).where(sequences.c.name == bindparam("this_name"))
    prepared_look = Prepared(look, ["this_name"])
    add = insert(outbox).values({name: bindparam(name) for name in EVENT})
    prepared_add = Prepared(add, EVENT)
    seq = iter(range(10**9))
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'oms.db'}")
        with store.connect_writer() as connection, connection.begin():

            def core_look() -> None:
                connection.execute(look, {"this_name": "job"}).all()

            def core_add() -> None:
                rows = [
                    {"stream": "JOB-1", "seq": next(seq), "body": b"x" * 550, "created_at": 1, "delivered": False}
                    for _ in range(ROWS)
                ]
                connection.execute(add, rows)

            def driver_add() -> None:
                prepared_add.many(connection, [("JOB-1", next(seq), b"x" * 550, 1, False) for _ in range(ROWS)])

            print(f"one row read      Core {median_us(core_look, EXECUTIONS):6.1f} us", end="   ")
            print(f"Prepared {median_us(lambda: prepared_look.rows(connection, 'job'), EXECUTIONS):6.1f} us")
            print(f"{ROWS} rows written  Core {median_us(core_add, 50) / ROWS:6.1f} us a row", end="   ")
            print(f"Prepared {median_us(driver_add, 50) / ROWS:6.1f} us a row")
        store.close()


if __name__ == "__main__":
    main()
