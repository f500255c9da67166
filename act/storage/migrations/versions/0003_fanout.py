"""How far the ledger has been published to a broker, and who publishes now.

Revision ID: act_0003
"""

import sqlalchemy as sa
from alembic import op

revision = "act_0003"
down_revision = "act_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fanout",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text()),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("position >= 0", name="fanout_position"),
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back: restore a backup to go back to an older release")
