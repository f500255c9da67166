"""``when:`` and ``until:`` clauses: checked when the plan is loaded, true or false when it runs.

What a condition cannot decide is a ``ConditionError`` and never counts as true.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from oms.domain.cel import Program
from oms.domain.cel_checked import CheckedCel, ConditionError, ConditionSyntaxError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oms.domain.cel_scope import Scope

__all__ = ["Condition", "ConditionError", "ConditionSyntaxError"]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Condition:
    """One ``when`` or ``until``, ready to be decided. Immutable; threads may share it.

    Attributes:
        source: the expression as written.
        reads: the names whose outputs it reads.
    """

    __slots__ = ("_cel", "reads", "source")

    def __init__(self, source: str, scope: Scope) -> None:
        """Check and compile CEL of at most 1,000 characters.

        Raises:
            ConditionSyntaxError: it is no CEL, names what it cannot read, is not true or false, or is too costly.
        """
        self._cel = CheckedCel(source, scope)
        kind = self._cel.type_name
        if kind not in ("BOOL", "DYN"):
            raise ConditionSyntaxError([(0, _not_boolean(kind))])
        self.source = source
        self.reads = self._cel.reads

    def holds(
        self,
        *,
        input: Mapping[str, Any],  # noqa: A002 - the word that plans use
        outputs: Mapping[str, Any],
        reference: str,
        variables: Mapping[str, Any] = NOTHING,
    ) -> bool:
        """Decide it on a job's data.

        Args:
            input: the job's input, plain JSON.
            outputs: what each finished activity and block with an id gave. One that is missing, because its step was
                skipped or has not run, counts as ``{}`` (a ``for_each`` as ``[]``), so that ``has(outputs.x.ok)`` is
                false; where the expression asks ``has(outputs.x)``, it is really missing. Only ``reads`` are looked at.
            reference: the job's reference.
            variables: the items of the ``for_each`` blocks around it, by the names of their ``as``.

        Raises:
            ConditionError: it cannot be decided: a key is missing, a type does not fit, the data is too large for it.
        """
        facts = self._cel.facts(input=input, outputs=outputs, reference=reference, variables=variables)
        answer = self._cel.decide(Program.evaluate, facts)
        if answer is None:
            raise ConditionError(self.source, "not_boolean", "it gave a value that is neither true nor false")
        return answer

    @property
    def constant(self) -> bool | None:
        """Whether it is true, or false, whatever the data; None where that depends on the data, or is an error."""
        return self._cel.constant(Program.evaluate)

    def __repr__(self) -> str:
        return f"Condition({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and (self.source, self.reads) == (other.source, other.reads)

    def __hash__(self) -> int:
        return hash((self.source, self.reads))


def _not_boolean(kind: str) -> str:
    if "optional" in kind.lower():
        return "the expression gives an optional value; end it with .orValue(false)"
    return f"the expression gives {kind.lower()}, not true or false; compare it with something"
