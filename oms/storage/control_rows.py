"""How a lane's control is kept in its row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete

from hmskit.prepared import Prepared, insert_rows, update_rows
from oms.domain.lane_control import Caps, LaneControl
from oms.storage.tables import lane_controls

_COLUMNS = ("paused_at", "paused_by", "pause_reason", "seq", "max_running", "rates")
CONTROL_COLUMNS = [lane_controls.c.lane, *(lane_controls.c[name] for name in _COLUMNS)]
"""What a control is made of; the table has more (``oms.storage.lane_pauses``)."""
_INSERT = insert_rows(lane_controls, ["lane", *_COLUMNS])
_UPDATE = update_rows(lane_controls, _COLUMNS, key="lane")
_DELETE = Prepared(delete(lane_controls).where(lane_controls.c.lane == bindparam("this_lane")), ["this_lane"])


def control_of_row(row: Sequence[Any]) -> LaneControl:
    """Make a control of a row of `CONTROL_COLUMNS`."""
    lane, paused_at, paused_by, pause_reason, seq, max_running, rates = row
    pairs = () if rates is None else tuple((tasks, per_sec) for tasks, per_sec in json.loads(rates))
    return LaneControl(lane, paused_at, paused_by, pause_reason, seq, Caps(max_running, pairs))


def write_controls(connection: Connection, changed: Iterable[LaneControl], *, new: set[str]) -> None:
    """Write controls that are locked; those that say nothing any more leave. New ones come in the order of their keys.

    Args:
        connection: with the transaction begun.
        changed: what to write.
        new: the lanes that have no row; it is kept up.
    """
    ordered = sorted(changed, key=lambda control: control.lane)
    kept = [control for control in ordered if control.is_needed]
    gone = [control.lane for control in ordered if not control.is_needed and control.lane not in new]
    added = [control for control in kept if control.lane in new]
    _INSERT.many(connection, [(control.lane, *_row(control)) for control in added])
    _UPDATE.many(connection, [(*_row(control), control.lane) for control in kept if control.lane not in new])
    _DELETE.many(connection, [(lane,) for lane in gone])
    new -= {control.lane for control in added}
    new |= set(gone)


def _row(control: LaneControl) -> tuple[Any, ...]:
    rates = json.dumps(control.caps.rates) if control.caps.rates else None
    return (
        control.paused_at,
        control.paused_by,
        control.pause_reason,
        control.seq,
        control.caps.max_running,
        rates,
    )
