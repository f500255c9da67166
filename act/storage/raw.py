"""Read the entries themselves: the bytes that are hashed, and their hash."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from act.storage.tables import events

_RAW = select(events.c.idx, events.c.entry, events.c.leaf_hash).where(
    events.c.idx.in_(bindparam("indexes", expanding=True))
)


def raw_of(tx: Connection, indexes: Sequence[int]) -> dict[int, tuple[bytes, bytes]]:
    """Return each index's entry and its leaf hash. Not for more than some hundred at once."""
    return {row.idx: (row.entry, row.leaf_hash) for row in tx.execute(_RAW, {"indexes": list(indexes)})}
