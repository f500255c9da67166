"""Several towers on one database, and retention.

Who does what only one needs to do; numbers that no writer waits for; since when a job has been finished.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import CreateSequence

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(CreateSequence(sa.Sequence("job_numbers")))
        op.execute(CreateSequence(sa.Sequence("task_numbers")))

    # What is finished already has not changed since.
    op.add_column("jobs", sa.Column("finished_at", sa.BigInteger(), nullable=True))
    op.execute("UPDATE jobs SET finished_at = updated_at WHERE state IN ('done', 'failed', 'cancelled')")
    op.create_index(
        "ix_jobs_finished",
        "jobs",
        ["finished_at", "job_id"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("ix_workers_last_seen", "workers", ["last_seen"], unique=False)
