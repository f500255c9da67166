"""What holds lanes back: read it, lock it, count what it bounds, and keep it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import BindParameter, ColumnClause, Connection, bindparam, delete, func, literal_column, select, update

from hmskit.prepared import Prepared, insert_rows
from oms.domain.lane_control import HandOuts, LaneControl, window_begins_ms
from oms.storage.control_rows import CONTROL_COLUMNS, control_of_row
from oms.storage.tables import CONTROLLED, hand_outs, lane_controls, lane_turns, tasks
from oms.storage.transaction import Dialect, Transaction, in_list

KEPT_LONGER_MS = 30_000
"""For how much longer hand-outs are kept than they count: a transaction that began before another may come to the lane
after it, and counts by its own, earlier time. None lives that long."""

_THIS: BindParameter[str] = bindparam("this_lane")
_ONE: ColumnClause[int] = literal_column("1")

_READ = Prepared(select(*CONTROL_COLUMNS).where(in_list(lane_controls.c.lane, bindparam("lanes"))), ["lanes"])
_HELD_BACK = Prepared(
    select(*CONTROL_COLUMNS).where(in_list(lane_controls.c.lane, bindparam("lanes")), CONTROLLED), ["lanes"]
)
_LOCK = Prepared(
    select(*CONTROL_COLUMNS).where(in_list(lane_controls.c.lane, bindparam("lanes"))).with_for_update(skip_locked=True),
    ["lanes"],
)

_TAKE_TURNS = Prepared(
    select(lane_turns.c.lane).where(in_list(lane_turns.c.lane, bindparam("lanes"))).with_for_update(skip_locked=True),
    ["lanes"],
)
_INSERT_TURNS = insert_rows(lane_turns, ["lane"])
_DELETE_TURN = Prepared(delete(lane_turns).where(lane_turns.c.lane == _THIS), ["this_lane"])

# Not written as READY and RUNNING are: SQLite sees its partial index of what is not done only by these very words.
_RUNNING = (
    select(_ONE)
    .where(tasks.c.lane == _THIS, tasks.c.status == literal_column("'running'"), literal_column("status <> 'done'"))
    .limit(bindparam("limit"))
    .subquery()
)
_COUNT_RUNNING = Prepared(select(func.count()).select_from(_RUNNING), ["this_lane", "limit"])
_RECENT = (
    select(hand_outs.c.at)
    .where(hand_outs.c.lane == _THIS, hand_outs.c.at >= bindparam("since"))
    .order_by(hand_outs.c.at.desc())
    .limit(bindparam("limit"))
    .subquery()
)
_COUNT_RECENT = Prepared(
    select(func.count(), func.min(_RECENT.c.at), func.max(_RECENT.c.at)), ["this_lane", "since", "limit"]
)
_NOTE = insert_rows(hand_outs, ["lane", "at"])
_FORGET = Prepared(
    delete(hand_outs).where(hand_outs.c.lane == _THIS, hand_outs.c.at < bindparam("until")), ["this_lane", "until"]
)
_FORGET_ALL = Prepared(delete(hand_outs).where(hand_outs.c.lane == _THIS), ["this_lane"])
_BRING_BACK = Prepared(
    update(hand_outs)
    .where(hand_outs.c.lane == _THIS, hand_outs.c.at > bindparam("latest"))
    .values(at=bindparam("now")),
    ["now", "this_lane", "latest"],
)
_ALL_TURNS = select(lane_turns.c.lane)
_ALL = select(*CONTROL_COLUMNS).order_by(lane_controls.c.lane)
_ALL_CAPPED = select(lane_controls.c.lane).where(
    lane_controls.c.max_running.is_not(None) | lane_controls.c.rates.is_not(None)
)


def held_back(connection: Connection, dialect: Dialect, lanes: Sequence[str]) -> dict[str, LaneControl]:
    """Return those of ``lanes`` that are paused or capped now."""
    rows = _HELD_BACK.rows(connection, dialect.list_parameter(list(lanes)))
    return {row[0]: control_of_row(row) for row in rows}


def all_controls(connection: Connection) -> dict[str, LaneControl]:
    """Return every lane that is paused, capped, or was ever paused."""
    return {row.lane: control_of_row(row) for row in connection.execute(_ALL)}


def capped_lanes(connection: Connection) -> set[str]:
    """Return every lane that has a cap."""
    return set(connection.execute(_ALL_CAPPED).scalars())


def lock_controls(tx: Transaction, lanes: Iterable[str]) -> dict[str, LaneControl] | None:
    """Return the controls of ``lanes``, locked, new ones where there were none; None where another has one.

    None is waited for. A new one is inserted at the flush: where another transaction makes the same one meanwhile,
    this one runs again.
    """
    wanted = [lane for lane in dict.fromkeys(lanes) if lane not in tx.controls]
    if wanted:
        parameter = tx.dialect.list_parameter(wanted)
        locked = {row[0]: control_of_row(row) for row in _LOCK.rows(tx.connection, parameter)}
        if tx.dialect.is_shared and len(locked) < len(wanted):
            there = {row[0] for row in _READ.rows(tx.connection, parameter)}
            if there - locked.keys():
                return None
        for lane in wanted:
            if lane not in locked:
                tx.new_controls.add(lane)
        tx.controls.update((lane, locked.get(lane) or LaneControl(lane)) for lane in wanted)
    return {lane: tx.controls[lane] for lane in lanes}


def control_changed(tx: Transaction, control: LaneControl) -> None:
    """Write ``control``, which is locked, at the flush."""
    tx.changed_controls[control.lane] = control


def keep_turns(tx: Transaction, capped: set[str]) -> None:
    """Give each of the capped lanes its turn, and take away all others, but for one that somebody has just now."""
    there = set(tx.connection.execute(_ALL_TURNS).scalars())
    _INSERT_TURNS.many(tx.connection, [(lane,) for lane in sorted(capped - there)])
    _DELETE_TURN.many(tx.connection, [(lane,) for lane in sorted(take_turns(tx, there - capped))])


def forget_hand_outs(tx: Transaction, lane: str) -> None:
    """Forget all hand-outs of a lane that has no rate any more."""
    _FORGET_ALL.many(tx.connection, [(lane,)])


def take_turns(tx: Transaction, lanes: Iterable[str]) -> set[str]:
    """Lock the turns of capped lanes until the end of ``tx``; return those that were free. None is waited for.

    Whoever hands out of a capped lane has its turn: what it counts then, nobody adds to before its end.
    """
    wanted = list(lanes)
    if not tx.dialect.is_shared:
        return set(wanted)  # one transaction writes at a time
    return {row[0] for row in _TAKE_TURNS.rows(tx.connection, tx.dialect.list_parameter(wanted))}


def count_running(connection: Connection, lane: str, *, limit: int) -> int:
    """Return how many tasks of a lane are in workers' hands, counting up to ``limit``."""
    return int(_COUNT_RUNNING.rows(connection, lane, limit)[0][0])


