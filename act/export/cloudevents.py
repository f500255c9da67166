"""Lines of JSON with every event's bytes: the format that can be checked without us.

The first line is the header. Each line after it is ``{"index": n, "received_us": t, "event": "<the event's bytes>"}``:
all that an entry is made of (`act.contract.entry_bytes`), and so its leaf hash, and so the tree. It is all ASCII, with
the rest escaped: some programs end a line at U+2028.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from act.export.covering import Header
from act.export.rows import Row


class CloudEvents:
    """Writes the lines."""

    def __init__(self, header: Header) -> None:
        self._header = header

    def begin(self) -> bytes:
        """Return the header's line."""
        return self._header.json() + b"\n"

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return a line for each row."""
        return b"".join(
            b'{"index":%d,"received_us":%d,"event":%b}\n'
            % (row.facts.idx, row.received_us, json.dumps(row.event).encode())
            for row in rows
        )

    def end(self) -> Iterator[bytes]:
        """Yield nothing: the last line is the last row's."""
        return iter(())

    def close(self) -> None:
        """Hold nothing."""
