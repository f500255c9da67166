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
    false,
    text,
)

SCHEMA_REVISION = "0004"
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
    Column("parent_job", BigInteger),
    Column("parent_path", String(255)),
    Column("paused_at", BigInteger),
    Column("paused_state", String(12)),
    Column("ending", Text),
    Column("restarts", Integer, nullable=False, server_default=text("0")),
    Column("needs_resume", Boolean, nullable=False, server_default=false()),
    # The reference leads: it is asked for alone, too.
    Index("ux_jobs_reference_plan", "reference", "plan", unique=True),
    Index("ix_jobs_plan", "plan", "job_id"),
    Index("ix_jobs_state", "state", "job_id"),
)
FINISHED = text("finished_at IS NOT NULL")
# Not on updated_at, which every event changes: PostgreSQL would then write all indexes of the row anew each time, and
# a third fewer changes a second get through. This one is written when a job ends.
Index("ix_jobs_finished", jobs.c.finished_at, jobs.c.job_id, sqlite_where=FINISHED, postgresql_where=FINISHED)
CHILDREN = text("parent_job IS NOT NULL")
Index("ix_jobs_parent", jobs.c.parent_job, sqlite_where=CHILDREN, postgresql_where=CHILDREN)

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
    Column("branch", String(255), nullable=False, server_default=text("''")),
    Column("scope", String(255), nullable=False, server_default=text("''")),
    Column("superseded", Boolean, nullable=False, server_default=false()),
    Column("input", Text),
    Column("held_available_at", BigInteger),
    Column("closes_at", BigInteger),
    Column("batch_max", Integer),
    Column("stalls_at", BigInteger),
    Column("due_at", BigInteger),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("stall_from", BigInteger),
    Column("stalled_at", BigInteger),
    Column("batch_at", BigInteger),
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
# What counts no more stands apart: a round of a job reads no more of it after a thousand rounds.
Index("ix_tasks_job", tasks.c.job_id, tasks.c.scope, tasks.c.superseded)
# Lists of what is not done; what is done leaves this index, so that a task's last write is a cheap one.
Index("ix_tasks_live", tasks.c.lane, tasks.c.status, tasks.c.task_id, sqlite_where=LIVE, postgresql_where=LIVE)

# Only tasks of lanes with hours, batches or a limit on waiting are in these.
CLOSING = text("status = 'queued' AND ready AND closes_at IS NOT NULL")
BATCHED = text("status = 'queued' AND batch_at IS NOT NULL")
STALLING = text("status = 'queued' AND stalls_at IS NOT NULL AND held_available_at IS NULL")
STALLED = text("status = 'queued' AND stalled_at IS NOT NULL")
Index("ix_tasks_closing", tasks.c.closes_at, sqlite_where=CLOSING, postgresql_where=CLOSING)
Index("ix_tasks_batched", tasks.c.lane, tasks.c.batch_at, sqlite_where=BATCHED, postgresql_where=BATCHED)
# In the order in which a batch takes them.
Index(
    "ix_tasks_batch_order",
    tasks.c.lane,
    tasks.c.priority.desc(),
    tasks.c.batch_at,
    tasks.c.task_id,
    sqlite_where=BATCHED,
    postgresql_where=BATCHED,
)
Index("ix_tasks_stalling", tasks.c.lane, tasks.c.stalls_at, sqlite_where=STALLING, postgresql_where=STALLING)
Index("ix_tasks_stalled", tasks.c.task_id, sqlite_where=STALLED, postgresql_where=STALLED)

