"""The database's own clock, for leases: the processes that share a database agree on it, and on no other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock, milliseconds since the epoch."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _sqlite_now_ms(_element: now_ms, _compiler: SQLCompiler, **_named: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(now_ms, "postgresql")
def _postgres_now_ms(_element: now_ms, _compiler: SQLCompiler, **_named: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
