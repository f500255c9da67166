"""Checkpoints: signed within a second of growth, after reading back, and never one that contradicts an earlier one."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from structlog.testing import capture_logs

from act import signer as signers
from act.domain.checkpoint import Checkpoint, open_checkpoint
from act.domain.errors import LedgerDamagedError
from act.domain.tree import EMPTY_ROOT, Frontier
from act.keys import (
    KeyFileError,
    Keys,
    key_path,
    make_keys,
    memory_of,
    open_keys,
    read_keys,
    read_verifiers,
    renew_keys,
)
from act.readback import read_back
from act.storage.tree import frontier_of
from tests.act.support import Act, figures_of, opened, plain_job, run, running, until
from tests.act.test_storage import put
from tests.database import Database
from tests.databases import NewDatabase, postgres_only, sqlite_only

OWN_PACE_SEC = signers.EVERY_SEC
JOBS = [raw for number in range(60) for raw in plain_job(f"JOB-{number}")]
"""More than a full tile."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign often, so that no test waits."""
    monkeypatch.setattr(signers, "EVERY_SEC", 0.01)


async def checkpoint_of(act: Act, keys: Keys) -> Checkpoint:
    """Return the newest checkpoint as HTTP gives it, verified."""
    answer = await act.http.get("/checkpoint")
    assert answer.status_code == 200, answer.text
    return open_checkpoint(answer.content, keys.verifiers, origin=keys.origin).checkpoint


