"""What the expressions of a plan can see at their place in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum


class Shape(Enum):
    """What an output is, as far as the plan itself says."""

    OBJECT = "object"
    """An activity's output, or the outputs of another plan's job, by activity."""
    LIST = "list"
    """The outputs of a ``for_each``, an object for each item."""
    ANY = "any"
    """The data of a signal."""


def _unknown(_name: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression can see beside ``input`` and ``reference``.

    Attributes:
        outputs: the names whose outputs it may read, with what they are.
        variables: the names of the items of the ``for_each`` blocks around it, the outermost first.
        why_not: says of a name of the plan that is none of ``outputs`` why it cannot be read, as the end of the
            sentence that starts with the name; None for a name that the plan does not have.
    """

    outputs: Mapping[str, Shape]
    variables: tuple[str, ...] = ()
    why_not: Callable[[str], str | None] = _unknown
