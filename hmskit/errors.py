"""What a service cannot start with, and what an error may say."""

from __future__ import annotations


class CannotOpenError(Exception):
    """The database cannot be used; the message says why and what to do."""


def leave_details_out(error: BaseException | None) -> None:
    """Keep a driver's sentence and drop its details: PostgreSQL puts the whole row into those, the citizens' data."""
    sentence = getattr(getattr(error, "diag", None), "message_primary", None)
    if error is not None and sentence is not None:
        error.args = (sentence,)
