"""The events that were refused as forks are kept: a count since the start forgets them.

Revision ID: act_0005
"""

import sqlalchemy as sa
from alembic import op

revision = "act_0005"
down_revision = "act_0004"
branch_labels = None
depends_on = None

# Frozen here: a migration must do tomorrow what it did today.
_SQLITE = (
    """
    CREATE TRIGGER forks_no_update BEFORE UPDATE ON forks
    BEGIN SELECT RAISE(ABORT, 'forks is append-only: no row is ever changed'); END
    """,
    """
    CREATE TRIGGER forks_no_delete BEFORE DELETE ON forks
    BEGIN SELECT RAISE(ABORT, 'forks is append-only: no row is ever removed'); END
    """,
    """
    CREATE TRIGGER forks_no_replace BEFORE INSERT ON forks
    WHEN NEW.number IS NOT (SELECT coalesce(max(number) + 1, 0) FROM forks)
    OR EXISTS (SELECT 1 FROM forks WHERE stream = NEW.stream AND seq = NEW.seq AND sha256 = NEW.sha256)
    BEGIN SELECT RAISE(ABORT, 'forks is append-only: a row has the next number, and bytes that are new there'); END
    """,
)

_POSTGRESQL = (  # the function is act_0004's
    """
    CREATE TRIGGER forks_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON forks
    FOR EACH STATEMENT EXECUTE FUNCTION kept_refuse()
    """,
    "ALTER TABLE forks ENABLE ALWAYS TRIGGER forks_append_only",
)


def upgrade() -> None:
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "forks",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("stream", key, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("idx", sa.BigInteger()),
        sa.Column("refused_us", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("event", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("stream", "seq", "sha256", name="forks_once"),
        sa.CheckConstraint("length(sha256) = 32", name="forks_sha256"),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(sa.text(statement))


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back: restore a backup to go back to an older release")
