"""The ledger: events, which nothing changes or removes, and what is derived from them.

Revision ID: act_0001
"""

import sqlalchemy as sa
from alembic import op

revision = "act_0001"
down_revision = None
branch_labels = None
depends_on = None

# Frozen here: a migration must do tomorrow what it did today.
_APPEND_ONLY_SQLITE = (
    """
    CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events is append-only: no row is ever changed'); END
    """,
    """
    CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events is append-only: no row is ever removed'); END
    """,
    """
    CREATE TRIGGER events_no_replace BEFORE INSERT ON events
    WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM events)
    OR EXISTS (SELECT 1 FROM events WHERE stream = NEW.stream AND seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'events is append-only: a row goes to the next idx, and to a free place'); END
    """,
)

_APPEND_ONLY_POSTGRESQL = (
    """
    CREATE FUNCTION events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = 'events is append-only: no row is ever '
            || CASE TG_OP WHEN 'UPDATE' THEN 'changed' ELSE 'removed' END;
    END $$
    """,
    """
    CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_refuse()
    """,
    "ALTER TABLE events ENABLE ALWAYS TRIGGER events_append_only",
    """
    CREATE FUNCTION events_next() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.idx IS DISTINCT FROM (SELECT coalesce(max(idx) + 1, 0) FROM events) THEN
            RAISE EXCEPTION USING ERRCODE = 'unique_violation',
                MESSAGE = 'events is append-only: a row goes to the next idx, and to a free place';
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER events_next BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION events_next()",
    "ALTER TABLE events ENABLE ALWAYS TRIGGER events_next",
)


def upgrade() -> None:
    big_key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "events",
        sa.Column("idx", big_key, primary_key=True, autoincrement=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("stream", key, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("ts_ms", sa.BigInteger(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("status", key, nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("lane", key),
        sa.Column("plan", sa.Text()),
        sa.Column("plan_version", sa.BigInteger()),
        sa.Column("reference", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("activity", sa.Text()),
        sa.Column("attempt", sa.BigInteger()),
        sa.Column("worker", sa.Text()),
        sa.Column("actor", sa.Text()),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("extra", sa.Text()),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("stream", "seq", name="events_place"),
        sa.CheckConstraint("idx >= 0", name="events_idx"),
        sa.CheckConstraint("seq >= 1", name="events_seq"),
        sa.CheckConstraint("length(leaf_hash) = 32", name="events_leaf_hash"),
    )
    op.create_index("events_by_lane", "events", ["lane", "status", "idx"], postgresql_include=["ts_ms"])
    op.create_index("events_by_status", "events", ["status", "idx"], postgresql_include=["ts_ms"])
    for statement in _APPEND_ONLY_SQLITE if is_sqlite else _APPEND_ONLY_POSTGRESQL:
        op.execute(sa.text(statement))
    op.create_table(
        "heads",
        sa.Column("stream", key, primary_key=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "blocks",
        sa.Column("block", big_key, primary_key=True, autoincrement=False),
        sa.Column("min_ts_ms", sa.BigInteger(), nullable=False),
        sa.Column("max_ts_ms", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back: restore a backup to go back to an older release")
