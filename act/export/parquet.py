"""Parquet, for analysis: every column exact, with its type. Needs pyarrow, an extra; nothing else here does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from act.domain.errors import InvalidInputError
from act.export.covering import Header
from act.export.rows import Row
from act.export.table import COLUMNS, values_of

GROUP_ROWS = 10_000
"""How many rows are held until they are written as a group."""
GROUP_BYTES = 16 * 1024 * 1024
_INTEGERS = frozenset({"index", "seq", "plan_version", "attempt"})


class _Sink:
    """A file that hands on what is written to it."""

    closed = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, chunk: Any) -> int:  # noqa: ANN401 - whatever pyarrow's buffers are
        self._chunks.append(bytes(chunk))
        return len(chunk)

    def flush(self) -> None:
        """Everything is handed on when it is taken."""

    def close(self) -> None:
        """There is nothing to close."""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken = b"".join(self._chunks)
        self._chunks.clear()
        return taken


class Parquet:
    """Writes row groups.

    Raises:
        InvalidInputError: pyarrow is not installed.
    """

    def __init__(self, header: Header) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra
            from pyarrow import parquet  # noqa: PLC0415
        except ModuleNotFoundError:
            raise InvalidInputError(
                "format: parquet needs a package that this ACT does not have: "
                "pip install 'hms-orchestration[parquet]', or take another format."
            ) from None
        self._arrow: Any = pa
        self._schema = pa.schema(
            [(name, _type(pa, name)) for name in (*COLUMNS, "event")], metadata={"act_export": header.json()}
        )
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._waiting: list[Row] = []
        self._waiting_bytes = 0

    def begin(self) -> bytes:
        """Return the file's first bytes."""
        return self._sink.take()

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return a group, where there are rows enough for one."""
        self._waiting += rows
        self._waiting_bytes += sum(len(row.entry) for row in rows)
        if len(self._waiting) >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._write_group()
        return self._sink.take()

    def end(self) -> Iterator[bytes]:
        """Yield the last group and the footer."""
        if self._waiting:
            self._write_group()
        self._writer.close()
        yield self._sink.take()

    def close(self) -> None:
        """Let go of the rows."""
        self._waiting.clear()

    def _write_group(self) -> None:
        columns = zip(*((*values_of(row), row.event) for row in self._waiting), strict=True)
        arrays = [
            self._arrow.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._waiting.clear()
        self._waiting_bytes = 0


def _type(pa: Any, name: str) -> Any:  # noqa: ANN401 - pyarrow has no type hints
    if name in _INTEGERS:
        return pa.int64()
    if name == "received_us":
        return pa.timestamp("us", tz="UTC")
    if name == "ts_ms":
        return pa.timestamp("ms", tz="UTC")
    return pa.binary(32) if name == "leaf_hash" else pa.string()
