"""What the databases have in common: how a service says that it cannot open one, or that one cannot take it now."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from hmskit import sqlite
from hmskit.errors import CannotOpenError

__all__ = ["CannotOpenError", "may_run_again", "why_unavailable"]


def why_unavailable(error: DBAPIError) -> str | None:
    """Return why the database cannot take it now, in words; None where the statement itself is at fault."""
    if hasattr(error.orig, "sqlite_errorcode"):
        return sqlite.why_unavailable(error)
    if hasattr(error.orig, "sqlstate"):
        from hmskit import postgres  # noqa: PLC0415 - its driver is an extra

        return postgres.why_unavailable(error)
    return None


def may_run_again(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed at once: another one was in its way, or its connection broke.

    Only true where the transaction was not being committed when it failed.
    """
    if not hasattr(error.orig, "sqlstate"):
        return False
    from hmskit import postgres  # noqa: PLC0415 - its driver is an extra

    return postgres.may_run_again(error)
