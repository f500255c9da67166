"""Plans out of an event log: one per variant, that is per sequence of activities that some case went through."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oms.demo.event_log import Case

PLAN_PREFIX = "replay-"
"""Begins the id of every plan that is made here."""
MAX_NAME_CHARS = 100
_CONTROL = re.compile(r"\s+|[^\S ]|[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Variant:
    """A sequence of activities, and the cases that went through it.

    Attributes:
        plan: the plan's document; its id is a digest of the rest, so that the same log gives the same plans.
        logged_as: the log's name of each of the plan's activities, which are unique.
        cases: those that went this way.
    """

    plan: dict[str, Any]
    logged_as: dict[str, str]
    cases: tuple[Case, ...]

    @property
    def plan_id(self) -> str:
        """The plan's id."""
        return str(self.plan["id"])

    @property
    def lanes(self) -> list[str]:
        """The plan's lanes."""
        return list(self.plan["lanes"])


def variants_of(cases: Sequence[Case]) -> list[Variant]:
    """Return the variants of a log, the most frequent first.

    The lane of a step is the group that did it in most of the variant's cases (of two, the one that comes first in
    the log). A plan's activities have names of their own, so one that comes again is called ``T02 Check (2)``.
    """
    by_sequence: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        by_sequence.setdefault(case.activities, []).append(case)
    variants = [_variant(sequence, its_cases) for sequence, its_cases in by_sequence.items()]
    return sorted(variants, key=lambda variant: -len(variant.cases))


def _variant(sequence: tuple[str, ...], cases: list[Case]) -> Variant:
    names = _unique_names(sequence)
    groups = [
        Counter(case.events[place].group for case in cases).most_common(1)[0][0] for place in range(len(sequence))
    ]
    lanes = [_name(group) for group in groups]
    content = {
        "lanes": sorted(set(lanes)),
        "sequence": [{"activity": name, "lane": lane} for name, lane in zip(names, lanes, strict=True)],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Variant(
        plan={"id": f"{PLAN_PREFIX}{digest[:16]}", **content},
        logged_as=dict(zip(names, sequence, strict=True)),
        cases=tuple(cases),
    )


def _unique_names(sequence: Sequence[str]) -> list[str]:
    """Return a name for each place: the activity's own, with `` (2)`` where it is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for activity in sequence:
        name, number = _name(activity), 1
        while name in taken:
            number += 1
            suffix = f" ({number})"
            name = _name(activity)[: MAX_NAME_CHARS - len(suffix)].rstrip() + suffix
        taken.add(name)
        names.append(name)
    return names


def _name(text: str) -> str:
    """Return ``text`` as a plan takes it for a name: no control characters, not too long."""
    return _CONTROL.sub(" ", text).strip()[:MAX_NAME_CHARS].rstrip() or "unnamed"
