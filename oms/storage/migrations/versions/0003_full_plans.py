"""Plans in full: where a job stands in its blocks; timers, signals, schedules; lanes with hours, caps and pauses."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _jobs()
    _tasks()
    _running_jobs()
    _lanes()
    _clocks()


def _jobs() -> None:
    op.add_column("jobs", sa.Column("parent_job", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("parent_path", sa.String(length=255), nullable=True))
    op.add_column("jobs", sa.Column("paused_at", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("paused_state", sa.String(length=12), nullable=True))
    op.add_column("jobs", sa.Column("ending", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("restarts", sa.Integer(), nullable=False, server_default=sa.text("0")))
    _index("ix_jobs_parent", "jobs", ["parent_job"], where="parent_job IS NOT NULL")


def _tasks() -> None:
    op.add_column("tasks", sa.Column("branch", sa.String(length=255), nullable=False, server_default=sa.text("''")))
    op.add_column("tasks", sa.Column("scope", sa.String(length=255), nullable=False, server_default=sa.text("''")))
    op.add_column("tasks", sa.Column("superseded", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("tasks", sa.Column("input", sa.Text(), nullable=True))
    for name in ("held_available_at", "closes_at"):
        op.add_column("tasks", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("tasks", sa.Column("batch_max", sa.Integer(), nullable=True))
    for name in ("stalls_at", "due_at", "started_at", "ended_at", "stall_from", "stalled_at", "batch_at"):
        op.add_column("tasks", sa.Column(name, sa.BigInteger(), nullable=True))
    op.drop_index("ix_tasks_job", "tasks")
    op.create_index("ix_tasks_job", "tasks", ["job_id", "scope", "superseded"], unique=False)
    _index("ix_tasks_closing", "tasks", ["closes_at"], where="status = 'queued' AND ready AND closes_at IS NOT NULL")
    batched = "status = 'queued' AND batch_at IS NOT NULL"
    _index("ix_tasks_batched", "tasks", ["lane", "batch_at"], where=batched)
    by_turn = ["lane", sa.text("priority DESC"), "batch_at", "task_id"]
    _index("ix_tasks_batch_order", "tasks", by_turn, where=batched)
    stalling = "status = 'queued' AND stalls_at IS NOT NULL AND held_available_at IS NULL"
    _index("ix_tasks_stalling", "tasks", ["lane", "stalls_at"], where=stalling)
    _index("ix_tasks_stalled", "tasks", ["task_id"], where="status = 'queued' AND stalled_at IS NOT NULL")


def _running_jobs() -> None:
    op.create_table(
        "branches",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("block", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("scope", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("item", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "path"),
    )
    op.create_index("ix_branches_block", "branches", ["job_id", "block", "state", "number"], unique=False)
    op.create_table(
        "blocks",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("begun", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("signal", sa.String(length=100), nullable=True),
        sa.Column("child_job", sa.BigInteger(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "path"),
    )
    _index("ix_blocks_signal", "blocks", ["job_id", "signal", "state", "since", "path"], where="signal IS NOT NULL")
    op.create_index("ix_blocks_scope", "blocks", ["job_id", "scope"], unique=False)
    op.create_table(
        "signals",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("signal_id", sa.String(length=200), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "signal_id", name="ux_signals_id"),
    )
    op.create_index("ix_signals_job", "signals", ["job_id", "name", "id"], unique=False)


def _lanes() -> None:
    op.create_table(
        "lane_controls",
        sa.Column("lane", sa.String(length=100), nullable=False),
        sa.Column("paused_at", sa.BigInteger(), nullable=True),
        sa.Column("paused_by", sa.String(length=200), nullable=True),
        sa.Column("pause_reason", sa.String(length=500), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("rates", sa.Text(), nullable=True),
        sa.Column("pauses", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("lane"),
    )
    op.create_table(
        "lane_turns",
        sa.Column("lane", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("lane"),
    )
    op.create_table(
        "batches",
        sa.Column("lane", sa.String(length=100), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("lane"),
    )
    op.create_table(
        "hand_outs",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("lane", sa.String(length=100), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_hand_outs_lane", "hand_outs", ["lane", "at"], unique=False)
    op.create_table(
        "durations",
        sa.Column("plan", sa.String(length=100), nullable=False),
        sa.Column("activity", sa.String(length=100), nullable=False),
        sa.Column("lane", sa.String(length=100), nullable=False),
        sa.Column("wait_ms", sa.Text(), nullable=False),
        sa.Column("work_ms", sa.Text(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("plan", "activity", "lane"),
    )
    op.create_table(
        "ways",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("plan", sa.String(length=100), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("way", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("ix_ways_plan", "ways", ["plan", "finished_at", "job_id"], unique=False)


def _clocks() -> None:
    op.create_table(
        "timers",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_timers_due", "timers", ["due_at", "id"], unique=False)
    op.create_index("ix_timers_job", "timers", ["job_id", "path"], unique=False)
    op.create_table(
        "schedules",
        sa.Column("plan", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cron", sa.String(length=200), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("plan", "number"),
    )
    op.create_index("ix_schedules_next", "schedules", ["next_at"], unique=False)


def _index(name: str, table: str, columns: list[Any], *, where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
