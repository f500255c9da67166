"""When lanes were paused: what waited in them meanwhile is not late for it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import from_json, to_json
from sqlalchemy import bindparam, select, update

from hmskit.prepared import Prepared
from oms.domain.stall import Pause
from oms.storage.tables import lane_controls
from oms.storage.transaction import Transaction, in_list

KEPT_PAUSES = 100
"""Of each lane. A task that waits for longer than its lane's last hundred pauses is told to be late a little early."""

_PAUSES = Prepared(
    select(lane_controls.c.paused_at, lane_controls.c.pauses).where(lane_controls.c.lane == bindparam("this_lane")),
    ["this_lane"],
)
_KEEP = Prepared(
    update(lane_controls).where(lane_controls.c.lane == bindparam("this_lane")).values(pauses=bindparam("pauses")),
    ["pauses", "this_lane"],
)
_PAUSED = Prepared(
    select(lane_controls.c.lane).where(
        in_list(lane_controls.c.lane, bindparam("lanes")), lane_controls.c.paused_at.is_not(None)
    ),
    ["lanes"],
)


def paused_lanes(tx: Transaction, lanes: Sequence[str]) -> set[str]:
    """Return those of ``lanes`` that are paused now."""
    return {row[0] for row in _PAUSED.rows(tx.connection, tx.dialect.list_parameter(list(lanes)))}


def pauses_of(tx: Transaction, lane: str) -> list[Pause]:
    """Return a lane's pauses, the one that goes on included: up to now."""
    known = tx.lane_pauses.get(lane)
    if known is None:
        known = tx.lane_pauses[lane] = []
        for paused_at, pauses in _PAUSES.rows(tx.connection, lane):
            known += [] if pauses is None else [(start, end) for start, end in from_json(pauses)]
            known += [] if paused_at is None else [(paused_at, tx.now_ms)]
    return known


def keep_pause(tx: Transaction, lane: str, *, paused_at: int) -> None:
    """Note a pause that ends now. Whoever ends it has the lane's row locked, and clears its ``paused_at``."""
    tx.lane_pauses.pop(lane, None)
    before = [pause for pause in pauses_of(tx, lane) if pause[0] < paused_at]
    kept = [*before, (paused_at, tx.now_ms)][-KEPT_PAUSES:]
    _KEEP.many(tx.connection, [(to_json(kept).decode(), lane)])
    tx.lane_pauses[lane] = kept
