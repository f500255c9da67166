"""The CEL engine behind one small seam: text in, checked expression out; every other module sees plain Python.

The engine is Google's C++ one (cel-expr-python). What had to be known about it, each held by a test:

- An evaluation error is a *value* of type ERROR whose ``value()`` is a text, so that ``bool()`` of it is true.
- ``optMap`` copies its receiver twice, so that 25 of them in a row would fill the memory while parsing.
- Data nested some thousand levels deep ends the process (``json_data`` measures first).
- Its limit of 10,000 loop rounds bounds neither memory nor time inside a round (``cel_cost`` bounds both first).
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from cel_expr_python import cel  # type: ignore[import-untyped]
from cel_expr_python.ext import ext_optional, ext_strings  # type: ignore[import-untyped]

from oms.domain.cel_cost import regex_states
from oms.domain.cel_tree import Node, read_tree
from oms.domain.naming import did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_LENGTH = 1000
MAX_OPTIONAL_MACROS = 3
MAX_REGEX_STATES = 50_000
MAX_RESULT_VALUES = 100_000
MAX_RESULT_TEXT = 4 * 1024 * 1024

VARIABLES = ("input", "outputs", "reference")
TYPES = (
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
)
RESERVED = (
    *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"),
    *("namespace", "null", "package", "return", "true", "var", "void", "while"),
)
NAMESPACES = {"optional": ("of", "none", "ofNonZeroValue"), "strings": ("quote",)}
FUNCTIONS = (
    *("all", "exists", "exists_one", "filter", "map", "has", "size", "contains", "startsWith", "endsWith", "matches"),
    *("charAt", "indexOf", "lastIndexOf", "join", "split", "replace", "substring", "trim", "format", "reverse"),
    *(
        "lowerAscii",
        "upperAscii",
        "orValue",
        "hasValue",
        "value",
        "optMap",
        "optFlatMap",
        "or",
        "bool",
        "bytes",
        "double",
    ),
    *(
        "duration",
        "dyn",
        "int",
        "string",
        "timestamp",
        "type",
        "uint",
        "getFullYear",
        "getMonth",
        "getDate",
        "getHours",
    ),
    *("getMinutes", "getSeconds", "getMilliseconds", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
)
"""For the nearest name in a message only; what there is, the engine knows."""


class CelSyntaxError(ValueError):
    """The expression cannot be used. ``offset`` counts characters from the expression's start."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class CelError(Exception):
    """The expression gives no value on this data.

    Attributes:
        kind: ``missing_key``, ``type_mismatch``, ``budget_exceeded`` or ``other``.
        message: the engine's words; may hold data.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def parse(source: str) -> Node:
    """Return the expression's tree, its names not yet checked.

    Raises:
        CelSyntaxError: it is empty, longer than 1,000 characters, no CEL, or would blow up while parsing.
    """
    if not source.strip():
        raise CelSyntaxError("the expression is empty; expected CEL that is true or false")
    if len(source) > MAX_LENGTH:
        raise CelSyntaxError(
            f"the expression has {len(source)} characters; at most {MAX_LENGTH} are allowed", MAX_LENGTH
        )
    macros = list(re.finditer(r"opt(?:Flat)?Map", source))
    if len(macros) > MAX_OPTIONAL_MACROS:
        raise CelSyntaxError(
            f"optMap and optFlatMap may be used {MAX_OPTIONAL_MACROS} times in an expression, this is one more",
            macros[MAX_OPTIONAL_MACROS].start(),
        )
    return read_tree(_compiled(source, _environment(), disable_check=True).serialize())


class Program:
    """A compiled, type-checked expression. Threads may share it."""

    __slots__ = ("_expression", "type_name")

    def __init__(self, source: str, variables: Iterable[str] = (), *, any_output: bool = False) -> None:
        """Compile an expression that ``parse`` took.

        Args:
            source: the expression.
            variables: names that it may use beside ``VARIABLES``, each for any JSON value.
            any_output: an entry of ``outputs`` may be any JSON value, not only an object.

        Raises:
            CelSyntaxError: a function or type does not fit.
        """
        self._expression = _compiled(source, _environment(tuple(sorted(variables)), any_output))
        self.type_name: str = self._expression.return_type().name()

    def evaluate(self, data: Mapping[str, Any]) -> bool | None:
        """Return what the expression gives if that is true or false, else None.

        ``data`` maps variables to measured JSON; those that the expression does not read may be left out.

        Raises:
            CelError: it gives no value.
        """
        value = self._evaluated(data)
        return bool(value.value()) if value.type() == cel.Type.BOOL else None

    def value(self, data: Mapping[str, Any]) -> object:
        """Return what the expression gives: plain JSON, or a ``datetime`` where it gives a moment; for the same data.

        Moments inside lists and objects are RFC 3339 texts.

        Raises:
            CelError: it gives no value, one that is not JSON, or one of more than `MAX_RESULT_VALUES` values or
                `MAX_RESULT_TEXT` bytes of text.
        """
        value = self._evaluated(data)
        return value.value() if value.type() == cel.Type.TIMESTAMP else _Result().plain(value)

    def check(self, data: Mapping[str, Any]) -> None:
        """Evaluate the expression and drop what it gives.

        Raises:
            CelError: it gives no value.
        """
        self._evaluated(data)

    def _evaluated(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the engine ships no types
        try:
            value = self._expression.eval(data=data)
            if value.type() != cel.Type.ERROR:
                return value
            message = str(value.value())
        except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
            message = str(error) or type(error).__name__
        raise CelError(_kind_of(message), message)


class _Result:
    """Makes plain JSON of the engine's value, within bounds: a short expression can name the same data many times."""

    def __init__(self) -> None:
        self._values = 0
        self._text = 0

    def plain(self, value: Any) -> object:  # noqa: ANN401 - the engine ships no types; one return per kind
        """Return the value as JSON.

        Raises:
            CelError: it is none, or too large.
        """
        try:
            found = value.value()
        except TypeError:  # an optional value, which has no Python type
            raise CelError("type_mismatch", "it gave an optional value, which is not JSON") from None
        self._count(found)
        match found:
            case None | bool() | str():
                return found
            case int() | float() if math.isfinite(found):
                return found
            case list():
                return [self.plain(item) for item in found]
            case dict():
                return {self._key(key): self.plain(item) for key, item in found.items()}
            case datetime():
                return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            case _:
                kind = str(value.type().name()).lower()
                raise CelError("type_mismatch", f"it gave a value that is not JSON: {kind}")

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise CelError("type_mismatch", "it gave an object with a key that is no text, which is not JSON")
        self._count(key)
        return key

    def _count(self, found: object) -> None:
        self._values += 1
        self._text += len(found) if isinstance(found, str) else 0
        if self._values > MAX_RESULT_VALUES or self._text > MAX_RESULT_TEXT:
            raise CelError("budget_exceeded", "the value that it gave is too large")


