"""The row that who appends keeps locked, where several processes share one database.

Revision ID: act_0002
"""

import sqlalchemy as sa
from alembic import op

revision = "act_0002"
down_revision = "act_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lock = op.create_table(
        "append_lock",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.CheckConstraint("id = 1", name="append_lock_one_row"),
    )
    op.bulk_insert(lock, [{"id": 1}])


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back: restore a backup to go back to an older release")
