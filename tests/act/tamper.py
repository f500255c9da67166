"""Tamper with a ledger at random, and see that the full check finds each time that it was.

    python tests/act/tamper.py --count 100000 --seed 7

Single bits in every table, entries swapped, removed and slipped in, the tail cut off, columns of dashboards edited,
old backups put back, bits of the database's file flipped; and an insider who computes everything anew. The triggers
that refuse all this are taken away first. Exit code 1 and the tampering that was not found, if there is one.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from rich.progress import track
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import StaticPool

from act import verify as verifying
from act.contract import leaf_hash
from act.domain.audit import Finding
from act.domain.checkpoint import Checkpoint, sign_checkpoint
from act.domain.errors import ForkError
from act.domain.note import SigningKey
from act.domain.posted import read_posted
from act.ledger import append
from act.storage import entries
from act.storage.checkpoints import Signed, add_signed
from act.storage.store import open_store
from act.storage.tree import catch_up, frontier_of
from act.verify import BadLedgerError
from tests.act.support import array, plain_job
from tests.act.support import event as event_of

KEY = SigningKey("tampered.example/act", bytes(range(32)))
OTHER_KEY = SigningKey("tampered.example/act", bytes(32))
JOBS = 58
SIZE = 5 * JOBS
"""One full tile, and a rest."""
SIGNED = (7, 100, 256, SIZE)
BLOCK_EVENTS = 64

PROTECTED = {
    "events": None,  # every column
    "tiles": None,
    "tree": ("size", "peaks"),
    "heads": None,
    "blocks": None,
    "checkpoints": ("size", "key", "root", "note"),  # when it was signed is not signed
    "forks": ("number", "stream", "seq", "idx", "sha256", "event"),  # nor when one was refused
}
DASHBOARD = ("job_id", "seq", "lane", "status", "ts_ms", "worker", "attempt", "task_id", "plan", "detail", "event_id")


class NothingDoneError(Exception):
    """This one could not be done (two rows would have one key, or it changed nothing): another one is tried."""


@dataclass(frozen=True, slots=True)
class Tampering:
    """What was done.

    Attributes:
        kind: its name.
        what: in words, for who must look into it.
        index: the entry that must be named, where exactly one was touched.
    """

    kind: str
    what: str
    index: int | None = None


def make_image(folder: Path, *, events: int = SIZE) -> bytes:
    """Return the file of a sound ledger with its checkpoints."""
    path = folder / f"{events}.db"
    store = open_store(f"sqlite:///{path}", migrate=True)
    raws = [raw for number in range(JOBS) for raw in plain_job(f"JOB-{number}", time_ms=1_763_820_309_123 + number)]
    done = 0
    for size in (*(one for one in SIGNED if one < events), events):
        with store.writer.begin() as tx:
            append(tx, [read_posted(array(raws[done:size]))], now_us=1_763_820_400_000_000 + done)
            sign(tx, KEY)
        done = size
    with store.writer.begin() as tx:
        for forged in (event_of("JOB-3", 2, actor="m-1"), event_of("JOB-7", 5, actor="m-2")):
            (refused,) = append(tx, [read_posted(array([forged]))], now_us=1_763_820_600_000_000)
            assert isinstance(refused, ForkError)
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")  # an image in memory has no write-ahead log
    image = connection.serialize()
    connection.close()
    return image


def sign(tx: Connection, key: SigningKey) -> bytes:
    """Sign the ledger as it is; return the note."""
    frontier = frontier_of(tx)
    assert frontier is not None
    note = sign_checkpoint(Checkpoint(key.name, frontier.size, frontier.root), key).encoded()
    signed = Signed(frontier.size, str(key.verifier), frontier.root, 1_763_820_500_000, note)
    assert add_signed(tx, signed, holder="tamper", lease_ms=0)
    return note


@contextmanager
def small_blocks() -> Iterator[None]:
    """Sum up fewer events in a block, so that a small ledger has some."""
    with patch.object(entries, "BLOCK_EVENTS", BLOCK_EVENTS), patch.object(verifying, "BLOCK_EVENTS", BLOCK_EVENTS):
        yield


class Lab:
    """A sound ledger in memory, which each tampering changes for itself alone.

    Args:
        seed: of all that happens at random.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder, small_blocks():
            self.image = make_image(Path(folder))
            self.backup = make_image(Path(folder), events=100)
        self.engine = engine_of(self.image)
        with self.engine.begin() as tx:
            self.held: bytes = tx.execute(text("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")).scalar_one()
            triggers = tx.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            for name in triggers:
                tx.execute(text(f"DROP TRIGGER {name}"))
            self.columns = {
                table: chosen or tuple(row[1] for row in tx.execute(text(f"PRAGMA table_info({table})")))
                for table, chosen in PROTECTED.items()
            }
            self.rowids = {
                table: tx.execute(text(f"SELECT {self.key(table)} FROM {table}")).all() for table in PROTECTED
            }
        self.kinds: dict[str, Callable[[Connection], Tampering]] = {
            "bit": self.bit,
            "projection": self.projection,
            "swap": self.swap,
            "delete": self.delete,
            "insert": self.insert,
            "truncate": self.truncate,
            "insider": self.insider,
            "new key": self.new_key,
        }

    @staticmethod
    def key(table: str) -> str:
        """Return the columns that say which row of a table is meant."""
        keys = {
            "events": "idx",
            "tiles": "level, number",
            "heads": "stream",
            "blocks": "block",
            "tree": "id",
            "forks": "number",
        }
        return keys.get(table, "size, key")

    def one(self, kind: str | None = None) -> tuple[Tampering, BadLedgerError | None]:
        """Tamper once; return what was done, and what the check said."""
        while True:
            chosen = kind or self.random.choice([*self.kinds, "bit", "bit", "projection", "file", "old backup"])
            try:
                if chosen in ("file", "old backup"):
                    return self._other_file(chosen)
                with self.engine.connect() as tx:
                    transaction = tx.begin()
                    try:
                        done = self.kinds[chosen](tx)
                        return done, self.check(tx)
                    finally:
                        transaction.rollback()
            except (NothingDoneError, IntegrityError):
                continue

    def check(self, tx: Connection) -> BadLedgerError | None:
        """Return what the full check finds."""
        try:
            with small_blocks():
                verifying.verify(tx, keys=[KEY.verifier], held=[self.held], on_progress=lambda *_: None)
        except BadLedgerError as error:
            return error
        return None

    # --- what can be done to it -----------------------------------------------------------------------------------

    def bit(self, tx: Connection) -> Tampering:
        table = self.random.choice([*PROTECTED, "events", "events"])
        row = self.random.choice(self.rowids[table])
        column = self.random.choice(self.columns[table])
        where, values = self._where(table, row)
        old = tx.execute(text(f"SELECT {column} FROM {table} WHERE {where}"), values).scalar_one()
        self._set(tx, f"{table}.{column}", where, values, self._flipped(old))
        is_one_entry = table == "events" and column != "idx"
        return Tampering("bit", f"a bit of {table}.{column} where {tuple(row)}", row[0] if is_one_entry else None)

    def projection(self, tx: Connection) -> Tampering:
        index, other = self.random.sample(range(SIZE), 2)
        column = self.random.choice(DASHBOARD)
        old, new = (
            tx.execute(text(f"SELECT {column} FROM events WHERE idx = :at"), {"at": at}).scalar_one()
            for at in (index, other)
        )
        if old == new:
            raise NothingDoneError
        self._set(tx, f"events.{column}", "idx = :k0", {"k0": index}, new)
        return Tampering("projection", f"{column} of {index} as that of {other}", index)

    def swap(self, tx: Connection) -> Tampering:
        one, other = sorted(self.random.sample(range(SIZE), 2))
        columns = self.random.choice([("idx",), ("entry",), ("entry", "leaf_hash"), ("leaf_hash",)])
        rows = [
            tx.execute(text(f"SELECT {', '.join(columns)} FROM events WHERE idx = :at"), {"at": at}).one()
            for at in (one, other)
        ]
        if columns == ("idx",):
            for old, new in ((one, 10**6), (other, one), (10**6, other)):
                tx.execute(text("UPDATE events SET idx = :new WHERE idx = :old"), {"old": old, "new": new})
        else:
            for at, row in zip((other, one), rows, strict=True):
                for column, value in zip(columns, row, strict=True):
                    self._set(tx, f"events.{column}", "idx = :k0", {"k0": at}, value)
        return Tampering("swap", f"{columns} of {one} and {other}", one)

    def delete(self, tx: Connection) -> Tampering:
        table = self.random.choice(["events", "events", "tiles", "tree", "heads", "blocks"])
        row = self.random.choice(self.rowids[table])
        where, values = self._where(table, row)
        tx.execute(text(f"DELETE FROM {table} WHERE {where}"), values)
        if table == "events" and self.random.random() < 0.5:  # and close the gap
            tx.execute(text("UPDATE events SET idx = -idx WHERE idx > :at"), {"at": row[0]})
            tx.execute(text("UPDATE events SET idx = -idx - 1 WHERE idx < 0"))
        return Tampering("delete", f"{table} where {tuple(row)}")

    def insert(self, tx: Connection) -> Tampering:
        table = self.random.choice(["events", "events", "tiles", "heads", "blocks"])
        if table == "tiles":
            level, number = self.random.choice([(0, 1), (1, 0), (0, 9), (3, 0)])
            tx.execute(
                text("INSERT INTO tiles VALUES (:level, :number, zeroblob(8192), zeroblob(32))"),
                {"level": level, "number": number},
            )
        elif table == "heads":
            tx.execute(text("INSERT INTO heads VALUES ('JOB-9999', 1)"))
        elif table == "blocks":
            tx.execute(text("INSERT INTO blocks VALUES (:at, 0, 1)"), {"at": self.random.choice([4, 5, 77, -1])})
        else:
            at = self.random.randrange(-1, SIZE)
            tx.execute(text("UPDATE events SET idx = -idx - 2 WHERE idx >= :at"), {"at": at})
            tx.execute(text("UPDATE events SET idx = -idx - 1 WHERE idx < -1"))
            columns = ", ".join(self.columns["events"])
            source = self.random.randrange(SIZE)
            shown = columns.replace("idx,", ":at,", 1).replace("seq,", "seq + 1000,", 1)
            tx.execute(
                text(f"INSERT INTO events ({columns}) SELECT {shown} FROM events ORDER BY idx LIMIT 1 OFFSET :source"),
                {"at": at, "source": min(source, SIZE - 1)},
            )
        return Tampering("insert", table)

    def truncate(self, tx: Connection) -> Tampering:
        """Cut the tail off, and all that tells of it."""
        size = self.random.randrange(SIZE)
        tx.execute(text("DELETE FROM events WHERE idx >= :size"), {"size": size})
        tx.execute(text("DELETE FROM checkpoints WHERE size > :size"), {"size": size})
        self._derive(tx)
        return Tampering("truncate", f"to {size}", size)

    def insider(self, tx: Connection) -> Tampering:
        """Change an entry, and compute everything anew but for what was signed."""
        index = self.random.randrange(SIZE)
        entry: bytes = tx.execute(text("SELECT entry FROM events WHERE idx = :at"), {"at": index}).scalar_one()
        changed = entry.replace(b'"plan_version":1', b'"plan_version":2')
        self._set(tx, "events.entry", "idx = :k0", {"k0": index}, changed)
        self._set(tx, "events.leaf_hash", "idx = :k0", {"k0": index}, leaf_hash(changed))
        self._set(tx, "events.plan_version", "idx = :k0", {"k0": index}, 2)
        tx.execute(text("DELETE FROM checkpoints WHERE size > :at"), {"at": index})
        self._derive(tx)
        return Tampering("insider", f"entry {index}, everything anew")

    def new_key(self, tx: Connection) -> Tampering:
        """The same, and sign it with a key of one's own."""
        done = self.insider(tx)
        tx.execute(text("DELETE FROM checkpoints"))
        sign(tx, OTHER_KEY)
        return Tampering("new key", done.what)

    def _other_file(self, kind: str) -> tuple[Tampering, BadLedgerError | None]:
        """Flip a bit of the file, or put an older one back."""
        if kind == "old backup":
            engine = engine_of(self.backup)
            extra = self.random.randrange(3)
            with engine.begin() as tx:
                if extra:  # and events that were taken since
                    append(tx, [read_posted(array([event_of(f"JOB-{7000 + extra}")]))], now_us=9)
                return Tampering(kind, f"with {extra} more"), self.check(tx)
        image = bytearray(self.image)
        at, bit = self.random.randrange(len(image)), self.random.randrange(8)
        image[at] ^= 1 << bit
        flipped = bytes(image)
        if contents_of(flipped) == contents_of(self.image):
            raise NothingDoneError  # unused space, or the text of a trigger
        done = Tampering(kind, f"bit {bit} of byte {at}")
        try:
            with engine_of(flipped).begin() as tx:
                tx.execute(text("PRAGMA ignore_check_constraints=OFF"))  # as `act verify` opens a file
                return done, self.check(tx)
        except (DBAPIError, UnicodeDecodeError) as error:
            return done, BadLedgerError(Finding(0, f"it cannot even be opened: {error}"))

    # --- how ------------------------------------------------------------------------------------------------------

    def _derive(self, tx: Connection) -> None:
        """Compute anew what is derived from the events."""
        for statement in (
            "DELETE FROM tiles",
            "UPDATE tree SET size = 0, peaks = x''",
            "DELETE FROM heads",
            "INSERT INTO heads SELECT stream, max(seq) FROM events GROUP BY stream",
            "DELETE FROM blocks",
            (
                f"INSERT INTO blocks SELECT idx / {BLOCK_EVENTS}, min(ts_ms), max(ts_ms) FROM events "
                f"GROUP BY idx / {BLOCK_EVENTS} HAVING count(*) = {BLOCK_EVENTS}"
            ),
        ):
            tx.execute(text(statement))
        catch_up(tx, count=SIZE)

    def _where(self, table: str, row: Any) -> tuple[str, dict[str, Any]]:
        names = self.key(table).split(", ")
        values = {f"k{number}": value for number, value in enumerate(row)}
        return " AND ".join(f"{name} = :k{number}" for number, name in enumerate(names)), values

    def _set(self, tx: Connection, place: str, where: str, values: dict[str, Any], new: object) -> None:
        """Set ``place``, a table's column, in one row."""
        table, column = place.split(".")
        as_text = isinstance(new, _RawText)
        shown = "CAST(:new AS TEXT)" if as_text else ":new"
        value = new.data if isinstance(new, _RawText) else new
        tx.execute(text(f"UPDATE {table} SET {column} = {shown} WHERE {where}"), {**values, "new": value})

    def _flipped(self, old: Any) -> Any:
        if old is None:
            return self.random.choice([0, 1, "x", ""])
        if isinstance(old, int):
            return old ^ 1 << self.random.randrange(62)
        data = bytearray(old if isinstance(old, bytes) else old.encode())
        if not data:
            return b"\x01"
        data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(data) if isinstance(old, bytes) else _RawText(bytes(data))


