"""What makes the database itself refuse to change, remove or replace what it keeps, whoever asks: its owner too.

What it keeps are the events, the full tiles of the tree over them, the checkpoints that were signed, and the events
that were refused as forks.
"""

from __future__ import annotations

_SQLITE = (
    """
    CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events is append-only: no row is ever changed'); END
    """,
    """
    CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events is append-only: no row is ever removed'); END
    """,
    # INSERT OR REPLACE removes the row in its way without firing the trigger above, so it must never find one.
    """
    CREATE TRIGGER events_no_replace BEFORE INSERT ON events
    WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM events)
    OR EXISTS (SELECT 1 FROM events WHERE stream = NEW.stream AND seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'events is append-only: a row goes to the next idx, and to a free place'); END
    """,
)

_POSTGRESQL = (
    """
    CREATE FUNCTION events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = 'events is append-only: no row is ever '
            || CASE TG_OP WHEN 'UPDATE' THEN 'changed' ELSE 'removed' END;
    END $$
    """,
    # Once a statement: it fires for ON CONFLICT DO UPDATE and MERGE too, and where no row is met.
    """
    CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_refuse()
    """,
    # A session that says it is a replica (session_replication_role) passes by ordinary triggers.
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

_SQLITE_FORKS = (
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

_POSTGRESQL_FORKS = (  # after the tiles, too
    """
    CREATE TRIGGER forks_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON forks
    FOR EACH STATEMENT EXECUTE FUNCTION kept_refuse()
    """,
    "ALTER TABLE forks ENABLE ALWAYS TRIGGER forks_append_only",
)

APPEND_ONLY: dict[str, dict[str, tuple[str, ...]]] = {
    "events": {"sqlite": _SQLITE, "postgresql": _POSTGRESQL},
    "tiles": {"sqlite": _SQLITE_TILES, "postgresql": _POSTGRESQL_TILES},
    "checkpoints": {"sqlite": _SQLITE_CHECKPOINTS, "postgresql": _POSTGRESQL_CHECKPOINTS},
    "forks": {"sqlite": _SQLITE_FORKS, "postgresql": _POSTGRESQL_FORKS},
}
"""By table and database: the statements that follow the table's own."""
