r"""Read an event of a job that is written as `act.contract.encode_event` writes it, with one regular expression.

OMS posts nothing else, and reading such an event costs a third of what parsing and validating any JSON does. The
expression admits only bytes that are the event's one plain form (no escape in a text, no white space, every key once
and in its place), and that `act.contract.EVENT` takes; it says nothing of what it does not admit. A property test
holds the two readers equal.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json, to_json

from act.contract import JOB_SOURCE, LANE_PREFIX, MAX_BATCH_EVENTS, MAX_EVENT_BYTES, STATUSES, parse_time_ms
from act.domain.split import MAX_DEPTH

_START = b'{"specversion":"1.0","id":"'
_BETWEEN = b"," + _START

# What stands between two quotes as it is read: no escape, and no control character, which the contract refuses.
_PLAIN_CHARACTER = r'[^"\\\x00-\x1f\x7f-\x9f]'
_TEXT = _PLAIN_CHARACTER + "{1,500}+"
_TEXT_OR_NULL = f'(?:null|"({_TEXT})")'
_COUNT = "[1-9][0-9]{0,14}"  # far below the contract's 2**53, and written in one way only
_SHORT_DETAIL = rf'\{{(?:"[a-z_]{{1,50}}":(?:"{_PLAIN_CHARACTER}*+"|0|{_COUNT}))?\}}'

_EVENT = re.compile(
    r'\{"specversion":"1\.0"'
    # The stream ends at the last dot. A lane's is percent-encoded in its source: those few are left to the others.
    rf',"id":"((?!{LANE_PREFIX})({_PLAIN_CHARACTER}{{1,400}})\.([1-9][0-9]{{0,17}}))"'
    rf',"source":"{JOB_SOURCE}\2"'
    rf',"type":"hms\.(job|task|step|lane)\.({"|".join(STATUSES)})\.v1"'
    rf',"subject":"({_TEXT})"'
    rf',"time":"({_TEXT})"'
    r',"sequence":"(?=[0-9]{20}")0*+\3"'
    rf'(?:,"traceparent":"{_TEXT}")?'
    r',"datacontenttype":"application/json"'
    r',"data":\{"job_id":"\2"'
    rf',"plan":{_TEXT_OR_NULL}'
    rf',"plan_version":(?:null|({_COUNT}))'
    rf',"reference":{_TEXT_OR_NULL}'
    rf',"task_id":{_TEXT_OR_NULL}'
    rf',"activity":{_TEXT_OR_NULL}'
    rf',"lane":{_TEXT_OR_NULL}'
    r',"status":"\5"'
    rf',"attempt":(?:null|(0|{_COUNT}))'
    rf',"worker":{_TEXT_OR_NULL}'
    rf',"actor":{_TEXT_OR_NULL}'
    rf',"detail":(?:({_SHORT_DETAIL})|(\{{.*\}}))\}}\}}'
)


def cut(body: bytes) -> list[bytes] | None:
    """Cut an array where an event begins as `encode_event` begins it; None for any other body, and one too long.

    Where each piece is one JSON value, they are the array's elements: put together again, they are the body. Whether
    each is one, the caller finds out.
    """
    if not body.startswith(b"[" + _START) or not body.endswith(b"]"):
        return None
    first, *others = body[1:-1].split(_BETWEEN, MAX_BATCH_EVENTS)
    return None if len(others) == MAX_BATCH_EVENTS else [first, *[_START + piece for piece in others]]


def plain_values(raw: bytes) -> tuple[Any, ...] | None:
    """Return the values of `act.domain.posted.FACTS` of an event; None where it is not in the plain form of a job's.

    Bytes of which it returns values are one JSON object, which `act.domain.split` and `act.contract.EVENT` take.
    """
    try:
        found = _EVENT.fullmatch(raw.decode()) if len(raw) <= MAX_EVENT_BYTES else None
        if found is None:
            return None
        (
            event_id, stream, seq, entity, status, subject, time,
            plan, plan_version, reference, task_id, activity, lane, attempt, worker, actor, short_detail, detail,
        ) = found.groups()  # fmt: skip
        ts_ms = parse_time_ms(time)
    except ValueError:  # no UTF-8, or no time
        return None
    if (entity == "task" and subject != task_id) or (detail is not None and not _is_plain(detail)):
        return None
    return (
        stream,
        int(seq),
        event_id,
        ts_ms,
        entity,
        status,
        stream,
        lane,
        plan,
        None if plan_version is None else int(plan_version),
        reference,
        task_id,
        activity,
        None if attempt is None else int(attempt),
        worker,
        actor,
        short_detail or detail,
        None,
    )


def _is_plain(detail: str) -> bool:
    """Tell whether a text that begins and ends like an object is one, nested no deeper than an event's may, and plain.

    Written again it reads the same: so no key occurs twice, nor is there a number that two readers could take
    differently. An escape may be half a surrogate pair, or NUL.
    """
    if "\\u" in detail or detail.count("{") + detail.count("[") > MAX_DEPTH - 2:
        return False
    try:
        return to_json(from_json(detail, allow_inf_nan=False)) == detail.encode()
    except ValueError:
        return False
