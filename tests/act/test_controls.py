"""The negative controls: each check is what keeps its harm away. With it the harm is found, without it it passes.

Those of the full check are in `test_tamper`, those of syncing to disk in ``tests/faults/test_power_cuts.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from act import ledger, signer
from act.cli import main
from act.domain import checkpoint, tlog_proof, witness
from act.domain.note import VerifierKey
from act.domain.order import is_new
from act.domain.tlog_proof import TlogProof, verify_proof
from act.domain.tree import Frontier, ProofError, inclusion_proof
from act.keys import Keys
from act.signer import Signer
from act.storage.tree import frontier_of
from act.watch import RewrittenError, look
from tests.act.support import event, plain_job, run, running, until
from tests.act.test_signer import JOBS, damage
from tests.act.test_tlog_proof import ENTRIES, KEY, LEAVES, ORIGIN, proof_of
from tests.act.test_watch import Log
from tests.act.trees import leaves_of, reader
from tests.database import Database
from tests.databases import NewDatabase, sqlite_only

Passes = Callable[[Database, Keys, Path], bool]
"""Does harm; tells whether it was let pass."""


def in_a_loop(scenario: Callable[[Database, Keys, Path], Coroutine[Any, Any, bool]]) -> Passes:
    return lambda database, keys, folder: run(scenario(database, keys, folder))


# --- what is signed -----------------------------------------------------------------------------------------------


def is_sound(database: Database, keys: Keys) -> bool:
    """Tell whether the full check finds nothing."""
    from typer.testing import CliRunner

    done = CliRunner().invoke(main, ["verify", database.url, "--key", str(keys.path)])
    assert done.exit_code in (0, 1), done.output
    return done.exit_code == 0


@in_a_loop
async def a_bit_that_flipped_on_its_way_to_the_disk(database: Database, keys: Keys, _folder: Path) -> bool:
    """Is it signed for ever?"""
    async with running(database.url) as act:
        await act.append(*JOBS)
    damage(database, "UPDATE events SET entry = entry || x'20' WHERE idx = 77")
    async with running(database.url, keys=keys) as act:
        await until(lambda: act.signer.health["stopped"] or act.signer.health["size"] == 300, what="it ends")
        is_signed: bool = act.signer.health["size"] == 300
    assert not is_sound(database, keys)
    return is_signed


def trust(tx: Any, _base: Frontier, *, end: int) -> Frontier:
    """Take the stored tree for that of the entries."""
    frontier = frontier_of(tx)
    assert frontier is not None
    assert frontier.size == end
    return frontier


@in_a_loop
async def a_restored_backup_that_grew_again(database: Database, keys: Keys, folder: Path) -> bool:
    """Is a second history of the log signed beside the first?"""
    async with running(database.url, keys=keys) as act:
        await act.append(*JOBS[:100])
        await act.signed()
    shutil.copyfile(database.path, folder / "backup.db")
    async with running(database.url, keys=keys) as act:
        await act.append(*JOBS[100:105])
        await act.signed()
        first = (await act.http.get("/checkpoint")).content
    shutil.copyfile(folder / "backup.db", database.path)
    async with running(database.url, keys=keys) as act:
        await act.append(*plain_job("JOB-77777"))
        await act.append(*plain_job("JOB-77778"))
        await act.signed()
        if act.signer.health["stopped"]:
            return False
        second = (await act.http.get("/checkpoint")).content
    known, new = (
        checkpoint.open_checkpoint(note, keys.verifiers, origin=keys.origin).checkpoint for note in (first, second)
    )
    return new.size > known.size


def forget(self: Signer) -> None:
    """Remember nothing that was signed."""


# --- what is appended ---------------------------------------------------------------------------------------------


@in_a_loop
async def an_event_with_a_gap_before_it(database: Database, keys: Keys, _folder: Path) -> bool:
    async with running(database.url) as act:
        await act.append(*JOBS[:2])
        is_taken = (await act.post(JOBS[3])).status_code == 200
    assert is_sound(database, keys) is not is_taken, "the full check finds it, too"
    return is_taken


def take_any_order(batch: Any, *, heads: Any, kept: Any) -> list[bool]:
    """Append whatever comes."""
    return [True for _ in batch]


@in_a_loop
async def a_second_history_of_a_job(database: Database, _keys: Keys, _folder: Path) -> bool:
    """Is it told that its event is in the ledger?"""
    async with running(database.url) as act:
        await act.append(*JOBS[:5])
        return (await act.post(event("JOB-0", 1, entity="job", status="failed"))).status_code == 200


def take_it_for_the_same(batch: Any, *, heads: Any, kept: Any) -> list[bool]:
    """Compare places, and not what stands there."""
    return [event.seq > heads.get(event.stream, 0) for event in batch]


@in_a_loop
async def a_batch_whose_answer_was_lost(database: Database, _keys: Keys, _folder: Path) -> bool:
    """Is the same batch refused, or taken twice, when it is posted again?"""
    async with running(database.url, raises=False) as act:
        await act.append(*JOBS[:5])
        with capture_logs():
            answer = await act.post(*JOBS[:5])
        return answer.status_code != 200 or act.ledger.size != 5


def forget_what_is_kept(batch: Any, *, heads: Any, kept: Any) -> list[bool]:
    """Judge a batch as if the ledger were empty."""
    return is_new(batch, heads={}, kept={})


# --- what others check --------------------------------------------------------------------------------------------


def a_rewritten_log(_database: Database, keys: Keys, folder: Path) -> bool:
    """Does a witness take it?"""
    log = Log(keys)
    log.leaves = leaves_of(300)
    look("http://log", state=folder / "kept", keys=keys.verifiers, fetch=log)
    log.leaves = leaves_of(500, salt=b"x")
    try:
        return look("http://log", state=folder / "kept", keys=keys.verifiers, fetch=log).checkpoint.size == 500
    except RewrittenError:
        return False


def a_checkpoint_that_nobody_signed(_database: Database, keys: Keys, folder: Path) -> bool:
    """Does a witness take it?"""
    log = Log(keys)
    log.leaves = leaves_of(300)
    note = log.note().replace(b"\n300\n", b"\n301\n")
    try:
        return (
            look("http://log", state=folder / "kept", keys=keys.verifiers, fetch=lambda _: note).checkpoint.size == 301
        )
    except RewrittenError:
        return False


def an_altered_entry(_database: Database, _keys: Keys, _folder: Path) -> bool:
    """Is it proven by the proof of another one?"""
    path = tuple(inclusion_proof(7, len(LEAVES), reader(LEAVES)))
    proof = TlogProof(7, path, proof_of(7).checkpoint, ENTRIES[7])
    try:
        verify_proof(proof, ENTRIES[7].replace(b"JOB-7", b"JOB-8"), [KEY.verifier], origin=ORIGIN)
    except ProofError:
        return False
    return True


def nothing(*_: object, **__: object) -> None:
    """Check nothing."""


CONTROLS: dict[str, tuple[Passes, Any, str, Any]] = {
    "read back": (a_bit_that_flipped_on_its_way_to_the_disk, signer, "read_back", trust),
    "memory": (a_restored_backup_that_grew_again, Signer, "_recall", forget),
    "order": (an_event_with_a_gap_before_it, ledger, "is_new", take_any_order),
    "bytes": (a_second_history_of_a_job, ledger, "is_new", take_it_for_the_same),
    "once": (a_batch_whose_answer_was_lost, ledger, "is_new", forget_what_is_kept),
    "consistency": (a_rewritten_log, witness, "check_consistency", nothing),
    "signature": (a_checkpoint_that_nobody_signed, VerifierKey, "verify", nothing),
    "inclusion": (an_altered_entry, tlog_proof, "check_inclusion", nothing),
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign often, so that no test waits."""
    monkeypatch.setattr(signer, "EVERY_SEC", 0.01)


@pytest.mark.parametrize("control", CONTROLS)
@sqlite_only
def test_the_check_keeps_the_harm_away_and_without_it_it_passes(
    new_database: NewDatabase, keys: Keys, tmp_path: Path, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, where, name, without = CONTROLS[control]
    (tmp_path / "with").mkdir()
    assert not passes(new_database("act"), keys, tmp_path / "with")
    for left in tmp_path.glob("act.key.last"):
        left.unlink()
    (tmp_path / "without").mkdir()
    monkeypatch.setattr(where, name, without)
    assert passes(new_database("act"), keys, tmp_path / "without"), "it is not this check that keeps it away"
