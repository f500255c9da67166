"""Make a plan of a plain document: what a plan file holds, as texts, numbers, lists and mappings.

Nothing here knows about files; a fault says where in the document it is, and ``oms.storage.plan_files`` finds the
line and column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oms.domain.condition import Condition, ConditionSyntaxError
from oms.domain.naming import did_you_mean, listed, quote, shown
from oms.domain.plan import DEFAULT_LEASE_SEC, Lane, LaneKind, Plan, Step
from oms.domain.plan_faults import TITLE_LENGTH, Faults, PlanError, plan_id_of
from oms.domain.retry import BOUNDS, DEFAULT_POLICY, RetryPolicy
from oms.domain.schema import OutputSchema, SchemaError

if TYPE_CHECKING:
    from oms.domain.plan_faults import Path

MAX_LANES = 1000
MAX_STEPS = 1000
MAX_LEASE_SEC = 31_536_000

PLAN_KEYS = ("id", "lanes", "sequence", "retry_policy")
LANE_KEYS = ("id", "kind", "title", "lease_sec")
STEP_KEYS = ("activity", "lane", "when", "output_schema", "retry_policy")
DATA_KEYS = ("output_schema",)
"""Keys whose values are data, where ``true`` and ``false`` are not words but booleans."""


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
    retry_keys = _retry_keys(parts, (), faults)
    lanes = _lanes(parts, document, faults)
    steps = _steps(parts, document, faults, lanes, retry_keys)
    if faults.found or plan_id is None or lanes is None:
        raise PlanError(faults.found)
    return Plan(plan_id, tuple(lanes), tuple(steps), tuple(steps), _retry_policy(retry_keys), document)


def _plan_id(parts: dict[str, object], document: object, faults: Faults) -> str | None:
    if not faults.required(parts, document, (), "a plan", "id"):
        return None
    plan_id = plan_id_of(parts)
    if plan_id is None:
        found = shown(parts["id"])
        faults.add(("id",), f"a plan's id is a letter and up to 99 more letters, digits, _ or -; found {found}")
    return plan_id


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


def _lanes(parts: dict[str, object], document: object, faults: Faults) -> list[Lane] | None:
    """Return the lanes that have a name, also those with a fault in their details; None when there is no list."""
    entries = _entries(parts, document, faults, "lanes", MAX_LANES)
    if entries is None:
        return None
    lanes: dict[str, Lane] = {}
    places: dict[str, int] = {}
    for index, entry in enumerate(entries):
        path: Path = ("lanes", index)
        lane, id_path, on_key = _lane(entry, path, faults)
        if lane is None:
            continue
        if lane.id in lanes:
            first = places[lane.id] + 1
            faults.add(id_path, f"two lanes are called {quote(lane.id)}; the other is lane {first}", on_key=on_key)
        else:
            lanes[lane.id] = lane
            places[lane.id] = index
    return list(lanes.values())


def _lane(entry: object, path: Path, faults: Faults) -> tuple[Lane | None, Path, bool]:
    """Return one lane, the place of its id, and whether that is a key. It is a name, ``name: kind`` or a mapping."""
    if isinstance(entry, dict) and len(entry) == 1 and next(iter(entry)) not in LANE_KEYS:
        ((key, kind),) = entry.items()
        name = faults.name(key, path, "a lane's name")
        place: Path = (*path, key) if isinstance(key, str) else path
        found = _kind(kind, place, faults)
        lane = None if name is None else Lane(name, found, None, DEFAULT_LEASE_SEC[found])
        return lane, place, True
    if not isinstance(entry, dict):
        what = "a lane is a name, name: kind, or a mapping with an id; its name"
        name = faults.name(entry, path, what)
        kind = LaneKind.MACHINE
        return None if name is None else Lane(name, kind, None, DEFAULT_LEASE_SEC[kind]), path, False
    keys = faults.mapping(entry, path, "a lane", LANE_KEYS) or {}
    place = (*path, "id")
    name = None
    if faults.required(keys, entry, path, "a lane", "id"):
        name = faults.name(keys["id"], place, "a lane's id")
    found = _kind(keys.get("kind", LaneKind.MACHINE), (*path, "kind"), faults)
    title = None
    if "title" in keys:
        title = faults.name(keys["title"], (*path, "title"), "a lane's title", length=TITLE_LENGTH)
    lease = keys.get("lease_sec", DEFAULT_LEASE_SEC[found])
    lease_sec = faults.number(lease, (*path, "lease_sec"), "lease_sec", (1, MAX_LEASE_SEC), whole=True)
    return None if name is None else Lane(name, found, title, int(lease_sec or 1)), place, False


def _kind(value: object, path: Path, faults: Faults) -> LaneKind:
    kinds = [str(kind) for kind in LaneKind]
    if isinstance(value, str) and value in kinds:
        return LaneKind(value)
    near = did_you_mean(value, kinds) if isinstance(value, str) else ""
    faults.add(path, f"a lane's kind is one of {listed(kinds)}; found {shown(value)}{near}")
    return LaneKind.MACHINE


def _steps(
    parts: dict[str, object],
    document: object,
    faults: Faults,
    lanes: list[Lane] | None,
    retry_keys: dict[str, float],
) -> list[Step]:
    entries = _entries(parts, document, faults, "sequence", MAX_STEPS) or []
    lane_ids = None if lanes is None else {lane.id for lane in lanes}
    drafts = [_draft(entry, ("sequence", index), faults) for index, entry in enumerate(entries)]
    names = [draft.activity for draft in drafts if draft.activity is not None]
    steps: list[Step] = []
    earlier: dict[str, int] = {}
    for index, draft in enumerate(drafts):
        path: Path = ("sequence", index)
        if draft.activity in earlier:
            first = earlier[draft.activity] + 1
            faults.add(draft.place, f"two steps have the activity {quote(draft.activity)}; the other is step {first}")
        if draft.lane is not None and lane_ids is not None and draft.lane not in lane_ids:
            faults.add(draft.lane_place, _undeclared(draft, sorted(lane_ids)))
        when = _when(draft.keys, path, faults, tuple(earlier), [name for name in names if name not in earlier])
        schema = _output_schema(draft.keys, path, faults)
        policy = _retry_policy({**retry_keys, **_retry_keys(draft.keys, path, faults)})
        if draft.activity is not None:
            earlier.setdefault(draft.activity, index)
            steps.append(Step(draft.activity, draft.lane or draft.activity, when, schema, policy, number=index))
    return steps


@dataclass(frozen=True, slots=True)
class _Draft:
    """A step's names, read before the rest: a condition needs to know the names of the other steps."""

    activity: str | None
    lane: str | None
    place: Path
    lane_place: Path
    keys: dict[str, object]


