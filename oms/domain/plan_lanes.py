"""Read the lanes of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oms.domain.calendar import lane_calendar
from oms.domain.calendar_error import CalendarError
from oms.domain.naming import did_you_mean, listed, quote, shown
from oms.domain.plan import DEFAULT_LEASE_SEC, Lane, LaneKind, OnStall, Rate
from oms.domain.plan_faults import TITLE_LENGTH
from oms.domain.plan_reading import MAX_SECONDS, read_whole, read_word

if TYPE_CHECKING:
    from oms.domain.plan_faults import Faults, Path

MAX_LEASE_SEC = 31_536_000
MAX_RUNNING = 1_000_000
MAX_RATE_SEC = 2_678_400
"""31 days."""
LANE_KEYS = (
    *("id", "kind", "title", "lease_sec", "max_running", "rate", "open", "batch", "holidays", "backup"),
    *("stall_after_sec", "on_stall"),
)
NO_NAMES = frozenset(LANE_KEYS[:4])
"""Keys that are no names in ``name: kind``. The others may be: a lane called ``backup`` is a good lane."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A lane, the place of its id, and whether that is a key."""

    lane: Lane
    place: Path
    on_key: bool = False


def read_lanes(entries: list[object], timezone: str, faults: Faults) -> list[Lane]:
    """Return the lanes that have a name, also those with a fault in their details.

    ``timezone`` is the plan's, which is known to exist.
    """
    lanes: dict[str, Lane] = {}
    places: dict[str, Path] = {}
    for index, entry in enumerate(entries):
        path: Path = ("lanes", index)
        found = _lane(entry, path, faults)
        if found is None:
            continue
        lane = found.lane
        if lane.has_hours:
            _check_calendar(lane, entry, path, timezone, faults)
        if lane.id in lanes:
            first = int(places[lane.id][1]) + 1
            message = f"two lanes are called {quote(lane.id)}; the other is lane {first}"
            faults.add(found.place, message, on_key=found.on_key)
        else:
            lanes[lane.id] = lane
            places[lane.id] = path
    _check_backups(lanes, places, faults)
    return list(lanes.values())


def _lane(entry: object, path: Path, faults: Faults) -> _Found | None:
    """Return one lane. It is a name, ``name: kind`` or a mapping."""
    if isinstance(entry, dict) and _is_pair(entry):
        ((key, kind),) = entry.items()
        name = faults.name(key, path, "a lane's name")
        place: Path = (*path, key) if isinstance(key, str) else path
        found = _kind(kind, place, faults)
        return None if name is None else _Found(Lane(name, found, None, DEFAULT_LEASE_SEC[found]), place, on_key=True)
    if not isinstance(entry, dict):
        what = "a lane is a name, name: kind, or a mapping with an id; its name"
        name = faults.name(entry, path, what)
        kind = LaneKind.MACHINE
        return None if name is None else _Found(Lane(name, kind, None, DEFAULT_LEASE_SEC[kind]), path)
    keys = faults.mapping(entry, path, "a lane", LANE_KEYS) or {}
    lane = _detailed(keys, entry, path, faults)
    return None if lane is None else _Found(lane, (*path, "id"))


def _is_pair(entry: dict[str, object]) -> bool:
    """Tell whether a mapping is ``name: kind``."""
    if len(entry) != 1:
        return False
    ((key, value),) = entry.items()
    return key not in LANE_KEYS or (key not in NO_NAMES and value in list(LaneKind))


def _detailed(keys: dict[str, object], entry: object, path: Path, faults: Faults) -> Lane | None:
    name = None
    if faults.required(keys, entry, path, "a lane", "id"):
        name = faults.name(keys["id"], (*path, "id"), "a lane's id")
    kind = _kind(keys.get("kind", LaneKind.MACHINE), (*path, "kind"), faults)
    title = None
    if "title" in keys:
        title = faults.name(keys["title"], (*path, "title"), "a lane's title", length=TITLE_LENGTH)
    batch_at, batch_max = _batch(keys, path, faults)
    on_stall = read_word(faults, keys, "on_stall", path, OnStall.ALERT)
    if on_stall is OnStall.REROUTE and "backup" not in keys:
        faults.add((*path, "on_stall"), 'on_stall: reroute needs the key "backup", the lane that tasks are moved to')
    lane = Lane(
        id=name or "",
        kind=kind,
        title=title,
        lease_sec=read_whole(faults, keys, "lease_sec", path, MAX_LEASE_SEC) or DEFAULT_LEASE_SEC[kind],
        max_running=read_whole(faults, keys, "max_running", path, MAX_RUNNING),
        rate=_rate(keys, path, faults),
        open=_text(keys, "open", "hours such as Mon-Fri 08:00-17:00", path, faults),
        batch_at=batch_at,
        batch_max=batch_max,
        holidays=_text(keys, "holidays", "a country or a part of one, such as US or US-CA", path, faults),
        backup=_text(keys, "backup", "the name of a lane", path, faults),
        stall_after_sec=read_whole(faults, keys, "stall_after_sec", path, MAX_SECONDS),
        on_stall=on_stall,
    )
    return None if name is None else lane


