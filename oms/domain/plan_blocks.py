"""Read lists of steps, and the blocks in them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oms.domain.cel import NAMESPACES, RESERVED, TYPES, VARIABLES
from oms.domain.cel_scope import Shape
from oms.domain.expression import Kind
from oms.domain.naming import did_you_mean, listed, quote, shown
from oms.domain.plan import (
    MAX_DEPTH,
    MAX_ITEMS,
    Choose,
    ForEach,
    Node,
    OnTimeout,
    Option,
    Parallel,
    Repeat,
    Step,
    SubPlan,
    Wait,
)
from oms.domain.plan_faults import plan_id_of
from oms.domain.plan_names import BLOCKS, SHAPES, Part, names_after
from oms.domain.plan_reading import MAX_SECONDS, At, Reading, Visible, read_whole, read_word
from oms.domain.plan_steps import read_activity

if TYPE_CHECKING:
    from oms.domain.condition import Condition

MAX_ENTRIES = 1000
MAX_ROUNDS = 1000
DEFAULT_ROUNDS = 10
DEFAULT_VARIABLE = "item"
BLOCK_KEYS = {
    "parallel": ("parallel", "when", "join"),
    "for_each": ("for_each", "when", "id", "as", "do", "max_parallel"),
    "repeat": ("repeat", "when", "until", "max_rounds"),
    "choose": ("choose", "when"),
    "wait": ("wait", "when", "id"),
    "plan": ("plan", "when", "id", "input"),
}
WAIT_KEYS = ("for_sec", "until", "signal", "timeout_sec", "on_timeout")
_ENDS = ("for_sec", "until", "signal")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def read_steps(reading: Reading, entries: object, at: At, visible: Visible, what: str) -> tuple[Node, ...]:
    """Return the nodes of a list of steps. ``visible`` grows by what can be read after it.

    Args:
        reading: the state of reading the plan.
        entries: the list.
        at: its place.
        visible: what can be read before it.
        what: what it is, for the message where it is no list of steps.
    """
    if not isinstance(entries, list):
        reading.faults.add(at.path, f"{what} is a list of steps; found {shown(entries)}")
        return ()
    if not 1 <= len(entries) <= MAX_ENTRIES:
        reading.faults.add(at.path, f"{what} has 1 to {MAX_ENTRIES} entries; found {len(entries)}")
        return ()
    nodes = [_node(reading, entry, at.entry(number), visible) for number, entry in enumerate(entries)]
    return tuple(node for node in nodes if node is not None)


def _node(reading: Reading, entry: object, at: At, visible: Visible) -> Node | None:
    blocks = [key for key in entry if key in BLOCKS] if isinstance(entry, dict) else []
    if not isinstance(entry, dict) or not blocks:
        return _activity(reading, entry, at, visible)
    block = blocks[0]
    for other in blocks[1:]:
        message = f"an entry has one block; found {block} and {other}; put {other} into an entry of its own"
        reading.faults.add((*at.path, other), message, on_key=True)
    if at.depth >= MAX_DEPTH:
        message = f"blocks nest to a depth of {MAX_DEPTH}; this {block} is one more"
        reading.faults.add((*at.path, block), message, on_key=True)
        return None
    return _Block(reading, block, entry, at, visible).read()


def _activity(reading: Reading, entry: object, at: At, visible: Visible) -> Step | None:
    number = len(reading.steps)
    step = read_activity(reading, entry, at, visible)
    if step is None:
        return None
    reading.steps.append(step)
    visible.outputs.setdefault(step.activity, Shape.OBJECT)
    if isinstance(entry, dict) and "undo" in entry:
        place = (*at.path, "undo")
        if at.is_undo:
            reading.faults.add(place, "a step of an undo has no undo itself", on_key=True)
            return step
        inner = replace(at, path=place, spot=(*at.spot, Part("undo", None)), is_undo=True)
        undo = read_steps(reading, entry["undo"], inner, visible.copy(), "undo")
        step = reading.steps[number] = replace(step, undo=undo)
    return step


def _known_keys(reading: Reading, block: str, entry: dict[Any, object], at: At) -> dict[str, object]:
    """Return a block's keys without those that it does not have, which are faults."""
    keys = BLOCK_KEYS[block]
    for key in entry:
        if key in keys or key in BLOCKS:
            continue
        if not isinstance(key, str):
            reading.faults.mapping({key: None}, at.path, f"a {block} block", keys)
            continue
        hint = did_you_mean(key, keys) or f"; expected one of {listed(keys)}"
        if block == "wait" and key in WAIT_KEYS:
            hint = "; it stands inside wait"
        elif key in ("activity", "lane"):
            hint = "; an activity has an entry of its own"
        elif key == "id":
            hint = "; its activities give their outputs under their own names"
        reading.faults.add((*at.path, key), f"a {block} block has no key {quote(key)}{hint}", on_key=True)
    return {key: value for key, value in entry.items() if key in keys}


