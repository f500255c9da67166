"""What the databases have in common: how a service says that it cannot open one, or that one cannot take it now."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from hmskit import sqlite
from hmskit.errors import CannotOpenError

__all__ = ["CannotOpenError", "why_unavailable"]


def why_unavailable(error: DBAPIError) -> str | None:
    """Return why the database cannot take it now, in words; None where the statement itself is at fault."""
    if hasattr(error.orig, "sqlite_errorcode"):
        return sqlite.why_unavailable(error)
    if hasattr(error.orig, "sqlstate"):
        from hmskit import postgres  # noqa: PLC0415 - its driver is an extra

        return postgres.why_unavailable(error)
    return None
