"""`/lanes/{lane}/pause` and `/resume`: the lane hands out nothing, whoever asks; what runs may still be completed.

A pull that was asked after the answer to a pause gets nothing, at whatever tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oms.domain.errors import BusyError, NotFoundError, OmsError
from oms.domain.lane_control import LaneControl
from oms.sequencer.events import record_lane
from oms.sequencer.known_lanes import lanes_to_choose_from, nearest_lane
from oms.storage.lane_controls import lock_controls
from oms.storage.lane_pauses import keep_pause
from oms.storage.tasks import ready_tasks
from oms.storage.transaction import Transaction

MAX_WOKEN = 1_000
"""How many tasks of a lane that is resumed are counted, to wake who waits for them."""


@dataclass(frozen=True, slots=True)
class PauseLane:
    """Let a lane hand out nothing. ``reason`` and ``actor`` go into the ledger, and show in the list of lanes."""

    lane: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class ResumeLane:
    """Let a paused lane hand out again."""

    lane: str
    reason: str | None = None
    actor: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class LaneStands:
    """Whether a lane is paused."""

    lane: str
    paused: bool


def pause_lanes(tx: Transaction, wishes: Sequence[PauseLane]) -> list[LaneStands | OmsError]:
    """Pause each lane. One that is paused already stays so: the same answer, and no event."""

    def pause(control: LaneControl, wish: PauseLane | ResumeLane) -> None:
        if control.paused_at is None:
            control.paused_at, control.paused_by, control.pause_reason = tx.now_ms, wish.actor, wish.reason
            _record(tx, control, "paused", wish)

    return _each(tx, wishes, pause)


def resume_lanes(tx: Transaction, wishes: Sequence[ResumeLane]) -> list[LaneStands | OmsError]:
    """Resume each lane, and wake the pulls that wait there. One that is not paused stays so, and there is no event."""

    def resume(control: LaneControl, wish: PauseLane | ResumeLane) -> None:
        if control.paused_at is not None:
            tx.flush_controls()
            keep_pause(tx, control.lane, paused_at=control.paused_at)
            control.paused_at = control.paused_by = control.pause_reason = None
            _record(tx, control, "resumed", wish)
            wake_lane(tx, control.lane)

    return _each(tx, wishes, resume)


def wake_lane(tx: Transaction, lane: str) -> None:
    """Wake the pulls that wait in a lane for what is ready there: what held it back does so no more."""
    tx.flush_tasks()
    tx.woken.update(ready_tasks(tx.connection, tx.dialect, [lane], limit=MAX_WOKEN))


def _each(
    tx: Transaction,
    wishes: Sequence[PauseLane | ResumeLane],
    change: Callable[[LaneControl, PauseLane | ResumeLane], None],
) -> list[LaneStands | OmsError]:
    answers: list[LaneStands | OmsError] = []
    for wish in wishes:
        known = lanes_to_choose_from(tx, wish.lane)
        if wish.lane not in known:
            answers.append(_no_lane(wish.lane, known))
            continue
        controls = lock_controls(tx, [wish.lane])
        if controls is None:
            tx.has_found_busy = True
            answers.append(BusyError("Another tower changes this lane at this moment; try again."))
            continue
        control = controls[wish.lane]
        change(control, wish)
        answers.append(LaneStands(lane=control.lane, paused=control.paused_at is not None))
    return answers


def _record(tx: Transaction, control: LaneControl, status: str, wish: PauseLane | ResumeLane) -> None:
    tx.trace = wish.trace
    record_lane(tx, control, status, actor=wish.actor, detail={"reason": wish.reason} if wish.reason else {})


def _no_lane(lane: str, known: set[str]) -> NotFoundError:
    near = nearest_lane(lane, known)
    hint = f" The nearest known lane is {near!r}." if near else ""
    return NotFoundError(f"There is no lane {lane[:100]!r}; GET /lanes lists them.{hint}")