def damage(database: Database, *statements: str) -> None:
    """Change the database as somebody would who has its owner's rights: the triggers go first."""
    if database.kind == "sqlite":
        for (name,) in database.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.rows(f"DROP TRIGGER {name}")
    else:
        for table in ("events", "tiles", "checkpoints"):
            database.rows(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for statement in statements:
        database.rows(statement)


def test_there_is_a_checkpoint_at_once_and_soon_after_growth(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.signed()
            assert await checkpoint_of(act, keys) == Checkpoint(keys.origin, 0, EMPTY_ROOT)
            await act.append(*JOBS)
            await act.signed()
            checkpoint = await checkpoint_of(act, keys)
            assert checkpoint.size == 300
            health = (await act.http.get("/readyz")).json()["signing"]
            assert (health["ok"], health["size"], health["behind"]) == (True, 300, 0)
            assert health["checkpoints_signed"] >= 2
            figures = await figures_of(act)
            assert (figures["act_ledger_events"], figures["act_unsigned_events"], figures["act_signing_ok"]) == (
                300,
                0,
                1,
            )
            assert (figures["act_signing_stops_total"], figures["act_forks_refused_total"]) == (0, 0)

    run(scenario())


def test_a_checkpoint_is_there_within_a_second_of_growth(url: str, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signers, "EVERY_SEC", OWN_PACE_SEC)

    async def scenario() -> None:
        took: list[float] = []
        async with running(url, keys=keys) as act:
            await act.signed()
            for number in range(3):  # the machine may be busy: the quickest counts
                await act.append(*plain_job(f"JOB-{number}"))
                began = time.monotonic()
                await act.signed()
                took.append(time.monotonic() - began)
        assert min(took) < 1.0

    run(scenario())


@pytest.mark.parametrize("size", [300, 301])
def test_a_tree_that_is_changed_after_it_was_signed_is_noticed(
    new_database: NewDatabase, keys: Keys, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signers, "STANDBY_SEC", 0.05)
    database = new_database("act")
    flipped = "zeroblob({})" if database.kind == "sqlite" else "decode(repeat('00', {}), 'hex')"

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.append(*JOBS)
            await act.signed()
            database.rows(f"UPDATE tree SET size = {size}, peaks = {flipped.format(32 * size.bit_count())}")
            await until(lambda: act.signer.health["stopped"], what="the signer stops")

    run(scenario())


def test_p3_every_checkpoint_goes_on_from_the_one_before(url: str, keys: Keys) -> None:
    from act.domain.tree import check_consistency
    from act.domain.witness import AddCheckpoint

    async def scenario() -> None:
        seen: list[Checkpoint] = []
        async with running(url, keys=keys) as act:
            for at in range(0, 300, 43):
                await act.append(*JOBS[at : at + 43])
                await act.signed()
                seen.append(await checkpoint_of(act, keys))
            assert [one.size for one in seen] == [43, 86, 129, 172, 215, 258, 300]
            for old in seen:
                for new in seen:
                    if old.size > new.size:
                        continue
                    answer = await act.http.get(f"/proof/consistency?from={old.size}&to={new.size}")
                    body = AddCheckpoint.parse(answer.content)
                    assert len(body.proof) <= 63
                    check_consistency(old.size, old.root, new.size, new.root, body.proof)
                    assert open_checkpoint(body.checkpoint, keys.verifiers, origin=keys.origin).checkpoint == new

    run(scenario())


def test_p7_what_is_posted_again_changes_neither_size_nor_root(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*JOBS)
            await act.signed()
            before = (await act.http.get("/checkpoint")).content
            for _ in range(3):
                await act.append(*JOBS[7:90])
            await asyncio.sleep(0.05)
            assert (await act.http.get("/checkpoint")).content == before

    run(scenario())


DAMAGES = [
    ("UPDATE events SET entry = {flipped} WHERE idx = 307", 307),
    ("UPDATE events SET leaf_hash = {other} WHERE idx = 305", 305),
    ("UPDATE events SET entry = {other} WHERE idx = 310", 310),
    ("DELETE FROM events WHERE idx = 309", 309),
    ("UPDATE tree SET peaks = {wrong} WHERE size = 800", None),
    ("DELETE FROM tree", None),
    ("UPDATE tiles SET root = {other} WHERE number = 1", 256),
]


@pytest.mark.parametrize(("change", "index"), DAMAGES)
def test_what_was_damaged_before_it_was_signed_is_never_signed(
    new_database: NewDatabase, keys: Keys, change: str, index: int | None
) -> None:
    """It reads back, and signs nothing more; events are taken, and /readyz, the log and the metrics say it."""
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.append(*JOBS[:200])
            await act.signed()
        async with running(database.url) as act:  # signs nothing
            await act.append(*JOBS[200:])
            await act.append(*(raw for number in range(900, 1000) for raw in plain_job(f"JOB-{number}")))
        other = "zeroblob(32)" if database.kind == "sqlite" else "decode(repeat('00', 32), 'hex')"
        wrong = other.replace("32", str(32 * (800).bit_count()))
        ((entry,),) = database.rows("SELECT entry FROM events WHERE idx = 307")
        flipped = bytes([*entry[:99], entry[99] ^ 4, *entry[100:]]).hex()
        flipped = f"x'{flipped}'" if database.kind == "sqlite" else f"decode('{flipped}', 'hex')"
        damage(database, change.format(other=other, wrong=wrong, flipped=flipped))
        with capture_logs() as logs:
            async with running(database.url, keys=keys) as act:
                await until(lambda: act.signer.health["stopped"], what="the signer stops")
        (line,) = [line for line in logs if line["event"] == "signing_stopped"]
        assert (line["log_level"], line["index"]) == ("error", index)
        async with running(database.url, keys=keys) as act:  # a restart changes nothing
            await until(lambda: act.signer.health["stopped"], what="the signer stops")
            health = act.signer.health
            assert (health["ok"], health["bad_index"]) == (False, index)
            assert "incident" in health["error"]
            assert (await checkpoint_of(act, keys)).size == 200
            await act.append(*plain_job("JOB-2000"))
            ready = await act.http.get("/readyz")
            assert (ready.status_code, ready.json()["signing"]["stopped"]) == (200, True)
            figures = await figures_of(act)
            assert (figures["act_signing_ok"], figures["act_signing_stops_total"]) == (0, 1)

    run(scenario())


def test_the_same_without_damage_is_signed(new_database: NewDatabase, keys: Keys) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url) as act:
            await act.append(*JOBS)
            assert (await act.http.get("/checkpoint")).status_code == 503
        damage(database)
        async with running(database.url, keys=keys) as act:
            await act.signed()
            assert act.signer.health["size"] == 300

    run(scenario())


@sqlite_only
def test_a_restored_backup_is_not_signed_and_events_are_taken(url: str, keys: Keys, tmp_path: Path) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    backup = tmp_path / "backup.db"

    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*JOBS[:100])
            await act.signed()
        shutil.copyfile(path, backup)
        async with running(url, keys=keys) as act:
            await act.append(*JOBS[100:])
            await act.signed()
        shutil.copyfile(backup, path)
        async with running(url, keys=keys) as act:
            await until(lambda: act.signer.health["stopped"], what="the signer stops")
            assert act.signer.health["bad_index"] == 100
            assert "older state" in act.signer.health["error"]
            await act.append(*JOBS[100:])
            assert (await checkpoint_of(act, keys)).size == 100
        # It grew past what was signed, with other bytes: that is no better.
        async with running(url, keys=keys) as act:
            await act.append(*plain_job("JOB-77777"))
            await until(lambda: act.signer.health["stopped"], what="the signer stops")
            assert "not those that were signed" in act.signer.health["error"]

    run(scenario())


