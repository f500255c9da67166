"""PostgreSQL as a store that any number of processes share.

What is particular about it, and what is done about it:

* Statements of the writers are lookups along an index. Their plans are made once, and must not depend on statistics
  that were gathered while a queue was empty: the planner is told to keep to the indexes (`KEEP_TO_INDEXES`).
* A connection may break at any moment, also while a COMMIT is on its way: nobody knows then whether it was kept.
  What was not acknowledged may be asked again, for every verb is idempotent.
* Two transactions may wait for each other, or insert the same key: one of them is told, and runs again.
* A session that was stopped (a frozen machine) must not hold its locks for ever. The server ends it, with an exception:
  where the driver sent statements as a pipeline, a Flush follows its last Sync, and that message stops the server's
  timer. So whoever shares the database looks for such sessions, too (`end_stuck_sessions`).
* A network may swallow everything without a word: a server's machine that lost its power. Left to itself, the system
  would wait for a quarter of an hour, and as long again after the network is back (`SILENCE`).

It needs PostgreSQL 13 or newer, and a session of its own for each connection: a pooler between must pool sessions,
not transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from hmskit.errors import CannotOpenError, leave_details_out

OLDEST_VERSION = 130_000
"""The first with ``gen_random_uuid()`` built in."""
CONNECT_TIMEOUT_SEC = 5
STATEMENT_TIMEOUT_MS = 30_000
IDLE_IN_TRANSACTION_MS = 15_000
"""After so long a session that holds locks and does nothing is ended by the server."""
SILENCE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""How long the other side may leave packets unanswered before the connection counts as lost; seconds, the last one
milliseconds. A server that works on a long statement answers them. A URL's own parameters go before these."""
PREPARE_AFTER = 2
"""How often a statement is run before the driver prepares it on the server."""

KEEP_TO_INDEXES = (
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",  # what the planner may not do costs 1e10, and so it would be compiled first: 10 ms
    "SET enable_sort = off",
    "SET plan_cache_mode = force_generic_plan",
)
"""For connections whose statements are all lookups along an index: one plan, made once, whatever the statistics say."""

_PASSING = {
    "08": "the connection to the database is lost",
    "53": "the database has no connections, memory or disk left",
    "57014": "the database took too long, maybe because another transaction holds a lock",
    "57": "the database is stopping, starting or ended the session",
    "58": "the database's disk answers with errors",
    "25006": "the database only takes reads now (a standby?)",
    "25P03": "the database ended a session that was idle for too long",
    "40": "another transaction was in the way",
    "55P03": "another transaction holds the lock",
}
"""SQLSTATE codes and classes that pass by themselves: https://www.postgresql.org/docs/current/errcodes-appendix.html."""
_END_STUCK = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = ANY(:applications) AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid() "
    "AND state_change < clock_timestamp() - :limit_ms * interval '1 millisecond'"
)
_AGAIN = ("40", "23505", "08", "57P01", "25P03")
"""Serialization failure, deadlock; a unique key that another transaction took in the same moment; a connection that
broke or was ended: a new one may be there."""


def engine_of(url: URL, *, connections: int, application: str, writes: bool, session: Sequence[str] = ()) -> Engine:
    """Return an engine of at most ``connections`` connections.

    Args:
        url: ``postgresql+psycopg://...``.
        connections: a thread each.
        application: what ``pg_stat_activity`` shows.
        writes: False: every transaction is read-only and sees one moment of the database.
        session: what else each session begins with.

    Raises:
        CannotOpenError: the driver is not installed.
    """
    try:
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=not writes,  # a writer finds out by itself, and runs its batch again
            hide_parameters=True,  # an error's text goes into the log, and the values are the citizens'
            paramstyle="format",  # positional: `hmskit.prepared` passes rows as tuples
            isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SEC,
                "application_name": application,
                "prepare_threshold": PREPARE_AFTER,
                **{name: value for name, value in SILENCE.items() if name not in url.query},
            },
        )
    except ModuleNotFoundError:
        raise CannotOpenError(
            "the PostgreSQL driver is not installed: pip install 'hms-orchestration[postgres]'"
        ) from None

    @event.listens_for(engine, "connect")
    def _set_up(driver: Any, _record: object) -> None:  # noqa: ANN401 - the driver's connection
        with driver.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
            if writes:
                cursor.execute("SET synchronous_commit = on")
                for statement in KEEP_TO_INDEXES:
                    cursor.execute(statement)
            else:
                cursor.execute("SET default_transaction_read_only = on")
            for statement in session:
                cursor.execute(statement)
        driver.commit()

    @event.listens_for(engine, "handle_error")
    def _leave_values_out(context: ExceptionContext) -> None:
        leave_details_out(context.original_exception)
        if context.sqlalchemy_exception is not None:
            context.sqlalchemy_exception.args = (str(context.original_exception),)

    return engine


def check_version(connection: Connection) -> None:
    """Check that the server and its database can be used.

    Raises:
        CannotOpenError: it is too old, or the database cannot hold every text.
    """
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if version < OLDEST_VERSION:
        raise CannotOpenError(
            f"the PostgreSQL server is version {version // 10_000}; {OLDEST_VERSION // 10_000} or newer is needed"
        )
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise CannotOpenError(
            f"the database keeps texts as {encoding}, and names may hold any character: "
            "create one with ENCODING 'UTF8' TEMPLATE template0"
        )


def end_stuck_sessions(connection: Connection, *, applications: Sequence[str]) -> int:
    """End our sessions that have held a transaction open, and done nothing, for longer than they may.

    Needs no privilege: one may end sessions of one's own role, and sees no others' state.

    Args:
        connection: any of the same role and database.
        applications: of `engine_of`.

    Returns:
        How many were ended.
    """
    found = connection.execute(_END_STUCK, {"applications": list(applications), "limit_ms": IDLE_IN_TRANSACTION_MS})
    return int(found.scalar_one())


def shown(url: URL) -> str:
    """Return the URL as messages show it: without a password, and without parameters, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def why_unavailable(error: DBAPIError) -> str | None:
    """Return why the database cannot take it now, in words; None where the statement itself is at fault."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None:
        # No answer from a server: none is there, or the connection broke.
        is_lost = isinstance(error, OperationalError) or type(error.orig).__name__ == "OperationalError"
        return "the database cannot be reached" if is_lost else None
    return _PASSING.get(state) or _PASSING.get(state[:2])


def may_run_again(error: DBAPIError) -> bool:
    """Whether a transaction that failed so, before its commit, may succeed when it is run again at once."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None:
        return why_unavailable(error) is not None
    return state.startswith(_AGAIN)
