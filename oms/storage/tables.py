"""The tables of OMS. Times are milliseconds since the epoch (docs/adr/0003)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_REVISION = "0002"
"""The newest migration; a test holds it against the folder."""

metadata = MetaData()

# SQLite makes a rowid alias only of the type INTEGER; it holds 64 bits there all the same.
Id = BigInteger().with_variant(Integer, "sqlite")

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("plan", String(100), nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("reference", String(200), nullable=False),
    Column("state", String(12), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("input", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("hmac_key", LargeBinary),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    # The reference leads: it is asked for alone, too.
    Index("ux_jobs_reference_plan", "reference", "plan", unique=True),
    Index("ix_jobs_plan", "plan", "job_id"),
    Index("ix_jobs_state", "state", "job_id"),
)
FINISHED = text("finished_at IS NOT NULL")
# Not on updated_at, which every event changes: PostgreSQL would then write all indexes of the row anew each time, and
# a third fewer changes a second get through. This one is written when a job ends.
Index("ix_jobs_finished", jobs.c.finished_at, jobs.c.job_id, sqlite_where=FINISHED, postgresql_where=FINISHED)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", Id, primary_key=True, autoincrement=False),
    Column("job_id", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("activity", String(100), nullable=False),
    Column("lane", String(100), nullable=False),
    Column("status", String(12), nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("token", String(64)),
    Column("ended_by", String(12)),
    Column("worker", String(200)),
    Column("priority", Integer, nullable=False),
    Column("lease_sec", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("available_at", BigInteger, nullable=False),
    Column("lease_expires_at", BigInteger),
    Column("error", Text),
    Column("error_type", String(64)),
    Column("output_hmac", String(64)),
    Column("output", Text),
    Column("progress", Float),
    Column("note", String(500)),
)

LIVE = text("status <> 'done'")
READY = text("status = 'queued' AND ready")
WAITING = text("status = 'queued' AND NOT ready")
RUNNING = text("status = 'running'")

# Its order is the pull's order, so that a claim reads exactly what it takes, with ten tasks waiting or a million.
Index(
    "ix_tasks_ready",
    tasks.c.lane,
    tasks.c.priority.desc(),
    tasks.c.available_at,
    tasks.c.task_id,
    sqlite_where=READY,
    postgresql_where=READY,
)
Index("ix_tasks_waiting", tasks.c.available_at, sqlite_where=WAITING, postgresql_where=WAITING)
Index("ix_tasks_leases", tasks.c.lease_expires_at, sqlite_where=RUNNING, postgresql_where=RUNNING)
Index("ix_tasks_job", tasks.c.job_id)
# Lists of what is not done; what is done leaves this index, so that a task's last write is a cheap one.
Index("ix_tasks_live", tasks.c.lane, tasks.c.status, tasks.c.task_id, sqlite_where=LIVE, postgresql_where=LIVE)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("stream", String(120), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("ledger_index", BigInteger),
    Column("leaf_hash", LargeBinary),
    UniqueConstraint("stream", "seq", name="ux_outbox_place"),
    sqlite_autoincrement=True,  # without it SQLite gives the ids of deleted rows again
)
UNDELIVERED = text("NOT delivered")
Index("ix_outbox_undelivered", outbox.c.id, sqlite_where=UNDELIVERED, postgresql_where=UNDELIVERED)

stopped_streams = Table(
    "stopped_streams",
    metadata,
    Column("stream", String(120), primary_key=True),
    Column("event_id", String(140), nullable=False),
    Column("code", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
)
"""Streams whose next event ACT refuses for good. Only they stop."""

lane_counts = Table(
    "lane_counts",
    metadata,
    Column("lane", String(100), primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("queued", Integer, nullable=False),
    Column("running", Integer, nullable=False),
)
"""How many tasks of a lane are queued and running; a shard per writer, so that writers never wait for a count."""

workers = Table(
    "workers",
    metadata,
    Column("lane", String(100), primary_key=True),
    Column("worker", String(200), primary_key=True),
    Column("last_seen", BigInteger, nullable=False),
    Index("ix_workers_last_seen", "last_seen"),
)

plans = Table(
    "plans",
    metadata,
    Column("plan", String(100), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("file", String(500)),
    Column("in_force", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("plan", "digest", name="ux_plans_digest"),
)
"""Every version of every plan; at most one of each plan is in force. ``file`` is None for one that came by HTTP."""

sequences = Table(
    "sequences",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""The last number given to a job and to a task. Numbers are never given twice, also after their rows are gone.

One row that every transaction changes would make all writers wait for each other: PostgreSQL has these instead."""
NUMBERS = {name: Sequence(f"{name}_numbers", metadata=metadata) for name in ("job", "task")}

leases = Table(
    "leases",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
"""Which tower does what only one needs to do, and until when. For efficiency: two that do it do no harm."""