def recent_hand_outs(connection: Connection, control: LaneControl, *, now_ms: int) -> list[HandOuts]:
    """Return, for each rate of a lane, the hand-outs that count for it at ``now_ms``."""
    found = []
    for most, per_sec in control.caps.rates:
        since = window_begins_ms(per_sec, now_ms=now_ms)
        ((count, oldest, _newest),) = _COUNT_RECENT.rows(connection, control.lane, since, most)
        found.append(HandOuts(count, oldest))
    return found


def tidy_hand_outs(tx: Transaction, control: LaneControl) -> None:
    """Forget the hand-outs of a lane that count no more; ``tx`` has its turn.

    Those from a future that this clock will not come to for long are of a clock that was set back: they count from now.
    """
    longest_sec = max(per_sec for _most, per_sec in control.caps.rates)
    _FORGET.many(tx.connection, [(control.lane, window_begins_ms(longest_sec, now_ms=tx.now_ms) - KEPT_LONGER_MS)])
    ((_count, _oldest, newest),) = _COUNT_RECENT.rows(tx.connection, control.lane, tx.now_ms, 1)
    latest = tx.now_ms + KEPT_LONGER_MS
    if newest is not None and newest > latest:
        _BRING_BACK.many(tx.connection, [(tx.now_ms, control.lane, latest)])


def note_hand_outs(tx: Transaction, lane: str, count: int) -> None:
    """Note that ``count`` tasks of a lane with a rate were handed out now."""
    _NOTE.many(tx.connection, [(lane, tx.now_ms)] * count)
