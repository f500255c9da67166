"""Core statements that are compiled once and run on the driver's own cursor.

SQLAlchemy Core builds and compiles every statement; what the hot ones skip is its work per execution and per row
(naming, processing and re-ordering parameters, describing results), which costs more than SQLite needs for the rows
themselves: docs/adr/0007 has the figures. A `Prepared` takes rows as tuples in the order in which its parameters were
named, with values as the driver takes them, and gives the driver's rows.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    String,
    Table,
    Text,
    bindparam,
    column,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.selectable import NamedFromClause
from sqlalchemy.types import TypeEngine

from hmskit.errors import leave_details_out


class Prepared:
    """A statement with named parameters, run with rows.

    Args:
        statement: built with Core; every parameter is a ``bindparam``.
        names: the parameters' names, in the order of a row's values.
        of_arrays: the same for many rows at once, where the database can unpack arrays (PostgreSQL): each parameter
            takes all rows' values of it. A statement that is run once for each row costs a server several times more.
    """

    def __init__(self, statement: Executable, names: Sequence[str], *, of_arrays: Executable | None = None) -> None:
        assert isinstance(statement, ClauseElement)
        assert of_arrays is None or isinstance(of_arrays, ClauseElement)
        self._statement: ClauseElement = statement
        self._names = tuple(names)
        self._compiled: dict[str, _Compiled] = {}
        self._of_arrays: ClauseElement | None = of_arrays
        self._compiled_of_arrays: _Compiled | None = None

    def many(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run for each row, as one call of the driver; do nothing without rows."""
        if not rows:
            return
        if self._of_arrays is not None and connection.dialect.name == "postgresql":
            if self._compiled_of_arrays is None:
                self._compiled_of_arrays = self._compile(self._of_arrays, connection.dialect)
            compiled = self._compiled_of_arrays
            arrays = tuple(map(list, zip(*rows, strict=True)))
            _run(connection, compiled.sql, compiled.arrange(arrays), how="alone")
        else:
            compiled = self._for(connection.dialect)
            _run(connection, compiled.sql, compiled.arrange_all(rows), how="many")

    def rows(self, connection: Connection, *values: Any) -> Sequence[Any]:  # noqa: ANN401 - what the driver takes
        """Run once; return the rows that it gives."""
        compiled = self._for(connection.dialect)
        return _run(connection, compiled.sql, compiled.arrange(values), how="rows")

    def _for(self, dialect: Dialect) -> _Compiled:
        known = self._compiled.get(dialect.name)
        if known is None:
            known = self._compiled[dialect.name] = self._compile(self._statement, dialect)
        return known

    def _compile(self, statement: ClauseElement, dialect: Dialect) -> _Compiled:
        compiled = statement.compile(dialect=dialect)
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

    def arrange_all(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        if not self.constants and self.order is None:
            return rows
        return [self.arrange(row) for row in rows]


def insert_rows(table: Table, columns: Sequence[str]) -> Prepared:
    """Return the statement that inserts rows of ``columns``."""
    given = _given(table, columns)
    return Prepared(
        insert(table).values({name: bindparam(name) for name in columns}),
        columns,
        of_arrays=insert(table).from_select(list(columns), select(*(given.c[name] for name in columns))),
    )


def update_rows(table: Table, columns: Sequence[str], *, key: str) -> Prepared:
    """Return the statement that sets ``columns`` of the row with a ``key``; a row has its columns, then its key.

    It is run once for each row, on a server too: joined to arrays, a table that was small when the plan was made would
    be read as a whole when it is large.
    """
    statement = update(table).where(table.c[key] == bindparam("this_row"))
    return Prepared(statement.values({name: bindparam(name) for name in columns}), [*columns, "this_row"])


def _given(table: Table, columns: Sequence[str]) -> NamedFromClause:
    """Return arrays as a table with columns of ``table``."""
    types = {name: _plain(table.c[name].type) for name in columns}
    arrays: list[ColumnElement[Any]] = [bindparam(name, type_=ARRAY(its)) for name, its in types.items()]
    parts = [column(name, its) for name, its in types.items()]
    return func.unnest(*arrays).table_valued(*parts, name="given").render_derived()


def _plain(its: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a parameter for a column: a cast to ``varchar(100)`` would cut a longer value silently."""
    return Text() if isinstance(its, String) else its


@contextmanager
def in_one_go(connection: Connection) -> Generator[None]:
    """Send the statements of the block without waiting for their answers, where the driver can (PostgreSQL).

    Only for statements whose rows are not looked at. What one of them raises may come up at the end of the block.

    Raises:
        DBAPIError: what the driver raised, as SQLAlchemy would have wrapped it.
    """
    driver: Any = connection.connection
    if connection.dialect.name != "postgresql":
        yield
        return
    try:
        with driver.pipeline():
            yield
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrapped(connection, "a pipeline of statements", error, in_pipeline=False) from error
    except DBAPIError as error:  # of one of its statements
        if not connection.invalidated and _is_in_pipeline(connection):
            connection.invalidate(error)
        raise


def _run(connection: Connection, sql: str, parameters: Any, *, how: str) -> Sequence[Any]:  # noqa: ANN401
    """Run on the driver's cursor, inside the transaction that SQLAlchemy has begun.

    Args:
        connection: with the transaction begun.
        sql: the statement.
        parameters: a row's values; a list of rows where ``how`` is "many".
        how: "many" rows, "alone" (nothing is looked at), or for the "rows" that it gives.

    Raises:
        DBAPIError: what the driver raised, as SQLAlchemy would have wrapped it.
    """
    driver = connection.connection
    in_pipeline = _is_in_pipeline(connection)
    cursor = driver.cursor()
    try:
        if how == "many":
            cursor.executemany(sql, parameters)
            return ()
        cursor.execute(sql, parameters)
        return cursor.fetchall() if how == "rows" else ()
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrapped(connection, sql, error, in_pipeline=in_pipeline) from error
    finally:
        cursor.close()


def _wrapped(connection: Connection, sql: str, error: BaseException, *, in_pipeline: bool) -> DBAPIError:
    """Return the driver's error without the values, which are the citizens'; drop a connection that broke.

    A server that ends a session in the middle of a pipeline leaves the driver in it (``in_pipeline``: where it was
    before): the connection does not look broken yet, and cannot even be rolled back.
    """
    if not connection.invalidated:
        is_stuck = _is_in_pipeline(connection) and not in_pipeline
        if is_stuck or connection.dialect.is_disconnect(error, connection.connection, None):  # type: ignore[arg-type]
            connection.invalidate(error)  # the next transaction gets a new one
    leave_details_out(error)
    return DBAPIError(sql, None, error)


def _is_in_pipeline(connection: Connection) -> bool:
    if connection.dialect.name != "postgresql":
        return False
    driver: Any = connection.connection
    return bool(driver.pgconn.pipeline_status)