def _kind(value: object, path: Path, faults: Faults) -> LaneKind:
    kinds = [str(kind) for kind in LaneKind]
    if isinstance(value, str) and value in kinds:
        return LaneKind(value)
    near = did_you_mean(value, kinds) if isinstance(value, str) else ""
    faults.add(path, f"a lane's kind is one of {listed(kinds)}; found {shown(value)}{near}")
    return LaneKind.MACHINE


def _text(keys: dict[str, object], key: str, what: str, path: Path, faults: Faults) -> str | None:
    if key not in keys:
        return None
    value = keys[key]
    if isinstance(value, str):
        return value
    faults.add((*path, key), f"{key} is {what}, written as text; found {shown(value)}")
    return None


def _rate(keys: dict[str, object], path: Path, faults: Faults) -> Rate | None:
    if "rate" not in keys:
        return None
    place = (*path, "rate")
    given = faults.mapping(keys["rate"], place, "rate", ("tasks", "per_sec"))
    if given is None:
        return None
    for key in ("tasks", "per_sec"):
        faults.required(given, keys["rate"], place, "rate", key)
    tasks = read_whole(faults, given, "tasks", place, MAX_RUNNING)
    per_sec = read_whole(faults, given, "per_sec", place, MAX_RATE_SEC)
    return None if tasks is None or per_sec is None else Rate(tasks, per_sec)


def _batch(keys: dict[str, object], path: Path, faults: Faults) -> tuple[str | None, int | None]:
    """Return the times of a ``batch``, with commas between them, and how many tasks it holds at most."""
    if "batch" not in keys:
        return None, None
    place = (*path, "batch")
    given = faults.mapping(keys["batch"], place, "batch", ("at", "max"))
    if given is None:
        return None, None
    at = None
    if faults.required(given, keys["batch"], place, "batch", "at"):
        times = given["at"] if isinstance(given["at"], list) else [given["at"]]
        if times and all(isinstance(time, str) for time in times):
            at = ",".join(map(str, times))
        else:
            found = next((time for time in times if not isinstance(time, str)), given["at"])
            faults.add((*place, "at"), f"at is a time of day such as 03:00, or a list of them; found {shown(found)}")
    return at, read_whole(faults, given, "max", place, MAX_RUNNING)


def _check_calendar(lane: Lane, entry: object, path: Path, timezone: str, faults: Faults) -> None:
    """Refuse hours, batches and holidays that cannot be read, or with which the lane never opens."""
    try:
        lane_calendar(timezone=timezone, open=lane.open, batch_at=lane.batch_at, holidays=lane.holidays)
    except CalendarError as error:
        place, offset = (*path, error.key), error.offset
        if error.key == "batch" and isinstance(entry, dict):
            place, offset = _batch_place(entry["batch"]["at"], (*place, "at"), offset)
        faults.add(place, f"{error.key}: {error.message}", offset=offset)


def _batch_place(times: object, place: Path, offset: int) -> tuple[Path, int]:
    """Return the place of a character of the times of a batch, which may be a list of texts."""
    if isinstance(times, list):
        for number, text in enumerate(times):
            if offset <= len(text):
                return (*place, number), offset
            offset -= len(text) + 1
    return place, offset


def _check_backups(lanes: dict[str, Lane], places: dict[str, Path], faults: Faults) -> None:
    """Refuse a backup that is not declared, or that leads back to its own lane."""
    for lane in lanes.values():
        if lane.backup is None:
            continue
        place = (*places[lane.id], "backup")
        if lane.backup not in lanes:
            near = did_you_mean(lane.backup, lanes) or f"; expected one of {listed(sorted(lanes))}"
            faults.add(place, f"the backup lane {quote(lane.backup)} is not declared in lanes{near}")
        elif lane.backup == lane.id:
            faults.add(place, f"the lane {quote(lane.id)} is its own backup; expected another lane")
        elif circle := _circle(lane, lanes):
            faults.add(place, f"the backups lead back to this lane: {' -> '.join(map(quote, circle))}")


def _circle(lane: Lane, lanes: dict[str, Lane]) -> list[str]:
    """Return the lanes from one over its backups back to it; an empty list where they do not lead back."""
    way = [lane.id]
    while (backup := lanes[way[-1]].backup) is not None and backup in lanes:
        way.append(backup)
        if backup == lane.id:
            return way
        if backup in way[:-1]:
            break
    return []
