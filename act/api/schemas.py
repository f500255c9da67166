"""What OpenAPI says of each call. The handlers read bytes and render JSON themselves, so it is written here."""

from __future__ import annotations

from typing import Any

from act.api.query import DEFAULT_LIMIT, EVENT_STREAM, EXPORT_FORMATS, MAX_FORKS_LISTED, MAX_LIMIT
from act.contract import BATCH_CONTENT_TYPE, EVENT, EVENT_CONTENT_TYPE, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, STATUSES
from hmskit.problems import PROBLEM_CONTENT_TYPE, PROBLEM_SCHEMA

Schema = dict[str, Any]

JOB_STATES = ("queued", "running", "paused", "done", "failed", "cancelled")
TASK_STATUSES = ("queued", "running", "done", "failed", "cancelled")

_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_NUMBER_OR_NULL: Schema = {"type": ["integer", "null"]}
_TIME: Schema = {"type": "string", "format": "date-time", "examples": ["2026-11-22T14:05:09.123Z"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _object(properties: dict[str, Schema], description: str, *, is_open: bool = False) -> Schema:
    """Describe an object that has all of the properties, and others only where it ``is_open``."""
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "properties": properties,
        "additionalProperties": is_open,
    }


ROW = _object(
    {
        "id": {**_COUNT, "description": "The ledger's index: from 0 up, without a gap."},
        "status": {"type": "string", "enum": list(STATUSES)},
        "lane": {**_TEXT_OR_NULL, "description": "null on a job's own events."},
        "ts": {**_TIME, "description": "The event's time, UTC, milliseconds."},
        "job_id": {**_TEXT_OR_NULL, "description": "null on an event of a lane."},
        "seq": {"type": "integer", "minimum": 1, "description": "The place in the job: from 1 up, without a gap."},
        "plan": _TEXT_OR_NULL,
        "plan_version": _NUMBER_OR_NULL,
        "reference": _TEXT_OR_NULL,
        "task_id": _TEXT_OR_NULL,
        "activity": _TEXT_OR_NULL,
        "attempt": _NUMBER_OR_NULL,
        "worker": _TEXT_OR_NULL,
        "actor": _TEXT_OR_NULL,
        "detail": {"type": "object", "description": "Depends on the status."},
        "type": {"type": "string", "examples": ["hms.task.done.v1"]},
        "event_id": {"type": "string", "examples": ["JOB-1.4"]},
        "received_at": {**_TIME, "description": "When ACT took it."},
    },
    "One event of the ledger. Fields of `data` that a later OMS adds follow `detail`.",
    is_open=True,
)

RESULT = _object(
    {
        "accepted": {**_COUNT, "description": "How many events were appended now."},
        "duplicates": {**_COUNT, "description": "How many the ledger had already, byte for byte."},
        "size": {**_COUNT, "description": "How many events the ledger has after this batch."},
        "results": {
            "type": "array",
            "items": _object(
                {
                    "id": {"type": "string"},
                    "index": {**_COUNT, "description": "The ledger's index of the event."},
                    "outcome": {"type": "string", "enum": ["appended", "duplicate"]},
                    "leaf_hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                },
                "What became of one event.",
            ),
        },
    },
    "All of the batch is on disk. One result per event, in its order.",
)

TASK = _object(
    {
        "task_id": {"type": "string"},
        "activity": _TEXT_OR_NULL,
        "lane": _TEXT_OR_NULL,
        "status": {"type": "string", "enum": list(TASK_STATUSES)},
        "attempt": {**_COUNT, "description": "0: not handed out yet."},
        "worker": {**_TEXT_OR_NULL, "description": "Of the attempt; null while it is queued."},
        "updated_at": _TIME,
    },
    "One task of the job.",
)

JOB = _object(
    {
        "job_id": {"type": "string"},
        "plan": _TEXT_OR_NULL,
        "plan_version": _NUMBER_OR_NULL,
        "reference": _TEXT_OR_NULL,
        "state": {"type": "string", "enum": list(JOB_STATES)},
        "seq": {"type": "integer", "minimum": 1, "description": "Of the last event that is counted in."},
        "first_at": _TIME,
        "updated_at": _TIME,
        "tasks": {"type": "array", "items": TASK},
    },
    "The state that the job's events add up to.",
)

READY = _object(
    {
        "status": {"type": "string", "const": "ready"},
        "size": _COUNT,
        "schema": {"type": "string"},
        "followers": _COUNT,
        "max_followers": _COUNT,
        "forks_refused": {**_COUNT, "description": "Since the start. Anything but 0 needs somebody to look."},
        "forks_recorded": {**_COUNT, "description": "Different ones, ever, of all processes: `GET /forks` shows them."},
    },
    "Events can be taken.",
)

READY["properties"]["fanout"] = _object(
    {
        "ok": {"type": "boolean"},
        "error": {"type": ["string", "null"]},
        "since": {"type": "string", "format": "date-time"},
        "publishes": {"type": "boolean", "description": "This process does so now; else another one, or none."},
        "position": {**_COUNT, "description": "The index that is published next."},
        "behind": {**_COUNT, "description": "Events that wait to be published."},
        "published": {**_COUNT, "description": "By this process, since its start."},
        "returned": {**_COUNT, "description": "Of these, those that no queue was bound for."},
    },
    "How the publishing to RabbitMQ goes; only where `ACT_AMQP_URL` is set.",
)

READY["properties"]["signing"] = _object(
    {
        "ok": {"type": "boolean"},
        "error": {"type": ["string", "null"]},
        "stopped": {"type": "boolean", "description": "It will not sign again before a restart: somebody must look."},
        "bad_index": {**_NUMBER_OR_NULL, "description": "The first entry that it concerns, if known."},
        "since": {"type": ["string", "null"], "format": "date-time"},
        "log": {"type": "string", "description": "The log's name."},
        "size": {**_NUMBER_OR_NULL, "description": "Of the last checkpoint."},
        "signed_at": {"type": ["string", "null"], "format": "date-time"},
        "behind": {**_COUNT, "description": "Events that no checkpoint covers yet."},
        "signs": {"type": "boolean", "description": "This process does so now; else another one, or none needs to."},
        "checkpoints_signed": {**_COUNT, "description": "By this process, since its start."},
    },
    "How the signing of checkpoints goes; not where `ACT_SIGNING_KEY` is `none`. Events are taken whatever it says.",
)

_EVENT_SCHEMA = EVENT.json_schema(ref_template="#/components/schemas/{model}")
COMPONENTS: dict[str, Schema] = {
    **_EVENT_SCHEMA.pop("$defs", {}),
    "Event": _EVENT_SCHEMA,
    "Row": ROW,
    "Job": JOB,
    "Problem": PROBLEM_SCHEMA,
}
"""Go into the document's ``components``, where the calls refer to them."""

_REFUSALS = {
    403: "A browser sent it from a page of another site.",
    404: "The ledger has nothing of that name: no event of this job, no such entry, tile or checkpoint.",
    409: "`fork`: the ledger has other bytes in an event's place. `gap`: an earlier event is missing; "
    "`expected_id` names the one that is expected.",
    413: f"More than {MAX_BATCH_BYTES:,} bytes, or more than {MAX_BATCH_EVENTS} events.",
    415: "The body is compressed.",
    422: "It cannot be read, or a value is not allowed; `errors` names the places.",
    500: "A fault of ACT's own.",
    503: "Not now; nothing was changed. `Retry-After` says when to try again.",
}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def answers(description: str, content: dict[str, Schema], *refusals: int) -> dict[int, Schema]:
    """Describe what a call answers: 200 with one of the contents, by their types, or a refusal."""
    found: dict[int, Schema] = {
        200: {"description": description, "content": {kind: {"schema": schema} for kind, schema in content.items()}}
    }
    for status in (*refusals, 500):
        found[status] = {
            "description": _REFUSALS[status],
            "content": {PROBLEM_CONTENT_TYPE: {"schema": _ref("Problem")}},
        }
    return found


def parameter(
    name: str, description: str, schema: Schema, *, where: str = "query", is_required: bool = False
) -> Schema:
    """Describe a parameter; one in the path is always required."""
    required = is_required or where == "path"
    return {"name": name, "in": where, "required": required, "description": description, "schema": schema}


_INDEX: Schema = {"type": "integer", "minimum": -1, "maximum": 10**18 - 1}
_NAME: Schema = {"type": "string", "minLength": 1, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$"}
_BATCH: Schema = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_EVENTS, "items": _ref("Event")}

POST_EVENTS: dict[str, Any] = {
    "tags": ["ledger"],
    "responses": answers(
        "Every event of the batch is on disk.", {"application/json": RESULT}, 403, 409, 413, 415, 422, 503
    ),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": "A JSON array of events, or one event. It is read as JSON whatever type it names.",
            "content": {
                BATCH_CONTENT_TYPE: {"schema": _BATCH},
                EVENT_CONTENT_TYPE: {"schema": _ref("Event")},
                "application/json": {"schema": {"anyOf": [_BATCH, _ref("Event")]}},
            },
        }
    },
}

