"""Make a plan of a plain document: what a plan file holds, as texts, numbers, lists and mappings.

Nothing here knows about files; a fault says where in the document it is, and ``oms.storage.plan_files`` finds the
line and column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms.domain.calendar_error import CalendarError
from oms.domain.local_time import zone
from oms.domain.naming import shown
from oms.domain.plan import Plan
from oms.domain.plan_blocks import MAX_ENTRIES, read_steps
from oms.domain.plan_faults import TITLE_LENGTH, Faults, PlanError, plan_id_of
from oms.domain.plan_lanes import read_lanes
from oms.domain.plan_names import spots_of
from oms.domain.plan_reading import At, Reading, Visible, read_retry_keys, read_schema, retry_policy
from oms.domain.plan_schedules import read_schedules

if TYPE_CHECKING:
    from oms.domain.plan import Lane, Node, Step
    from oms.domain.plan_faults import Path

MAX_LANES = 1000
MAX_STEPS = 1000

PLAN_KEYS = ("id", "lanes", "sequence", "retry_policy", "title", "timezone", "input_schema", "schedules")
_DATA_KEYS = ("output_schema", "input_schema")


def is_data(path: Path) -> bool:
    """Tell whether the value at a place of a plan is data, where ``true`` and ``false`` are not words but booleans."""
    match path:
        case ("schedules", _, "input"):
            return True
        case (*_, "parallel" | "input", _):  # the name of a branch, or a key of an activity's input
            return False
        case (*_, key):
            return key in _DATA_KEYS
    return False


def parse_plan(document: object) -> Plan:
    """Make a plan of a document.

    Raises:
        PlanError: with every fault found, each at its place in the document.
    """
    faults = Faults()
    parts = faults.mapping(document, (), "a plan", PLAN_KEYS)
    if parts is None or not isinstance(document, dict):
        raise PlanError(faults.found)
    plan_id = _plan_id(parts, document, faults)
    title = None
    if "title" in parts:
        title = faults.name(parts["title"], ("title",), "a plan's title", length=TITLE_LENGTH)
    retry_keys = read_retry_keys(parts, (), faults)
    input_schema = read_schema(faults, parts, "input_schema", ())
    timezone = _timezone(parts, faults)
    lane_entries = _entries(parts, document, faults, "lanes", MAX_LANES)
    lanes = None if lane_entries is None else read_lanes(lane_entries, timezone, faults)
    entries = _entries(parts, document, faults, "sequence", MAX_ENTRIES)
    sequence, steps = ((), ()) if entries is None else _sequence(entries, faults, plan_id, lanes, retry_keys)
    schedules = read_schedules(parts, timezone, input_schema, faults)
    if faults.found or plan_id is None or lanes is None:
        raise PlanError(faults.found)
    return Plan(
        id=plan_id,
        lanes=tuple(lanes),
        sequence=sequence,
        steps=steps,
        retry_policy=retry_policy(retry_keys),
        document=document,
        timezone=timezone,
        title=title,
        input_schema=input_schema,
        schedules=schedules,
    )


def _plan_id(parts: dict[str, object], document: object, faults: Faults) -> str | None:
    if not faults.required(parts, document, (), "a plan", "id"):
        return None
    plan_id = plan_id_of(parts)
    if plan_id is None:
        found = shown(parts["id"])
        faults.add(("id",), f"a plan's id is a letter and up to 99 more letters, digits, _ or -; found {found}")
    return plan_id


def _timezone(parts: dict[str, object], faults: Faults) -> str:
    name = parts.get("timezone", "UTC")
    if not isinstance(name, str):
        what = "timezone is an IANA name such as Europe/Vienna, written as text"
        faults.add(("timezone",), f"{what}; found {shown(name)}")
        return "UTC"
    try:
        zone(name)
    except CalendarError as error:
        faults.add(("timezone",), error.message)
        return "UTC"
    return name


def _entries(parts: dict[str, object], document: object, faults: Faults, key: str, most: int) -> list[object] | None:
    """Return the list under a key of the plan; None, and a fault, when there is no good one."""
    if not faults.required(parts, document, (), "a plan", key):
        return None
    found = parts[key]
    if not isinstance(found, list):
        faults.add((key,), f"{key} is a list of names or mappings; found {shown(found)}")
    elif not 1 <= len(found) <= most:
        faults.add((key,), f"{key} has 1 to {most} entries; found {len(found)}")
    else:
        return found
    return None


def _sequence(
    entries: list[object], faults: Faults, plan_id: str | None, lanes: list[Lane] | None, keys: dict[str, float]
) -> tuple[tuple[Node, ...], tuple[Step, ...]]:
    """Return the nodes of the plan's sequence, and every activity in it."""
    lane_ids = None if lanes is None else sorted(lane.id for lane in lanes)
    reading = Reading(plan_id, faults, lane_ids, keys, spots_of(entries))
    sequence = read_steps(reading, entries, At(("sequence",), ()), Visible(), "sequence")
    if len(reading.steps) > MAX_STEPS:
        faults.add(("sequence",), f"a plan has at most {MAX_STEPS} activities; found {len(reading.steps)}")
    return sequence, tuple(reading.steps)