def check_regex(pattern: str, offset: int) -> None:
    """Return when a pattern for ``matches`` compiles, and is not so large that this alone takes long.

    Raises:
        CelSyntaxError: it does not, or is.
    """
    if r"\Q" in pattern:
        raise CelSyntaxError(r"\Q is not allowed in a pattern; put a \ before each character instead", offset)
    if regex_states(pattern) > MAX_REGEX_STATES:
        raise CelSyntaxError(f"the pattern {quote(pattern)} is too large; use fewer repetitions or classes", offset)
    try:
        _regex_probe().evaluate({"reference": pattern})
    except CelError as error:
        reason = error.message.rpartition("invalid regular expression: ")[2]
        raise CelSyntaxError(f"the pattern {quote(pattern)} is no regular expression: {reason}", offset) from None


@cache
def _regex_probe() -> Program:
    return Program('"".matches(reference)')


@lru_cache(maxsize=256)
def _environment(variables: tuple[str, ...] = (), any_output: bool = False) -> Any:  # noqa: ANN401
    """Return the environment of all expressions with these variables: it knows no activities, so that few are built."""
    row = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    outputs = cel.Type.Map(cel.Type.STRING, cel.Type.DYN if any_output else row)
    return cel.NewEnv(
        variables={
            **dict.fromkeys(variables, cel.Type.DYN),
            "input": row,
            "outputs": outputs,
            "reference": cel.Type.STRING,
        },
        extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings()],
    )


def _compiled(source: str, environment: Any, *, disable_check: bool = False) -> Any:  # noqa: ANN401
    try:
        return environment.compile(source, disable_check=disable_check)
    except TypeError:  # pybind cannot turn half a character into C++ text
        raise CelSyntaxError("the expression holds half of a character (a lone surrogate)") from None
    except (RuntimeError, ValueError, MemoryError) as error:
        raise _explained(source, str(error)) from None


