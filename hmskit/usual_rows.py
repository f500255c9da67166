"""Inserts and updates of rows in which most columns have the same value nearly always.

Python's SQLite driver needs a quarter of a microsecond more for each None, bool or enum that it is given than for a
number: of a row of forty columns that is most of the cost. So what a column has nearly always stands in a statement of
its own as a constant, and only what differs is given. Rows that are unusual are written as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, bindparam, false, insert, literal_column, null, true, update

from hmskit.prepared import Prepared, insert_rows

Usual = Mapping[str, str | int | None]


class UsualRows:
    """Writes rows as `Prepared.many` does, one call of the driver for the usual ones and one for the others.

    Rows must not depend on each other: the unusual ones are written after the usual ones.

    Attributes:
        columns: the order of a row's values; for an update, its key is one of them.
    """

    def __init__(self, whole: Prepared, short: Prepared, own: Sequence[str], usual: Usual) -> None:
        """Take two statements that do the same to a usual row.

        Args:
            whole: takes the values of ``own`` and then those of ``usual``.
            short: takes those of ``own``.
            own: columns that differ from row to row.
            usual: the others, with what they have nearly always.
        """
        self.columns = (*own, *usual)
        self._whole = whole
        self._short = short
        self._count = len(own)
        self._usual = tuple(usual.values())

    def many(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write the rows; do nothing without any."""
        if not rows:
            return
        if connection.dialect.name != "sqlite":
            self._whole.many(connection, rows)
            return
        count, usual = self._count, self._usual
        short = [row[:count] for row in rows if row[count:] == usual]
        self._short.many(connection, short)
        if len(short) < len(rows):
            self._whole.many(connection, [row for row in rows if row[count:] != usual])


def insert_usual(table: Table, columns: Sequence[str], usual: Usual) -> UsualRows:
    """Return what inserts rows of ``columns``, of which some have ``usual`` values nearly always."""
    own = _own(columns, usual)
    short = Prepared(insert(table).values({**_given(own), **_constants(usual)}), own)
    return UsualRows(insert_rows(table, [*own, *usual]), short, own, usual)


def update_usual(table: Table, columns: Sequence[str], usual: Usual, *, key: str) -> UsualRows:
    """Return what sets ``columns`` of the row with a ``key``; some are set to ``usual`` values nearly always."""
    own = _own(columns, usual)
    statement = update(table).where(table.c[key] == bindparam("this_row"))
    whole = statement.values(_given(columns))
    short = statement.values({**_given(own), **_constants(usual)})
    return UsualRows(
        Prepared(whole, [*own, "this_row", *usual]), Prepared(short, [*own, "this_row"]), [*own, key], usual
    )


def _own(columns: Sequence[str], usual: Usual) -> list[str]:
    unknown = usual.keys() - set(columns)
    assert not unknown, f"{sorted(unknown)} are no columns that are written"
    return [name for name in columns if name not in usual]


def _given(columns: Sequence[str]) -> dict[str, ColumnElement[Any]]:
    return {name: bindparam(name) for name in columns}


def _constants(usual: Usual) -> dict[str, ColumnElement[Any]]:
    return {name: _constant(value) for name, value in usual.items()}


def _constant(value: str | int | None) -> ColumnElement[Any]:
    if value is None:
        return null()
    if isinstance(value, bool):
        return true() if value else false()
    assert isinstance(value, int) or value.isidentifier() or not value, value
    return literal_column(str(value) if isinstance(value, int) else f"'{value}'")
