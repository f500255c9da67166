"""What is wrong with a plan, each fault at its own place, and the checks that every part of a plan needs."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oms.domain.naming import did_you_mean, listed, nearest, quote, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    Path = tuple[str | int, ...]

NAME_LENGTH = 100
TITLE_LENGTH = 200
_PLAN_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True, slots=True)
class PlanFault:
    """One thing that is wrong with a plan.

    Attributes:
        path: the keys and indexes that lead to the value at fault inside the document.
        on_key: the key itself is at fault, the last of ``path``, not its value.
        offset: characters into the value, for a fault inside a text such as ``when``.
        message: what was found, what was expected, and the nearest valid name.
    """

    path: Path
    on_key: bool
    offset: int
    message: str


class PlanError(ValueError):
    """A plan that cannot be used.

    Attributes:
        faults: all that were found, at least one.
    """

    def __init__(self, faults: Iterable[PlanFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.message for fault in self.faults))


class Faults:
    """Collects faults while a plan is read, so that its writer sees all of them at once."""

    def __init__(self) -> None:
        self.found: list[PlanFault] = []

    def add(self, path: Path, message: str, *, on_key: bool = False, offset: int = 0) -> None:
        """Note a fault."""
        self.found.append(PlanFault(path, on_key, offset, message))

    def mapping(self, value: object, path: Path, what: str, keys: Collection[str]) -> dict[str, object] | None:
        """Return a mapping without its unknown keys, which are faults; None, and a fault, when it is none."""
        if not isinstance(value, dict):
            self.add(path, f"{what} is a mapping of {listed(keys)}; found {shown(value)}")
            return None
        for key in value:
            if key not in keys:
                if not isinstance(key, str):
                    self.add(path, f"{what} has a key that is no text: {shown(key)}; expected one of {listed(keys)}")
                    continue
                near = did_you_mean(key, keys) or f"; expected one of {listed(keys)}"
                self.add((*path, key), f"{what} has no key {quote(key)}{near}", on_key=True)
        return {key: item for key, item in value.items() if key in keys}

    def required(self, mapping: dict[str, object], whole: object, path: Path, what: str, key: str) -> bool:
        """Tell whether a mapping has a key. When it has not, that is a fault, unless a misspelt key already is one."""
        if key in mapping:
            return True
        known = set(mapping)
        others = [other for other in whole if isinstance(other, str)] if isinstance(whole, dict) else []
        if not any(nearest(other, [key]) for other in others if other not in known):
            self.add(path, f"{what} needs the key {quote(key)}")
        return False

    def name(
        self, value: object, path: Path, what: str, *, length: int = NAME_LENGTH, on_key: bool = False
    ) -> str | None:
        """Return a name or title; None, and a fault, when it is none."""
        problem = name_problem(value, length)
        if problem is None and isinstance(value, str):
            return value
        self.add(path, f"{what} is {problem}", on_key=on_key)
        return None

    def number(
        self, value: object, path: Path, what: str, bounds: tuple[float, float], *, whole: bool = False
    ) -> float | None:
        """Return a number within bounds, both allowed; None, and a fault, when it is none."""
        least, most = bounds
        kinds = int if whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most:
            return value
        kind = "a whole number" if whole else "a number"
        self.add(path, f"{what} is {kind} from {least:.15g} to {most:.15g}; found {shown(value)}")
        return None


def plan_id_of(document: Mapping[str, object]) -> str | None:
    """Return the id that a document gives its plan, also where the rest is at fault; None when that is no id."""
    found = document.get("id")
    return found if isinstance(found, str) and _PLAN_ID.fullmatch(found) else None


def name_problem(value: object, length: int = NAME_LENGTH) -> str | None:
    """Return why a value is no name, as the end of a sentence; None when it is one.

    A name is any text of 1 to ``length`` characters without control characters and without blanks at its ends.
    """
    expected = f"a text of 1 to {length} characters"
    if isinstance(value, (bool, int, float)):
        return f"{expected}; found {shown(value)}; put it in quotes to make it a name"
    if not isinstance(value, str):
        return f"{expected}; found {shown(value)}"
    if not 1 <= len(value) <= length:
        return f"{expected}; found {len(value)}"
    if value != value.strip():
        return f"{expected} without blanks at its ends; found {quote(value)}"
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in value):
        return f"{expected} without control characters; found {quote(value)}"
    return None
