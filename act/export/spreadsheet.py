"""CSV for spreadsheets (RFC 4180). No cell is ever taken for a formula.

A text that a spreadsheet would run begins with one of `FORMULA`. OWASP's remedy for it: every cell in quotes, quotes in
it doubled, and an apostrophe before such a text. A cell may then differ from the ledger by that apostrophe; who needs
the exact text takes another format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from act.contract import format_time_ms
from act.export.rows import Row
from act.export.table import COLUMNS, Value, values_of

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With the full-width forms of the first four, which some programs take for the same."""
_TIMES = {"received_us": "received_at", "ts_ms": "ts"}


class Spreadsheet:
    """Writes the lines."""

    def begin(self) -> bytes:
        """Return the line of names."""
        return _line(_TIMES.get(name, name) for name in COLUMNS)

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return a line for each row."""
        return b"".join(
            _line(_shown(name, value) for name, value in zip(COLUMNS, values_of(row), strict=True)) for row in rows
        )

    def end(self) -> Iterator[bytes]:
        """Yield nothing: the last line is the last row's."""
        return iter(())

    def close(self) -> None:
        """Hold nothing."""


def cell(text: str) -> str:
    """Return a text as a cell, in quotes and harmless."""
    if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"'


def _shown(name: str, value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int) and name in _TIMES:
        return format_time_ms(value // 1000 if name == "received_us" else value)
    return str(value)


def _line(texts: Iterator[str]) -> bytes:
    return (",".join(map(cell, texts)) + "\r\n").encode()
