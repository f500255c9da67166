"""The Merkle tree over the events, and the checkpoints that are signed of it.

Only the tables: the tree of a ledger that has events already is built page by page while the service runs.

Revision ID: act_0004
"""

import sqlalchemy as sa
from alembic import op

revision = "act_0004"
down_revision = "act_0003"
branch_labels = None
depends_on = None

# Frozen here: a migration must do tomorrow what it did today.
_SQLITE_TILES = (
    """
    CREATE TRIGGER tiles_no_update BEFORE UPDATE ON tiles
    BEGIN SELECT RAISE(ABORT, 'tiles is append-only: no row is ever changed'); END
    """,
    """
    CREATE TRIGGER tiles_no_delete BEFORE DELETE ON tiles
    BEGIN SELECT RAISE(ABORT, 'tiles is append-only: no row is ever removed'); END
    """,
    """
    CREATE TRIGGER tiles_no_replace BEFORE INSERT ON tiles
    WHEN EXISTS (SELECT 1 FROM tiles WHERE level = NEW.level AND number = NEW.number)
    BEGIN SELECT RAISE(ABORT, 'tiles is append-only: a full tile is written once'); END
    """,
)

_SQLITE_CHECKPOINTS = (
    """
    CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
    BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only: no row is ever changed'); END
    """,
    """
    CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
    BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only: no row is ever removed'); END
    """,
    # Of one size there may be several, by different keys, and all of one root.
    """
    CREATE TRIGGER checkpoints_forward BEFORE INSERT ON checkpoints
    WHEN EXISTS (SELECT 1 FROM checkpoints WHERE size > NEW.size)
    OR EXISTS (SELECT 1 FROM checkpoints WHERE size = NEW.size AND (key = NEW.key OR root <> NEW.root))
    BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only: none contradicts an earlier one, or goes back'); END
    """,
)

_POSTGRESQL_REFUSE = """
    CREATE FUNCTION kept_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = TG_TABLE_NAME || ' is append-only: no row is '
            || 'ever ' || CASE TG_OP WHEN 'UPDATE' THEN 'changed' ELSE 'removed' END;
    END $$
    """

_POSTGRESQL_TILES = (
    _POSTGRESQL_REFUSE,
    """
    CREATE TRIGGER tiles_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tiles
    FOR EACH STATEMENT EXECUTE FUNCTION kept_refuse()
    """,
    "ALTER TABLE tiles ENABLE ALWAYS TRIGGER tiles_append_only",
)

_POSTGRESQL_CHECKPOINTS = (  # after the tiles, whose function it shares
    """
    CREATE TRIGGER checkpoints_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION kept_refuse()
    """,
    "ALTER TABLE checkpoints ENABLE ALWAYS TRIGGER checkpoints_append_only",
    """
    CREATE FUNCTION checkpoints_forward() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM checkpoints WHERE size > NEW.size)
        OR EXISTS (SELECT 1 FROM checkpoints WHERE size = NEW.size AND root <> NEW.root) THEN
            RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
                MESSAGE = 'checkpoints is append-only: none contradicts an earlier one, or goes back';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER checkpoints_forward BEFORE INSERT ON checkpoints
    FOR EACH ROW EXECUTE FUNCTION checkpoints_forward()
    """,
    "ALTER TABLE checkpoints ENABLE ALWAYS TRIGGER checkpoints_forward",
)


def upgrade() -> None:
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    tree = op.create_table(
        "tree",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("peaks", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name="tree_one_row"),
    )
    op.bulk_insert(tree, [{"id": 1, "size": 0, "peaks": b""}])
    op.create_table(
        "tiles",
        sa.Column("level", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("length(hashes) = 8192", name="tiles_hashes"),
        sa.CheckConstraint("length(root) = 32", name="tiles_root"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("key", key, primary_key=True),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("signed_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("size >= 0", name="checkpoints_size"),
        sa.CheckConstraint("length(root) = 32", name="checkpoints_root"),
    )
    signing = op.create_table(
        "signing",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("holder", sa.Text()),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="signing_one_row"),
    )
    op.bulk_insert(signing, [{"id": 1, "holder": None, "lease_until_ms": 0}])
    for statement in (
        (*_SQLITE_TILES, *_SQLITE_CHECKPOINTS) if is_sqlite else (*_POSTGRESQL_TILES, *_POSTGRESQL_CHECKPOINTS)
    ):
        op.execute(sa.text(statement))


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back: restore a backup to go back to an older release")
