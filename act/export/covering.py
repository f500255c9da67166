"""What an export says of itself: which ledger, up to which size, and under which checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection

from act.storage.checkpoints import last_signed
from act.storage.entries import size_of

VERSION = 1
NO_ORIGIN = "act"
"""What a ledger is called that has signed nothing yet."""


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of every export.

    Attributes:
        origin: the ledger's name, as its checkpoints bear it.
        checkpoint: the signed note that covers all that is exported; None where there is none.
        format: one of `act.export.formats.FORMATS`.
        size: the ledger's size as the export sees it: no entry in it has this index or a higher one.
    """

    origin: str
    checkpoint: str | None
    format: str
    size: int

    def json(self) -> bytes:
        """Return the header as one line of JSON, in ASCII: it is an HTTP header's value, too."""
        fields = {
            "act_export": VERSION,
            "origin": self.origin,
            "checkpoint": self.checkpoint,
            "format": self.format,
            "size": self.size,
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def current_checkpoint(tx: Connection) -> str | None:
    """Return the newest signed checkpoint of the ledger; None where it has signed none."""
    signed = last_signed(tx)
    return None if signed is None else signed.note.decode()


def header_of(tx: Connection, name: str) -> Header:
    """Return the header of an export in the format ``name`` that begins now. It ends where the checkpoint ends."""
    note = current_checkpoint(tx)
    if note is None:
        return Header(NO_ORIGIN, None, name, size_of(tx))
    origin, size = note.split("\n", 2)[:2]
    return Header(origin, note, name, int(size))
