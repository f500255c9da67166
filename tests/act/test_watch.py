"""``act witness``: it keeps the last checkpoint, and a rewritten tree never takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from act import watch
from act.domain.checkpoint import Checkpoint, sign_checkpoint
from act.domain.tree import consistency_proof
from act.domain.witness import AddCheckpoint
from act.keys import Keys, make_keys
from act.watch import CannotWatchError, RewrittenError, look
from tests.act.process import Served, act
from tests.act.support import array, plain_job
from tests.act.trees import leaves_of, mth, reader


class Log:
    """A log in memory that can be rewritten."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.leaves = leaves_of(0)
        self.asked: list[str] = []

    def note(self, size: int | None = None) -> bytes:
        leaves = self.leaves[:size]
        return sign_checkpoint(Checkpoint(self.keys.origin, len(leaves), mth(leaves)), self.keys.signing).encoded()

    def __call__(self, path: str) -> bytes:
        self.asked.append(path)
        if path == "/checkpoint":
            return self.note()
        sizes = [int(part.partition("=")[2]) for part in path.partition("?")[2].split("&")]
        proof = consistency_proof(sizes[0], sizes[1], reader(self.leaves))
        return AddCheckpoint(sizes[0], tuple(proof), self.note(sizes[1])).encoded()


@pytest.fixture
def log(keys: Keys) -> Log:
    return Log(keys)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_it_keeps_what_goes_on_from_what_it_kept(log: Log, state: Path, keys: Keys) -> None:
    steps = []
    for size in (0, 5, 5, 300, 300, 1000):
        log.leaves = leaves_of(size)
        seen = look("http://log", state=state, keys=keys.verifiers, fetch=log)
        assert state.read_bytes() == log.note()
        assert seen.checkpoint.size == size
        steps.append(seen.step)
    assert steps == ["first", "grown", "same", "grown", "same", "grown"]
    assert log.asked.count("/proof/consistency?from=300&to=1000") == 1


@pytest.mark.parametrize(
    ("rewrite", "says"),
    [
        (lambda _: [*leaves_of(2), *leaves_of(498, salt=b"x")], "does not begin with"),
        (lambda _: leaves_of(300, salt=b"x"), "different roots"),
        (lambda leaves: leaves[:299], "299 entries, and 300 were signed"),
        (lambda _: [], "0 entries, and 300 were signed"),
    ],
    ids=["grown", "same-size", "cut", "emptied"],
)
def test_p3_a_rewritten_tree_is_refused_and_kept_as_evidence(
    log: Log, state: Path, keys: Keys, rewrite: Callable[[list[bytes]], list[bytes]], says: str
) -> None:
    log.leaves = leaves_of(300)
    look("http://log", state=state, keys=keys.verifiers, fetch=log)
    good = state.read_bytes()
    log.leaves = rewrite(log.leaves)
    for _ in range(2):
        with pytest.raises(RewrittenError, match=says):
            look("http://log", state=state, keys=keys.verifiers, fetch=log)
    assert state.read_bytes() == good
    assert state.with_name("kept.refused").read_bytes() == log.note()
    log.leaves = leaves_of(301)
    assert look("http://log", state=state, keys=keys.verifiers, fetch=log).step == "grown"


def test_somebody_else_cannot_answer_for_the_log(log: Log, state: Path, keys: Keys, tmp_path: Path) -> None:
    log.leaves = leaves_of(3)
    look("http://log", state=state, keys=keys.verifiers, fetch=log)
    log.leaves = leaves_of(9)
    log.keys = make_keys(tmp_path / "other.key", name=keys.origin)
    with pytest.raises(RewrittenError, match="no signature by a key"):
        look("http://log", state=state, keys=keys.verifiers, fetch=log)
    assert look("http://log", state=state, keys=(), fetch=log).step == "grown", "without keys it is not looked at"


def test_what_cannot_be_known_changes_nothing(
    log: Log, state: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.leaves = leaves_of(3)
    look("http://log", state=state, keys=keys.verifiers, fetch=log)
    good = state.read_bytes()
    log.leaves = leaves_of(9)

    def away(path: str) -> bytes:
        raise CannotWatchError(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CannotWatchError):
        look("http://log", state=state, keys=keys.verifiers, fetch=away)
    with pytest.raises(CannotWatchError, match=r"127\.0\.0\.1:1/checkpoint"):
        look("http://127.0.0.1:1/", state=state, keys=keys.verifiers)
    with monkeypatch.context() as patch:
        patch.setattr(watch, "write_whole", full)
        with pytest.raises(CannotWatchError, match="No space"):
            look("http://log", state=state, keys=keys.verifiers, fetch=log)
    assert state.read_bytes() == good
    state.write_bytes(b"damaged")
    with pytest.raises(CannotWatchError, match="holds no checkpoint"):
        look("http://log", state=state, keys=keys.verifiers, fetch=log)


def test_a_log_that_refuses_to_prove_itself_was_rewritten(log: Log, state: Path, keys: Keys) -> None:
    log.leaves = leaves_of(3)
    look("http://log", state=state, keys=keys.verifiers, fetch=log)
    log.leaves = leaves_of(9)

    def no_proof(path: str) -> bytes:
        if path == "/checkpoint":
            return log(path)
        raise CannotWatchError("500", is_refusal=True)

    with pytest.raises(RewrittenError, match="does not prove"):
        look("http://log", state=state, keys=keys.verifiers, fetch=no_proof)


def test_two_at_the_same_time_never_put_an_older_one_back(log: Log, state: Path, keys: Keys) -> None:
    """The race of tlog-witness: the first is held up between its fetch and its write."""
    log.leaves = leaves_of(300)
    is_asking, may_answer = threading.Event(), threading.Event()

    def slowly(path: str) -> bytes:
        answer = Log.note(log, 100) if path == "/checkpoint" else log(path)
        is_asking.set()
        assert may_answer.wait(10)
        return answer

    slow = threading.Thread(
        target=look, args=("http://log",), kwargs={"state": state, "keys": keys.verifiers, "fetch": slowly}
    )
    fast = threading.Thread(
        target=look, args=("http://log",), kwargs={"state": state, "keys": keys.verifiers, "fetch": log}
    )
    slow.start()
    assert is_asking.wait(10)
    fast.start()
    may_answer.set()
    slow.join(10)
    fast.join(10)
    assert state.read_bytes() == log.note()


def test_the_command_against_a_running_act(tmp_path: Path) -> None:
    import httpx

    with Served(tmp_path) as service:
        vkey = act(tmp_path, "key", "show").stdout.strip()
        raws = plain_job("JOB-1")
        assert httpx.post(f"{service.url}/events", content=array(raws)).status_code == 200
        flags = ("witness", service.url, "--state", "kept", "--key", vkey)
        first = act(tmp_path, *flags)
        assert first.returncode == 0, first.stderr
        assert first.stdout.startswith("first: ")
        assert "act.db.key" in service.errors.read_text(), "it says that it made a key"
        assert "PRIVATE" not in service.errors.read_text()
        (tmp_path / "kept").write_bytes(b"nonsense")
        assert act(tmp_path, *flags).returncode == 2
    assert act(tmp_path, "witness", service.url, "--state", "other").returncode == 2
