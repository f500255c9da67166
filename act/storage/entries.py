"""Write the ledger. Functions that take an open transaction; the caller commits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select

from act.contract import entry_bytes, event_bytes, leaf_hash
from act.domain.order import Kept, Place
from act.domain.posted import FACTS, Posted
from act.storage.tables import BLOCK_EVENTS, blocks, events, heads
from hmskit.prepared import Prepared, insert_rows, update_rows

Row = tuple[Any, ...]
"""A row of ``events``, as `event_rows` and `event_row` make them."""

_CHUNK = 500
"""How many values one ``IN`` lists."""

_LAST = Prepared(select(func.max(events.c.idx)), [])
_STREAMS = Prepared(select(events.c.stream).where(events.c.idx >= bindparam("first")).distinct(), ["first"])
_HEADS = select(heads.c.stream, heads.c.seq).where(heads.c.stream.in_(bindparam("streams", expanding=True)))
# One range a statement: SQLite scans the whole index for `(stream, seq) IN (...)`.
_KEPT = select(events.c.seq, events.c.idx, events.c.entry, events.c.leaf_hash).where(
    events.c.stream == bindparam("of_stream"), events.c.seq.between(bindparam("first"), bindparam("last"))
)
_EVENT_COLUMNS = ("idx", "received_us", *FACTS, "leaf_hash", "entry")
_ADD_EVENTS = insert_rows(events, _EVENT_COLUMNS)
_ADD_HEADS = insert_rows(heads, ["stream", "seq"])
_MOVE_HEADS = update_rows(heads, ["seq"], key="stream")
_ADD_BLOCK = insert(blocks).from_select(
    ["block", "min_ts_ms", "max_ts_ms"],
    select(bindparam("number", type_=blocks.c.block.type), func.min(events.c.ts_ms), func.max(events.c.ts_ms)).where(
        events.c.idx.between(bindparam("first"), bindparam("last"))
    ),
)


def size_of(tx: Connection) -> int:
    """Return how many events the ledger has: the next index."""
    last: int | None = _LAST.rows(tx)[0][0]
    return 0 if last is None else last + 1


def growth_since(tx: Connection, size_before: int) -> tuple[int, frozenset[str]]:
    """Return the ledger's size, and the streams that have an event past ``size_before``."""
    size = size_of(tx)
    streams = _STREAMS.rows(tx, size_before) if size > size_before else ()
    return size, frozenset(stream for (stream,) in streams)


def heads_of(tx: Connection, streams: Collection[str]) -> dict[str, int]:
    """Return the last ``seq`` of each of the streams that have an event."""
    found: dict[str, int] = {}
    for some in _chunks(streams):
        found.update((stream, seq) for stream, seq in tx.execute(_HEADS, {"streams": some}))
    return found


def kept_in(tx: Connection, places: Iterable[Place]) -> dict[Place, Kept]:
    """Return what the ledger has in each of the places that are taken."""
    found: dict[Place, Kept] = {}
    for stream, first, last in _ranges(places):
        for row in tx.execute(_KEPT, {"of_stream": stream, "first": first, "last": last}):
            found[stream, row.seq] = Kept(row.idx, event_bytes(row.entry), row.leaf_hash)
    return found


def event_rows(posted: Sequence[Posted], *, first: int, received_us: int) -> tuple[list[Row], list[bytes]]:
    """Return the rows of new events, and their leaf hashes.

    Args:
        posted: the events, in the order in which they are appended.
        first: the index of the first one.
        received_us: ACT's clock when it took them, microseconds since the epoch.
    """
    start = entry_bytes(received_us, b"")  # an entry is this, then the event
    entries = [start + event.raw for event in posted]
    leaves = [leaf_hash(entry) for entry in entries]
    rows = [
        (index, received_us, *event.values, leaf, entry)
        for index, event, leaf, entry in zip(count(first), posted, leaves, entries, strict=False)
    ]
    return rows, leaves


event_row: Callable[[Mapping[str, Any]], Row] = itemgetter(*_EVENT_COLUMNS)
"""Return the row of a mapping by column name."""


def add_events(tx: Connection, rows: Sequence[Row]) -> None:
    """Append rows; their indexes go on where the ledger ends."""
    _ADD_EVENTS.many(tx, rows)


def move_heads(tx: Connection, grown: Mapping[str, int], *, known: Collection[str]) -> None:
    """Record the last ``seq`` of the streams that have ``grown``; those in ``known`` had a head before."""
    _ADD_HEADS.many(tx, [(stream, seq) for stream, seq in grown.items() if stream not in known])
    _MOVE_HEADS.many(tx, [(seq, stream) for stream, seq in grown.items() if stream in known])


def close_blocks(tx: Connection, *, size_before: int, size: int) -> None:
    """Sum up the blocks that became full when the ledger grew from ``size_before`` to ``size`` events."""
    for number in _full_blocks(size_before, size):
        first = number * BLOCK_EVENTS
        tx.execute(_ADD_BLOCK, {"number": number, "first": first, "last": first + BLOCK_EVENTS - 1})


def _full_blocks(size_before: int, size: int) -> Iterable[int]:
    return range(size_before // BLOCK_EVENTS, size // BLOCK_EVENTS)


def _ranges(places: Iterable[Place]) -> Iterator[tuple[str, int, int]]:
    """Yield the places as runs of one stream without a hole: the stream, the first seq and the last."""
    run: tuple[str, int, int] | None = None
    for stream, seq in sorted(set(places)):
        if run is not None and run[0] == stream and run[2] + 1 == seq:
            run = (stream, run[1], seq)
            continue
        if run is not None:
            yield run
        run = (stream, seq, seq)
    if run is not None:
        yield run


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    """Yield the values in lists of at most `_CHUNK`."""
    rest = iter(values)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
