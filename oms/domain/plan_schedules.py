"""Read the schedules of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms.domain.calendar_error import CalendarError
from oms.domain.naming import listed, shown
from oms.domain.plan import PlanSchedule
from oms.domain.schedule import Schedule, check_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oms.domain.plan_faults import Faults, Path
    from oms.domain.schema import OutputSchema

MAX_SCHEDULES = 100
REFERENCE_LENGTH = 200
SCHEDULE_KEYS = ("cron", "reference", "input")


def read_schedules(
    parts: Mapping[str, object], timezone: str, input_schema: OutputSchema | None, faults: Faults
) -> tuple[PlanSchedule, ...]:
    """Return a plan's schedules. ``timezone`` is the plan's, which is known to exist."""
    entries = parts.get("schedules", [])
    if not isinstance(entries, list):
        what = f"schedules is a list of mappings of {listed(SCHEDULE_KEYS)}"
        faults.add(("schedules",), f"{what}; found {shown(entries)}")
        return ()
    if len(entries) > MAX_SCHEDULES:
        faults.add(("schedules",), f"schedules has up to {MAX_SCHEDULES} entries; found {len(entries)}")
        return ()
    found = []
    for number, entry in enumerate(entries):
        path: Path = ("schedules", number)
        keys = faults.mapping(entry, path, "a schedule", SCHEDULE_KEYS)
        if keys is None:
            continue
        cron = reference = None
        if faults.required(keys, entry, path, "a schedule", "cron"):
            cron = _text(keys["cron"], (*path, "cron"), faults, lambda text: Schedule(text, timezone))
        if faults.required(keys, entry, path, "a schedule", "reference"):
            reference = _text(keys["reference"], (*path, "reference"), faults, check_reference)
        given = _input(keys, path, input_schema, faults)
        if cron is not None and reference is not None:
            found.append(PlanSchedule(cron, reference, given))
    return tuple(found)


def _text(value: object, place: Path, faults: Faults, check: Callable[[str], object]) -> str | None:
    """Return a text that a check takes."""
    key = place[-1]
    text = faults.name(value, place, f"a schedule's {key}", length=REFERENCE_LENGTH)
    if text is None:
        return None
    try:
        check(text)
    except CalendarError as error:
        faults.add(place, f"{key}: {error.message}", offset=error.offset)
        return None
    return text


def _input(keys: dict[str, object], path: Path, input_schema: OutputSchema | None, faults: Faults) -> dict[str, object]:
    """Return the input of a schedule's jobs, plain data that fits the plan's ``input_schema``."""
    given, place = keys.get("input", {}), ((*path, "input") if "input" in keys else path)
    if not isinstance(given, dict):
        faults.add(place, f"a schedule's input is a mapping, the input of its jobs; found {shown(given)}")
        return {}
    if input_schema is not None:
        for fault in input_schema.faults(given):
            inside = _as_far_as_it_goes(given, fault.loc[1:])
            faults.add((*place, *inside), f"the input does not fit input_schema: {fault.msg}")
    return given


def _as_far_as_it_goes(value: object, path: Path) -> Path:
    """Return as much of a path as there is in a value: what is missing has no place of its own."""
    for length, part in enumerate(path):
        is_there = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if not is_there:
            return path[:length]
        value = value[part]  # type: ignore[index]
    return path
