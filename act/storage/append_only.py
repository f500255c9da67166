"""What makes the database itself refuse to change, remove or replace an event, whoever asks: its owner too."""

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

APPEND_ONLY = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}
"""By database: the statements that follow the table's own."""
