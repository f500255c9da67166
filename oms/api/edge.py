"""What all calls share: reading a body that is one object or a list of them, rendering, and describing both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from hmskit.bodies import read_body, read_json
from hmskit.problems import PROBLEM_CONTENT_TYPE, PROBLEM_SCHEMA, Problem, faults_of, invalid
from oms.api.problems import item_problem
from oms.api.schemas import MAX_LIST_ITEMS, Body, Trace
from oms.config import Settings
from oms.domain.errors import OmsError
from oms.sequencer.service import Service
from oms.sequencer.writer import Verb, Writer

B = TypeVar("B", bound=Body)
W = TypeVar("W")
R = TypeVar("R")

_TRACE = TypeAdapter(Trace)


def service_of(request: Request) -> Service:
    """Return the service that the request came to."""
    service: Service = request.app.state.service
    return service


def settings_of(request: Request) -> Settings:
    """Return the settings of the service."""
    settings: Settings = request.app.state.settings
    return settings


def trace_of(request: Request) -> str | None:
    """Return the request's W3C trace context; one that cannot be read is ignored, as the standard asks."""
    header = request.headers.get("traceparent")
    if header is None:
        return None
    try:
        return _TRACE.validate_python(header)
    except ValidationError:
        return None


def json_response(value: object) -> Response:
    """Return 200 with ``value`` as JSON, not to be cached: it is true now only."""
    return bytes_response(to_json(value))


def bytes_response(body: bytes) -> Response:
    """Return 200 with a body that is JSON already."""
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


async def read_object(request: Request, model: type[B], *, may_be_empty: bool = False) -> B:
    """Return the body, which is one object; an empty body is ``{}`` where ``may_be_empty``.

    Raises:
        Problem: it is not, or a value in it is not allowed.
    """
    body = await read_body(request, limit_bytes=settings_of(request).max_body)
    if may_be_empty and not body.strip():
        body = b"{}"
    return validated(read_json(body), model)


async def read_value(request: Request) -> Any:  # noqa: ANN401 - any JSON
    """Return the body, whatever JSON it is.

    Raises:
        Problem: it is none.
    """
    return read_json(await read_body(request, limit_bytes=settings_of(request).max_body))


@dataclass(frozen=True, slots=True)
class Call(Generic[B, W, R]):
    """A call whose body is one object, or a list of them: what an object must be, and which verb runs on it."""

    model: type[B]
    wish_of: Callable[[B, str | None], W]
    verb: Verb[W, R | OmsError]

    async def plain(self, request: Request) -> Response:
        """Answer a request."""
        body = await read_body(request, limit_bytes=settings_of(request).max_body)
        return bytes_response(await self.answer(service_of(request).writer, body, trace_of(request)))

    async def answer(self, writer: Writer, body: bytes, trace: str | None) -> bytes:
        """Run the verb on the body's object, or on each object of its list, in one transaction; return the JSON.

        Raises:
            Problem: the body cannot be used.
            OmsError: the one object was refused.
        """
        asked = self.read(body, trace)
        return asked.answer(await writer.run_each(self.verb, asked.wishes) if asked.wishes else [])

    def read(self, body: bytes, trace: str | None) -> Asked[W]:
        """Return what a body asks for. Only a body that is no object, and no list of objects, is refused whole.

        Raises:
            Problem: the body cannot be used.
        """
        value = read_json(body)
        if not isinstance(value, list):
            return Asked([self.wish_of(validated(value, self.model), trace)])
        _check_list(value)
        wishes: list[W] = []
        items: list[dict[str, Any] | None] = []
        for item in value:
            try:
                wishes.append(self.wish_of(validated(item, self.model), trace))
            except Problem as problem:
                items.append(item_problem(problem))
            else:
                items.append(None)
        return Asked(wishes, items)


@dataclass(frozen=True, slots=True)
class Asked(Generic[W]):
    """What a request asks for.

    Attributes:
        wishes: what the verb runs on.
        items: of a list, per item why it was refused before, or None where it is the next of ``wishes``; None: it was
            one object.
    """

    wishes: list[W]
    items: list[dict[str, Any] | None] | None = None

    def answer(self, results: Sequence[Any]) -> bytes:
        """Return the answer's JSON, from what the verb said to each wish.

        A list is answered with one answer per item in the same order: a refused item is ``{"error": <problem>}``.

        Raises:
            OmsError: the one object was refused.
        """
        if self.items is None:
            (result,) = results
            if isinstance(result, OmsError):
                raise result
            return to_json(result)
        given = iter(results)
        return to_json([_item(next(given)) if item is None else item for item in self.items])


def _item(result: Any) -> Any:  # noqa: ANN401 - what a verb answers
    return item_problem(result) if isinstance(result, OmsError) else result


def validated(value: Any, model: type[B]) -> B:  # noqa: ANN401 - any JSON
    """Return ``value`` as the model.

    Raises:
        Problem: 422, naming every fault.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = faults_of(error, "body")
        where = ".".join(str(part) for part in faults[0]["loc"])
        keys = ", ".join(model.model_fields)
        raise invalid(f"{where}: {faults[0]['msg']}. The keys are: {keys}.", faults) from None


def _check_list(value: Sequence[Any]) -> None:
    if len(value) > MAX_LIST_ITEMS:
        raise invalid(f"The list has {len(value):,} items; send {MAX_LIST_ITEMS:,} at most, in several requests.")
    for place, item in enumerate(value):
        if not isinstance(item, dict):
            raise invalid(
                "The body is no list of objects.",
                [{"loc": ["body", place], "msg": f"an object was expected, not {type(item).__name__}"}],
            )


PROBLEMS: dict[str, str] = {
    "403": "A browser sent it from another site.",
    "404": "There is no such job, task or plan.",
    "409": "The state forbids it.",
    "413": "The body is too large.",
    "422": "The input is not valid.",
    "503": "The database cannot take it now; try again.",
}


def problem_responses(*statuses: str) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a call, for the OpenAPI document."""
    return {
        int(status): {
            "description": PROBLEMS[status],
            "content": {PROBLEM_CONTENT_TYPE: {"schema": PROBLEM_SCHEMA}},
        }
        for status in statuses
    }


def body_of(*models: type[BaseModel], or_list: bool = False) -> dict[str, Any]:
    """Describe a body that the call reads by itself, for the OpenAPI document; it is one of ``models``."""
    schemas: list[dict[str, Any]] = [_inlined(model.model_json_schema()) for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    if or_list:
        schema = {"anyOf": [schema, {"type": "array", "maxItems": MAX_LIST_ITEMS, "items": schema}]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Put a model's definitions where they are named: the document has no place for them inside a body."""
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:  # noqa: ANN401 - any JSON
        if isinstance(node, dict):
            reference = node.get("$ref")
            if reference is not None:
                return inline(definitions[reference.rpartition("/")[2]])
            return {key: inline(value) for key, value in node.items()}
        if isinstance(node, list):
            return [inline(value) for value in node]
        return node

    inlined: dict[str, Any] = inline(schema)
    return inlined
