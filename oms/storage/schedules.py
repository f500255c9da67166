"""When the schedules of the plans in force fire next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, bindparam, delete, insert, literal_column, select, update

from hmskit.prepared import Prepared
from oms.domain.schedule import Schedule
from oms.storage.set_aside import Key
from oms.storage.tables import schedules
from oms.storage.transaction import Transaction, left_alone

_OF_PLAN = (schedules.c.plan == bindparam("this_plan"), schedules.c.number == bindparam("this_number"))
_DUE = Prepared(
    select(schedules)
    .where(schedules.c.next_at <= bindparam("now"), ~left_alone(schedules.c.plan))
    .order_by(schedules.c.next_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True),
    ["now", "without", "limit"],
)
_MOVE = Prepared(
    update(schedules).where(*_OF_PLAN).values(next_at=bindparam("next")), ["next", "this_plan", "this_number"]
)
_NEXT = Prepared(select(schedules.c.next_at).order_by(schedules.c.next_at).limit(literal_column("1")), [])


@dataclass(frozen=True, slots=True)
class KeptSchedule:
    """A schedule of a plan in force. ``next_at`` is when it fires, milliseconds since the epoch."""

    plan: str
    number: int
    cron: str
    timezone: str
    reference: str
    next_at: int


def keep_schedules(tx: Transaction, plan: str, wanted: Sequence[tuple[str, str, str]]) -> None:
    """Let a plan have these schedules from now on: each a cron, its timezone and the reference of its jobs.

    One that is new fires for the first time after now. One that the plan had before goes on: what was missed while
    nobody was there is still to be made up.
    """
    before = list(schedules_of(tx.connection, plan))
    if not before and not wanted:
        return
    known = {(row.cron, row.timezone): row.next_at for row in before}
    after = [
        KeptSchedule(
            plan,
            number,
            cron,
            timezone,
            reference,
            known.get((cron, timezone)) or Schedule(cron, timezone).next_fire_ms(tx.now_ms),
        )
        for number, (cron, timezone, reference) in enumerate(wanted)
    ]
    if after == before:
        return
    tx.connection.execute(delete(schedules).where(schedules.c.plan == plan))
    if after:
        tx.connection.execute(insert(schedules), [asdict(schedule) for schedule in after])


def due_schedules(tx: Transaction, *, limit: int, without: Sequence[Key]) -> list[KeptSchedule]:
    """Return, and lock, up to ``limit`` schedules that fire by now, without those of some plans.

    Those that another tower has are left out, too.
    """
    rows = _DUE.rows(tx.connection, tx.now_ms, tx.dialect.list_parameter(list(without)), limit)
    return [KeptSchedule(*row) for row in rows]


def move_schedule(tx: Transaction, schedule: KeptSchedule, *, next_at: int) -> None:
    """Set when a locked schedule fires next."""
    _MOVE.many(tx.connection, [(next_at, schedule.plan, schedule.number)])


def next_fire_ms(tx: Transaction) -> int | None:
    """Return when the next schedule fires; None where there is none."""
    rows = _NEXT.rows(tx.connection)
    return rows[0][0] if rows else None


def schedules_of(connection: Connection, plan: str | None = None) -> Iterator[KeptSchedule]:
    """Yield the schedules of every plan in force, in the plan's order; of one plan where it is named."""
    statement = select(schedules).order_by(schedules.c.plan, schedules.c.number)
    if plan is not None:
        statement = statement.where(schedules.c.plan == plan)
    return (KeptSchedule(*row) for row in connection.execute(statement))
