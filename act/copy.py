"""Copy a ledger into another database: SQLite to PostgreSQL, or back.

Page by page, each page one transaction of the target, so that it may be stopped anywhere and goes on when it is run
again. At the end both are read once more, row by row, and every leaf hash is made anew from its entry's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile, zip_longest
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import RowMapping

from act.contract import leaf_hash
from act.domain.audit import EntryError, derive
from act.domain.errors import UnavailableError
from act.storage.entries import size_of
from act.storage.store import Store
from act.storage.tree import full_tile
from act.storage.whole import (
    add_checkpoints,
    add_forks,
    add_positions,
    add_rows,
    blocks_from,
    checkpoints_after,
    forks_from,
    heads_after,
    positions_of,
    rows_from,
    tiles_after,
)

P = ParamSpec("P")
T = TypeVar("T")

PAGE = 500
"""How many rows are held at once. An event has 64,000 bytes at most."""

Progress = Callable[[str, int, int], None]
"""Told what is done now, how many events are through, and of how many."""


class CopyError(Exception):
    """The copy cannot be made, or is not the same; the message says why and what to do."""


def rebuild(source: Store, target: Store, *, on_progress: Progress) -> int:
    """Make the ledger anew from its entries' bytes; take its checkpoints and forks along. Return its number of events.

    For a ledger whose columns, heads, blocks or tree were damaged. Whether the entries are those that were signed, a
    full check of the target says.

    Args:
        source: only read. Nothing of it is trusted but the bytes of the entries.
        target: empty.
        on_progress: called after each page.

    Raises:
        CopyError: an entry is missing or unreadable, or the target is not empty.
        UnavailableError: a database cannot be read or written now.
    """
    if _read(target, size_of):
        raise CopyError("the target has events already: to make a ledger anew, name an empty database")
    size, done = _read(source, size_of), 0
    while rows := _read(source, rows_from, done, count=PAGE):
        anew = [_derived(row, index) for index, row in enumerate(rows, start=done)]
        with _understood(target), target.writer.begin() as tx:
            target.lock_appends(tx)
            add_rows(tx, anew, size_before=done)
        done += len(rows)
        on_progress("making anew", done, max(size, done))
    _copy_beside(source, target)
    return done


def _derived(row: RowMapping, index: int) -> dict[str, Any]:
    """Return the row that an entry's bytes give."""
    if row["idx"] != index or not isinstance(row["entry"], bytes):
        raise CopyError(f"the source has no entry at index {index}: it is lost there")
    try:
        return {"idx": index, "entry": row["entry"], **derive(row["entry"])}
    except EntryError as error:
        raise CopyError(f"the entry at index {index} is lost: {error}") from None


def copy(source: Store, target: Store, *, on_progress: Progress) -> int:
    """Append to the target what it does not have yet, then compare all; return how many events both have.

    Args:
        source: only read. It should not grow: what comes too late for the copy makes it differ.
        target: empty, or the beginning of the same ledger.
        on_progress: called after each page.

    Raises:
        CopyError: the target holds another ledger, grows by itself, or differs in the end.
        UnavailableError: a database cannot be read or written now; run again, it goes on.
    """
    size, done = _read(source, size_of), _read(target, size_of)
    _check_beginning(source, target, done)
    while rows := _read(source, rows_from, done, count=PAGE):
        _check_sound(rows, first=done)
        with _understood(target), target.writer.begin() as tx:
            target.lock_appends(tx)
            if size_of(tx) != done:
                raise CopyError("somebody else appends to the target: stop its ACT, and begin with an empty database")
            add_rows(tx, [dict(row) for row in rows], size_before=done)
        done += len(rows)
        on_progress("copying", done, max(size, done))
    _copy_beside(source, target)
    verify(source, target, on_progress=on_progress)
    with _understood(target), target.writer.begin() as tx:
        add_positions(tx, _read(source, positions_of))
    return done


