"""The last numbers that were given, for whoever moves them to another database: none may be given twice."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, false, func, select, text, update

from oms.storage.tables import NUMBERS, outbox, sequences, signals, timers

_EVENTS = "event"
"""Beside jobs' and tasks' numbers, the outbox's own ids."""
_COUNTED = (signals, timers)
"""Tables that number their rows, too. What left them is named nowhere, so that they go on from what is there."""


def last_numbers(connection: Connection) -> dict[str, int]:
    """Return the last number given to a job, a task and an event; 0 where none was."""
    if connection.dialect.name != "postgresql":
        numbers = {row.name: row.value for row in connection.execute(select(sequences))}
        last_id = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")).scalar_one_or_none()
        return {**numbers, _EVENTS: last_id or 0}
    found = {}
    for name, sequence in _sequences(connection).items():
        last, is_given = connection.execute(text(f"SELECT last_value, is_called FROM {sequence}")).one()  # noqa: S608 - our own names
        found[name] = last if is_given else 0
    return found


def set_last_numbers(connection: Connection, numbers: Mapping[str, int]) -> None:
    """Give, from now on, the numbers that follow ``numbers``, which came from `last_numbers`."""
    if connection.dialect.name != "postgresql":
        for name in NUMBERS:
            connection.execute(update(sequences).where(sequences.c.name == name).values(value=numbers[name]))
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'outbox'"))
        connection.execute(
            text("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', :last)"), {"last": numbers[_EVENTS]}
        )
        return
    for name, sequence in _sequences(connection).items():
        # A sequence cannot stand at 0: that nothing was given yet is said apart.
        connection.execute(select(func.setval(sequence, max(1, numbers[name]), numbers[name] > 0)))
    for table in _COUNTED:
        last = select(func.coalesce(func.max(table.c.id), 0) + 1).scalar_subquery()
        connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last, false())))


def _sequences(connection: Connection) -> dict[str, str]:
    of_outbox = connection.execute(select(func.pg_get_serial_sequence(outbox.name, "id"))).scalar_one()
    return {**{name: sequence.name for name, sequence in NUMBERS.items()}, _EVENTS: of_outbox}