@dataclass(frozen=True, slots=True)
class _RawText:
    """Bytes that are stored as a text, which they may not be."""

    data: bytes


def engine_of(image: bytes) -> Engine:
    """Return an engine on a copy of the image in memory."""
    raw = sqlite3.connect(":memory:", check_same_thread=False)
    raw.deserialize(image)
    raw.isolation_level = None
    raw.execute("PRAGMA ignore_check_constraints = ON")
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def contents_of(image: bytes) -> object:
    """Return all that the protected tables of an image hold; something else where it cannot be read."""
    raw = sqlite3.connect(":memory:")
    try:
        raw.deserialize(image)
        raw.text_factory = bytes
        found = [
            raw.execute(f"SELECT {', '.join(columns) if columns else '*'} FROM {table}").fetchall()
            for table, columns in PROTECTED.items()
        ]
        return [found, raw.execute("PRAGMA integrity_check(1)").fetchall()]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return str(error)
    finally:
        raw.close()


def missed(lab: Lab, kind: str | None = None) -> tuple[Tampering, str | None]:
    """Tamper once; return what was done, and why the check was not good enough, if so."""
    done, found = lab.one(kind)
    if found is None:
        return done, "it was not found"
    if done.index is not None and done.kind in ("bit", "projection") and found.finding.index != done.index:
        return done, f"index {done.index} was the first bad one, and {found} was named"
    return done, None


def main() -> int:
    """Tamper as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lab, kinds = Lab(given.seed), Counter[str]()
    for number in track(range(given.count), description="tampering"):
        done, why = missed(lab)
        kinds[done.kind] += 1
        if why is not None:
            sys.stdout.write(f"MISSED: number {number} of seed {given.seed}: {done.kind}: {done.what}: {why}\n")
            return 1
    shown = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    sys.stdout.write(f"{given.count} tamperings, all found: {shown}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
