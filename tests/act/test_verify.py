"""``act verify`` and ``act verify-proof``: offline, reading only, and their exit codes are the truth."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from act import signer as signers
from act.cli import main
from act.keys import Keys, make_keys, renew_keys
from act.storage import readonly
from tests.act.support import plain_job, run, running
from tests.act.test_signer import JOBS, damage
from tests.database import Database
from tests.databases import NewDatabase, postgres_only, sqlite_only

Act = Callable[..., Result]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign often, so that no test waits; and nothing of the machine's own settings."""
    monkeypatch.setattr(signers, "EVERY_SEC", 0.01)
    monkeypatch.delenv("ACT_VERIFIER_KEY", raising=False)


@pytest.fixture
def act() -> Act:
    """Run an ``act`` command."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, [str(one) for one in arguments])


@pytest.fixture
def database(new_database: NewDatabase, keys: Keys, tmp_path: Path) -> Database:
    """A signed ledger, its service stopped; ``held`` and ``one.tlog-proof`` are in the folder."""
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.append(*JOBS[:150])
            await act.signed()
            (tmp_path / "earlier").write_bytes((await act.http.get("/checkpoint")).content)
            await act.append(*JOBS[150:])
            await act.signed()
            (tmp_path / "held").write_bytes((await act.http.get("/checkpoint")).content)
            (tmp_path / "one.tlog-proof").write_bytes((await act.http.get("/proof/inclusion?index=77")).content)

    run(scenario())
    return database


def test_a_sound_ledger(database: Database, keys: Keys, tmp_path: Path, act: Act) -> None:
    done = act("verify", database.url, "--key", keys.signing.verifier, "--checkpoint", tmp_path / "held")
    assert done.exit_code == 0, done.output
    assert re.search(
        r"size 300\nroot [0-9a-f]{64}\nlog log.example/act, \d+ checkpoints, .* 300 events\nOK", done.output
    )
    assert "warning" not in done.output
    assert "300/300" in done.output
    unnamed = act("verify", database.url)
    assert unnamed.exit_code == 0
    assert "no --key" in unnamed.output


def test_it_reads_beside_a_running_act(new_database: NewDatabase, keys: Keys, act: Act) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, keys=keys) as service:
            await service.append(*JOBS[:200])
            await service.signed()
            assert act("verify", database.url, "--key", keys.path).exit_code == 0
            await service.append(*JOBS[200:])
            assert act("verify", database.url, "--key", keys.path).exit_code == 0

    run(scenario())


@sqlite_only
def test_a_copy_on_a_medium_that_cannot_be_written_to(
    database: Database, tmp_path: Path, act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    shutil.copyfile(database.path, folder / "act.db")
    monkeypatch.setattr(readonly, "_is_readable", lambda _: False)  # as where SQLite cannot make its two files
    assert act("verify", folder / "act.db").exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["act.db"]


DAMAGES = [
    ("UPDATE events SET lane = 'nobody' WHERE idx = 47", 47),
    ("UPDATE events SET ts_ms = 7 WHERE idx = 47", 47),
    ("UPDATE events SET received_us = received_us + 1 WHERE idx = 260", 260),
    ("DELETE FROM events WHERE idx = 299", 299),
    ("DELETE FROM events WHERE idx = 0", 0),
    ("UPDATE heads SET seq = 6 WHERE stream = 'JOB-59'", 299),
    ("DELETE FROM heads WHERE stream = 'JOB-59'", 300),
    ("UPDATE tree SET size = 299", 299),
    ("DELETE FROM tiles", 0),
    ("UPDATE checkpoints SET size = 77 WHERE size = 150", 76),
]


@pytest.mark.parametrize(("change", "index"), DAMAGES)
def test_the_first_bad_index_is_named(database: Database, keys: Keys, act: Act, change: str, index: int) -> None:
    damage(database, change)
    found = act("verify", database.url, "--key", keys.signing.verifier)
    assert found.exit_code == 1
    assert f"BAD: index {index}: " in found.output, found.output


@sqlite_only
def test_an_old_backup_is_found_by_the_checkpoint_that_was_kept(
    database: Database, keys: Keys, tmp_path: Path, act: Act
) -> None:
    damage(
        database,
        "DELETE FROM checkpoints WHERE size > 150",
        "DELETE FROM tiles",
        "DELETE FROM events WHERE idx >= 150",
        "DELETE FROM heads",
        "INSERT INTO heads SELECT stream, max(seq) FROM events GROUP BY stream",
        "UPDATE tree SET size = 0, peaks = x''",
    )

    async def rebuild() -> None:
        async with running(database.url) as service:
            await service.ledger.grow_tree(count=150)

    run(rebuild())
    flags = ("verify", database.url, "--key", keys.signing.verifier)
    assert act(*flags).exit_code == 0, "by itself it is sound"
    assert act(*flags, "--checkpoint", tmp_path / "earlier").exit_code == 0
    found = act(*flags, "--checkpoint", tmp_path / "held")
    assert found.exit_code == 1
    assert "BAD: index 150: it is missing" in found.output


def test_a_ledger_signed_with_another_key_is_not_the_logs(
    database: Database, tmp_path: Path, keys: Keys, act: Act
) -> None:
    other = make_keys(tmp_path / "other.key", name=keys.origin)
    found = act("verify", database.url, "--key", other.signing.verifier)
    assert found.exit_code == 1
    assert "not signed by a key that was named" in found.output


def test_after_a_rotation_the_new_key_is_enough(database: Database, keys: Keys, act: Act) -> None:
    renewed = renew_keys(keys.path)

    async def sign() -> None:
        async with running(database.url, keys=renewed) as service:
            await service.append(*plain_job("JOB-3000"))
            await service.signed()

    run(sign())
    for key in (renewed.signing.verifier, renewed.path):
        assert act("verify", database.url, "--key", key).exit_code == 0
    assert act("verify", database.url, "--key", keys.signing.verifier).exit_code == 1, "the newest is by the other"


def test_what_cannot_be_checked_is_neither_good_nor_bad(database: Database, tmp_path: Path, act: Act) -> None:
    (tmp_path / "no.db").write_bytes(b"no database")
    for wrong in (
        ("verify", tmp_path / "none.db"),
        ("verify", tmp_path / "no.db"),
        ("verify", "mysql://x/y"),
        ("verify", "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"),
        ("verify", database.url, "--key", "no+key"),
        ("verify", database.url, "--checkpoint", tmp_path / "none"),
        ("verify", database.url, "--checkpoint", tmp_path / "no.db"),
        ("verify-proof", tmp_path / "one.tlog-proof"),
        ("verify-proof", tmp_path / "none", "--key", tmp_path / "act.key"),
    ):
        answer = act(*wrong)
        assert answer.exit_code == 2, (wrong, answer.output)
        assert "error: " in answer.output
        assert "secret" not in answer.output


@sqlite_only
def test_p4_a_proof_file_is_checked_offline(
    database: Database, keys: Keys, tmp_path: Path, act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.tlog-proof"
    good = act("verify-proof", file, "--key", keys.signing.verifier)
    assert good.exit_code == 0, good.output
    assert '"id":"JOB-15.3"' in good.output
    assert "index 77 of 300 in the log log.example/act\nOK" in good.output
    monkeypatch.setenv("ACT_VERIFIER_KEY", str(keys.signing.verifier))
    assert act("verify-proof", file).exit_code == 0
    data = file.read_bytes()
    other = make_keys(tmp_path / "other.key", name=keys.origin)
    assert act("verify-proof", file, "--key", other.signing.verifier).exit_code == 1
    for bad in (data.replace(b"index 77", b"index 78"), data[:-30], data.replace(b"extra Y", b"extra Z"), b""):
        file.write_bytes(bad)
        found = act("verify-proof", file)
        assert (found.exit_code, "BAD: " in found.output) == (1, True)


@postgres_only
def test_a_database_that_goes_away_is_not_called_bad(database: Database, act: Act) -> None:
    with database.away():
        answer = act("verify", database.url)
    assert answer.exit_code == 2


def test_the_key_commands(tmp_path: Path, act: Act) -> None:
    path = tmp_path / "act.key"
    made = act("key", "new", "--file", path, "--name", "log.example")
    assert made.exit_code == 0
    assert "PRIVATE" not in made.output
    shown = act("key", "show", "--file", path).output
    assert shown.startswith("log.example+")
    assert shown in made.output
    assert act("key", "new", "--file", path).exit_code == 0
    both = act("key", "show", "--file", path).output.splitlines()
    assert len(both) == 2
    assert both[1] == shown.strip()
    assert act("key", "show", "--file", tmp_path / "none").exit_code == 1
    assert act("key", "new", "--file", tmp_path / "no" / "act.key").exit_code == 1
    assert act("key", "new", "--file", tmp_path / "bad.key", "--name", "a b").exit_code == 1