def _draft(entry: object, path: Path, faults: Faults) -> _Draft:
    if not isinstance(entry, dict):
        name = faults.name(entry, path, "a step is a name or a mapping with an activity; its name")
        return _Draft(name, name, path, path, {})
    keys = faults.mapping(entry, path, "a step", STEP_KEYS) or {}
    if "activity" not in keys and "lane" not in keys:
        if len(keys) == len(entry):  # else a key that is unknown says enough
            faults.add(path, 'a step needs the key "activity" or "lane"')
        return _Draft(None, None, path, path, keys)
    activity_place, lane_place = (*path, "activity"), (*path, "lane")
    activity = faults.name(keys["activity"], activity_place, "a step's activity") if "activity" in keys else None
    lane = faults.name(keys["lane"], lane_place, "a step's lane") if "lane" in keys else None
    if "lane" not in keys:
        return _Draft(activity, activity, activity_place, activity_place, keys)
    if "activity" not in keys:
        return _Draft(lane, lane, lane_place, lane_place, keys)
    return _Draft(activity, lane, activity_place, lane_place, keys)


def _undeclared(draft: _Draft, lane_ids: list[str]) -> str:
    """Say that a step's lane is not declared."""
    lane = draft.lane or ""
    near = did_you_mean(lane, lane_ids) or f"; expected one of {listed(lane_ids)}"
    if "activity" in draft.keys and "lane" not in draft.keys:
        return f"the step names no lane, and lanes declares none of its activity's name, {quote(lane)}{near}"
    return f"the lane {quote(lane)} is not declared in lanes{near}"


def _when(
    keys: dict[str, object], path: Path, faults: Faults, earlier: tuple[str, ...], later: list[str]
) -> Condition | None:
    if "when" not in keys:
        return None
    place, source = (*path, "when"), keys["when"]
    if not isinstance(source, str):
        faults.add(place, f"when is a CEL expression, written as text; found {shown(source)}")
        return None
    try:
        return Condition(source, earlier, later=later)
    except ConditionSyntaxError as error:
        for offset, message in error.faults:
            faults.add(place, f"when: {message}", offset=offset)
    return None


def _output_schema(keys: dict[str, object], path: Path, faults: Faults) -> OutputSchema | None:
    if "output_schema" not in keys:
        return None
    try:
        return OutputSchema(keys["output_schema"])
    except SchemaError as error:
        faults.add((*path, "output_schema", *error.path), f"output_schema: {error.message}")
    return None


def _retry_keys(keys: dict[str, object], path: Path, faults: Faults) -> dict[str, float]:
    """Return the keys that a ``retry_policy`` gives, without those at fault."""
    if "retry_policy" not in keys:
        return {}
    place = (*path, "retry_policy")
    given = faults.mapping(keys["retry_policy"], place, "retry_policy", tuple(BOUNDS)) or {}
    numbers: dict[str, float] = {}
    for key, value in given.items():
        number = faults.number(value, (*place, key), key, BOUNDS[key], whole=key == "attempts")
        if number is not None:
            numbers[key] = number
    return numbers


def _retry_policy(keys: dict[str, float]) -> RetryPolicy:
    """Return the policy of the keys given. A wait beyond the default maximum raises that, unless it is given too."""
    given = {key: float(value) for key, value in keys.items() if key != "attempts"}
    longest = max(DEFAULT_POLICY.max_backoff_sec, given.get("backoff_sec", 0.0))
    attempts = int(keys.get("attempts", DEFAULT_POLICY.attempts))
    return RetryPolicy(attempts=attempts, **{"max_backoff_sec": longest, **given})
