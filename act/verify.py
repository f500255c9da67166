"""Check a whole ledger from nothing but its database, and the checkpoints that left the house.

Every entry is read and hashed, every column that readers see is derived again from the entry's bytes, and so is what
is summed up beside them; the tree is computed anew and compared with what is stored and with every checkpoint. The
memory it needs is a number for each stream and a root for each checkpoint, nothing for an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import DBAPIError

from act.checking import pages_of
from act.domain.audit import Audit, Finding, Page, fork_fault
from act.domain.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from act.domain.encoding import HASH_BYTES
from act.domain.note import NoteError, VerifierKey
from act.domain.tiles import TILE_WIDTH, perfect_root
from act.storage import checks
from act.storage.entries import size_of
from act.storage.tables import BLOCK_EVENTS
from hmskit.database import why_unavailable

Progress = Callable[[str, int, int], None]
"""Told what is done now, how many entries are through, and of how many."""


class BadLedgerError(Exception):
    """The ledger is not what it must be.

    Attributes:
        finding: the first thing that is wrong.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"index {finding.index}: {finding.detail}")
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Report:
    """A ledger that is what it must be.

    Attributes:
        size: how many entries it has.
        root: over all of them.
        checkpoints: how many in the database were verified.
        signed_size: of the newest of them; None where there is none.
        log: its name.
    """

    size: int
    root: bytes
    checkpoints: int
    signed_size: int | None
    log: str | None


@dataclass(slots=True)
class _Tiles:
    """Compares every full tile that fills up with the stored one."""

    tx: Connection
    open: list[list[bytes]] = field(default_factory=lambda: [[]])
    numbers: list[int] = field(default_factory=lambda: [0])

    def take(self, leaf_hashes: Sequence[bytes]) -> None:
        self.open[0] += leaf_hashes
        level = 0
        while level < len(self.open):
            while len(self.open[level]) >= TILE_WIDTH:
                root = self._check(level, self.open[level][:TILE_WIDTH])
                del self.open[level][:TILE_WIDTH]
                if level + 1 == len(self.open):
                    self.open.append([])
                    self.numbers.append(0)
                self.open[level + 1].append(root)
            level += 1

    def _check(self, level: int, hashes: list[bytes]) -> bytes:
        number, root = self.numbers[level], perfect_root(hashes)
        self.numbers[level] += 1
        stored = checks.tile_row(self.tx, level, number)
        if stored != (b"".join(hashes), root):
            same = 0
            if level == 0 and stored is not None and isinstance(stored[0], bytes):
                kept = (stored[0][at : at + HASH_BYTES] for at in range(0, TILE_WIDTH * HASH_BYTES, HASH_BYTES))
                same = next((at for at, pair in enumerate(zip(hashes, kept, strict=True)) if pair[0] != pair[1]), 0)
            raise _bad(
                number * TILE_WIDTH ** (level + 1) + same,
                f"the stored tile {number} of level {level} is missing, or is not that of its entries",
            )
        return root


