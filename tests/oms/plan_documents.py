"""Plans of every form for property tests, and which outputs each of their expressions may read.

What may be read is worked out here from the places of two steps, by the rule as docs/plans.md says it; the reader does
it another way, by what grows from step to step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

Turn = tuple[str, str | int]
"""``list`` and a number, or ``branch``, ``option``, ``each``, ``repeat``, ``undo`` and the number of that block."""
Spot = tuple[Turn, ...]

PLAIN_NAMES = ("a", "b", "id", "kind", "NO", "x y", "wait", "ü", "when", "do", "parallel")
MAX_NAMES = 14


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for an expression: where it is put, what it is to give, and where it stands."""

    holder: dict[str, Any]
    key: str
    kind: str
    spot: Spot
    path: tuple[str | int, ...]
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A name that has an output, where it is given, and whether that is a list."""

    name: str
    spot: Spot
    is_list: bool


@dataclass(slots=True)
class Made:
    """A document, its expressions' places, and the names in it."""

    document: dict[str, Any] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    names: list[Given] = field(default_factory=list)

    def readable(self, slot: Slot) -> list[Given]:
        return [given for given in self.names if why_not(given.spot, slot.spot) is None]


def why_not(name: Spot, reader: Spot) -> str | None:  # noqa: PLR0911 - one return per rule
    """Return a word on why the output given at ``name`` cannot be read at ``reader``; None if it can."""
    alike = 0
    while alike < min(len(name), len(reader)) and name[alike] == reader[alike]:
        alike += 1
    rest, ahead = name[alike:], reader[alike:]
    if rest and ahead and rest[0][0] == ahead[0][0] == "branch":
        return "another branch"
    closed = next((kind for kind, _ in rest if kind in ("each", "undo")), None)
    if closed is not None:
        return closed
    # A repeat around both has had an earlier round, but not of the same item or undo.
    around = name[:alike]
    last_repeat = max((n for n, turn in enumerate(around) if turn[0] == "repeat"), default=-1)
    last_closed = max((n for n, turn in enumerate(around) if turn[0] in ("each", "undo")), default=-1)
    if last_repeat > last_closed:
        return None
    if rest and ahead and rest[0][0] == ahead[0][0] == "option":
        return "another option"
    if not rest:  # the reader is the step itself, or is inside it: only its undo comes after it
        return None if ahead and ahead[0][0] == "undo" else "later"
    if not ahead:  # the name is inside the block that reads
        return "later"
    return None if rest[0][1] < ahead[0][1] else "later"  # type: ignore[operator]