GET_STREAM: dict[str, Any] = {
    "tags": ["ledger"],
    "responses": answers(
        "The rows, oldest first. Live: each row is an event whose `id` is the row's and whose `data` is the row.",
        {"application/json": {"type": "array", "items": _ref("Row")}, EVENT_STREAM: {"type": "string"}},
        404,
        422,
        503,
    ),
    "openapi_extra": {
        "parameters": [
            parameter("job", "One job's rows: all of them, unless `limit` is given.", _NAME),
            parameter("lane", "Rows of this lane; repeatable.", {"type": "array", "items": _NAME, "maxItems": 50}),
            parameter(
                "status",
                "Rows with this status; repeatable.",
                {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}},
            ),
            parameter("since", "Rows whose `ts` is this time or later (RFC 3339).", _TIME),
            parameter("until", "Rows whose `ts` is before this time (RFC 3339).", _TIME),
            parameter(
                "older_than_sec",
                "Rows whose `ts` is more than so many seconds ago. Not live.",
                {"type": "number", "minimum": 0, "maximum": 999_999_999_999},
            ),
            parameter(
                "view",
                "`latest`: one row per lane and status, the newest. Not live.",
                {"type": "string", "enum": ["latest"]},
            ),
            parameter(
                "limit",
                f"How many rows at most; without `job`, {DEFAULT_LIMIT} where it is not given. Not live.",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
            ),
            parameter("after", "Rows that come after the one with this id; -1: from the first.", _INDEX),
            parameter(
                "follow", "Live, as Server-Sent Events; as with `Accept: text/event-stream`.", {"type": "boolean"}
            ),
            parameter("Last-Event-ID", "Live: the id of the last row seen. Beats `after`.", _INDEX, where="header"),
        ]
    },
}