def _kind_of(message: str) -> str:
    """Return the short code of an evaluation error. Only the fixed start of the text counts: the rest may be data."""
    for start, kind in (
        ("NOT_FOUND: Key not found", "missing_key"),
        ("UNKNOWN: Index error", "missing_key"),
        ("FAILED_PRECONDITION: optional.none() dereference", "missing_key"),
        ("UNKNOWN: No matching overloads found", "type_mismatch"),
        ("INVALID_ARGUMENT: Applying SELECT to non-message type", "type_mismatch"),
        ("INVALID_ARGUMENT: Integer value", "type_mismatch"),
        ("INVALID_ARGUMENT: Unexpected value type", "type_mismatch"),
        ("INVALID_ARGUMENT: Non-CEL value type", "type_mismatch"),
        ("INVALID_ARGUMENT: cannot convert", "type_mismatch"),
        ("INTERNAL: Iteration budget exceeded", "budget_exceeded"),
        ("std::bad_alloc", "budget_exceeded"),
        ("MemoryError", "budget_exceeded"),
    ):
        if message.startswith(start):
            return kind
    return "other"


_PLACE = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_OPERATORS = {"_?_:_": "?:", "_[_]": "[]", "@in": "in", "_[?_]": "[?]", "_?._": ".?"}
_WORDS = {"and": "&&", "or": "||", "not": "!"}


def _explained(source: str, report: str) -> CelSyntaxError:
    """Turn the engine's report into one sentence and an offset: its first error that has a place."""
    if "recursion" in report:
        return CelSyntaxError("the expression is nested too deep; at most 32 levels are allowed")
    found = _PLACE.search(report)
    if found is None:
        return CelSyntaxError(f"not valid CEL: {report.splitlines()[0] if report else 'no reason given'}")
    offset = _offset(source, int(found[1]), int(found[2]))
    text = found[3].removesuffix(" [INVALID_ARGUMENT]")
    if text.startswith("Syntax error: "):
        return _syntax_error(source, offset, text.removeprefix("Syntax error: "))
    if unknown := re.match(r"undeclared reference to '([^']*)'", text):
        return _unknown_name(source, offset, unknown[1])
    if misfit := re.match(r"found no matching overload for '([^']*)' applied to '\((.*)\)'", text):
        text = _no_overload(misfit[1], misfit[2])
    return CelSyntaxError(text, offset)


def _offset(source: str, row: int, column: int) -> int:
    """Return the offset of a 1-based row and column; 0 when the engine names none (-1)."""
    if row < 1 or column < 1:
        return 0
    before = sum(len(line) + 1 for line in source.split("\n")[: row - 1])
    return min(before + column - 1, len(source))


def _syntax_error(source: str, offset: int, text: str) -> CelSyntaxError:
    char = source[offset : offset + 1]
    if char == "=":
        return CelSyntaxError('unexpected "="; two values are compared with ==', offset)
    if text.startswith("token recognition error"):
        if char in "'\"":
            return CelSyntaxError("this text has no end, or a backslash in it that escapes nothing", offset)
        near = {"&": "; did you mean &&?", "|": "; did you mean ||?"}.get(char, "")
        return CelSyntaxError(f"unexpected {quote(char)}{near}", offset)
    expected = re.match(r"(?:mismatched|extraneous) input '(.*?)' expecting (.*)", text)
    if expected is None:
        return CelSyntaxError(text, offset)
    # "a and b" fails at "and", but "not a" only at "a".
    before = re.search(r"(\w+)\s*$", source[:offset])
    for word, start in ((expected[1], offset), (before[1], before.start()) if before else ("", 0)):
        if word in _WORDS:
            return CelSyntaxError(f'unexpected "{word}"; CEL writes it {_WORDS[word]}', start)
    what = "the expression ends too early" if expected[1] == "<EOF>" else f"unexpected {quote(expected[1])}"
    wanted = expected[2].strip("{}").replace("<EOF>", "the end of the expression")
    return CelSyntaxError(f"{what}; expected {'a value' if 'IDENTIFIER' in wanted else wanted}", offset)


def _unknown_name(source: str, offset: int, name: str) -> CelSyntaxError:
    """Say which name is unknown. Free names are refused before the type check, so it is a function's or a type's."""
    start = source.rfind(name, 0, offset + len(name) + 1)
    if name in FUNCTIONS:
        return CelSyntaxError(f"the function {quote(name)} is not called this way", max(start, 0))
    return CelSyntaxError(f"there is no function {quote(name)}{did_you_mean(name, FUNCTIONS)}", max(start, 0))


def _no_overload(function: str, types: str) -> str:
    operator = _OPERATORS.get(function, function.strip("_"))
    hint = ""
    if sorted(types.split(", ")) == ["double", "int"]:
        hint = "; write the whole number with a point (2.0), or convert with double()"
    elif function in ("_&&_", "_||_", "!_", "_?_:_"):
        hint = "; it takes true or false"
    return f"{quote(operator)} cannot be applied to ({types}){hint}"
