"""What was acknowledged survives power cuts at any moment; where it is not synced, it does not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.disk import DATABASE, WAL, Disk, PowerCutError
from tests.faults.power import Campaign


@pytest.mark.slow
@pytest.mark.parametrize(("service", "cuts"), [("act", 100), ("oms", 40)])
def test_p5_nothing_acknowledged_is_lost_whenever_the_power_goes(tmp_path: Path, service: str, cuts: int) -> None:
    """The same with more cuts: ``python tests/faults/power.py --cuts 1000``."""
    seed = random.randrange(1_000_000)
    tally = Campaign(tmp_path, seed, service).run(cuts)
    assert (tally.losing, tally.damages) == (0, []), f"seed {seed}: {tally}"
    assert tally.cuts.total() == cuts
    assert tally.acknowledged > cuts, f"seed {seed}: hardly anything was acknowledged, so nothing was shown"
    if service == "act":  # whose WAL grows past what is copied into the database at once
        assert tally.cuts["writing the database"] > 0


@pytest.mark.parametrize("service", ["act", "oms"])
def test_with_synchronous_normal_acknowledged_work_is_lost(tmp_path: Path, service: str) -> None:
    tally = Campaign(tmp_path, 1, service, synchronous="NORMAL").run(10)
    assert tally.losing > 0
    assert tally.lost > tally.losing


def test_on_a_disk_that_does_not_sync_the_wal_acknowledged_events_are_lost(tmp_path: Path) -> None:
    tally = Campaign(tmp_path, 1, "act", lies_of=[WAL]).run(10)
    assert tally.losing > 0


def test_on_a_disk_that_does_not_sync_the_database_it_is_found_damaged(tmp_path: Path) -> None:
    tally = Campaign(tmp_path, 1, "act", lies_of=[DATABASE]).run(30)
    assert tally.damages


def test_a_disk_keeps_what_was_synced_and_some_sectors_of_the_rest() -> None:
    old, new = b"o" * 16_384, b"n" * 16_384
    found: set[str] = set()
    for seed in range(100):
        disk = Disk({}, random.Random(seed))
        disk.open("x.db")
        disk.power_on(steps=4)
        disk.write("x.db", old, 0)
        disk.sync("x.db")
        disk.write("x.db", new, 0)
        assert disk.read("x.db", 3, 16_382) == b"nn"
        with pytest.raises(PowerCutError):
            disk.write("x.db", b"never", 0)
        with pytest.raises(PowerCutError):
            disk.read("x.db", 1, 0)
        data = disk.files()["x.db"]
        sectors = [data[at : at + 512] for at in range(0, len(data), 512)]
        assert len(data) == 16_384
        assert set(sectors) <= {old[:512], new[:512]}, "part of a sector"
        found.add("old" if data == old else "new" if data == new else "torn")
    assert found == {"old", "new", "torn"}


def test_a_disk_may_forget_files_and_truncations_that_were_not_synced() -> None:
    found = set()
    for seed in range(100):
        disk = Disk({"x.db": b"o" * 1_000}, random.Random(seed))
        disk.power_on(steps=3)
        disk.open("x.db-wal")
        disk.write("x.db-wal", b"n", 700)
        disk.truncate("x.db", 10)
        with pytest.raises(PowerCutError):
            disk.sync("x.db")
        found |= {(name, len(data)) for name, data in disk.files().items()}
        found |= {("no WAL", 0)} if "x.db-wal" not in disk.names() else set()
    assert found == {("x.db", 10), ("x.db", 1_000), ("x.db-wal", 0), ("x.db-wal", 701), ("no WAL", 0)}


def test_a_removed_file_stays_away() -> None:
    disk = Disk({"x.db": b"o", "x.db-wal": b"o"}, random.Random(1))
    disk.power_on(steps=2)
    disk.delete("x.db-wal")
    with pytest.raises(PowerCutError):
        disk.delete("x.db")
    assert disk.files() == {"x.db": b"o"}