class _Block:
    """One block while it is read."""

    def __init__(self, reading: Reading, block: str, entry: dict[str, object], at: At, visible: Visible) -> None:
        self._reading = reading
        self._faults = reading.faults
        self._block = block
        self._entry = entry
        self._keys = keys = _known_keys(reading, block, entry, at)
        self._at = at
        self._visible = visible
        self._when = reading.condition(keys, "when", at, visible)

    def read(self) -> Node | None:
        """Return the block. What it gives can be read from then on."""
        reader = {
            "parallel": self._parallel,
            "for_each": self._for_each,
            "repeat": self._repeat,
            "choose": self._choose,
            "wait": self._wait,
            "plan": self._plan,
        }[self._block]
        return reader()

    def _needs(self, key: str) -> bool:
        return self._faults.required(self._keys, self._entry, self._at.path, f"a {self._block} block", key)

    def _id(self) -> str | None:
        """Return the block's id, whose output can be read from then on."""
        if "id" not in self._keys:
            return None
        place = (*self._at.path, "id")
        name = self._faults.name(self._keys["id"], place, f"the id of a {self._block} block")
        if name is not None:
            self._reading.take_name(name, "id", self._at, place)
        return name

    def _show(self, name: str | None) -> None:
        if name is not None:
            self._visible.outputs.setdefault(name, SHAPES[self._block])

    def _parallel(self) -> Parallel | None:
        branches, place = self._keys["parallel"], (*self._at.path, "parallel")
        if not isinstance(branches, dict):
            self._faults.add(place, f"parallel is a mapping of branches, name: [steps]; found {shown(branches)}")
            return None
        if not branches:
            self._faults.add(place, "parallel has one branch or more; found none")
        given = {name: names_after(steps) if isinstance(steps, list) else {} for name, steps in branches.items()}
        every: dict[str, Shape] = {}
        for names in given.values():
            every |= names
        found = []
        for name, steps in branches.items():
            self._faults.name(name, (*place, name), "a branch's name", on_key=True)
            visible = self._visible.copy()
            for other in every.keys() - given[name].keys():  # in a repeat they are there, of the earlier round
                visible.outputs.pop(other, None)
            if name in ("join", "when") and not isinstance(steps, list):
                message = f"a branch is a list of steps; found {shown(steps)}; {name} stands beside parallel, not in it"
                self._faults.add((*place, name), message, on_key=True)
                continue
            inner = self._at.inside("parallel", name, turn=Part("branch", name))
            found.append((name, read_steps(self._reading, steps, inner, visible, f"the branch {quote(str(name))}")))
        for name, shape in every.items():
            self._visible.outputs.setdefault(name, shape)
        return Parallel(self._when, tuple(found), self._join(len(branches)))

    def _join(self, branches: int) -> int:
        join = self._keys.get("join", "all")
        if join == "all":
            return branches
        if join == "any":
            return 1
        if isinstance(join, int) and not isinstance(join, bool) and 1 <= join <= branches:
            return join
        near = did_you_mean(join, ("all", "any")) if isinstance(join, str) else ""
        message = f"join is all, any, or a number from 1 to {branches}, the branches; found {shown(join)}{near}"
        self._faults.add((*self._at.path, "join"), message)
        return branches

    def _for_each(self) -> ForEach | None:
        name = self._id()
        items = self._reading.expression(self._keys, "for_each", Kind.LIST, self._at, self._visible)
        variable = self._variable()
        steps: tuple[Node, ...] = ()
        if self._needs("do"):
            inner = self._at.inside("do", turn=Part("each", name))
            visible = self._visible.copy(variable=variable)
            steps = read_steps(self._reading, self._keys["do"], inner, visible, "do")
        most = read_whole(self._faults, self._keys, "max_parallel", self._at.path, MAX_ITEMS)
        self._show(name)
        return None if items is None else ForEach(self._when, name, items, variable, steps, most)

    def _variable(self) -> str:
        name = self._keys.get("as", DEFAULT_VARIABLE)
        place = (*self._at.path, "as")
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            message = "as is a name for the item: letters, digits and _, not a digit first"
            self._faults.add(place, f"{message}; found {shown(name)}")
        elif name in (*VARIABLES, *TYPES, *NAMESPACES, *RESERVED):
            self._faults.add(place, f"the item cannot be called {quote(name)}, which means something else in CEL")
        elif name in self._visible.variables:
            message = f"the item cannot be called {quote(name)}, like that of a for_each around it"
            hint = "" if "as" in self._keys else '; name it with "as"'
            self._faults.add(place if "as" in self._keys else (*self._at.path, "for_each"), message + hint)
        else:
            return name
        return DEFAULT_VARIABLE

    def _repeat(self) -> Repeat | None:
        # What its steps gave in the round before can be read in all of them.
        steps = self._keys["repeat"]
        for name, shape in names_after(steps if isinstance(steps, list) else []).items():
            self._visible.outputs.setdefault(name, shape)
        nodes = read_steps(self._reading, steps, self._at.inside("repeat"), self._visible, "repeat")
        until = None
        if self._needs("until"):
            until = self._reading.condition(self._keys, "until", self._at, self._visible)
        rounds = read_whole(self._faults, self._keys, "max_rounds", self._at.path, MAX_ROUNDS)
        return None if until is None else Repeat(self._when, nodes, until, rounds or DEFAULT_ROUNDS)

    def _choose(self) -> Choose | None:
        options, place = self._keys["choose"], (*self._at.path, "choose")
        if not isinstance(options, list):
            self._faults.add(place, f"choose is a list of options, each with when and do; found {shown(options)}")
            return None
        if not 1 <= len(options) <= MAX_ENTRIES:
            self._faults.add(place, f"choose has 1 to {MAX_ENTRIES} entries; found {len(options)}")
        before = self._visible.copy()
        found = []
        for number, option in enumerate(options):
            at = self._at.inside("choose", number, turn=Part("option", number))
            keys = self._faults.mapping(option, at.path, "an option of choose", ("when", "do", "else"))
            if keys is not None:
                found.append(self._option(keys, option, at, before, is_last=number == len(options) - 1))
        return Choose(self._when, tuple(found))

    def _option(self, keys: dict[str, object], option: object, at: At, before: Visible, *, is_last: bool) -> Option:
        visible = before.copy()
        when: Condition | None = None
        if "else" in keys:
            if not is_last:
                self._faults.add((*at.path, "else"), "else is the last option, and there is one at most", on_key=True)
            for other in [key for key in ("when", "do") if key in keys]:
                message = f"an option has when and do, or else alone; found else and {other}"
                self._faults.add((*at.path, other), message, on_key=True)
            key = "else"
        else:
            for needed in ("when", "do"):
                self._faults.required(keys, option, at.path, "an option of choose", needed)
            when = self._reading.condition(keys, "when", at, visible)
            key = "do"
        steps: tuple[Node, ...] = ()
        if key in keys:
            steps = read_steps(self._reading, keys[key], at.key(key), visible, key)
        for name, shape in visible.outputs.items():
            self._visible.outputs.setdefault(name, shape)
        return Option(when, steps)

    def _wait(self) -> Wait | None:
        name = self._id()
        at = self._at.key("wait")
        given = self._keys["wait"]
        keys = self._faults.mapping(given, at.path, "wait", WAIT_KEYS)
        if keys is None:
            return None
        ends = [key for key in _ENDS if key in keys]
        if not ends and len(keys) == len(given if isinstance(given, dict) else keys):
            self._faults.add(at.path, f"wait needs one of {listed(_ENDS)}")
        for other in ends[1:]:
            message = f"wait has one of {listed(_ENDS)}; found {ends[0]} and {other}"
            self._faults.add((*at.path, other), message, on_key=True)
        for key in ("timeout_sec", "on_timeout"):
            if key in keys and ends and "signal" not in ends:
                self._faults.add((*at.path, key), f"{key} is for a signal only; this waits {ends[0]}", on_key=True)
        signal = None
        if "signal" in keys:
            signal = self._faults.name(keys["signal"], (*at.path, "signal"), "a signal's name")
        wait = Wait(
            when=self._when,
            id=name,
            for_sec=read_whole(self._faults, keys, "for_sec", at.path, MAX_SECONDS),
            until=self._reading.expression(keys, "until", Kind.MOMENT, at, self._visible),
            signal=signal,
            timeout_sec=read_whole(self._faults, keys, "timeout_sec", at.path, MAX_SECONDS),
            on_timeout=read_word(self._faults, keys, "on_timeout", at.path, OnTimeout.FAIL),
        )
        self._show(name)
        return wait

    def _plan(self) -> SubPlan | None:
        name = self._id()
        given = self._keys["plan"]
        place, called = (*self._at.path, "plan"), plan_id_of({"id": given})
        if called is None:
            expected = "plan is a plan's id, a letter and up to 99 more letters, digits, _ or -"
            self._faults.add(place, f"{expected}; found {shown(given)}")
        elif called == self._reading.plan_id:
            self._faults.add(place, f"the plan {quote(called)} cannot be a step of itself")
        entries = self._reading.input(self._keys, self._at, self._visible)
        self._show(name)
        return None if called is None else SubPlan(self._when, name, called, entries or {})