@sqlite_only
def test_a_log_with_a_new_name_begins_where_the_old_ones_promise_ended(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*JOBS[:100])
            await act.signed()
        memory_of(keys).write_bytes(memory_of(keys).read_bytes().replace(b"\n100\n", b"\n900\n"))
        async with running(url, keys=keys) as act:
            await until(lambda: act.signer.health["stopped"], what="the signer stops")
        renewed = renew_keys(keys.path, name="log.example/act-2")
        async with running(url, keys=renewed) as act:
            await act.append(*JOBS[100:110])
            await act.signed()
            assert act.signer.health["ok"], act.signer.health
            assert (await checkpoint_of(act, renewed)).origin == "log.example/act-2"

    run(scenario())


def test_a_new_key_signs_and_the_old_ones_notes_still_verify(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*JOBS[:100])
            await act.signed()
            old = (await act.http.get("/checkpoint")).content
        renewed = renew_keys(keys.path)
        assert read_keys(keys.path) == renewed
        async with running(url, keys=renewed) as act:
            await until(lambda: act.signer.checkpoints_signed == 1, what="the new key's checkpoint")
            note = (await act.http.get("/checkpoint")).content
            only_new = (renewed.signing.verifier,)
            assert open_checkpoint(note, only_new, origin=keys.origin).checkpoint.size == 100
            assert open_checkpoint(old, renewed.verifiers, origin=keys.origin).checkpoint.size == 100
        # A process that was not told of it cannot vouch for what came after.
        async with running(url, keys=keys) as act:
            await until(lambda: act.signer.health["stopped"], what="the signer stops")
            assert "key file" in act.signer.health["error"]

    run(scenario())


@postgres_only
def test_of_several_processes_one_signs_and_any_serves(url: str, keys: Keys, tmp_path: Path) -> None:
    shutil.copyfile(keys.path, tmp_path / "other.key")
    others = read_keys(tmp_path / "other.key")

    async def scenario() -> None:
        async with running(url, keys=keys) as one, running(url, keys=others) as two:
            for at in range(0, 300, 20):
                await (one if at % 40 else two).append(*JOBS[at : at + 20])
            for act in (one, two):
                await until(lambda act=act: act.signer.health["size"] == 300, what="both know it")  # type: ignore[misc]
                assert (await checkpoint_of(act, keys)).size == 300
                assert act.signer.health["ok"], act.signer.health
            assert memory_of(keys).read_bytes() == memory_of(others).read_bytes()

    run(scenario())


