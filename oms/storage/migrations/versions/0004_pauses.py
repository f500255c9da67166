"""A job that a manager has paused is told from one that only a failure has."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # Of what is paused already nobody knows who did it: it goes on as it did before.
    op.add_column("jobs", sa.Column("needs_resume", sa.Boolean(), nullable=False, server_default=sa.false()))
