"""What the parts of the plan reader share: the faults, the names, and how one value of each sort is read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from oms.domain.cel_scope import Scope, Shape
from oms.domain.condition import Condition, ConditionSyntaxError
from oms.domain.expression import Expression, Kind
from oms.domain.naming import did_you_mean, listed, quote, shown
from oms.domain.plan_names import Part, Spot, shown_spot, why_unreadable
from oms.domain.retry import BOUNDS, DEFAULT_POLICY, RetryPolicy
from oms.domain.schema import OutputSchema, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oms.domain.plan import Step
    from oms.domain.plan_faults import Faults, Path

MAX_SECONDS = 315_360_000
"""Ten years."""

_Word = TypeVar("_Word", bound=StrEnum)
_Compiled = TypeVar("_Compiled")


@dataclass(frozen=True, slots=True)
class At:
    """A place in a plan.

    Attributes:
        path: the keys and indexes that lead to it in the document.
        spot: the same as steps, branches and options.
        depth: how many blocks are around it.
        is_undo: whether it is inside an ``undo``.
    """

    path: Path
    spot: Spot
    depth: int = 0
    is_undo: bool = False

    def key(self, *keys: str | int) -> At:
        """Return a place further down, in the same step."""
        return replace(self, path=(*self.path, *keys))

    def entry(self, number: int) -> At:
        """Return the place of an entry of the list here."""
        return replace(self, path=(*self.path, number), spot=(*self.spot, Part("step", number)))

    def inside(self, *keys: str | int, turn: Part | None = None) -> At:
        """Return the place of a list of steps inside the block here."""
        spot = self.spot if turn is None else (*self.spot, turn)
        return replace(self, path=(*self.path, *keys), spot=spot, depth=self.depth + 1)


@dataclass(slots=True)
class Visible:
    """What expressions can read at one place, growing as the steps before them are read."""

    outputs: dict[str, Shape] = field(default_factory=dict)
    variables: tuple[str, ...] = ()

    def copy(self, *, variable: str | None = None) -> Visible:
        """Return the same for what is done beside or inside, which does not grow this."""
        more = () if variable is None else (variable,)
        return Visible(dict(self.outputs), (*self.variables, *more))


@dataclass(slots=True)
class Reading:
    """The state of reading one plan's steps.

    Attributes:
        plan_id: the plan's.
        faults: where faults go.
        lane_ids: the lanes declared; None where they could not be read.
        retry_keys: the plan's own retry policy, without defaults.
        spots: where each name of the plan is given first.
        steps: the activities found so far, in the order of the file.
        taken: the names found so far, each with what it is and where.
    """

    plan_id: str | None
    faults: Faults
    lane_ids: list[str] | None
    retry_keys: dict[str, float]
    spots: dict[str, Spot]
    steps: list[Step] = field(default_factory=list)
    taken: dict[str, tuple[str, Spot]] = field(default_factory=dict)

    def take_name(self, name: str, what: str, at: At, place: Path) -> None:
        """Note the name of an activity or a block's id, and a fault when it is given already."""
        if name not in self.taken:
            self.taken[name] = (what, at.spot)
            return
        other, spot = self.taken[name]
        both = "two steps have the activity" if what == other == "activity" else "two steps are called"
        self.faults.add(place, f"{both} {quote(name)}; the other is {shown_spot(spot)}")

    def scope(self, at: At, visible: Visible) -> Scope:
        """Return what an expression at a place can see now."""

        def why_not(name: str) -> str | None:
            spot = self.spots.get(name)
            return None if spot is None else why_unreadable(spot, at.spot, visible.outputs)

        return Scope(visible.outputs, visible.variables, why_not)

    def condition(self, keys: Mapping[str, object], key: str, at: At, visible: Visible) -> Condition | None:
        """Return the condition under a key; None where there is none, or a faulty one."""
        return self._compiled(keys, key, at, lambda source: Condition(source, self.scope(at, visible)))

    def expression(
        self, keys: Mapping[str, object], key: str, kind: Kind, at: At, visible: Visible
    ) -> Expression | None:
        """Return the expression under a key; None where there is none, or a faulty one."""
        return self._compiled(keys, key, at, lambda source: Expression(source, kind, self.scope(at, visible)))

    def _compiled(
        self,
        keys: Mapping[str, object],
        key: str,
        at: At,
        compiled: Callable[[str], _Compiled],
        *,
        word: str | None = None,
    ) -> _Compiled | None:
        if key not in keys:
            return None
        place, source, word = (*at.path, key), keys[key], word or key
        if not isinstance(source, str):
            self.faults.add(place, f"{word} is a CEL expression, written as text; found {shown(source)}")
            return None
        try:
            return compiled(source)
        except ConditionSyntaxError as error:
            for offset, message in error.faults:
                self.faults.add(place, f"{word}: {message}", offset=offset)
        return None

    def input(self, keys: Mapping[str, object], at: At, visible: Visible) -> dict[str, Expression] | None:
        """Return the expressions of an ``input``, by key; None where there is none."""
        if "input" not in keys:
            return None
        given = keys["input"]
        if not isinstance(given, dict):
            self.faults.add((*at.path, "input"), f"input is a mapping of keys to CEL expressions; found {shown(given)}")
            return None
        scope = self.scope(at, visible)
        found: dict[str, Expression] = {}
        for key, value in given.items():
            # A number is CEL as it stands, and YAML has already read it as one.
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            entry = {key: repr(value)} if is_number else {key: value}
            expression = self._compiled(
                entry, key, at.key("input"), lambda source: Expression(source, Kind.JSON, scope), word=f"input.{key}"
            )
            if self.faults.name(key, (*at.path, "input", key), "a key of input") and expression is not None:
                found[key] = expression
        return found


def read_word(faults: Faults, keys: Mapping[str, object], key: str, at: Path, default: _Word) -> _Word:
    """Return the word under a key that is one of an enumeration's; its default where there is none."""
    if key not in keys:
        return default
    value, words = keys[key], [str(word) for word in type(default)]
    if isinstance(value, str) and value in words:
        return type(default)(value)
    near = did_you_mean(value, words) if isinstance(value, str) else ""
    faults.add((*at, key), f"{key} is one of {listed(words)}; found {shown(value)}{near}")
    return default


def read_whole(
    faults: Faults, keys: Mapping[str, object], key: str, path: Path, most: int, *, least: int = 1
) -> int | None:
    """Return the whole number under a key, within bounds; None where there is none."""
    if key not in keys:
        return None
    number = faults.number(keys[key], (*path, key), key, (least, most), whole=True)
    return None if number is None else int(number)


def read_schema(faults: Faults, keys: Mapping[str, object], key: str, at: Path) -> OutputSchema | None:
    """Return the JSON Schema under a key."""
    if key not in keys:
        return None
    try:
        return OutputSchema(keys[key])
    except SchemaError as error:
        faults.add((*at, key, *error.path), f"{key}: {error.message}")
    return None


def read_retry_keys(keys: Mapping[str, object], path: Path, faults: Faults) -> dict[str, float]:
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


def retry_policy(keys: Mapping[str, float]) -> RetryPolicy:
    """Return the policy of the keys given. A wait beyond the default maximum raises that, unless it is given too."""
    given = {key: float(value) for key, value in keys.items() if key != "attempts"}
    longest = max(DEFAULT_POLICY.max_backoff_sec, given.get("backoff_sec", 0.0))
    attempts = int(keys.get("attempts", DEFAULT_POLICY.attempts))
    return RetryPolicy(attempts=attempts, **{"max_backoff_sec": longest, **given})