class Maker:
    """Draws one document."""

    def __init__(self, draw: st.DrawFn, names: st.SearchStrategy[str]) -> None:
        self._draw = draw
        self._free = draw(st.lists(names | st.sampled_from(PLAIN_NAMES), min_size=3, max_size=MAX_NAMES, unique=True))
        self._numbers = iter(range(1000))
        self.made = Made()
        self.lanes: list[str] = draw(st.lists(names, min_size=1, max_size=4, unique=True))

    def name(self) -> str:
        if self._free:
            return self._free.pop()
        return f"name {next(self._numbers)}"

    def maybe(self) -> bool:
        return self._draw(st.booleans())

    def slot(self, holder: dict[str, Any], key: str, kind: str, at: At) -> None:
        holder[key] = None
        self.made.slots.append(Slot(holder, key, kind, at.spot, (*at.path, key), at.variables))

    def steps(self, at: At, most: int = 3) -> list[Any]:
        count = self._draw(st.integers(1, most))
        return [self.entry(at.down(number, turn=("list", number))) for number in range(count)]

    def entry(self, at: At) -> Any:
        kinds = ["activity", "activity", "wait", "plan"]
        if at.depth < 3 and self._free:
            kinds += ["parallel", "for_each", "repeat", "choose"]
        kind = self._draw(st.sampled_from(kinds))
        entry: dict[str, Any] = {}
        if kind != "activity" and self.maybe():
            self.slot(entry, "when", "condition", at)
        made = getattr(self, f"_{kind}")(entry, at)
        return entry if made is None else made

    def _activity(self, entry: dict[str, Any], at: At) -> Any:
        name = self.name()
        if self.maybe() and name in self.lanes:
            self.made.names.append(Given(name, at.spot, is_list=False))
            return self._draw(st.sampled_from([name, {"lane": name}, {"activity": name}]))
        entry |= {"activity": name, "lane": self._draw(st.sampled_from(self.lanes))}
        entry |= self._draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "output_schema": st.sampled_from([{}, True, {"type": "object", "required": ["ok"]}]),
                    "title": st.just("A title"),
                    "on_failure": st.sampled_from(["fail", "pause", "continue"]),
                    "retry_policy": st.just({"attempts": 2}),
                    "priority": st.integers(-1_000_000, 1_000_000),
                },
            )
        )
        entry |= self._draw(st.sampled_from([{}, {"due_sec": 60}, {"due": "P10D"}]))
        if self.maybe():
            self.slot(entry, "when", "condition", at)
        if "priority" not in entry and self.maybe():
            self.slot(entry, "priority", "number", at)
        if self.maybe():
            entry["input"] = {"number": 1.5, "text": '"x"'}
            self.slot(entry["input"], "some key", "json", at.below("input"))
        self.made.names.append(Given(name, at.spot, is_list=False))
        if not at.is_undo and self._draw(st.integers(0, 3)) == 0:
            entry["undo"] = self.steps(at.down("undo", turn=("undo", 0), is_undo=True), most=2)
        return None

    def _parallel(self, entry: dict[str, Any], at: At) -> None:
        names = self._draw(st.lists(st.sampled_from([*PLAIN_NAMES, "join"]), min_size=1, max_size=3, unique=True))
        entry["parallel"] = {
            name: self.steps(at.below("parallel").down(name, turn=("branch", name)), most=2) for name in names
        }
        entry |= self._draw(st.sampled_from([{}, {"join": "all"}, {"join": "any"}, {"join": len(names)}]))

    def _for_each(self, entry: dict[str, Any], at: At) -> None:
        self.slot(entry, "for_each", "list", at)
        variable = "item" if self.maybe() and not at.variables else f"item{len(at.variables)}"
        if variable != "item":
            entry["as"] = variable
        if self.maybe():
            entry["max_parallel"] = self._draw(st.integers(1, 10_000))
        self._with_id(entry, at, is_list=True)
        entry["do"] = self.steps(at.down("do", turn=("each", 0), variable=variable))

    def _repeat(self, entry: dict[str, Any], at: At) -> None:
        entry["repeat"] = self.steps(at.down("repeat", turn=("repeat", 0)))
        if self.maybe():
            entry["max_rounds"] = self._draw(st.integers(1, 1000))
        holder = At((*at.spot, ("repeat", 0), ("list", 1_000_000)), at.path, at.depth, at.variables)
        self.slot(entry, "until", "condition", holder)

    def _choose(self, entry: dict[str, Any], at: At) -> None:
        entry["choose"] = []
        for number in range(self._draw(st.integers(1, 3))):
            option: dict[str, Any] = {}
            here = at.below("choose").down(number, turn=("option", number))
            self.slot(option, "when", "condition", here)
            option["do"] = self.steps(here.below("do"), most=2)
            entry["choose"].append(option)
        if self.maybe():
            number = len(entry["choose"])
            here = at.below("choose").down(number, turn=("option", number))
            entry["choose"].append({"else": self.steps(here.below("else"), most=2)})

    def _wait(self, entry: dict[str, Any], at: At) -> None:
        kind = self._draw(st.sampled_from(["for_sec", "until", "signal", "timeout"]))
        entry["wait"] = {"for_sec": 5} if kind == "for_sec" else {}
        if kind == "until":
            self.slot(entry["wait"], "until", "moment", at.below("wait"))
        if kind in ("signal", "timeout"):
            entry["wait"] = {"signal": "answered"}
        if kind == "timeout":
            entry["wait"] |= {"timeout_sec": 60, "on_timeout": self._draw(st.sampled_from(["fail", "continue"]))}
        self._with_id(entry, at)

    def _plan(self, entry: dict[str, Any], at: At) -> None:
        entry["plan"] = "other"
        if self.maybe():
            entry["input"] = {}
            self.slot(entry["input"], "to", "json", at.below("input"))
        self._with_id(entry, at)

    def _with_id(self, entry: dict[str, Any], at: At, *, is_list: bool = False) -> None:
        if self.maybe():
            entry["id"] = self.name()
            self.made.names.append(Given(entry["id"], at.spot, is_list))