GET_EXPORT: dict[str, Any] = {
    "tags": ["ledger"],
    "responses": answers(
        "The file, streamed. The header `Act-Export` says what it covers, in JSON.",
        {
            "application/json": {"type": "object", "description": "OCEL 2.0, with our header as `act_export`."},
            "application/x-ndjson": {"type": "string"},
            "text/csv": {"type": "string"},
            "application/vnd.apache.parquet": {"type": "string", "format": "binary"},
        },
        404,
        422,
        503,
    ),
    "openapi_extra": {
        "parameters": [
            {
                **parameter("format", "How it is written.", {"type": "string", "enum": list(EXPORT_FORMATS)}),
                "required": True,
            },
            parameter("job", "One job's events only.", _NAME),
            parameter("stream", "One stream's events only: a job's, or a lane's own, as in LANE-clerk.", _NAME),
            parameter("since", "Events whose time is this one or later (RFC 3339).", _TIME),
            parameter("until", "Events whose time is before this one (RFC 3339).", _TIME),
        ]
    },
}

FORK = _object(
    {
        "id": {**_COUNT, "description": "From 0 up, in the order in which they came."},
        "event_id": {"type": "string", "examples": ["JOB-1.4"]},
        "stream": {"type": "string"},
        "seq": {"type": "integer", "minimum": 1, "description": "The place that it claims."},
        "index": {**_NUMBER_OR_NULL, "description": "The entry that has the place; null: another one of its batch."},
        "refused_at": _TIME,
        "event_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "event": {"type": "string", "description": "Its bytes."},
    },
    "An event that was refused because other bytes have its place.",
)

GET_FORKS: dict[str, Any] = {
    "tags": ["ledger"],
    "responses": answers("The forks, oldest first.", {"application/json": {"type": "array", "items": FORK}}, 422, 503),
    "openapi_extra": {
        "parameters": [
            parameter("after", "Forks that come after the one with this id; -1: from the first.", _INDEX),
            parameter("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": MAX_FORKS_LISTED}),
        ]
    },
}

GET_JOB: dict[str, Any] = {
    "tags": ["ledger"],
    "responses": answers("The job's state.", {"application/json": _ref("Job")}, 404, 422, 503),
}

GET_HEALTH: dict[str, Any] = {
    "tags": ["health"],
    "responses": answers(
        "It lives.", {"application/json": _object({"status": {"type": "string", "const": "ok"}}, "It lives.")}
    ),
}

GET_METRICS: dict[str, Any] = {
    "tags": ["health"],
    "responses": answers("Prometheus's text format.", {"text/plain": {"type": "string"}}),
}

GET_READY: dict[str, Any] = {
    "tags": ["health"],
    "responses": answers("Events can be taken.", {"application/json": READY}, 503),
}

GET_ROOT: dict[str, Any] = {
    "tags": ["health"],
    "responses": answers(
        "What this is.",
        {
            "application/json": _object(
                {name: {"type": "string"} for name in ("service", "version", "docs", "openapi")}, "What this is."
            )
        },
    ),
}