def verify(
    tx: Connection,
    *,
    keys: Sequence[VerifierKey],
    held: Sequence[bytes] = (),
    pages: Iterator[Page] | None = None,
    on_progress: Progress,
) -> Report:
    """Check the ledger that a transaction sees.

    Args:
        tx: a reader's.
        keys: the log's verifier keys, from elsewhere than the database. Without any, the keys that the database
            itself names are taken: that shows damage, and not somebody who had the database and made a new key.
        held: signed notes that were kept elsewhere.
        pages: its entries, from `act.checking`; None: they are checked in this process.
        on_progress: called after each page.

    Raises:
        BadLedgerError: it is not what it must be.
        DBAPIError: it cannot be read now.
    """
    position = [0]
    try:
        return _verify(tx, pages or pages_of(tx), keys=keys, held=held, on_progress=on_progress, position=position)
    except (DBAPIError, UnicodeDecodeError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(error, DBAPIError) and why_unavailable(error) is not None:
            raise
        why = getattr(cause, "sqlite_errorname", None) or type(cause).__name__  # its text may quote values
        raise _bad(position[0], f"from here on the database cannot be read ({why})") from None


def _verify(
    tx: Connection,
    pages: Iterator[Page],
    *,
    keys: Sequence[VerifierKey],
    held: Sequence[bytes],
    on_progress: Progress,
    position: list[int],
) -> Report:
    total = size_of(tx)
    signed, log, count = _signed_roots(tx, keys, held)
    audit, tiles = Audit(BLOCK_EVENTS), _Tiles(tx)
    _compare_root(audit, signed)
    for page in pages:
        for part in _cut(page, audit.frontier.size, signed):
            finding = audit.take(part)
            if finding is not None:
                raise BadLedgerError(finding)
            tiles.take(part.leaf_hashes)
            _compare_root(audit, signed)
        position[0] = audit.frontier.size
        on_progress("entries", position[0], max(total, position[0]))
    size = audit.frontier.size
    missing = min((one for one in signed if one > size), default=None)
    if missing is not None:
        raise _bad(size, f"it is missing, and a checkpoint of {missing} entries was signed")
    _check_tree(tx, audit, tiles)
    _check_heads(tx, audit)
    _check_blocks(tx, audit)
    _check_forks(tx, size)
    for fault in checks.file_faults(tx):
        raise _bad(0, f"the entries are sound, and the database's file is not: {fault}")
    return Report(size, audit.frontier.root, count, max(signed, default=None), log)


def _signed_roots(
    tx: Connection, keys: Sequence[VerifierKey], held: Sequence[bytes]
) -> tuple[dict[int, bytes], str | None, int]:
    """Return the root that was signed for each size, the log's name, and how many checkpoints the database has."""
    signed: dict[int, bytes] = {}
    own: dict[VerifierKey, None] = {}
    newest: tuple[Checkpoint, bool] | None = None
    count = 0
    for row in checks.checkpoint_rows(tx):
        count += 1
        checkpoint, key, is_trusted = _open_row(row, keys)
        own[key] = None
        _add(signed, checkpoint)
        if newest is None or checkpoint.size > newest[0].size or is_trusted:
            newest = (checkpoint, is_trusted)
    if keys and newest is not None and not newest[1]:
        raise _bad(newest[0].size, "its checkpoint is not signed by a key that was named, and it is the newest")
    for note in held:
        _add(signed, _open_held(note, keys or tuple(own)))
    return signed, None if newest is None else newest[0].origin, count


def _open_row(row: RowMapping, keys: Sequence[VerifierKey]) -> tuple[Checkpoint, VerifierKey, bool]:
    """Return the checkpoint of a row, whose columns say what its note says, its key, and whether that was named."""
    index = max(row["size"] - 1, 0) if isinstance(row["size"], int) else 0
    try:
        key = VerifierKey.parse(row["key"])
        checkpoint = open_checkpoint(row["note"], [key], origin=key.name).checkpoint
    except (NoteError, CheckpointError, TypeError, AttributeError) as error:
        raise _bad(index, f"the checkpoint of {row['size']} entries: {error}") from None
    if (checkpoint.size, checkpoint.root) != (row["size"], row["root"]):
        raise _bad(index, f"the checkpoint of {row['size']} entries: its columns say something else than its note")
    return checkpoint, key, key in keys


def _open_held(note: bytes, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Return a checkpoint that was kept elsewhere.

    Raises:
        NoteError: none of the keys signed it.
        CheckpointError: it is none, or of another log.
    """
    for name in dict.fromkeys(key.name for key in keys):
        try:
            return open_checkpoint(note, [key for key in keys if key.name == name], origin=name).checkpoint
        except (NoteError, CheckpointError):
            if name == keys[-1].name:
                raise
    raise NoteError("no key is known that could have signed it: name one")


def _add(signed: dict[int, bytes], checkpoint: Checkpoint) -> None:
    if signed.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
        raise _bad(max(checkpoint.size - 1, 0), f"two checkpoints of {checkpoint.size} entries have different roots")


def _cut(page: Page, first: int, signed: Mapping[int, bytes]) -> Iterator[Page]:
    """Yield the page in pieces that end where a checkpoint does."""
    for size in range(first + 1, first + len(page.leaf_hashes)):
        if size in signed:
            yield page.upto(size - first)
            page, first = page.since(size - first), size
    yield page


def _compare_root(audit: Audit, signed: Mapping[int, bytes]) -> None:
    size = audit.frontier.size
    if size in signed and signed[size] != audit.frontier.root:
        raise _bad(
            max(size - 1, 0),
            f"the first {size} entries are not those that were signed: one of them, up to this one, was changed",
        )


def _check_tree(tx: Connection, audit: Audit, tiles: _Tiles) -> None:
    row, frontier = checks.tree_row(tx), audit.frontier
    if row is None or row != (frontier.size, frontier.packed):
        has = None if row is None else row[0]
        if isinstance(has, int) and has < frontier.size:
            raise _bad(has, f"the stored tree ends before it: it has {has} of {frontier.size} entries. ACT builds it")
        raise _bad(frontier.size, "the row of the table tree is gone, or is not that of the entries")
    stored = checks.count_tiles(tx)
    if stored != sum(tiles.numbers):
        raise _bad(frontier.size, f"{stored} full tiles are stored, and the entries have {sum(tiles.numbers)}")


def _check_heads(tx: Connection, audit: Audit) -> None:
    count = 0
    for row in checks.head_rows(tx):
        count += 1
        if audit.heads.get(row["stream"]) != row["seq"]:
            index = checks.index_of_head(tx, row["stream"])
            raise _bad(
                audit.frontier.size if index is None else index,
                f"the table heads says {row['seq']!r} of the stream {row['stream'][:60]!r}, and its last event is "
                f"{audit.heads.get(row['stream'])}",
            )
    if count != len(audit.heads):
        raise _bad(audit.frontier.size, f"the table heads has {count} streams, and the entries {len(audit.heads)}")


def _check_blocks(tx: Connection, audit: Audit) -> None:
    expected = [(number, *span) for number, span in enumerate(audit.spans)]
    stored = ((row["block"], row["min_ts_ms"], row["max_ts_ms"]) for row in checks.block_rows(tx))
    for number, (one, other) in enumerate(zip_longest(expected, stored)):
        if one != other:
            raise _bad(number * BLOCK_EVENTS, f"the table blocks says {other} of its times, and the entries {one}")


def _check_forks(tx: Connection, size: int) -> None:
    for number, row in enumerate(checks.fork_rows(tx)):
        wrong = (
            fork_fault(dict(row), checks.entry_at(tx, row["idx"]))
            if row["number"] == number
            else "one before it is gone"
        )
        if wrong is not None:
            index = row["idx"] if isinstance(row["idx"], int) and 0 <= row["idx"] < size else size
            raise _bad(index, f"the record {row['number']} in the table forks: {wrong}")


def _bad(index: int, detail: str) -> BadLedgerError:
    return BadLedgerError(Finding(index, detail))
