"""Cut the power again and again while events are taken, and look whether what was acknowledged is still there.

``python tests/faults/power.py --cuts 1000 --seed 1``: exit 0 when nothing was lost, 1 otherwise. The controls, which
must do harm: ``--synchronous NORMAL``, and ``--drop-syncs wal`` or ``database`` (a disk that only says that it has
synced that file).

The services' own code runs on their own pragmas, over a disk that can lose its power (``disk.py``). What survives a
cut is opened as after any start, by Python's own SQLite, and checked; then the work goes on with it, on the same disk.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.apsw_driver import connecting_through
from tests.faults.disk import DATABASE, WAL, Disk, DiskVfs
from tests.faults.power_work import ActWork, DamagedError, OmsWork, Work, database_url

CUTS_OF_A_DATABASE = 20
"""After so many a new database begins: checking one costs more the longer it is."""
MAX_STEPS = 500
"""Writes and syncs between two cuts at most; a transaction has some ten to hundred."""
VFS = "power-cuts"
KINDS = {"wal": WAL, "database": DATABASE}
WORK: dict[str, type[ActWork | OmsWork]] = {"act": ActWork, "oms": OmsWork}


@dataclass
class Tally:
    """What came of some cuts.

    Attributes:
        cuts: how many, by what was under way.
        losing: how many of them lost something that was acknowledged.
        lost: how much in all.
        acknowledged: how much there was to lose, in all.
        damages: of each cut after which the database was not sound: what was found.
    """

    cuts: Counter[str] = field(default_factory=Counter)
    losing: int = 0
    lost: int = 0
    acknowledged: int = 0
    damages: list[str] = field(default_factory=list)


class Campaign:
    """Cuts the power of one service, again and again.

    Args:
        folder: for files; what is in it is overwritten.
        seed: of the cuts' moments, of what survives and of what is done.
        service: "act" or "oms".
        synchronous: other than the product's own.
        lies_of: the files that the disk does not sync although it says so; see `Disk`.
    """

    def __init__(
        self, folder: Path, seed: int, service: str, *, synchronous: str | None = None, lies_of: Collection[str] = ()
    ) -> None:
        self._folder = folder
        self._dice = random.Random(seed)
        self._make = WORK[service]
        self._synchronous = synchronous
        self._lies_of = lies_of
        self._empty = self._folder / "empty.db"
        self._make(self._dice).make(database_url(self._empty))
        self.tally = Tally()

    def run(self, cuts: int, *, say: Callable[[str], None] = lambda _: None) -> Tally:
        """Cut the power so often; return what came of it."""
        while (left := cuts - self.tally.cuts.total()) > 0:
            self._run_database(min(left, CUTS_OF_A_DATABASE))
            say(
                f"{self.tally.cuts.total()} cuts, {self.tally.losing} lost something, {len(self.tally.damages)} damaged"
            )
        return self.tally

    def _run_database(self, cuts: int) -> None:
        """Work on one database until the cuts are done, or one has done harm."""
        work = self._make(self._dice)
        disk = Disk({"x.db": self._empty.read_bytes()}, self._dice, lies_of=self._lies_of)
        vfs = DiskVfs(VFS, disk)
        try:
            while disk.cuts.total() < cuts and self._survives(work, disk):
                pass
        finally:
            vfs.unregister()
            self.tally.cuts += disk.cuts
            self.tally.acknowledged += work.acknowledged

    def _survives(self, work: Work, disk: Disk) -> bool:
        """Work until a cut; tell whether everything is there after it."""
        path = self._folder / "x.db"
        path.touch()
        disk.power_on(steps=self._dice.randint(1, MAX_STEPS))
        with connecting_through(VFS):
            work.run_until_cut(database_url(path), synchronous=self._synchronous)
        for old in self._folder.glob("x.db*"):
            old.unlink()
        for name, data in disk.files().items():
            (self._folder / name).write_bytes(data)
        try:
            lost = work.count_lost(database_url(path))
        except DamagedError as error:
            self.tally.damages.append(str(error))
            return False
        self.tally.losing += lost > 0
        self.tally.lost += lost
        return lost == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="of everything; default: a new one")
    parser.add_argument("--service", choices=sorted(WORK), default="act")
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default=None, help="default: the product's own")
    parser.add_argument("--drop-syncs", choices=sorted(KINDS), action="append", default=[], help="of this file")
    chosen = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    print(f"seed {seed}, {chosen.cuts} cuts of {chosen.service}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(
            Path(folder),
            seed,
            chosen.service,
            synchronous=chosen.synchronous,
            lies_of=[KINDS[name] for name in chosen.drop_syncs],
        )
        tally = campaign.run(chosen.cuts, say=lambda line: print(line, end="\r", file=sys.stderr, flush=True))
    print(f"cut while {dict(tally.cuts.most_common())}")
    print(
        f"{tally.cuts.total()} cuts in {time.monotonic() - began:.0f} s: {tally.losing} lost something acknowledged "
        f"({tally.lost:,} of {tally.acknowledged:,}), {len(tally.damages)} left a database that is not sound"
    )
    for damage, count in Counter(tally.damages).most_common(3):
        print(f"  {count} times: {damage[:200]}")
    return 1 if tally.losing or tally.damages else 0


if __name__ == "__main__":
    sys.exit(main())