@dataclass(frozen=True, slots=True)
class At:
    """Where a maker is."""

    spot: Spot
    path: tuple[str | int, ...]
    depth: int = 0
    variables: tuple[str, ...] = ()
    is_undo: bool = False

    def below(self, *keys: str | int) -> At:
        return At(self.spot, (*self.path, *keys), self.depth, self.variables, self.is_undo)

    def down(self, key: str | int, *, turn: Turn, variable: str | None = None, is_undo: bool = False) -> At:
        return At(
            (*self.spot, turn),
            (*self.path, key),
            self.depth + (turn[0] != "list"),
            self.variables if variable is None else (*self.variables, variable),
            self.is_undo or is_undo,
        )


def reading(given: Given, kind: str) -> str:
    """Return an expression of a kind that reads an output."""
    output = f"outputs[{json.dumps(given.name, ensure_ascii=False)}]"
    if given.is_list:
        return {
            "condition": f"size({output}) > 0",
            "number": f"size({output})",
            "moment": f"timestamp({output}[0].a.at)",
        }.get(kind, output)
    return {"condition": f"{output}.ok", "moment": f"timestamp({output}.at)"}.get(kind, f"{output}.value")


CONSTANTS = {
    "condition": ["true", "input.x > 3", "false || reference == 'x'"],
    "number": ["1", "input.n", "size(reference)"],
    "moment": ['timestamp("2026-11-22T00:00:00Z")', "input.at", 'timestamp(input.at) + duration("1h")'],
    "list": ["[1, 2]", "input.pages", "[input, {'a': 1}]"],
    "json": ["1", '"x"', "input", "null", "[reference]", '{"a": input.x}'],
}


def expressions(made: Made, slot: Slot) -> Iterator[str]:
    """Yield expressions that are good at a slot."""
    yield from CONSTANTS[slot.kind]
    for variable in slot.variables:
        yield variable if slot.kind != "condition" else f"{variable} == 1"
    for given in made.readable(slot):
        yield reading(given, slot.kind)


LANE_KEYS: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["machine", "human", "vendor"]),
    "title": st.just("Printing"),
    "lease_sec": st.integers(1, 31_536_000),
    "max_running": st.integers(1, 100),
    "rate": st.fixed_dictionaries({"tasks": st.integers(1, 9), "per_sec": st.integers(1, 60)}),
    "open": st.sampled_from(["Mon-Fri 08:00-17:00", "Sat 09:00-12:00"]),
    "holidays": st.sampled_from(["US", "US-CA"]),
    "stall_after_sec": st.integers(1, 100),
    "on_stall": st.just("alert"),
}


@st.composite
def full_plans(draw: st.DrawFn, names: st.SearchStrategy[str]) -> Made:
    """Plans of every form, with expressions that read all that they may."""
    maker = Maker(draw, names)
    lanes: list[Any] = []
    for number, name in enumerate(maker.lanes):
        kind = draw(st.sampled_from(["machine", "human"]))
        pair = {name: kind} if name not in ("id", "kind", "title", "lease_sec") else name
        lane = {"id": name, **draw(st.fixed_dictionaries({}, optional=LANE_KEYS))}
        if "open" not in lane:
            lane |= draw(
                st.sampled_from([{}, {"batch": {"at": "03:00", "max": 5}}, {"batch": {"at": ["03:00", "15:00"]}}])
            )
        if number:
            lane |= draw(st.sampled_from([{}, {"backup": maker.lanes[0], "on_stall": "reroute"}]))
        lanes.append(draw(st.sampled_from([name, pair, lane, lane])))
    sequence = maker.steps(At((), ("sequence",)))
    more = {
        "title": st.just("A plan"),
        "timezone": st.sampled_from(["UTC", "America/New_York"]),
        "input_schema": st.sampled_from([{}, {"type": "object"}, True]),
        "schedules": st.sampled_from(
            [[], [{"cron": "0 6 * * MON-FRI", "reference": "day-{date}", "input": {"a": True}}]]
        ),
        "retry_policy": st.just({"attempts": 2, "backoff_sec": 0.5}),
    }
    document = {"id": draw(st.sampled_from(["p", "passport_renewal"])), "lanes": lanes, "sequence": sequence}
    made = maker.made
    made.document = document | draw(st.fixed_dictionaries({}, optional=more))
    for slot in made.slots:
        slot.holder[slot.key] = draw(st.sampled_from(list(expressions(made, slot))))
    return made
