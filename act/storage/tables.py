"""The ledger's tables, as the newest migration leaves them. A test holds the two equal.

``events`` is the ledger: the database itself refuses to change or remove its rows (`append_only`), and those of
``tiles``, ``checkpoints`` and ``forks``. ``heads``, ``blocks``, ``tree`` and ``tiles`` are derived from the events and
could be built again from them.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
)

from act.storage.append_only import APPEND_ONLY

SCHEMA_REVISION = "act_0005"
"""The revision that this code needs. The service's name is in it: a database of OMS is never taken for a ledger."""

LOCK_ID = 1
"""The key of the one row of ``append_lock``."""

TREE_ID = 1
"""The key of the one row of ``tree``."""

SIGNING_ID = 1
"""The key of the one row of ``signing``."""

BLOCK_EVENTS = 1024
"""How many events one row of ``blocks`` sums up."""

# Compared and ordered by its bytes on every database; PostgreSQL would ask the server's language.
_KEY = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite's own row number is the key only where the type reads INTEGER.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("idx", _NUMBER, primary_key=True, autoincrement=False),
    Column("received_us", BigInteger, nullable=False),
    Column("stream", _KEY, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("ts_ms", BigInteger, nullable=False),
    Column("entity", Text, nullable=False),
    Column("status", _KEY, nullable=False),
    Column("job_id", Text),
    Column("lane", _KEY),
    Column("plan", Text),
    Column("plan_version", BigInteger),
    Column("reference", Text),
    Column("task_id", Text),
    Column("activity", Text),
    Column("attempt", BigInteger),
    Column("worker", Text),
    Column("actor", Text),
    Column("detail", Text, nullable=False),
    Column("extra", Text),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    UniqueConstraint("stream", "seq", name="events_place"),
    CheckConstraint("idx >= 0", name="events_idx"),
    CheckConstraint("seq >= 1", name="events_seq"),
    CheckConstraint("length(leaf_hash) = 32", name="events_leaf_hash"),
)

# Each ends with the index, so that a page of a filtered read starts where the last one ended and is in order.
# PostgreSQL would rather walk the primary key and filter, where it guesses that enough will match; with the time in it,
# the index alone answers, and is always cheaper.
Index("events_by_lane", events.c.lane, events.c.status, events.c.idx, postgresql_include=["ts_ms"])
Index("events_by_status", events.c.status, events.c.idx, postgresql_include=["ts_ms"])

heads = Table(
    "heads",
    metadata,
    # The last seq of each stream: what the next event of the stream is checked against.
    Column("stream", _KEY, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

blocks = Table(
    "blocks",
    metadata,
    # The times in each full block of BLOCK_EVENTS events, so that a read of a span of time skips the others.
    # Events come nearly in the order of their times, but only nearly: an index on the time could not give pages in
    # the ledger's order, and a search for the first index of a time could miss a straggler.
    Column("block", _NUMBER, primary_key=True, autoincrement=False),
    Column("min_ts_ms", BigInteger, nullable=False),
    Column("max_ts_ms", BigInteger, nullable=False),
)

append_lock = Table(
    "append_lock",
    metadata,
    # One row, which who appends keeps locked where several processes can: `postgres`.
    Column("id", Integer, primary_key=True, autoincrement=False),
    CheckConstraint(f"id = {LOCK_ID}", name="append_lock_one_row"),
)

fanout = Table(
    "fanout",
    metadata,
    # How far the ledger has been published to a broker's exchange, and who does it now: `fanout`.
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("holder", Text),
    Column("lease_until_ms", BigInteger, nullable=False),
    CheckConstraint("position >= 0", name="fanout_position"),
)

tree = Table(
    "tree",
    metadata,
    # One row: the tree's size, and the roots of the perfect subtrees it is made of, 32 bytes each. It grows in the
    # transaction that appends the events: `tree`.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("peaks", LargeBinary, nullable=False),
    CheckConstraint(f"id = {TREE_ID}", name="tree_one_row"),
)

tiles = Table(
    "tiles",
    metadata,
    # The full tiles of C2SP tlog-tiles, each written once; partial ones are computed. `root` is the tile's hash in the
    # tile one level up.
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    CheckConstraint("length(hashes) = 8192", name="tiles_hashes"),
    CheckConstraint("length(root) = 32", name="tiles_root"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    # What was signed. `key` is the verifier key's text, `note` the signed note's bytes.
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("key", _KEY, primary_key=True),
    Column("root", LargeBinary, nullable=False),
    Column("signed_ms", BigInteger, nullable=False),
    Column("note", LargeBinary, nullable=False),
    CheckConstraint("size >= 0", name="checkpoints_size"),
    CheckConstraint("length(root) = 32", name="checkpoints_root"),
)

signing = Table(
    "signing",
    metadata,
    # One row: which process signs now.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", Text),
    Column("lease_until_ms", BigInteger, nullable=False),
    CheckConstraint(f"id = {SIGNING_ID}", name="signing_one_row"),
)

forks = Table(
    "forks",
    metadata,
    # Events that were refused because their place was taken by other bytes: two histories of one job. `idx` is the
    # entry that has the place; null where both stood in one batch, of which nothing was taken.
    Column("number", _NUMBER, primary_key=True, autoincrement=False),
    Column("stream", _KEY, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("idx", BigInteger),
    Column("refused_us", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("event", LargeBinary, nullable=False),
    UniqueConstraint("stream", "seq", "sha256", name="forks_once"),
    CheckConstraint("length(sha256) = 32", name="forks_sha256"),
)

for name, by_database in APPEND_ONLY.items():
    for database, statements in by_database.items():
        for statement in statements:
            event.listen(
                metadata.tables[name],
                "after_create",
                DDL(statement).execute_if(dialect=database),  # type: ignore[no-untyped-call]
            )
