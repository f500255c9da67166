"""Hand out of a lane no more than its pause and its caps admit.

Most lanes have neither, and nothing of this costs them: the claim itself sees to it, and only where it comes back short
is it asked whether a rule is why. Slots are live leases: what runs is counted at each claim, so that none can leak.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from oms.domain.lane_control import LaneControl, Room, room_for
from oms.domain.task import Task
from oms.storage.lane_controls import (
    count_running,
    held_back,
    note_hand_outs,
    recent_hand_outs,
    take_turns,
    tidy_hand_outs,
)
from oms.storage.tasks import claim_tasks, note_contended
from oms.storage.transaction import Dialect, Transaction


def claim_in_lanes(
    tx: Transaction, wanted: Mapping[str, int], *, workers: Mapping[str, str | None]
) -> dict[str, list[Task]]:
    """Lease up to so many ready tasks of each lane, as `claim_tasks` does, within the lanes' pauses and caps.

    A lane that gives less because of them is noted in ``tx.held_back``. On PostgreSQL the turn of a capped lane is not
    waited for: where another transaction has it, the lane is noted in ``tx.contended``.

    Args:
        tx: the open transaction.
        wanted: by lane how many.
        workers: by lane who gets them all; None: the caller says so of each.
    """
    tx.flush_controls()
    claimed = {lane: claim_tasks(tx, lane=lane, limit=limit, worker=workers[lane]) for lane, limit in wanted.items()}
    short = [lane for lane, limit in wanted.items() if len(claimed[lane]) < limit]
    controls = held_back(tx.connection, tx.dialect, short) if short else {}
    for lane in short:
        if lane not in controls:
            tx.let_through.add(lane)
            note_contended(tx, lane)
        elif controls[lane].paused_at is not None:
            _hold_back(tx, lane, None)
    capped = [lane for lane, control in controls.items() if control.paused_at is None]
    if capped:
        turns = take_turns(tx, capped)
        for lane in capped:
            if lane not in turns:
                note_contended(tx, lane)
        for control in held_back(tx.connection, tx.dialect, sorted(turns)).values():  # as they are now, with the turn
            more = wanted[control.lane] - len(claimed[control.lane])
            claimed[control.lane] += _claim_within_caps(tx, control, wanted=more, worker=workers[control.lane])
    return claimed


def _claim_within_caps(tx: Transaction, control: LaneControl, *, wanted: int, worker: str | None) -> list[Task]:
    """Lease tasks of a lane whose turn ``tx`` has."""
    if control.paused_at is not None:
        _hold_back(tx, control.lane, None)
        return []
    if control.caps.rates:
        tidy_hand_outs(tx, control)
    room = room_now(tx.connection, control, now_ms=tx.now_ms)
    admitted = room.admits(wanted)
    tasks = claim_tasks(tx, lane=control.lane, limit=admitted, is_admitted=True, worker=worker) if admitted else []
    if control.caps.rates:
        note_hand_outs(tx, control.lane, len(tasks))
    if len(tasks) < admitted:
        note_contended(tx, control.lane)
    elif admitted < wanted:
        after = room if not tasks else room_now(tx.connection, control, now_ms=tx.now_ms)
        _hold_back(tx, control.lane, None if after.is_full else after.opens_at)
    return tasks


def _hold_back(tx: Transaction, lane: str, opens_at: int | None) -> None:
    tx.held_back[lane] = opens_at
    tx.woken.pop(lane, None)  # nobody else will get them either


def room_now(connection: Connection, control: LaneControl, *, now_ms: int) -> Room:
    """Return how many tasks a capped lane may hand out; exact for whoever has its turn."""
    caps = control.caps
    running = 0 if caps.max_running is None else count_running(connection, control.lane, limit=caps.max_running)
    return room_for(caps, running=running, handed_out=recent_hand_outs(connection, control, now_ms=now_ms))


def without_held_back(
    connection: Connection, dialect: Dialect, ready: Mapping[str, int], *, now_ms: int
) -> dict[str, int]:
    """Leave out of ``ready``, how many tasks are ready in which lanes, what lanes hold back."""
    controls = held_back(connection, dialect, list(ready))
    left = {}
    for lane, count in ready.items():
        control = controls.get(lane)
        if control is not None and control.paused_at is not None:
            continue
        admitted = count if control is None else room_now(connection, control, now_ms=now_ms).admits(count)
        if admitted:
            left[lane] = admitted
    return left
