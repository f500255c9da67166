"""An activity's ``output_schema``: JSON Schema 2020-12, checked when the plan is loaded.

The engine is jsonschema-rs. By itself it fetches a remote ``$ref`` over HTTP; here nothing is ever fetched.
``format`` is checked, not only noted, as its writers expect.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

import jsonschema_rs

from oms.domain.errors import Fault
from oms.domain.json_data import NotPlainError, measure
from oms.domain.naming import did_you_mean, listed, quote, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    Path = tuple[str | int, ...]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_FAULTS = 20
MAX_LISTED_VALUES = 10_000
"""In an output with more values only the first fault is looked for: the engine makes all before it gives one."""
MAX_APPLIED = 10_000
"""Subschemas that one value may have to be held against; references to references can double it at each level."""

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_ONE = frozenset({"not", "if", "then", "else"})
_ONE_BELOW = frozenset(
    {
        *("items", "contains", "additionalProperties", "propertyNames"),
        *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
    }
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})


class SchemaError(ValueError):
    """An ``output_schema`` that cannot be used.

    Attributes:
        path: the place inside the schema document.
        message: what is wrong there, and what was expected.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


class OutputSchema:
    """A compiled schema. Immutable; threads may share it.

    Attributes:
        document: the schema as written.
    """

    __slots__ = ("_validator", "document")

    def __init__(self, document: object) -> None:
        """Check and compile.

        Args:
            document: the schema, plain JSON: an object, or true or false.

        Raises:
            SchemaError: it is no valid schema of draft 2020-12, or refers to something outside itself.
        """
        if not isinstance(document, (dict, bool)):
            raise SchemaError((), f"expected a JSON Schema, which is a mapping; found {shown(document)}")
        try:
            measure(document)
        except NotPlainError as error:
            raise SchemaError((), str(error)) from None
        if isinstance(document, dict):
            _check_parts(document)
        self.document: dict[str, Any] | bool = document
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                document,
                validate_formats=True,
                retriever=_refuse_remote,
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000),
            )
        except jsonschema_rs.ValidationError as error:
            raise SchemaError(tuple(error.instance_path), _schema_message(error)) from None
        except ValueError as error:
            raise SchemaError((), str(error).splitlines()[0]) from None

    def faults(self, output: object, *, called: str = "output") -> tuple[Fault, ...]:
        """Return what is wrong with an output, or an input, at most 20 faults; none means that it fits.

        ``loc`` starts with what it is ``called`` in the request and is the place inside it; of a key that is missing,
        the place where it belongs.
        """
        try:
            size = measure(output)
            if self._validator.is_valid(output):
                return ()
            errors = self._errors(output) if size.values <= MAX_LISTED_VALUES else [self._first_error(output)]
        except (NotPlainError, jsonschema_rs.ReferencingError) as error:
            return (Fault((called,), str(error)),)
        return tuple(_fault(error, called) for error in errors)

    def _errors(self, output: object) -> list[jsonschema_rs.ValidationError]:
        return list(self._validator.iter_errors(output))[:MAX_FAULTS]

    def _first_error(self, output: object) -> jsonschema_rs.ValidationError:
        try:
            self._validator.validate(output)
        except jsonschema_rs.ValidationError as error:
            return error
        raise AssertionError("an invalid output has an error")

    def __repr__(self) -> str:
        return f"OutputSchema({self.document!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputSchema) and self.document == other.document

    def __hash__(self) -> int:
        return hash(json.dumps(self.document, sort_keys=True))


