"""Every statement that the verbs run is a lookup along an index, whatever PostgreSQL's statistics say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import text

from hmskit.prepared import Prepared
from hmskit.usual_rows import UsualRows
from oms.storage import (
    batches,
    control_rows,
    jobs,
    lane_controls,
    lane_pauses,
    outbox,
    plans,
    postgres,
    schedules,
    stalls,
    tasks,
    transaction,
    windows,
    written_rows,
)
from oms.storage.store import open_store
from tests.databases import Databases

MODULES = (
    jobs,
    outbox,
    plans,
    tasks,
    transaction,
    postgres,
    batches,
    control_rows,
    lane_controls,
    lane_pauses,
    schedules,
    stalls,
    windows,
    written_rows,
)
ROWS = 20_000


def prepared() -> dict[str, Prepared]:
    """Return every prepared statement of the storage, by where it stands."""
    found: dict[str, Prepared] = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, dict):
                items: Iterator[tuple[str, Any]] = iter((f"{name}[{key}]", item) for key, item in value.items())
            elif isinstance(value, transaction.Dialect):
                items = iter((f"{name}.{field}", getattr(value, field)) for field in value.__slots__)
            else:
                items = iter([(name, value)])
            wholes = ((key, item._whole if isinstance(item, UsualRows) else item) for key, item in items)
            found.update((f"{module.__name__}.{key}", item) for key, item in wholes if isinstance(item, Prepared))
    return found


def generic_plan(connection: Any, statement: Prepared) -> str:
    """Return the plan that PostgreSQL makes once, before it knows the parameters."""
    dialect = connection.dialect
    whole = statement._of_arrays
    compiled = statement._for(dialect) if whole is None else statement._compile(whole, dialect)
    numbers = iter(range(1, 100))
    sql = re.sub(r"%s", lambda _match: f"${next(numbers)}", compiled.sql)
    nulls = ", ".join(["NULL"] * (next(numbers) - 1))
    connection.exec_driver_sql(f"PREPARE looked_at AS {sql}")
    rows = connection.exec_driver_sql(f"EXPLAIN EXECUTE looked_at({nulls})" if nulls else "EXPLAIN EXECUTE looked_at")
    plan = "\n".join(row[0] for row in rows)
    connection.exec_driver_sql("DEALLOCATE looked_at")
    return plan


def test_no_statement_of_the_verbs_reads_a_table_or_a_whole_index(databases: Databases) -> None:
    with databases.lend("postgres", "oms") as database:
        store = open_store(database.url)
        try:
            with store.connect_writer() as connection, connection.begin():
                # A table that was analyzed when it was large and almost all done, as it is in a site's life.
                connection.execute(
                    text(
                        "INSERT INTO jobs SELECT n, 'p', 1, 'T-' || n, 'done', 0, '{}', 3, 9, NULL, NULL, n, n, n "
                        f"FROM generate_series(1, {ROWS}) AS n"
                    )
                )
                connection.execute(
                    text(
                        "INSERT INTO tasks (task_id, job_id, position, activity, lane, status, ready, attempt, "
                        "failures, priority, lease_sec, created_at, available_at) "
                        "SELECT n, n, 0, 'a', 'l', CASE WHEN n % 100 = 0 THEN 'queued' ELSE 'done' END, true, 1, "
                        f"0, 0, 1, n, n FROM generate_series(1, {ROWS}) AS n"
                    )
                )
                connection.execute(text("ANALYZE"))
            found = prepared()
            assert len(found) > 15
            with store.connect_writer() as connection:
                plans_found = {name: generic_plan(connection, statement) for name, statement in found.items()}
        finally:
            store.close()
    for name, plan in plans_found.items():
        assert "Seq Scan" not in plan, f"{name}\n{plan}"
        for line, following in zip(plan.splitlines(), [*plan.splitlines()[1:], ""], strict=True):
            if re.search(r"Index (Only )?Scan using (?!ix_tasks_(waiting|leases))", line) and "LIMIT" not in plan:
                assert "Index Cond" in following or "Limit" in plan, f"{name} walks a whole index\n{plan}"
    claim = plans_found["oms.storage.postgres.POSTGRES.claim"]
    assert "ix_tasks_ready" in claim, claim
    assert "Sort" not in claim, claim


def test_the_check_sees_a_plan_that_reads_a_table(databases: Databases) -> None:
    """Without the planner's settings a small table is read as a whole: the check would turn red."""
    with databases.lend("postgres", "oms") as database:
        store = open_store(database.url)
        try:
            with store.connect_writer() as connection:
                connection.exec_driver_sql("SET enable_seqscan = on")
                connection.exec_driver_sql("SET enable_indexscan = off")
                plan = generic_plan(connection, jobs._LOCK)
        finally:
            store.close()
    assert "Seq Scan" in plan
