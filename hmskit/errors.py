"""What a service cannot start with."""

from __future__ import annotations


class CannotOpenError(Exception):
    """The database cannot be used; the message says why and what to do."""
