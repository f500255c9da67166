"""``act copy``: the same ledger in another database, or a word on why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from act.copy import CopyError, copy, rebuild
from act.domain.checkpoint import Checkpoint, sign_checkpoint
from act.domain.errors import ForkError, UnavailableError
from act.keys import make_keys
from act.storage import whole
from act.storage.checkpoints import Signed, add_signed
from act.storage.entries import size_of
from act.storage.forks import add_fork, forks_after
from act.storage.store import Store, open_store
from act.storage.tree import frontier_of
from act.verify import verify
from tests.act.process import act
from tests.act.support import check_ledger, event, failing_reads, plain_job
from tests.act.test_storage import put
from tests.database import KINDS, Database, Kind
from tests.databases import Databases

RAWS = [raw for number in range(260) for raw in plain_job(f"JOB-{number}")]
"""More than a block of them, and pages with a rest."""

Lend = Callable[[Kind], Database]


@pytest.fixture
def lend(databases: Databases) -> Iterator[Lend]:
    """Give an empty ledger database of a kind."""
    with ExitStack() as lent:
        yield lambda kind: lent.enter_context(databases.lend(kind, "act"))


@pytest.fixture
def stores() -> Iterator[Callable[[Database], Store]]:
    """Open a database until the end of the test."""
    with ExitStack() as opened:

        def open_(database: Database) -> Store:
            store = open_store(database.url, migrate=False)
            opened.callback(store.close)
            return store

        yield open_


def fork(raw: bytes) -> ForkError:
    """Return the refusal of an event as a fork."""
    return ForkError("x", stream="JOB-0", seq=1, position=0, ledger_index=0, event=raw)


def quietly(_what: str, _done: int, _of: int) -> None:
    """Show no progress."""


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_the_copy_is_the_same(source: Kind, target: Kind, lend: Lend, stores: Callable[[Database], Store]) -> None:
    one, other = stores(lend(source)), stores(lend(target))
    put(one, [*RAWS, event("LANE-ключ", 1, entity="lane", status="paused", lane="ключ")])
    with one.writer.begin() as tx:
        whole.add_positions(tx, {"act.events": 17})
        for raw in (b"one", b"two"):
            add_fork(tx, fork(raw), now_us=7)
    told: list[tuple[str, int, int]] = []
    assert copy(one, other, on_progress=lambda *what: told.append(what)) == 1301
    assert check_ledger(other) == check_ledger(one)
    with other.reader.begin() as tx:
        assert whole.positions_of(tx) == {"act.events": 17}
        assert [kept.event for kept in forks_after(tx, -1, count=9)] == [b"one", b"two"]
    assert told[-1] == ("comparing", 1301, 1301)
    assert [done for what, done, _ in told if what == "copying"] == [500, 1000, 1301]
    # Once more: nothing to do but to take another fork along. And the ledger goes on in its new place.
    with one.writer.begin() as tx:
        add_fork(tx, fork(b"three"), now_us=8)
    assert copy(one, other, on_progress=quietly) == 1301
    with one.reader.begin() as tx, other.reader.begin() as to:
        assert [*forks_after(to, 1, count=9)] == [*forks_after(tx, 1, count=9)] != []
    put(other, [event("JOB-0", 6, entity="job", status="erased")])
    assert len(check_ledger(other)) == 1302


@pytest.mark.parametrize("target", KINDS)
def test_a_copy_that_was_stopped_goes_on(target: Kind, lend: Lend, stores: Callable[[Database], Store]) -> None:
    one, other = stores(lend("sqlite")), stores(lend(target))
    put(one, RAWS)

    class StoppedError(Exception):
        pass

    def stop(_what: str, done: int, _of: int) -> None:
        if done >= 1000:
            raise StoppedError

    with pytest.raises(StoppedError):
        copy(one, other, on_progress=stop)
    with other.reader.begin() as tx:
        assert size_of(tx) == 1000
    pages: list[int] = []
    copy(one, other, on_progress=lambda what, done, _of: pages.append(done) if what == "copying" else None)
    assert pages == [1300]
    assert check_ledger(other) == RAWS


def test_what_cannot_be_read_now_is_no_difference(lend: Lend, stores: Callable[[Database], Store]) -> None:
    one, other = stores(lend("sqlite")), stores(lend("sqlite"))
    put(one, RAWS[:5])
    with failing_reads(one.reader), pytest.raises(UnavailableError, match="disk answers with errors"):
        copy(one, other, on_progress=quietly)
    assert copy(one, other, on_progress=quietly) == 5


@pytest.mark.parametrize(
    ("has", "says"),
    [
        (plain_job("JOB-9999"), "another ledger: it differs at index 0"),
        ([*RAWS[:600], *plain_job("JOB-9998")], "another ledger: it differs at index 604"),
        ([*RAWS[:5], *plain_job("JOB-9999"), *RAWS[5:15]], "another ledger: it differs at index 19"),
        ([*RAWS[:5], *RAWS[10:15], *RAWS[5:10], *RAWS[15:20]], "differs at index 5: it is no copy"),
        ([*RAWS, *plain_job("JOB-9999")], "another ledger: it differs at index 1304"),
    ],
    ids=["another", "another-end", "one-too-many", "another-order", "longer"],
)
@pytest.mark.parametrize("target", KINDS)
def test_another_ledger_is_never_added_to(
    target: Kind, has: list[bytes], says: str, lend: Lend, stores: Callable[[Database], Store]
) -> None:
    one, other = stores(lend("sqlite")), stores(lend(target))
    put(one, RAWS)
    put(other, has)
    with pytest.raises(CopyError, match=says):
        copy(one, other, on_progress=quietly)
    if "another ledger" in says:
        assert check_ledger(other) == has, "nothing was written"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            "UPDATE events SET entry = CAST(replace(CAST(entry AS TEXT), 'ticket', 'TICKET') AS BLOB) WHERE idx = 700",
            "damaged at index 700",
        ),
        ("DELETE FROM events WHERE idx >= 1299", "the table heads"),
        ("UPDATE events SET entry = 'a text' WHERE idx = 700", "damaged at index 700"),
        ("UPDATE events SET leaf_hash = zeroblob(32) WHERE idx = 700", "damaged at index 700"),
        ("DELETE FROM events WHERE idx = 700", "no event at index 700"),
        ("DELETE FROM heads WHERE stream = 'JOB-7'", "the table heads"),
        ("UPDATE blocks SET min_ts_ms = 7", "the table blocks"),
    ],
)
def test_a_damaged_source_gives_no_copy_that_passes(
    damage: str, says: str, lend: Lend, stores: Callable[[Database], Store]
) -> None:
    source = lend("sqlite")
    one, other = stores(source), stores(lend("sqlite"))
    put(one, RAWS)
    for trigger in ("events_no_update", "events_no_delete"):
        source.rows(f"DROP TRIGGER {trigger}")
    source.rows(damage)
    with pytest.raises(CopyError, match=says):
        copy(one, other, on_progress=quietly)


@pytest.mark.parametrize("target", KINDS)
def test_a_ledger_is_made_anew_from_its_entries(
    target: Kind, lend: Lend, stores: Callable[[Database], Store], tmp_path: Path
) -> None:
    source = lend("sqlite")
    one, other = stores(source), stores(lend(target))
    put(one, RAWS)
    keys = make_keys(tmp_path / "act.key", name="log.example")
    with one.writer.begin() as tx:
        frontier = frontier_of(tx)
        assert frontier is not None
        note = sign_checkpoint(Checkpoint(keys.origin, frontier.size, frontier.root), keys.signing).encoded()
        signed = Signed(frontier.size, str(keys.signing.verifier), frontier.root, 1, note)
        add_signed(tx, signed, holder="test", lease_ms=0)
    for (trigger,) in source.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        source.rows(f"DROP TRIGGER {trigger}")
    for statement in (
        "UPDATE events SET lane = 'x', leaf_hash = zeroblob(32) WHERE idx % 7 = 0",
        "DELETE FROM heads",
        "DELETE FROM tiles",
        "UPDATE blocks SET min_ts_ms = 7",
        "UPDATE tree SET size = 3",
    ):
        source.rows(statement)
    assert rebuild(one, other, on_progress=quietly) == 1300
    assert check_ledger(other) == RAWS
    with other.reader.begin() as tx:
        assert verify(tx, keys=keys.verifiers, held=[note], on_progress=quietly).signed_size == 1300
    with pytest.raises(CopyError, match="empty database"):
        rebuild(one, other, on_progress=quietly)


@pytest.mark.parametrize(
    "damage", ["DELETE FROM events WHERE idx = 700", "UPDATE events SET entry = 'x' WHERE idx = 700"]
)
def test_a_lost_entry_cannot_be_made_anew(damage: str, lend: Lend, stores: Callable[[Database], Store]) -> None:
    source = lend("sqlite")
    one, other = stores(source), stores(lend("sqlite"))
    put(one, RAWS)
    for trigger in ("events_no_update", "events_no_delete"):
        source.rows(f"DROP TRIGGER {trigger}")
    source.rows(damage)
    with pytest.raises(CopyError, match="index 700"):
        rebuild(one, other, on_progress=quietly)


def test_a_target_that_grows_by_itself_is_left_alone(lend: Lend, stores: Callable[[Database], Store]) -> None:
    target = lend("postgres")
    one, other, third = stores(lend("sqlite")), stores(target), stores(target)
    put(one, RAWS)

    def append_to_it(_what: str, done: int, _of: int) -> None:
        if done == 500:
            put(third, [event("JOB-9999", 1)])

    with pytest.raises(CopyError, match="somebody else appends"):
        copy(one, other, on_progress=append_to_it)


def test_the_command(lend: Lend, tmp_path: Path) -> None:
    source, target = lend("sqlite"), lend("postgres")
    store = open_store(source.url, migrate=False)
    put(store, RAWS)
    flags = ("copy", "--from", source.url, "--to", target.url)
    refused = act(tmp_path, *flags)
    assert refused.returncode == 1
    assert "another process uses" in refused.stderr
    store.close()
    done = act(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert "has all 1300 events" in done.stdout
    assert "1300/1300" in done.stderr
    anew = act(tmp_path, "copy", "--rebuild", "--from", source.url, "--to", f"sqlite:///{tmp_path / 'anew.db'}")
    assert anew.returncode == 0, anew.stderr
    assert "made anew" in anew.stdout
    back = act(tmp_path, "copy", "--from", target.url, "--to", f"sqlite:///{tmp_path / 'back.db'}")
    assert back.returncode == 0, back.stderr
    copied = open_store(f"sqlite:///{tmp_path / 'back.db'}", migrate=False)
    assert check_ledger(copied) == RAWS
    copied.close()
    for wrong, code, says in (
        (("copy", "--from", source.url, "--to", source.url), 2, "the same database"),
        (("copy", "--from", "sqlite:///none.db", "--to", target.url), 1, "act migrate"),
    ):
        refused = act(tmp_path, *wrong)
        assert (refused.returncode, "Traceback" in refused.stderr) == (code, False)
        assert says in refused.stderr
