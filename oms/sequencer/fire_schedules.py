"""A plan's schedules: jobs that start by themselves.

A fire is one transaction: it moves the schedule on and starts the job. Whoever has the schedule's row does it, and a
crash before the commit leaves it to whoever comes next; so it happens once, over any number of towers.
"""

from __future__ import annotations

from collections.abc import Sequence

from act.contract import format_time_ms
from oms.domain.errors import OmsError
from oms.domain.schedule import Schedule
from oms.sequencer.backup import OMS
from oms.sequencer.start import Start, start
from oms.sequencer.swept import Fired, Portion, Swept
from oms.storage.plans import in_force_of
from oms.storage.schedules import KeptSchedule, due_schedules, move_schedule
from oms.storage.transaction import Transaction

BATCH = 50
MAX_REFERENCE = 200
TOO_LONG = f"With the date in it the reference is longer than {MAX_REFERENCE} characters; shorten it in the plan."


def fire_schedules(tx: Transaction, portion: Portion) -> Swept:
    """Fire up to `BATCH` schedules that are due; a job that cannot be started stops none of the others.

    Of what was missed while no tower was there, the latest fire is made up, and those before it are not.
    """
    limit = portion.at_most(BATCH)
    due = due_schedules(tx, limit=limit, without=portion.without)
    portion.taken += [kept.plan for kept in due]
    return Swept(schedules=_fire_all(tx, due) if due else [], more=len(due) == limit)


def _fire_all(tx: Transaction, due: Sequence[KeptSchedule]) -> list[Fired]:
    tx.trace = None
    versions = in_force_of(tx, (kept.plan for kept in due))
    wishes = [wish for kept in due if (wish := _fire(tx, kept, versions.get(kept.plan))) is not None]
    fitting = [wish for wish in wishes if len(wish.reference) <= MAX_REFERENCE]
    fired = [
        _fired(wish, answer.detail if isinstance(answer, OmsError) else None)
        for wish, answer in zip(fitting, start(tx, fitting), strict=True)
    ]
    return fired + [_fired(wish, TOO_LONG) for wish in wishes if len(wish.reference) > MAX_REFERENCE]


def _fired(wish: Start, refused: str | None) -> Fired:
    return Fired(wish.plan, wish.reference, wish.scheduled_for or "", refused)


def _fire(tx: Transaction, kept: KeptSchedule, version: int | None) -> Start | None:
    """Move a schedule on; return what it starts. None where a tower of an older release took the plan out of force."""
    schedule = Schedule(kept.cron, kept.timezone)
    move_schedule(tx, kept, next_at=schedule.next_fire_ms(tx.now_ms))
    fire_ms = schedule.missed(kept.next_at - 1, tx.now_ms)
    assert fire_ms is not None  # the next one has come
    in_force = () if version is None else tx.plans.get(tx.connection, kept.plan, version).schedules
    of_plan = next((each for each in in_force if (each.cron, each.reference) == (kept.cron, kept.reference)), None)
    if of_plan is None:
        return None
    return Start(
        plan=kept.plan,
        reference=schedule.render_reference(kept.reference, fire_ms),
        input=dict(of_plan.input),
        priority=0,
        actor=OMS,
        scheduled_for=format_time_ms(fire_ms),
    )
