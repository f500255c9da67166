"""The formats, and an export in one of them, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from act import ledger
from act.domain.filters import Filters
from act.export.cloudevents import CloudEvents
from act.export.covering import Header, header_of
from act.export.ocel import Ocel
from act.export.parquet import Parquet
from act.export.rows import Row, Writing
from act.export.spreadsheet import Spreadsheet
from act.storage.raw import raw_of

PAGE = 500
"""How many entries are read at once. One has 64,000 bytes at most."""


@dataclass(frozen=True, slots=True)
class Format:
    """How an export is written.

    Attributes:
        media_type: what HTTP calls it.
        suffix: of a file's name.
        writing: makes what writes one.
        has_header: the header is in the file itself.
    """

    media_type: str
    suffix: str
    writing: Callable[[Header], Writing]
    has_header: bool = True


FORMATS: dict[str, Format] = {
    "cloudevents": Format("application/x-ndjson", "jsonl", CloudEvents),
    "ocel2": Format("application/json", "jsonocel", Ocel),
    "csv": Format("text/csv; charset=utf-8", "csv", lambda _header: Spreadsheet(), has_header=False),
    "parquet": Format("application/vnd.apache.parquet", "parquet", Parquet),
}


class Export:
    """An export under way. It ends with the ledger as it was when it began.

    Args:
        tx: a reader's transaction.
        name: one of `FORMATS`.
        filters: which events; job or stream, since and until.

    Attributes:
        header: what it says of itself.
        done: how many entries are behind it: the index that it has come to, or the stream's place.
        is_last: nothing more is to be read.

    Raises:
        NotFoundError: the ledger has no event of the job, or of the stream.
        InvalidInputError: the format needs a package that is not there.
    """

    def __init__(self, tx: Connection, name: str, filters: Filters) -> None:
        self.header = header_of(tx, name)
        self.is_last = False
        self._filters = filters
        self._position = ledger.start(tx, filters, after=-1)
        self._writing = FORMATS[name].writing(self.header)

    @property
    def done(self) -> int:
        """How many of the ledger's entries are behind it; of a stream, how many of its own."""
        return self._position if self._filters.one_stream is not None else self._position + 1

    def begin(self) -> bytes:
        """Return the first bytes."""
        return self._writing.begin()

    def page(self, tx: Connection) -> bytes:
        """Read the next entries, and return what they add; it may be nothing."""
        size = self.header.size
        page = ledger.stream(tx, self._filters, position=self._position, count=PAGE, last=size - 1)
        entries = [entry for entry in page.entries if entry.idx < size]  # a job's page knows no end
        raw = raw_of(tx, [entry.idx for entry in entries])
        self._position, self.is_last = page.position, page.is_last
        return self._writing.rows([Row(entry, *raw[entry.idx]) for entry in entries])

    def end(self) -> Iterator[bytes]:
        """Yield the last bytes."""
        return self._writing.end()

    def close(self) -> None:
        """Give back what it holds; call it also where the end was not reached."""
        self._writing.close()
