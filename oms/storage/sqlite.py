"""All that is SQLite's own in OMS. The limits of the engine itself: ``hmskit.sqlite``."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import BigInteger, bindparam, literal_column, null, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from hmskit.prepared import Prepared
from oms.storage.tables import READY, lane_counts, tasks, workers
from oms.storage.transaction import Dialect, in_list


@compiles(in_list, "sqlite")
def _in_list(element: in_list, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, parameter = element.clauses
    values = f"SELECT value FROM json_each({compiler.process(parameter, **options)})"  # noqa: S608 - compiled SQL
    return f"{compiler.process(column, **options)} IN ({values})"


_counts = insert(lane_counts).values({name: bindparam(name) for name in ("lane", "shard", "queued", "running")})
_seen = insert(workers).values({name: bindparam(name) for name in ("lane", "worker", "last_seen")})
_due = (
    select(tasks.c.task_id)
    .where(tasks.c.lane == bindparam("this_lane"), READY)
    .order_by(tasks.c.priority.desc(), tasks.c.available_at, tasks.c.task_id)
    .limit(bindparam("limit"))
)

SQLITE = Dialect(
    add_counts=Prepared(
        _counts.on_conflict_do_update(
            index_elements=["lane", "shard"],
            set_={
                "queued": lane_counts.c.queued + _counts.excluded.queued,
                "running": lane_counts.c.running + _counts.excluded.running,
            },
        ),
        ["lane", "shard", "queued", "running"],
    ),
    see_worker=Prepared(
        _seen.on_conflict_do_update(index_elements=["lane", "worker"], set_={"last_seen": _seen.excluded.last_seen}),
        ["lane", "worker", "last_seen"],
    ),
    claim=Prepared(
        update(tasks)
        .where(tasks.c.task_id.in_(_due))
        .values(
            status=literal_column("'running'"),
            attempt=tasks.c.attempt + literal_column("1"),
            # Evaluated for each row, so that every attempt has a token of its own.
            token=literal_column("lower(hex(randomblob(16)))"),
            ended_by=null(),
            worker=null(),
            progress=null(),
            note=null(),
            lease_expires_at=bindparam("now", type_=BigInteger()) + tasks.c.lease_sec * literal_column("1000"),
        )
        .returning(*tasks.c),
        ["now", "this_lane", "limit"],
    ),
    list_parameter=json.dumps,
)
