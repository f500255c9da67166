"""Lines of JSON with every event's bytes: the format that can be checked without us.

The first line is the header. Each line after it has an entry's ``index``, ``received_us``, ``leaf_hash`` (hex) and
``event``, the event's bytes: all that an entry is made of (`act.contract.entry_bytes`), and so the tree; the hash only
helps to name an entry that was changed. It is all ASCII, with the rest escaped: some programs end a line at U+2028.
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
            b'{"index":%d,"received_us":%d,"leaf_hash":"%b","event":%b}\n'
            % (row.facts.idx, row.received_us, row.leaf_hash.hex().encode(), json.dumps(row.event).encode())
            for row in rows
        )

    def end(self) -> Iterator[bytes]:
        """Yield nothing: the last line is the last row's."""
        return iter(())

    def close(self) -> None:
        """Hold nothing."""
