"""A proof file for one entry (C2SP tlog-proof): it can be checked offline, and shows no other entry.

ACT puts the entry itself into the ``extra`` line: the file then needs nothing beside the log's verifier key. The line
is not signed, and needs not be: an altered entry has another leaf hash, to which the path does not belong.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from act.contract import leaf_hash
from act.domain.checkpoint import Verified, open_checkpoint
from act.domain.encoding import read_base64, read_decimal, read_hash, write_base64
from act.domain.note import VerifierKey
from act.domain.tree import MAX_PROOF_HASHES, check_inclusion

FIRST_LINE = "c2sp.org/tlog-proof@v1"
FILE_EXTENSION = ".tlog-proof"
MAX_PROOF_BYTES = 2_000_000

_EXTRA, _INDEX = "extra ", "index "


class ProofFileError(ValueError):
    """The bytes are no proof file."""


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That an entry is in a log.

    Attributes:
        index: where.
        path: the inclusion path, the leaf's sibling first.
        checkpoint: the signed note, byte for byte.
        extra: anything that helps; by ACT the entry. None where there is nothing.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return what a proof file says; nothing of it is verified yet.

        Raises:
            ProofFileError: it is none.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise ProofFileError(f"a proof file has {MAX_PROOF_BYTES:,} bytes at most; this one has {len(data):,}")
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
            if first != FIRST_LINE or not separator:
                raise ValueError(f"it must begin with {FIRST_LINE!r}, and a checkpoint must follow an empty line")
            extra = read_base64(lines.pop(0).removeprefix(_EXTRA)) if lines and lines[0].startswith(_EXTRA) else None
            if extra == b"":
                raise ValueError("an extra line without data must be left out")
            if not lines or not lines[0].startswith(_INDEX):
                raise ValueError("the line 'index <number>' is missing")
            if len(lines) > 1 + MAX_PROOF_HASHES:
                raise ValueError(f"a path has {MAX_PROOF_HASHES} hashes at most")
            index = read_decimal(lines[0].removeprefix(_INDEX))
            return cls(index, tuple(map(read_hash, lines[1:])), checkpoint, extra)
        except ValueError as error:  # UnicodeDecodeError is one
            raise ProofFileError(f"this is no proof file: {error}") from None

    def encoded(self) -> bytes:
        """Return the file's bytes."""
        lines = [FIRST_LINE]
        if self.extra:
            lines.append(_EXTRA + write_base64(self.extra))
        lines.append(f"{_INDEX}{self.index}")
        lines += map(write_base64, self.path)
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint


def verify_proof(
    proof: TlogProof,
    entry: bytes,
    keys: Collection[VerifierKey],
    *,
    origin: str,
    witnesses: Collection[VerifierKey] = (),
    quorum: int = 0,
) -> Verified:
    """Check that the entry is in the log; return the checkpoint that says so.

    Args:
        proof: from a file.
        entry: the ledger's entry; of a file by ACT, ``proof.extra``.
        keys: the log's.
        origin: the log's name.
        witnesses: the keys of the witnesses that count.
        quorum: how many of these must have signed the checkpoint.

    Raises:
        NoteError: the checkpoint is not signed as it should be.
        CheckpointError: it is none, one of another log, or signed by too few witnesses.
        ProofError: the entry is not in the tree at this index.
    """
    verified = open_checkpoint(proof.checkpoint, keys, origin=origin, witnesses=witnesses, quorum=quorum)
    checkpoint = verified.checkpoint
    check_inclusion(leaf_hash(entry), proof.index, checkpoint.size, checkpoint.root, proof.path)
    return verified