def _refuse_remote(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside the plan")


def _check_parts(document: dict[str, Any]) -> None:
    """Refuse what leads out of the schema or nowhere, at its own place.

    Raises:
        SchemaError: another dialect or type, an inner ``$id``, a reference to outside or nothing, or too many of them.
    """
    dialect = document.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        raise SchemaError(("$schema",), f"expected {DIALECT}, the one dialect of plans")
    places = list(_subschemas(document, ()))
    anchors = {
        name: schema
        for _, schema in places
        for name in (schema.get("$anchor"), schema.get("$dynamicAnchor"))
        if isinstance(name, str)
    }
    targets: dict[int, list[Any]] = {}
    for path, schema in places:
        _check_types(schema, path)
        if path and "$id" in schema:
            raise SchemaError((*path, "$id"), 'an inner $id is not supported; refer to "#/$defs/<name>" instead')
        keys = [key for key in ("$ref", "$dynamicRef") if isinstance(schema.get(key), str)]
        targets[id(schema)] = [_target(document, anchors, schema[key], (*path, key)) for key in keys]
    _check_applied(document, targets, {})


def _applied_by(schema: dict[str, Any]) -> Iterator[tuple[Path, object, bool]]:
    """Yield the schemas right inside one, each with its place there and whether it applies to the very same value."""
    for key, value in schema.items():
        if key in _ONE or key in _ONE_BELOW:
            yield (key,), value, key in _ONE
        elif key in _LISTS and isinstance(value, list):
            for index, item in enumerate(value):
                yield (key, index), item, key != "prefixItems"
        elif key in _NAMED and isinstance(value, dict):
            for name, item in value.items():
                yield (key, name), item, key == "dependentSchemas"


def _subschemas(schema: object, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each schema inside a schema document with its place; data such as ``enum`` and ``const`` is none."""
    if isinstance(schema, dict):
        yield path, schema
        for place, item, _ in _applied_by(schema):
            yield from _subschemas(item, path + place)


def _target(document: dict[str, Any], anchors: dict[str, dict[str, Any]], ref: str, path: Path) -> object:
    """Return what a reference refers to.

    Raises:
        SchemaError: something outside the document, or nothing.
    """
    own_id = document.get("$id")
    address, _, fragment = ref.partition("#")
    if ref.rstrip("#") == DIALECT:
        return True
    if address and address != own_id:
        message = (
            f'a remote {path[-1]} is refused: {quote(ref)}; put that schema under $defs and refer to "#/$defs/<name>"'
        )
        raise SchemaError(path, message)
    if fragment and not fragment.startswith("/"):
        if fragment not in anchors:
            raise SchemaError(path, f"there is no $anchor {quote(fragment)}{did_you_mean(fragment, anchors)}")
        return anchors[fragment]
    found: object = document
    for part in fragment.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(found):
            found = found[int(key[:9])]
        else:
            names = [name for name in found if isinstance(name, str)] if isinstance(found, dict) else []
            raise SchemaError(
                path, f"{quote(ref)} refers to nothing; there is no {quote(key)}{did_you_mean(key, names)}"
            )
    return found


def _check_applied(schema: object, targets: dict[int, list[Any]], known: dict[int, int]) -> int:
    """Return how many schemas are applied to one value that is held against this one, references followed.

    Raises:
        SchemaError: too many, here or in a schema below.
    """
    if not isinstance(schema, dict):
        return 1
    if id(schema) in known:
        return known[id(schema)]
    known[id(schema)] = 1  # a reference back to here: the engine stops at it
    applied = 1 + sum(_check_applied(target, targets, known) for target in targets.get(id(schema), ()))
    for _, item, same_value in _applied_by(schema):
        count = _check_applied(item, targets, known)
        applied += count if same_value else 0
    if applied > MAX_APPLIED:
        raise SchemaError((), f"its references multiply to more than {MAX_APPLIED} checks of one value")
    known[id(schema)] = applied
    return applied


def _check_types(schema: dict[str, Any], path: Path) -> None:
    """Refuse an unknown type at its own place, with the nearest: the engine only says that it fits no alternative.

    Raises:
        SchemaError: there is one.
    """
    types = schema.get("type")
    places = [((*path, "type"), types)] if isinstance(types, str) else []
    if isinstance(types, list):
        places = [((*path, "type", index), name) for index, name in enumerate(types)]
    for place, name in places:
        if isinstance(name, str) and name not in _TYPES:
            near = did_you_mean(name, _TYPES) or f"; expected one of {listed(_TYPES)}"
            raise SchemaError(place, f"there is no type {quote(name)}{near}")


def _schema_message(error: jsonschema_rs.ValidationError) -> str:
    """Say what is wrong with the schema itself."""
    if error.kind.name == "type":
        return _type_message(error)
    return _cut(error.message)


def _fault(error: jsonschema_rs.ValidationError, called: str) -> Fault:
    loc = (called, *error.instance_path)
    match error.kind.name:
        case "required":
            key = error.kind.as_dict()["property"]
            return Fault((*loc, key), f"the key {quote(key)} is required, and missing")
        case "type":
            return Fault(loc, _type_message(error))
        case "falseSchema":
            return Fault(loc, "expected nothing here")
        case _:
            return Fault(loc, _cut(error.message))


def _type_message(error: jsonschema_rs.ValidationError) -> str:
    types = " or ".join(sorted(error.kind.as_dict()["types"]))
    return f"expected {types}, found {shown(error.instance)}"


def _cut(message: str) -> str:
    """Keep a message to one line of at most 300 characters: the engine's may hold a whole value."""
    line = re.sub(r"\s+", " ", message)
    return line if len(line) <= 300 else f"{line[:140]} ... {line[-150:]}"  # noqa: PLR2004 - the docstring's number
