"""OCEL 2.0, as JSON: the ledger for process mining, with its jobs, tasks, lanes and workers as objects.

An event is of the type "<activity> <status>" (a job's own "job <status>"): what a mined model shows as its boxes. Its
values are texts, as the published JSON schema has them; what they are is declared by the types.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from act.contract import format_time_ms
from act.export.covering import Header
from act.export.rows import Row

EVENT_ATTRIBUTES = {
    "index": "integer",
    "seq": "integer",
    "type": "string",
    "status": "string",
    "activity": "string",
    "lane": "string",
    "attempt": "integer",
    "worker": "string",
    "actor": "string",
    "detail": "string",
    "received_at": "time",
    "leaf_hash": "string",
}
OBJECT_ATTRIBUTES = {
    "job": {"plan": "string", "plan_version": "integer", "reference": "string"},
    "task": {"activity": "string"},
    "lane": {},
    "worker": {},
}
ALWAYS = "1970-01-01T00:00:00Z"
"""From when an attribute has its value that never changes: the format's own way to say so."""
_PLAIN_NAMES = {"job": re.compile("JOB-[0-9]+"), "task": re.compile("TASK-[0-9]+")}
_CHUNK = 1_000


class Ocel:
    """Writes the document: the events as they come; the objects, kept on disk until then, after them."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._separator = b""
        # A name of "" is SQLite's for a database on disk that goes with its connection.
        self._seen = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._seen.execute("PRAGMA journal_mode=OFF")
        self._seen.execute(
            "CREATE TABLE objects (kind TEXT, name TEXT, facts BLOB, PRIMARY KEY (kind, name)) WITHOUT ROWID"
        )
        self._seen.execute("CREATE TABLE event_types (name TEXT PRIMARY KEY) WITHOUT ROWID")

    def begin(self) -> bytes:
        """Return the document's beginning: our header is a key of its own, which readers pass over."""
        return b'{"act_export":' + self._header.json() + b',\n"events":['

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return the rows' events."""
        if not rows:
            return b""
        events = b",\n".join(to_json(self._event(row)) for row in rows)
        separator, self._separator = self._separator, b",\n"
        return separator + events

    def end(self) -> Iterator[bytes]:
        """Yield the objects and the types."""
        yield b'],\n"objects":['
        separator = b""
        found = self._seen.execute("SELECT kind, name, facts FROM objects")
        while some := found.fetchmany(_CHUNK):
            yield separator + b",\n".join(to_json(_object(kind, name, from_json(facts))) for kind, name, facts in some)
            separator = b",\n"
        yield b'],\n"objectTypes":' + to_json([_declared(*declared) for declared in OBJECT_ATTRIBUTES.items()])
        yield b',\n"eventTypes":['
        separator = b""
        names = self._seen.execute("SELECT name FROM event_types")
        while some := names.fetchmany(_CHUNK):
            yield separator + b",\n".join(to_json(_declared(name, EVENT_ATTRIBUTES)) for (name,) in some)
            separator = b",\n"
        yield b"]}\n"

    def close(self) -> None:
        """Forget the objects."""
        self._seen.close()

    def _event(self, row: Row) -> dict[str, Any]:
        facts = row.facts
        kind = f"{facts.activity or facts.entity} {facts.status}"
        self._seen.execute("INSERT OR IGNORE INTO event_types VALUES (?)", (kind,))
        job = {"plan": facts.plan, "plan_version": facts.plan_version, "reference": facts.reference}
        task = {"activity": facts.activity, "job": facts.job_id}
        related: list[tuple[str, str | None, dict[str, Any]]] = [
            ("job", facts.job_id, job),
            ("task", facts.task_id, task),
        ]
        related += [("lane", facts.lane, {}), ("worker", facts.worker, {})]
        values = {
            "index": facts.idx,
            "seq": facts.seq,
            "type": row.type,
            "status": facts.status,
            "activity": facts.activity,
            "lane": facts.lane,
            "attempt": facts.attempt,
            "worker": facts.worker,
            "actor": facts.actor,
            "detail": facts.detail,
            "received_at": format_time_ms(facts.received_us // 1000),
            "leaf_hash": row.leaf_hash.hex(),
        }
        return {
            "id": facts.event_id,
            "type": kind,
            "time": format_time_ms(facts.ts_ms),
            "attributes": [{"name": name, "value": str(value)} for name, value in values.items() if value is not None],
            "relationships": [
                self._relationship(kind, name, about) for kind, name, about in related if name is not None
            ],
        }

    def _relationship(self, kind: str, name: str, about: dict[str, Any]) -> dict[str, str]:
        self._seen.execute("INSERT OR IGNORE INTO objects VALUES (?, ?, ?)", (kind, name, to_json(about)))
        return {"objectId": _id(kind, name), "qualifier": kind}


def _id(kind: str, name: str) -> str:
    """Return an object's id. Jobs and tasks keep their names; a lane could be called like one of them."""
    plain = _PLAIN_NAMES.get(kind)
    return name if plain is not None and plain.fullmatch(name) else f"{kind}:{name}"


def _object(kind: str, name: str, about: dict[str, Any]) -> dict[str, Any]:
    job = about.pop("job", None)
    return {
        "id": _id(kind, name),
        "type": kind,
        "attributes": [
            {"name": key, "time": ALWAYS, "value": str(value)} for key, value in about.items() if value is not None
        ],
        "relationships": [] if job is None else [{"objectId": _id("job", job), "qualifier": "of"}],
    }


def _declared(name: str, attributes: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "attributes": [{"name": key, "type": kind} for key, kind in attributes.items()]}
