"""What a CEL expression in a plan gives on a job's data: a list, a moment, a number, or any JSON value."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from oms.domain.cel import Program
from oms.domain.cel_checked import CheckedCel, ConditionError, ConditionSyntaxError
from oms.domain.condition import NOTHING
from oms.domain.naming import shown
from oms.domain.plan import MAX_ITEMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oms.domain.cel_scope import Scope

MAX_PRIORITY = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Kind(Enum):
    """What an expression is to give; the value says it in a sentence."""

    JSON = "a JSON value"
    LIST = "a list"
    MOMENT = "a moment"
    PRIORITY = "a whole number"


_TYPES = {
    Kind.LIST: ("LIST",),
    Kind.MOMENT: ("TIMESTAMP",),
    Kind.PRIORITY: ("INT", "UINT"),
}
"""What the types of the engine that fit start with; ``DYN``, which only the data decides, always does."""
_NO_JSON = re.compile(r"optional_type|BYTES|DURATION|TYPE<|MAP<(?:INT|UINT|BOOL)")
_HINTS = {
    (Kind.MOMENT, "STRING"): "; write timestamp(...) around it",
    (Kind.MOMENT, "INT"): "; write timestamp(...) around seconds since 1970",
    (Kind.PRIORITY, "DOUBLE"): "; write int(...) around it",
    (Kind.PRIORITY, "STRING"): "; write int(...) around it",
    (Kind.PRIORITY, "BOOL"): "; write (...) ? 10 : 0",
}


class Expression:
    """One expression, ready to be evaluated. Immutable; threads may share it.

    Attributes:
        source: the expression as written.
        kind: what it gives.
        reads: the names whose outputs it reads.
    """

    __slots__ = ("_cel", "kind", "reads", "source")

    def __init__(self, source: str, kind: Kind, scope: Scope) -> None:
        """Check and compile CEL of at most 1,000 characters.

        Raises:
            ConditionSyntaxError: it is no CEL, names what it cannot read, gives something else, or is too costly.
        """
        self._cel = CheckedCel(source, scope)
        name = self._cel.type_name
        if not _fits(name, kind):
            raise ConditionSyntaxError([(0, _misfit(name, kind))])
        self.source = source
        self.kind = kind
        self.reads = self._cel.reads

    def value(
        self,
        *,
        input: Mapping[str, Any],  # noqa: A002 - the word that plans use
        outputs: Mapping[str, Any],
        reference: str,
        variables: Mapping[str, Any] = NOTHING,
    ) -> Any:  # noqa: ANN401 - JSON
        """Return what it gives on a job's data, which is what ``Condition.holds`` takes.

        Returns:
            By its kind: any JSON value; a list of at most 10,000; whole milliseconds since the epoch; a whole number
            from -1,000,000 to 1,000,000. It may be a part of the data itself: do not change it.

        Raises:
            ConditionError: it cannot be decided, or gives something else.
        """
        facts = self._cel.facts(input=input, outputs=outputs, reference=reference, variables=variables)
        found = self._cel.quoted(facts) if self._cel.is_path else self._cel.decide(Program.value, facts)
        match self.kind:
            case Kind.LIST:
                return self._items(found)
            case Kind.MOMENT:
                return self._moment(found)
            case Kind.PRIORITY:
                return self._priority(found)
            case Kind.JSON:
                return _text_of(found) if isinstance(found, datetime) else found

    def _items(self, found: object) -> list[Any]:
        if not isinstance(found, list):
            raise ConditionError(self.source, "not_a_list", f"it gave {shown(found)}, not a list")
        if len(found) > MAX_ITEMS:
            raise ConditionError(
                self.source, "too_many_items", f"it gave a list of {len(found)}; at most {MAX_ITEMS} are allowed"
            )
        return found

    def _moment(self, found: object) -> int:
        """Return milliseconds since the epoch of a moment, or of an RFC 3339 text, which is how data holds one."""
        moment = found
        if isinstance(found, str) and _MOMENT.fullmatch(found):
            try:
                moment = datetime.fromisoformat(found.upper())
            except ValueError:
                moment = None
        if not isinstance(moment, datetime):
            message = f"it gave {shown(found)}, not a moment such as 2026-11-22T08:00:00Z"
            raise ConditionError(self.source, "type_mismatch", message)
        return (moment - _EPOCH) // timedelta(milliseconds=1)

    def _priority(self, found: object) -> int:
        is_whole = isinstance(found, int | float) and not isinstance(found, bool) and found == int(found)
        if not is_whole or not -MAX_PRIORITY <= int(found) <= MAX_PRIORITY:  # type: ignore[call-overload]
            message = f"it gave {shown(found)}, not a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}"
            raise ConditionError(self.source, "type_mismatch", message)
        return int(found)  # type: ignore[call-overload, no-any-return]

    def __repr__(self) -> str:
        return f"Expression({self.source!r}, {self.kind})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.source, self.kind, self.reads)


def _text_of(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fits(type_name: str, kind: Kind) -> bool:
    if kind is Kind.JSON:
        return not _NO_JSON.search(type_name)
    return type_name == "DYN" or (type_name.startswith(_TYPES[kind]) and not _NO_JSON.search(type_name))


def _misfit(type_name: str, kind: Kind) -> str:
    if "optional" in type_name.lower():
        return "the expression gives an optional value; end it with .orValue(...)"
    hint = _HINTS.get((kind, type_name), "")
    return f"the expression gives {type_name.lower()}, not {kind.value}{hint}"
