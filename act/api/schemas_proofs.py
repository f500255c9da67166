"""What OpenAPI says of the calls for proofs."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from act.api.schemas import Schema, answers, parameter

_TEXT: dict[str, Schema] = {"text/plain; charset=utf-8": {"type": "string"}}
_BYTES: dict[str, Schema] = {"application/octet-stream": {"type": "string", "format": "binary"}}
_NUMBER: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}

GET_CHECKPOINT: dict[str, Any] = {
    "tags": ["proofs"],
    "response_class": Response,
    "responses": answers("The signed note.", _TEXT, 422, 503),
}

GET_TILE: dict[str, Any] = {
    "tags": ["proofs"],
    "response_class": Response,
    "responses": answers("Its bytes.", _BYTES, 404, 422, 503),
}

GET_INCLUSION: dict[str, Any] = {
    "tags": ["proofs"],
    "response_class": Response,
    "responses": answers("The proof file.", _TEXT, 404, 422, 503),
    "openapi_extra": {
        "parameters": [parameter("index", "The entry's index in the ledger.", _NUMBER, is_required=True)]
    },
}

GET_CONSISTENCY: dict[str, Any] = {
    "tags": ["proofs"],
    "response_class": Response,
    "responses": answers("The body for `add-checkpoint`.", _TEXT, 404, 422, 503),
    "openapi_extra": {
        "parameters": [
            parameter("from", "The size of the earlier tree; 0: none.", _NUMBER, is_required=True),
            parameter("to", "The size of a checkpoint; without it, of the newest.", _NUMBER),
        ]
    },
}
