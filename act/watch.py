"""Watch a log from outside: keep the last checkpoint that was good, and refuse one that does not go on from it.

It needs nothing of the watched ACT but its HTTP calls. The file it keeps is what makes the ledger tamper-evident: its
operator can rewrite the ledger, and not this file. So it belongs on another machine, in other hands.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from act.domain.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from act.domain.note import NoteError, VerifierKey, read_note
from act.domain.tree import ProofError
from act.domain.witness import AddCheckpoint, RefusedError, Step, compare, proof_sizes
from act.files import write_whole

TIMEOUT_SEC = 30.0
REFUSED_SUFFIX = ".refused"

Fetch = Callable[[str], bytes]
"""Returns what is at a path below the log's URL."""


class CannotWatchError(Exception):
    """ACT could not be asked, or the file not be read or kept. Nothing is known, and nothing was changed.

    Attributes:
        is_refusal: ACT was there, and answered that it has no such thing or cannot prove it.
    """

    def __init__(self, detail: str, *, is_refusal: bool = False) -> None:
        super().__init__(detail)
        self.is_refusal = is_refusal


class RewrittenError(Exception):
    """The log does not go on from the checkpoint that was kept. That one is still in its file."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look has found.

    Attributes:
        step: ``first``, ``same`` or ``grown``.
        checkpoint: the one that is kept now.
    """

    step: Step
    checkpoint: Checkpoint


def look(url: str, *, state: Path, keys: Sequence[VerifierKey], fetch: Fetch | None = None) -> Seen:
    """Fetch the newest checkpoint, compare it with the one that is kept, and keep it in its place.

    Two that look at the same time take turns: else the slower one would put an older checkpoint back.

    Args:
        url: ACT's.
        state: the file; it need not be there the first time.
        keys: the log's; empty: signatures are not checked.
        fetch: what asks ACT; None: over HTTP.

    Raises:
        RewrittenError: the log was rewritten, or somebody else answers for it.
        CannotWatchError: it could not be found out.
    """
    ask = fetch or _over_http(url)
    with _locked(state):
        known = _kept(state, keys)
        note = ask("/checkpoint")
        try:
            new = _open(note, keys)
            if known is not None and new.size < known.size:
                raise CheckpointError(f"the log has {new.size} entries, and {known.size} were signed earlier")
            step = compare(known, new, _proof(ask, known, new))
        except (NoteError, CheckpointError, ProofError, RefusedError) as error:
            raise _refused(state, note, str(error)) from None
        if step != "same":
            _keep(state, note)
        return Seen(step, new)


def _proof(ask: Fetch, known: Checkpoint | None, new: Checkpoint) -> tuple[bytes, ...]:
    """Return the proof that the new tree goes on from the known one.

    Raises:
        ProofError: the log does not give one.
        RefusedError: what it gives is none.
        CannotWatchError: it could not be asked.
    """
    old_size, size = proof_sizes(known, new)
    if old_size in (0, size):
        return ()
    try:
        return AddCheckpoint.parse(ask(f"/proof/consistency?from={old_size}&to={size}")).proof
    except CannotWatchError as error:
        if error.is_refusal:
            raise ProofError(f"the log does not prove that it goes on from {old_size} entries: {error}") from None
        raise


def _refused(state: Path, note: bytes, why: str) -> RewrittenError:
    evidence = state.with_name(state.name + REFUSED_SUFFIX)
    _keep(evidence, note)
    return RewrittenError(f"{why}. What was shown is in {evidence}, what was kept in {state}: keep both")


def _open(note: bytes, keys: Sequence[VerifierKey]) -> Checkpoint:
    if not keys:
        return Checkpoint.parse(read_note(note).text)
    return open_checkpoint(note, keys, origin=keys[0].name).checkpoint


def _kept(state: Path, keys: Sequence[VerifierKey]) -> Checkpoint | None:
    try:
        return _open(state.read_bytes(), keys)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotWatchError(f"cannot read {state}: {error.strerror}") from None
    except (NoteError, CheckpointError) as error:
        raise CannotWatchError(f"{state} holds no checkpoint of this log: {error}") from None


def _keep(path: Path, note: bytes) -> None:
    try:
        write_whole(path, note)
    except OSError as error:
        raise CannotWatchError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def _locked(state: Path) -> Generator[None]:
    try:
        lock = state.with_name(f"{state.name}.lock").open("a")
    except OSError as error:
        raise CannotWatchError(f"cannot write beside {state}: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _over_http(url: str) -> Fetch:
    base = url.rstrip("/")

    def fetch(path: str) -> bytes:
        try:
            answer = httpx.get(f"{base}{path}", timeout=TIMEOUT_SEC)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CannotWatchError(f"{base}{path} cannot be fetched: {error}") from None
        if answer.status_code != httpx.codes.OK:
            is_refusal = answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.INTERNAL_SERVER_ERROR)
            raise CannotWatchError(f"{base}{path} answers {answer.status_code}", is_refusal=is_refusal)
        return answer.content

    return fetch
