"""An expression of a plan: checked when the plan is loaded, decided on a job's data when it runs.

An expression sees ``input``, ``outputs``, ``reference`` and the items of the ``for_each`` blocks around it. It reads
outputs by a name that is written out, ``outputs.check_photo`` or, for any name, ``outputs["T02 Check"]``, so that a
plan that reads what is not there is refused before a job runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from oms.domain.cel import VARIABLES, CelError, CelSyntaxError, Program, check_regex, parse
from oms.domain.cel_cost import TooCostlyError, check_cost
from oms.domain.cel_names import asked_outputs, data_path, name_faults, note_reads, patterns
from oms.domain.cel_scope import Shape
from oms.domain.cel_tree import Select
from oms.domain.json_data import NotPlainError, Size, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from oms.domain.cel_names import Reads
    from oms.domain.cel_scope import Scope

_Answer = TypeVar("_Answer")
_EMPTY = {name: Size(text=0, length=0, inner=0, values=1) for name in VARIABLES}


class ConditionSyntaxError(ValueError):
    """An expression that cannot be used.

    Attributes:
        faults: every fault found, each with its character offset inside the source, in their order there.
        message: the first one: what was found, what was expected.
        offset: its place; 0 if unknown.
    """

    def __init__(self, faults: Iterable[tuple[int, str]]) -> None:
        self.faults = tuple(sorted(faults))
        self.offset, self.message = self.faults[0]
        super().__init__(self.message)


class ConditionError(Exception):
    """An expression that cannot be decided on a job's data.

    Attributes:
        source: the expression.
        code: ``missing_key``, ``type_mismatch``, ``budget_exceeded`` or ``other``; of a condition also ``not_boolean``,
            of a ``for_each`` also ``not_a_list`` and ``too_many_items``; safe for a ledger.
        message: why; may hold the citizen's data, so it stays inside OMS.
    """

    def __init__(self, source: str, code: str, message: str) -> None:
        super().__init__(f"{source}: {message}")
        self.source = source
        self.code = code
        self.message = message


class CheckedCel:
    """An expression that compiles and reads only what it may. Immutable; threads may share it."""

    __slots__ = ("_asked", "_data", "_path", "_program", "_shapes", "_tree", "reads", "source", "variables")

    def __init__(self, source: str, scope: Scope) -> None:
        """Check and compile.

        Raises:
            ConditionSyntaxError: it is no CEL, names what it cannot read, or is too costly whatever the data.
        """
        try:
            self._tree = parse(source)
            data: Reads = {}
            faults = name_faults(self._tree, source, scope)
            faults += note_reads(self._tree, data, source, scope)
            if faults:
                raise ConditionSyntaxError(faults)
            for pattern in patterns(self._tree):
                check_regex(*pattern)
            self.source = source
            self.reads = frozenset(data.get("outputs", {}))
            """The names whose outputs it reads."""
            self.variables = frozenset(data).intersection(scope.variables)
            """The names of the items that it reads."""
            self._shapes = {name: scope.outputs[name] for name in self.reads}
            has_other_outputs = any(shape is not Shape.OBJECT for shape in self._shapes.values())
            self._program = Program(source, self.variables, any_output=has_other_outputs)
        except CelSyntaxError as error:
            raise ConditionSyntaxError([(error.offset, error.message)]) from None
        try:
            check_cost(self._tree, _EMPTY)
        except TooCostlyError:
            raise ConditionSyntaxError([(0, "the expression is too costly, whatever the data")]) from None
        self._data = data
        self._asked = asked_outputs(self._tree)
        path = None if isinstance(self._tree, Select) and self._tree.tests else data_path(self._tree, scope)
        self._path = None if path is None else (path[0].name, *(key for key, _ in path[1]))

    @property
    def type_name(self) -> str:
        """What it gives, as the engine calls it: ``BOOL``, ``LIST<INT>``, ``DYN`` where only the data tells."""
        return self._program.type_name

    def facts(
        self,
        *,
        input: Mapping[str, Any],  # noqa: A002 - the word that plans use
        outputs: Mapping[str, Any],
        reference: str,
        variables: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the part of a job's data that the expression reads.

        An output that is missing, because its step was skipped or has not run, counts as an empty one, so that
        ``has(outputs.x.ok)`` is false; where the expression asks ``has(outputs.x)``, it is really missing.
        """
        given: dict[str, Any] = {"input": _plain_object(input), "reference": reference}
        given |= {name: variables[name] for name in self.variables if name in variables}
        names = [name for name in self.reads if name in outputs or name not in self._asked]
        given["outputs"] = {name: outputs[name] if name in outputs else self._empty(name) for name in names}
        return {name: _part(given[name], below) for name, below in self._data.items() if name in given}

    def _empty(self, name: str) -> object:
        return [] if self._shapes[name] is Shape.LIST else {}

    def decide(self, evaluate: Callable[[Program, Mapping[str, Any]], _Answer], facts: Mapping[str, Any]) -> _Answer:
        """Return what ``evaluate`` makes of the program and these facts.

        Raises:
            ConditionError: a key is missing, a type does not fit, the data is too large for the expression.
        """
        try:
            check_cost(self._tree, {name: measure(value) for name, value in facts.items()})
            return evaluate(self._program, facts)
        except NotPlainError as error:
            raise ConditionError(self.source, "type_mismatch", str(error)) from None
        except TooCostlyError:
            message = "the data is too large for this expression; it would take too long"
            raise ConditionError(self.source, "budget_exceeded", message) from None
        except CelError as error:
            raise ConditionError(self.source, error.kind, error.message) from None

    def constant(self, evaluate: Callable[[Program, Mapping[str, Any]], _Answer]) -> _Answer | None:
        """Return what it gives whatever the data, or None where that depends on the data, or is an error."""
        try:
            return evaluate(self._program, {})
        except CelError:
            return None

    @property
    def is_path(self) -> bool:
        """Whether it only names a part of the data, such as ``input.pages``."""
        return self._path is not None

    def quoted(self, facts: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Return the very part of the data that it names, however large, and exactly as it is.

        Raises:
            ConditionError: as ``decide``.
        """
        self.decide(Program.check, facts)
        value: Any = facts
        assert self._path is not None
        for key in self._path:
            value = value[key]
        return value


def _plain_object(value: object) -> object:
    """Return a mapping as a dict, which is what the engine takes; anything else as it is, for the engine to refuse."""
    return dict(value) if isinstance(value, Mapping) else value


def _part(value: Any, reads: Reads) -> Any:  # noqa: ANN401 - JSON
    """Return the part of a value that is read; what is elsewhere in it can neither cost time nor be the wrong type."""
    if not reads or not isinstance(value, dict):
        return value
    return {key: _part(value[key], below) for key, below in reads.items() if key in value}
