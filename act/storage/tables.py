"""The ledger's tables, as the newest migration leaves them. A test holds the two equal.

``events`` is the ledger: the database itself refuses to change or remove its rows (the triggers of `sqlite`).
The other tables are derived from it and could be built again from it.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
)

from act.storage import sqlite

SCHEMA_REVISION = "act_0001"
"""The revision that this code needs. The service's name is in it: a database of OMS is never taken for a ledger."""

BLOCK_EVENTS = 1024
"""How many events one row of ``blocks`` sums up."""

metadata = MetaData()

events = Table(
    "events",
    metadata,
    # SQLite's own row number is the index only where the type reads INTEGER.
    Column("idx", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("received_us", BigInteger, nullable=False),
    Column("stream", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("ts_ms", BigInteger, nullable=False),
    Column("entity", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("job_id", Text),
    Column("lane", Text),
    Column("plan", Text),
    Column("plan_version", BigInteger),
    Column("reference", Text),
    Column("task_id", Text),
    Column("activity", Text),
    Column("attempt", BigInteger),
    Column("worker", Text),
    Column("actor", Text),
    Column("detail", Text, nullable=False),
    Column("extra", Text),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    UniqueConstraint("stream", "seq", name="events_place"),
    CheckConstraint("idx >= 0", name="events_idx"),
    CheckConstraint("seq >= 1", name="events_seq"),
    CheckConstraint("length(leaf_hash) = 32", name="events_leaf_hash"),
)

# Each ends with the index, so that a page of a filtered read starts where the last one ended and is in order.
Index("events_by_lane", events.c.lane, events.c.status, events.c.idx)
Index("events_by_status", events.c.status, events.c.idx)

heads = Table(
    "heads",
    metadata,
    # The last seq of each stream: what the next event of the stream is checked against.
    Column("stream", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

blocks = Table(
    "blocks",
    metadata,
    # The times in each full block of BLOCK_EVENTS events, so that a read of a span of time skips the others.
    # Events come nearly in the order of their times, but only nearly: an index on the time could not give pages in
    # the ledger's order, and a search for the first index of a time could miss a straggler.
    Column("block", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("min_ts_ms", BigInteger, nullable=False),
    Column("max_ts_ms", BigInteger, nullable=False),
)

for statement in sqlite.APPEND_ONLY:
    event.listen(
        events,
        "after_create",
        DDL(statement).execute_if(dialect="sqlite"),  # type: ignore[no-untyped-call]
    )
