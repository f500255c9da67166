"""Read an activity: an entry of a plan's sequence, or of a list of steps in a block, that is no block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oms.domain.calendar_error import CalendarError
from oms.domain.due import read_due
from oms.domain.expression import MAX_PRIORITY, Expression, Kind
from oms.domain.naming import did_you_mean, listed, nearest, quote, shown
from oms.domain.plan import OnFailure, Step
from oms.domain.plan_faults import TITLE_LENGTH
from oms.domain.plan_names import BLOCKS
from oms.domain.plan_reading import (
    MAX_SECONDS,
    read_retry_keys,
    read_schema,
    read_whole,
    read_word,
    retry_policy,
)

if TYPE_CHECKING:
    from oms.domain.plan_faults import Path
    from oms.domain.plan_reading import At, Reading, Visible

STEP_KEYS = (
    *("activity", "lane", "when", "output_schema", "retry_policy", "input", "priority", "due_sec", "due", "title"),
    *("on_failure", "undo"),
)
_ALL_KEYS = (*STEP_KEYS, *BLOCKS)


@dataclass(frozen=True, slots=True)
class _Names:
    """An activity's names and where they stand."""

    activity: str | None
    lane: str | None
    place: Path
    lane_place: Path


def read_activity(reading: Reading, entry: object, at: At, visible: Visible) -> Step | None:
    """Return an activity without its ``undo``; None where it has no name.

    Its name is not yet among those that can be read: the entries of its own ``when`` and ``input`` come before it.
    """
    faults = reading.faults
    keys: dict[str, object] = {}
    if isinstance(entry, dict):
        keys = _known_keys(reading, entry, at)
    names = _names(reading, entry, keys, at)
    if names.activity is not None:
        reading.take_name(names.activity, "activity", at, names.place)
    _check_lane(reading, names, keys)
    title = None
    if "title" in keys:
        title = faults.name(keys["title"], (*at.path, "title"), "a step's title", length=TITLE_LENGTH)
    if "due_sec" in keys and "due" in keys:
        faults.add((*at.path, "due"), "a step has due_sec or due, not both", on_key=True)
    policy = retry_policy({**reading.retry_keys, **read_retry_keys(keys, at.path, faults)})
    step = Step(
        activity=names.activity or "",
        lane=names.lane or names.activity or "",
        when=reading.condition(keys, "when", at, visible),
        output_schema=read_schema(faults, keys, "output_schema", at.path),
        retry_policy=policy,
        number=len(reading.steps),
        input=reading.input(keys, at, visible),
        priority=_priority(reading, keys, at, visible),
        due_sec=read_whole(faults, keys, "due_sec", at.path, MAX_SECONDS),
        due=_due(reading, keys, at),
        title=title,
        on_failure=read_word(faults, keys, "on_failure", at.path, OnFailure.FAIL),
    )
    return None if names.activity is None else step


def _known_keys(reading: Reading, entry: dict[Any, object], at: At) -> dict[str, object]:
    """Return an entry's keys without those that an activity does not have, which are faults."""
    unknown = [key for key in entry if key not in STEP_KEYS]
    if "activity" not in entry and "lane" not in entry:  # then a misspelt block has keys that only follow from it
        unknown = [key for key in unknown if isinstance(key, str) and nearest(key, _ALL_KEYS) in BLOCKS] or unknown
    for key in unknown:
        if not isinstance(key, str):
            reading.faults.mapping({key: None}, at.path, "a step", STEP_KEYS)
            continue
        near = did_you_mean(key, _ALL_KEYS) or f"; expected one of {listed(STEP_KEYS)}"
        reading.faults.add((*at.path, key), f"a step has no key {quote(key)}{near}", on_key=True)
    return {key: value for key, value in entry.items() if key in STEP_KEYS}


def _names(reading: Reading, entry: object, keys: dict[str, object], at: At) -> _Names:
    faults, path = reading.faults, at.path
    if not isinstance(entry, dict):
        name = faults.name(entry, path, "a step is a name or a mapping with an activity; its name")
        return _Names(name, name, path, path)
    if "activity" not in keys and "lane" not in keys:
        if len(keys) == len(entry):  # else a key that is unknown says enough
            faults.add(path, 'a step needs the key "activity" or "lane"')
        return _Names(None, None, path, path)
    activity_place, lane_place = (*path, "activity"), (*path, "lane")
    activity = faults.name(keys["activity"], activity_place, "a step's activity") if "activity" in keys else None
    lane = faults.name(keys["lane"], lane_place, "a step's lane") if "lane" in keys else None
    if "lane" not in keys:
        return _Names(activity, activity, activity_place, activity_place)
    if "activity" not in keys:
        return _Names(lane, lane, lane_place, lane_place)
    return _Names(activity, lane, activity_place, lane_place)


def _check_lane(reading: Reading, names: _Names, keys: dict[str, object]) -> None:
    """Refuse a lane that is not declared."""
    lane, lane_ids = names.lane, reading.lane_ids
    if lane is None or lane_ids is None or lane in lane_ids:
        return
    near = did_you_mean(lane, lane_ids) or f"; expected one of {listed(lane_ids)}"
    message = f"the lane {quote(lane)} is not declared in lanes{near}"
    if "activity" in keys and "lane" not in keys:
        message = f"the step names no lane, and lanes declares none of its activity's name, {quote(lane)}{near}"
    reading.faults.add(names.lane_place, message)


def _priority(reading: Reading, keys: dict[str, object], at: At, visible: Visible) -> Expression | int | None:
    value = keys.get("priority")
    if isinstance(value, str):
        return reading.expression(keys, "priority", Kind.PRIORITY, at, visible)
    if "priority" not in keys:
        return None
    if value is None or isinstance(value, bool | list | dict):
        reading.faults.add((*at.path, "priority"), f"priority is a number or a CEL expression; found {shown(value)}")
        return None
    return read_whole(reading.faults, keys, "priority", at.path, MAX_PRIORITY, least=-MAX_PRIORITY)


def _due(reading: Reading, keys: dict[str, object], at: At) -> str | None:
    if "due" not in keys:
        return None
    value, place = keys["due"], (*at.path, "due")
    if not isinstance(value, str):
        reading.faults.add(place, f"due is a duration such as P5D, written as text; found {shown(value)}")
        return None
    try:
        read_due(value)
    except CalendarError as error:
        reading.faults.add(place, f"due: {error.message}", offset=error.offset)
        return None
    return value