def verify(source: Store, target: Store, *, on_progress: Progress) -> None:
    """Compare two ledgers row by row, and each leaf hash with its entry's bytes.

    Raises:
        CopyError: they differ; the message names the first index.
        UnavailableError: a database cannot be read now.
    """
    sizes = _read(source, size_of), _read(target, size_of)
    if sizes[0] != sizes[1]:
        raise CopyError(f"the source has {sizes[0]} events and the target {sizes[1]}: stop ACT on both, and run again")
    for first in range(0, sizes[0], PAGE):
        ours, theirs = (_read(store, rows_from, first, count=PAGE) for store in (source, target))
        _check_sound(ours, first=first)
        if ours != theirs:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
            raise CopyError(f"the target differs at index {first + len(list(same))}: it is no copy of this ledger")
        on_progress("comparing", min(first + PAGE, sizes[0]), sizes[0])
    for table, rows in (("heads", _heads), ("blocks", _blocks), ("checkpoints", _checkpoints), ("forks", _forks)):
        if any(one != other for one, other in zip_longest(rows(source), rows(target))):
            raise CopyError(
                f"the table {table} of the target differs, and the events do not: copy into an empty database"
            )
    # The source's tree may be behind its events, where it is older than the tree; the target's never is.
    if any(
        _read(target, full_tile, row["level"], row["number"]) != (row["hashes"], row["root"]) for row in _tiles(source)
    ):
        raise CopyError("the table tiles of the target differs, and the events do not: verify the source")


def _copy_beside(source: Store, target: Store) -> None:
    """Add the checkpoints that the target does not have: who signs there must know what was signed; and the forks."""
    has = {(row["size"], row["key"]) for row in _checkpoints(target)}
    missing = [dict(row) for row in _checkpoints(source) if (row["size"], row["key"]) not in has]
    with _understood(target), target.writer.begin() as tx:
        add_checkpoints(tx, missing)
    done = sum(1 for _ in _forks(target))
    while rows := _read(source, forks_from, done, count=PAGE):
        with _understood(target), target.writer.begin() as tx:
            add_forks(tx, [dict(row) for row in rows])
        done += len(rows)


def _check_beginning(source: Store, target: Store, size: int) -> None:
    """Compare the first event and the last that the target has: a cheap look; `verify` does the rest."""
    for index in {0, size - 1} if size else ():
        if _read(source, rows_from, index, count=1) != _read(target, rows_from, index, count=1):
            raise CopyError(
                f"the target holds another ledger: it differs at index {index}. Name an empty database, or the one "
                "that a copy of this ledger was begun in"
            )


def _check_sound(rows: Sequence[RowMapping], *, first: int) -> None:
    """Check that no row is missing, and that each entry is the one that its leaf hash was made of."""
    for index, row in enumerate(rows, start=first):
        if row["idx"] != index:
            raise CopyError(f"the source is damaged: it has no event at index {index}")
        entry = row["entry"]
        if not isinstance(entry, bytes) or leaf_hash(entry) != row["leaf_hash"]:
            raise CopyError(f"the source is damaged at index {index}: the leaf hash is not that of the entry")


def _heads(store: Store) -> Iterator[RowMapping]:
    after = ""
    while rows := _read(store, heads_after, after, count=PAGE):
        yield from rows
        after = rows[-1]["stream"]


def _blocks(store: Store) -> Iterator[RowMapping]:
    first = 0
    while rows := _read(store, blocks_from, first, count=PAGE):
        yield from rows
        first = rows[-1]["block"] + 1


def _forks(store: Store) -> Iterator[RowMapping]:
    first = 0
    while rows := _read(store, forks_from, first, count=PAGE):
        yield from rows
        first = rows[-1]["number"] + 1


def _tiles(store: Store) -> Iterator[RowMapping]:
    level, number = -1, -1
    while rows := _read(store, tiles_after, level, number, count=PAGE):
        yield from rows
        level, number = rows[-1]["level"], rows[-1]["number"]


def _checkpoints(store: Store) -> Iterator[RowMapping]:
    size, key = -1, ""
    while rows := _read(store, checkpoints_after, size, key, count=PAGE):
        yield from rows
        size, key = rows[-1]["size"], rows[-1]["key"]


def _read(store: Store, verb: Callable[Concatenate[Any, P], T], *args: P.args, **named: P.kwargs) -> T:
    with _understood(store), store.reader.begin() as tx:
        return verb(tx, *args, **named)


@contextmanager
def _understood(store: Store) -> Iterator[None]:
    """Turn what the database cannot do now into an `UnavailableError`."""
    try:
        yield
    except (CopyError, UnavailableError):
        raise
    except Exception as error:
        why = store.why_unavailable(error)
        if why is None:
            raise
        raise UnavailableError(f"{store.name}: {why}") from error
