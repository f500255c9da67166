"""Core statements that are compiled once and run on the driver's own cursor.

SQLAlchemy Core builds and compiles every statement; what the hot ones skip is its work per execution and per row
(naming, processing and re-ordering parameters, describing results), which costs more than SQLite needs for the rows
themselves: docs/adr/0007 has the figures. A `Prepared` takes rows as tuples in the order in which its parameters were
named, with values as the driver takes them, and gives the driver's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement


class Prepared:
    """A statement with named parameters, run with rows.

    Args:
        statement: built with Core; every parameter is a ``bindparam``.
        names: the parameters' names, in the order of a row's values.
    """

    def __init__(self, statement: Executable, names: Sequence[str]) -> None:
        assert isinstance(statement, ClauseElement)
        self._statement: ClauseElement = statement
        self._names = tuple(names)
        self._compiled: dict[str, _Compiled] = {}

    def many(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run once for each row, as one call of the driver; do nothing without rows."""
        if rows:
            compiled = self._for(connection.dialect)
            _run(connection, compiled.sql, [compiled.arrange(row) for row in rows], many=True)

    def rows(self, connection: Connection, *values: Any) -> Sequence[Any]:  # noqa: ANN401 - what the driver takes
        """Run once; return the rows that it gives."""
        compiled = self._for(connection.dialect)
        return _run(connection, compiled.sql, compiled.arrange(values), many=False)

    def _for(self, dialect: Dialect) -> _Compiled:
        known = self._compiled.get(dialect.name)
        if known is None:
            known = self._compiled[dialect.name] = self._compile(dialect)
        return known

    def _compile(self, dialect: Dialect) -> _Compiled:
        compiled = self._statement.compile(dialect=dialect)
        placed: list[str] = list(compiled.positiontup or ())  # type: ignore[attr-defined]
        # What the dialect adds by itself (SQLite's OFFSET 0 beside a LIMIT) is constant.
        constants = [name for name in placed if name not in self._names]
        missing = [name for name in self._names if name not in placed]
        assert not missing, f"the statement has no parameters {missing}"
        names = [*self._names, *constants]
        order = [names.index(name) for name in placed]
        return _Compiled(
            sql=str(compiled),
            constants=tuple(compiled.params[name] for name in constants),
            order=None if order == list(range(len(names))) else tuple(order),
        )


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A dialect's SQL; how a row becomes its parameters: constants behind it, then re-arranged (None: as it is)."""

    sql: str
    constants: tuple[Any, ...]
    order: tuple[int, ...] | None

    def arrange(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        whole = row + self.constants if self.constants else row
        return whole if self.order is None else tuple(whole[place] for place in self.order)


def _run(connection: Connection, sql: str, parameters: Any, *, many: bool) -> Sequence[Any]:  # noqa: ANN401
    """Run on the driver's cursor, inside the transaction that SQLAlchemy has begun.

    Raises:
        DBAPIError: what the driver raised, as SQLAlchemy would have wrapped it.
    """
    driver = connection.connection
    cursor = driver.cursor()
    try:
        if many:
            cursor.executemany(sql, parameters)
            return ()
        cursor.execute(sql, parameters)
        return cursor.fetchall()
    except connection.dialect.loaded_dbapi.Error as error:
        if connection.dialect.is_disconnect(error, driver, cursor):
            connection.invalidate(error)  # the next transaction gets a new one
        raise DBAPIError(sql, None, error) from error  # the values stay out: they are the citizens'
    finally:
        cursor.close()