branches = Table(
    "branches",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("path", String(255), primary_key=True),
    Column("block", String(255), nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", String(200), nullable=False),
    Column("scope", String(255), nullable=False),
    Column("state", String(12), nullable=False),
    Column("position", Integer, nullable=False),
    Column("task_id", BigInteger),
    Column("item", Text),
    Column("output", Text),
    Index("ix_branches_block", "job_id", "block", "state", "number"),
)
"""Where a running job stands inside its blocks: a row for each run of a list of steps. The sequence itself has none."""

blocks = Table(
    "blocks",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("path", String(255), primary_key=True),
    Column("scope", String(255), nullable=False),
    Column("kind", String(12), nullable=False),
    Column("name", String(100)),
    Column("state", String(12), nullable=False),
    Column("total", Integer, nullable=False),
    Column("wanted", Integer, nullable=False),
    Column("begun", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("signal", String(100)),
    Column("child_job", BigInteger),
    Column("output", Text),
    Index("ix_blocks_scope", "job_id", "scope"),
)
"""The blocks of a running job: a row for each that has begun; one that is done stays where its output has a name."""
SIGNALLED = text("signal IS NOT NULL")
Index(
    "ix_blocks_signal",
    blocks.c.job_id,
    blocks.c.signal,
    blocks.c.state,
    blocks.c.since,
    blocks.c.path,
    sqlite_where=SIGNALLED,
    postgresql_where=SIGNALLED,
)

signals = Table(
    "signals",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("job_id", BigInteger, nullable=False),
    Column("name", String(100), nullable=False),
    Column("signal_id", String(200)),
    Column("data", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_by", String(255)),
    UniqueConstraint("job_id", "signal_id", name="ux_signals_id"),
    Index("ix_signals_job", "job_id", "name", "id"),
)
"""What came for a job from outside; ``used_by`` is the path of the wait that it served."""

timers = Table(
    "timers",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("due_at", BigInteger, nullable=False),
    Column("job_id", BigInteger, nullable=False),
    Column("path", String(255), nullable=False),
    Column("kind", String(12), nullable=False),
    Index("ix_timers_due", "due_at", "id"),
    Index("ix_timers_job", "job_id", "path"),
)
"""What is to be done for a job, and when. A row goes in the transaction that does it: so it is done once."""

lane_controls = Table(
    "lane_controls",
    metadata,
    Column("lane", String(100), primary_key=True),
    Column("paused_at", BigInteger),
    Column("paused_by", String(200)),
    Column("pause_reason", String(500)),
    Column("seq", Integer, nullable=False),
    Column("max_running", Integer),
    Column("rates", Text),
    Column("pauses", Text),
)
"""Lanes that are paused or capped, and those that ever were paused: ``seq`` counts the events of the lane's stream.

``rates`` is a JSON list of ``[tasks, per_sec]``, each of which holds; None where there is none. ``pauses`` has the last
pauses that are over, as JSON: ``[[from, to], ...]``, the newest last."""
CONTROLLED = text("(paused_at IS NOT NULL OR max_running IS NOT NULL OR rates IS NOT NULL)")

lane_turns = Table("lane_turns", metadata, Column("lane", String(100), primary_key=True))
"""A row for each lane with a cap: whoever hands out of the lane holds its lock, so that the next one counts right.

Apart from `lane_controls`, so that a manager who pauses a busy lane need not get in between those who hand out."""

batches = Table(
    "batches",
    metadata,
    Column("lane", String(100), primary_key=True),
    Column("opened_at", BigInteger, nullable=False),
    Column("taken", Integer, nullable=False),
)
"""The last batch of each lane that had one: its time, and how many tasks it holds so far. The row is its lock."""

hand_outs = Table(
    "hand_outs",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("lane", String(100), nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_hand_outs_lane", "lane", "at"),
)
"""When tasks of lanes with a rate were handed out, for as long as that counts."""

schedules = Table(
    "schedules",
    metadata,
    Column("plan", String(100), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("cron", String(200), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("reference", String(200), nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Index("ix_schedules_next", "next_at"),
)
"""When the schedules of the plans in force fire next; ``number`` is the place in the plan's list."""

durations = Table(
    "durations",
    metadata,
    Column("plan", String(100), primary_key=True),
    Column("activity", String(100), primary_key=True),
    Column("lane", String(100), primary_key=True),
    Column("wait_ms", Text, nullable=False),
    Column("work_ms", Text, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
"""What the last tasks of an activity took in a lane: lists of milliseconds, the newest last. For estimates only."""

ways = Table(
    "ways",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("plan", String(100), nullable=False),
    Column("finished_at", BigInteger, nullable=False),
    Column("way", Text, nullable=False),
    Index("ix_ways_plan", "plan", "finished_at", "job_id"),
)
"""What the last jobs of each plan that were done went through, as JSON; no value of theirs. For estimates only."""

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
