"""P1 and P2: whatever is changed below a checkpoint is found, offline, and the first bad index is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from act import verify as verifying
from act.domain import audit
from act.domain.audit import Audit
from act.verify import BadLedgerError
from tests.act import tamper
from tests.act.tamper import Lab, missed

COUNT = 2_000
"""More: `python tests/act/tamper.py --count 100000`."""


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(seed=20261124)


def test_p1_every_tampering_is_found(lab: Lab) -> None:
    kinds: Counter[str] = Counter()
    for number in range(COUNT):
        done, why = missed(lab)
        assert why is None, f"number {number}: {done}: {why}"
        kinds[done.kind] += 1
    assert set(kinds) == {*lab.kinds, "file", "old backup"}


def test_the_ledger_that_is_tampered_with_is_sound(lab: Lab) -> None:
    with lab.engine.connect() as tx:
        assert lab.check(tx) is None


def test_p2_one_edited_column_is_found_and_named(lab: Lab) -> None:
    for column in tamper.DASHBOARD:
        with lab.engine.connect() as tx:
            transaction = tx.begin()
            tx.execute(text(f"UPDATE events SET {column} = 77 WHERE idx = 123"))
            found = lab.check(tx)
            transaction.rollback()
        assert found is not None
        assert found.finding.index == 123
        assert f"the column {column} says " in found.finding.detail
        assert "77" in found.finding.detail


def nothing(*_: Any, **__: Any) -> None:
    """Find nothing."""


def take_any_order(self: Audit, stream: str, seq: int) -> None:
    """Take the events of a stream as they come."""
    self.heads[stream] = seq


def cut_one_out_and_sign(lab: Lab, tx: Connection) -> None:
    """Take out an event in the middle of a stream, as its operator could who signs the rest."""
    tx.execute(text("DELETE FROM events WHERE idx = 7"))
    tx.execute(text("UPDATE events SET idx = -idx WHERE idx > 7"))
    tx.execute(text("UPDATE events SET idx = -idx - 1 WHERE idx < 0"))
    tx.execute(text("UPDATE forks SET idx = idx - 1 WHERE idx > 7"))
    tx.execute(text("DELETE FROM checkpoints"))
    lab._derive(tx)
    tamper.sign(tx, tamper.KEY)


def pass_by(self: Any, level: int, _hashes: list[bytes]) -> bytes:
    """Count a tile, and do not look at it."""
    self.numbers[level] += 1
    return b""


Tamper = Callable[[Lab, Connection], object]


def sql(statement: str) -> Tamper:
    return lambda _, tx: tx.execute(text(statement))


CONTROLS: dict[str, tuple[Tamper, Any, str, Any]] = {
    "heads": (sql("UPDATE heads SET seq = 9 WHERE stream = 'JOB-3'"), verifying, "_check_heads", nothing),
    "blocks": (sql("UPDATE blocks SET max_ts_ms = 9 WHERE block = 1"), verifying, "_check_blocks", nothing),
    "tree": (sql("UPDATE tree SET peaks = zeroblob(96)"), verifying, "_check_tree", nothing),
    "tiles": (sql("UPDATE tiles SET hashes = zeroblob(8192)"), verifying._Tiles, "_check", pass_by),
    "forks": (sql("UPDATE forks SET seq = 9 WHERE number = 1"), verifying, "_check_forks", nothing),
    "columns": (sql("UPDATE events SET plan_version = 3 WHERE idx = 9"), audit, "difference", nothing),
    "order": (cut_one_out_and_sign, Audit, "_misplaced", take_any_order),
    "checkpoints": (Lab.insider, verifying, "_compare_root", nothing),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_without_a_check_what_it_is_for_is_not_found(lab: Lab, control: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative controls: each check is the one that finds its tampering."""
    change, where, name, without = CONTROLS[control]

    def found() -> BadLedgerError | None:
        with lab.engine.connect() as tx:
            transaction = tx.begin()
            try:
                change(lab, tx)
                return lab.check(tx) if control != "order" else _check_without_held(tx)
            finally:
                transaction.rollback()

    assert found() is not None
    monkeypatch.setattr(where, name, without)
    assert found() is None


def _check_without_held(tx: Any) -> BadLedgerError | None:
    try:
        with tamper.small_blocks():
            verifying.verify(tx, keys=[tamper.KEY.verifier], on_progress=nothing)
    except BadLedgerError as error:
        return error
    return None
