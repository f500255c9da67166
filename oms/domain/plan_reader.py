"""Make a plan of a plain document: what a plan file holds, as texts, numbers, lists and mappings.

Nothing here knows about files; a fault says where in the document it is, and ``oms.storage.plan_files`` finds the
line and column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms.domain.naming import listed, shown
from oms.domain.plan import Plan, PlanSchedule
from oms.domain.plan_blocks import MAX_ENTRIES, read_steps
from oms.domain.plan_faults import TITLE_LENGTH, Faults, PlanError, plan_id_of
from oms.domain.plan_lanes import read_lanes
from oms.domain.plan_names import spots_of
from oms.domain.plan_reading import At, Reading, Visible, read_retry_keys, read_schema, retry_policy

if TYPE_CHECKING:
    from oms.domain.plan import Lane, Node, Step
    from oms.domain.plan_faults import Path
    from oms.domain.schema import OutputSchema

MAX_LANES = 1000
MAX_STEPS = 1000
MAX_SCHEDULES = 100
REFERENCE_LENGTH = 200

PLAN_KEYS = ("id", "lanes", "sequence", "retry_policy", "title", "timezone", "input_schema", "schedules")
SCHEDULE_KEYS = ("cron", "reference", "input")
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
    lanes = None if lane_entries is None else read_lanes(lane_entries, faults)
    entries = _entries(parts, document, faults, "sequence", MAX_ENTRIES)
    sequence, steps = ((), ()) if entries is None else _sequence(entries, faults, plan_id, lanes, retry_keys)
    schedules = _schedules(parts, faults, input_schema)
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
    if isinstance(name, str):
        return name
    faults.add(("timezone",), f"timezone is an IANA name such as Europe/Vienna, written as text; found {shown(name)}")
    return "UTC"


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


def _schedules(parts: dict[str, object], faults: Faults, input_schema: OutputSchema | None) -> tuple[PlanSchedule, ...]:
    entries = parts.get("schedules", [])
    if not isinstance(entries, list):
        faults.add(
            ("schedules",), f"schedules is a list of mappings of {listed(SCHEDULE_KEYS)}; found {shown(entries)}"
        )
        return ()
    if len(entries) > MAX_SCHEDULES:
        faults.add(("schedules",), f"schedules has up to {MAX_SCHEDULES} entries; found {len(entries)}")
    found = [_schedule(entry, ("schedules", number), faults, input_schema) for number, entry in enumerate(entries)]
    return tuple(schedule for schedule in found if schedule is not None)


def _schedule(entry: object, path: Path, faults: Faults, input_schema: OutputSchema | None) -> PlanSchedule | None:
    keys = faults.mapping(entry, path, "a schedule", SCHEDULE_KEYS)
    if keys is None:
        return None
    cron = reference = None
    if faults.required(keys, entry, path, "a schedule", "cron"):
        cron = keys["cron"]
        if not isinstance(cron, str):
            faults.add((*path, "cron"), f"cron is written as text, such as 0 6 * * 1-5; found {shown(cron)}")
    if faults.required(keys, entry, path, "a schedule", "reference"):
        what = "a schedule's reference"
        reference = faults.name(keys["reference"], (*path, "reference"), what, length=REFERENCE_LENGTH)
    given = keys.get("input", {})
    if not isinstance(given, dict):
        faults.add((*path, "input"), f"a schedule's input is a mapping, the job's input; found {shown(given)}")
    elif input_schema is not None:
        for fault in input_schema.faults(given):
            place = _nearest(given, fault.loc[1:])
            faults.add((*path, "input", *place), f"the input does not fit input_schema: {fault.msg}")
    if not isinstance(cron, str) or reference is None or not isinstance(given, dict):
        return None
    return PlanSchedule(cron, reference, given)


def _nearest(value: object, path: Path) -> Path:
    """Return as much of a path as there is in a value: what is missing has no place of its own."""
    for length, part in enumerate(path):
        is_there = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if not is_there:
            return path[:length]
        value = value[part]  # type: ignore[index]
    return path
