"""Witnesses (C2SP tlog-witness): what is sent to one, how one decides, and what a watcher of this log decides.

A witness remembers one checkpoint of a log, and signs the next one only where that one goes on from it. A log whose
checkpoints are witnessed can no longer be rewritten by its own operator without being seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from act.domain.checkpoint import Checkpoint, CheckpointError, Verified, open_checkpoint
from act.domain.encoding import read_decimal, read_hash, write_base64
from act.domain.note import NoteError, Signature, SigningKey, VerifierKey, read_note
from act.domain.tree import EMPTY_ROOT, MAX_PROOF_HASHES, ProofError, check_consistency

MAX_REQUEST_BYTES = 1_000_000
SIZE_CONTENT_TYPE = "text/x.tlog.size"
"""Of the answer 409, whose body is the size that the witness has."""

_OLD = "old "

Step = Literal["first", "same", "grown", "behind"]
"""What a checkpoint is to one seen earlier. ``behind``: smaller, and how that one begins."""


class RefusedError(ValueError):
    """A witness does not sign.

    Attributes:
        status: the HTTP status that the specification gives.
        known_size: with 409, the size of the checkpoint that the witness has.
    """

    def __init__(self, status: int, detail: str, *, known_size: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.known_size = known_size

    @property
    def body(self) -> str:
        """The answer's body; with 409 of the type `SIZE_CONTENT_TYPE`."""
        return f"{self if self.known_size is None else self.known_size}\n"


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The body of ``add-checkpoint``.

    Attributes:
        old_size: of the checkpoint that the witness is thought to have; 0 for none.
        proof: the consistency proof from there to the new one.
        checkpoint: the new one, the signed note byte for byte.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Return what a body says.

        Raises:
            RefusedError: it is none (400).
        """
        head, separator, checkpoint = body.partition(b"\n\n")
        try:
            if len(body) > MAX_REQUEST_BYTES:
                raise ValueError(f"it has more than {MAX_REQUEST_BYTES:,} bytes")
            old, *lines = head.decode("ascii").split("\n")
            if not old.startswith(_OLD) or not separator:
                raise ValueError("it must begin with 'old <size>', and a checkpoint must follow an empty line")
            if len(lines) > MAX_PROOF_HASHES:
                raise ValueError(f"a proof has {MAX_PROOF_HASHES} hashes at most")
            return cls(read_decimal(old.removeprefix(_OLD)), tuple(map(read_hash, lines)), checkpoint)
        except ValueError as error:  # UnicodeDecodeError is one
            raise RefusedError(400, f"this is no add-checkpoint: {error}") from None

    def encoded(self) -> bytes:
        """Return the body's bytes."""
        lines = [f"{_OLD}{self.old_size}", *map(write_base64, self.proof)]
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint


def origin_of(request: AddCheckpoint) -> str:
    """Return the log that the request is about, so that its last checkpoint can be looked up. Nothing is verified.

    Raises:
        RefusedError: what is to be added is no checkpoint (400).
    """
    try:
        return Checkpoint.parse(read_note(request.checkpoint).text).origin
    except (NoteError, CheckpointError) as error:
        raise RefusedError(400, str(error)) from None


def decide(request: AddCheckpoint, logs: Mapping[str, Collection[VerifierKey]], known: Checkpoint | None) -> Verified:
    """Return the checkpoint that the witness may sign now, after it has stored it in place of ``known``.

    Reading ``known``, deciding and storing must be one atomic step: of two requests at once one would else roll
    the other back.

    Args:
        request: what was posted.
        logs: the keys of each log that the witness watches, by origin.
        known: the checkpoint of `origin_of` the request that the witness signed last; None for none.

    Raises:
        RefusedError: it must not sign; 400, 403, 404, 409 or 422 as the specification says.
    """
    origin = origin_of(request)
    if origin not in logs:
        raise RefusedError(404, f"no log {origin!r} is watched here")
    try:
        verified = open_checkpoint(request.checkpoint, logs[origin], origin=origin)
    except NoteError as error:
        raise RefusedError(403, str(error)) from None
    new = verified.checkpoint
    if request.old_size > new.size:
        raise RefusedError(400, f"the old size {request.old_size} is above the checkpoint's, {new.size}")
    known_size = 0 if known is None else known.size
    if request.old_size != known_size:
        raise RefusedError(409, f"the last checkpoint seen here has the size {known_size}", known_size=known_size)
    try:
        check_consistency(known_size, EMPTY_ROOT if known is None else known.root, new.size, new.root, request.proof)
    except ProofError as error:
        raise RefusedError(422, str(error)) from None
    return verified


def cosign(checkpoint: Checkpoint, key: SigningKey, *, time_sec: int) -> Signature:
    """Return a witness's signature of a checkpoint that `decide` let pass; ``time_sec`` since the epoch, above 0."""
    if time_sec <= 0:
        raise ValueError("a witness says when it signed")
    return key.sign(checkpoint.text, time_sec=time_sec)


def proof_sizes(known: Checkpoint | None, new: Checkpoint) -> tuple[int, int]:
    """Return between which sizes `compare` needs a consistency proof, the smaller first."""
    known_size = 0 if known is None else known.size
    return min(known_size, new.size), max(known_size, new.size)


def compare(known: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes]) -> Step:
    """Say what a log's checkpoint is to the one that was kept; the proof is the one between `proof_sizes`.

    This is the rule of a watcher, and of the signer that must not contradict what it has signed: both refuse
    ``behind`` too, where they know that it is no stale copy: entries that were signed for are gone.

    Raises:
        ProofError: the two contradict each other: the log was rewritten, or the proof is none.
        CheckpointError: they are of different logs.
    """
    if known is None:
        check_consistency(0, EMPTY_ROOT, new.size, new.root, proof)
        return "first"
    if known.origin != new.origin:
        raise CheckpointError(f"the checkpoint is one of the log {new.origin!r}, not of {known.origin!r}")
    older, newer = (known, new) if known.size <= new.size else (new, known)
    check_consistency(older.size, older.root, newer.size, newer.root, proof)
    if known.size == new.size:
        return "same"
    return "grown" if older is known else "behind"
