"""All that is PostgreSQL's own in OMS. How it is used: ``hmskit.postgres``."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import (
    ARRAY,
    URL,
    BigInteger,
    Connection,
    String,
    Text,
    bindparam,
    extract,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from hmskit import postgres
from hmskit.errors import CannotOpenError
from hmskit.prepared import Prepared
from oms.storage.database import Database
from oms.storage.statements import add_counts, claim, see_worker
from oms.storage.tables import NUMBERS, jobs, tasks
from oms.storage.transaction import Dialect, Transaction, at_places, in_list, in_rows, job_is_free

READERS = 8
WRITER = "oms writer"
"""What the server calls the sessions that write."""
COUNT_ROWS = ("SET seq_page_cost = 0.01", "SET random_page_cost = 0.01")
"""For connections that read pages of a list: of two indexes in the page's order the planner is to take the one that
reads fewer rows. By default it takes the one whose rows lie side by side, and may read those to the table's end."""
MAX_NUMBERS_AT_ONCE = 256


@compiles(in_list, "postgresql")
def _in_list(element: in_list, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, parameter = element.clauses
    # A cast to varchar(100) would cut a longer value silently, and find another's row.
    array = bindparam(parameter.key, type_=ARRAY(Text() if isinstance(column.type, String) else column.type))
    return f"{compiler.process(column, **options)} = ANY ({compiler.process(array, **options)})"


@compiles(at_places, "postgresql")
def _at_places(element: at_places, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    # The planner is to go from the places to the rows: the other way round, it would read all rows of the job.
    job, path, parameter = element.clauses
    table = job.table.name
    array = compiler.process(bindparam(parameter.key, type_=ARRAY(Text())), **options)
    is_here = (
        f"{table}.{job.name} = split_part(place, ':', 1)::bigint AND {table}.{path.name} = split_part(place, ':', 2)"
    )
    row = f"SELECT {table}.ctid AS place_of_row FROM {table} WHERE {is_here} OFFSET 0"  # noqa: S608 - compiled SQL
    rows = f"SELECT place_of_row FROM unnest({array}) AS place CROSS JOIN LATERAL ({row}) AS there"  # noqa: S608
    return f"{table}.ctid = ANY (ARRAY ({rows}))"


_FREE = (
    select(jobs.c.job_id)
    .where(jobs.c.job_id == tasks.c.job_id)
    .correlate(tasks)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)


@compiles(job_is_free, "postgresql")
def _job_is_free(_element: job_is_free, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f"{compiler.process(_FREE, **options)} IS NOT NULL"


@compiles(in_rows, "postgresql")
def _in_rows(element: in_rows, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, rows = element.clauses
    return f"{compiler.process(column, **options)} = ANY (ARRAY {compiler.process(rows, **options)})"


_NOW = Prepared(
    select((extract("epoch", func.clock_timestamp()) * literal_column("1000")).cast(BigInteger)),
    [],
)
_TAKE_NUMBERS = {
    name: Prepared(
        select(sequence.next_value()).select_from(func.generate_series(literal_column("1"), bindparam("count"))),
        ["count"],
    )
    for name, sequence in NUMBERS.items()
}


def _now_ms(connection: Connection) -> int:
    """Return the database's time: the towers' own clocks may differ, and leases are compared across them."""
    return int(_NOW.rows(connection)[0][0])


def _next_number(tx: Transaction, name: str) -> int:
    """Take a number from a sequence, in growing handfuls; what is left of one is lost: numbers may have holes."""
    numbers = tx.numbers.setdefault(name, [])
    if not numbers:
        tx.numbers_taken[name] = count = min(tx.numbers_taken.get(name, 0) * 2 or 1, MAX_NUMBERS_AT_ONCE)
        numbers += sorted((row[0] for row in _TAKE_NUMBERS[name].rows(tx.connection, count)), reverse=True)
    return numbers.pop()


def _keep_numbers(_tx: Transaction) -> None:
    """Do nothing: a sequence keeps what it gave by itself."""


POSTGRES = Dialect(
    is_shared=True,
    now_ms=_now_ms,
    next_number=_next_number,
    keep_numbers=_keep_numbers,
    add_counts=add_counts(insert),
    see_worker=see_worker(insert),
    claim=claim(random_text="replace(gen_random_uuid()::text, '-', '')"),
    end_stuck=partial(postgres.end_stuck_sessions, applications=[WRITER]),
    list_parameter=list,
)


def open_server(url: URL, *, writers: int) -> Database:
    """Open the database on its server.

    Raises:
        CannotOpenError: it cannot be used; the message says why and what to do.
    """
    url = url.set(drivername="postgresql+psycopg")
    writer = postgres.engine_of(url, connections=writers, application=WRITER, writes=True)
    reader = postgres.engine_of(url, connections=READERS, application="oms reader", writes=False, session=COUNT_ROWS)
    database = Database(
        url=url, name=postgres.shown(url), writer=writer, reader=reader, writers=writers, dialect=POSTGRES
    )
    try:
        with writer.connect() as connection:
            postgres.check_version(connection)
    except DBAPIError as error:
        database.close()
        why = postgres.why_unavailable(error) or "it refuses the connection"
        raise CannotOpenError(f"cannot use {database.name}: {why}: {_first_line(error)}") from None
    except BaseException:
        database.close()
        raise
    return database


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
