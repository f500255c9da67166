"""What the calendar keys of a plan refuse: one exception for zones, hours, batches, holidays, crons and due times."""

from __future__ import annotations


class CalendarError(ValueError):
    """A calendar text that cannot be used.

    Attributes:
        key: the key that holds it: ``timezone``, ``open``, ``batch``, ``holidays``, ``cron``, ``reference`` or ``due``.
        message: what was found, what was expected, and the nearest valid name.
        offset: the character of the text at which the fault is.
    """

    def __init__(self, key: str, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.key = key
        self.message = message
        self.offset = offset