def test_what_cannot_be_kept_beside_the_key_is_not_published(
    url: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.signed()
            with monkeypatch.context() as patch:
                patch.setattr(signers, "write_whole", full)
                await act.append(*JOBS)
                await until(lambda: not act.signer.health["ok"], what="it says so")
                assert "No space left" in act.signer.health["error"]
                assert not act.signer.health["stopped"]
                assert (await checkpoint_of(act, keys)).size == 0
            await act.signed()
            assert (await checkpoint_of(act, keys)).size == 300

    run(scenario())


@pytest.mark.parametrize(
    ("change", "index"),
    [
        ("DELETE FROM events WHERE idx >= 290", 290),
        ("DELETE FROM events WHERE idx = 0", 0),
        ("UPDATE events SET entry = 'a text' WHERE idx = 5", 5),
        ("UPDATE events SET idx = 1000 WHERE idx = 9", 9),
        ("DELETE FROM tiles", 0),
    ],
)
@sqlite_only
def test_reading_back_names_what_is_wrong(new_database: NewDatabase, change: str, index: int) -> None:
    database = new_database("act")
    with opened(database.url) as store:
        put(store, JOBS)
        with store.reader.begin() as tx:
            assert read_back(tx, Frontier(), end=300) == frontier_of(tx)
        damage(database, change)
        with store.reader.begin() as tx, pytest.raises(LedgerDamagedError) as caught:
            read_back(tx, Frontier(), end=300)
    assert caught.value.index == index


# --- keys ---------------------------------------------------------------------------------------------------------


def test_the_key_file_is_its_owners_alone_and_its_secret_stays_in_it(tmp_path: Path) -> None:
    made: list[Keys] = []
    url = f"sqlite:///{tmp_path / 'act.db'}"
    keys = open_keys(url, named=None, name=None, on_made=made.append)
    assert keys is not None
    assert made == [keys]
    assert keys.path == tmp_path / "act.db.key"
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert keys.warning is None
    assert keys.signing.secret_text() not in repr(keys)
    assert open_keys(url, named=None, name=None, on_made=made.append) == keys
    assert len(made) == 1
    keys.path.chmod(0o640)
    assert "chmod 600" in (keys.warning or "")
    assert key_path("postgresql+psycopg://u:p@h/ledger") == Path("ledger.key")
    assert open_keys(url, named="none", name=None, on_made=made.append) is None
    for named, name, says in (
        (str(tmp_path / "no" / "key"), None, "cannot make"),
        (None, "other.example", "other.example"),
    ):
        with pytest.raises(KeyFileError, match=says):
            open_keys(url, named=named, name=name, on_made=made.append)
    keys.path.write_text("# nothing\n")
    with pytest.raises(KeyFileError, match="0 signing keys"):
        read_keys(keys.path)
    keys.path.write_text(f"{keys.signing.secret_text()[:-9]}AAAAAAAA=\n")
    with pytest.raises(KeyFileError) as caught:
        read_keys(keys.path)
    assert keys.signing.secret_text()[30:60] not in str(caught.value)


def test_verifier_keys_are_read_from_text_and_from_files(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "a.key", name="log.example")
    assert make_keys(tmp_path / "a.key", name="log.example") == keys, "what is there is never replaced"
    renewed = renew_keys(keys.path)
    public = tmp_path / "public"
    public.write_text(f"# ours\n{renewed.signing.verifier}\n")
    assert read_verifiers([str(public)]) == (renewed.signing.verifier,)
    assert read_verifiers([str(keys.signing.verifier)]) == renewed.earlier
    assert read_verifiers([str(renewed.path), str(public)]) == renewed.verifiers
    for bad in ("no+key", str(tmp_path / "none")):
        with pytest.raises(KeyFileError):
            read_verifiers([bad])


def test_a_ledger_older_than_the_tree_is_built_and_signed(database: Database, keys: Keys) -> None:
    from act.storage.store import MIGRATIONS
    from hmskit.migrate import upgrade
    from tests.act.test_migrations import old_append

    engine = create_engine(database.url)
    upgrade(engine, MIGRATIONS, to="act_0003")
    with engine.begin() as tx:
        for number in range(60):
            old_append(tx, plain_job(f"JOB-{number}"), idx=number * 5)
    engine.dispose()

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.signed()
            assert (await checkpoint_of(act, keys)).size == 300

    run(scenario())
