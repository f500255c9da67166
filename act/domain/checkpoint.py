"""Checkpoints (C2SP tlog-checkpoint): which log, how many entries, and the root over them, as a signed note."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from act.domain.encoding import HASH_BYTES, MAX_SIZE, read_decimal, read_hash, write_base64
from act.domain.note import Note, Signature, SigningKey, VerifierKey, read_note, sign_note, verify_note

_LINES = 3


class CheckpointError(ValueError):
    """The text is no checkpoint, or it is one of another log."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree as it was at one size.

    Attributes:
        origin: the log's name; by habit a URL without its scheme, and the name of its key.
        size: how many entries it has.
        root: the root of RFC 6962 over them.
        extensions: further lines that the log has signed; ACT writes none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lines = (self.origin, *self.extensions)
        if not all(lines) or any(char < " " for line in lines for char in line):
            raise CheckpointError("each line of a checkpoint holds something, and no control characters")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_BYTES:
            raise CheckpointError(f"a checkpoint has a size from 0 on and a root of {HASH_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the checkpoint that a note's text is.

        Raises:
            CheckpointError: it is none.
        """
        origin, *rest = text.split("\n")
        if len(rest) < _LINES or rest.pop():
            raise CheckpointError("a checkpoint is three lines: the log's name, the size, the root")
        try:
            return cls(origin, read_decimal(rest[0]), read_hash(rest[1]), tuple(rest[2:]))
        except ValueError as error:
            raise CheckpointError(f"this is no checkpoint: {error}") from None

    @property
    def text(self) -> str:
        """The text that is signed."""
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), write_base64(self.root), *self.extensions))


@dataclass(frozen=True, slots=True)
class Verified:
    """A checkpoint that the log has signed.

    Attributes:
        checkpoint: what it says.
        log: the log's signatures that were verified, at least one.
        witnesses: the verified signatures of witnesses.
        note: all of it, signatures of unknown keys too.
    """

    checkpoint: Checkpoint
    log: tuple[Signature, ...]
    witnesses: tuple[Signature, ...]
    note: Note


def sign_checkpoint(checkpoint: Checkpoint, *keys: SigningKey) -> Note:
    """Return the checkpoint as a signed note. Whether the log may sign it is the caller's to know."""
    return sign_note(checkpoint.text, keys)


def open_checkpoint(
    data: bytes,
    keys: Collection[VerifierKey],
    *,
    origin: str,
    witnesses: Collection[VerifierKey] = (),
    quorum: int = 0,
) -> Verified:
    """Return the checkpoint that the bytes hold, its signatures verified.

    Args:
        data: a signed note.
        keys: the log's; after a rotation the old and the new ones.
        origin: the log's name, which the checkpoint must bear.
        witnesses: the keys of the witnesses that count.
        quorum: how many of these must have signed, too.

    Raises:
        NoteError: no note, or not signed by one of the log's keys, or a known key's signature is wrong.
        CheckpointError: no checkpoint, one of another log, or signed by too few witnesses.
    """
    note = read_note(data)
    # All known keys at once: a wrong signature of any of them spoils the note.
    verified = verify_note(note, [*keys, *witnesses])
    by_log = tuple(one for one in verified if any(key.made(one) for key in keys))
    if not by_log:
        verify_note(note, keys)  # raises, and names the keys that did not sign
    by_witnesses = tuple(one for one in verified if any(key.made(one) for key in witnesses))
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise CheckpointError(f"the checkpoint is one of the log {checkpoint.origin!r}, not of {origin!r}")
    seen_by = len({one.name for one in by_witnesses})
    if seen_by < quorum:
        raise CheckpointError(f"{seen_by} of the witnesses have signed the checkpoint, and {quorum} must have")
    return Verified(checkpoint, by_log, by_witnesses, note)
