"""An event as a message: its routing key, its id, its headers. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from act.contract import EVENT_CONTENT_TYPE

if TYPE_CHECKING:
    from aio_pika import Message

    from act.storage.fanout import Outgoing

INDEX_HEADER = "ledger_index"
NO_NAME = "-"
MAX_WORD_BYTES = 100
"""A routing key has 255 bytes at most: plan and lane share them, the status is short."""
MAX_ID_BYTES = 255
_DIGEST_CHARS = 16

# Dots part the words of a routing key, and * and # stand for words in a binding; the % that marks them must be told
# from one that was there.
_UNSAFE = str.maketrans({char: f"%{ord(char):02X}" for char in "%.*#"})


def routing_key(event: Outgoing) -> str:
    """Return ``<plan>.<lane>.<status>``: always three words.

    What an event does not have (a job's own have no lane) is ``-``. In names ``%``, ``.``, ``*`` and ``#`` are written
    as ``%25``, ``%2E``, ``%2A`` and ``%23``; a name that is longer than `MAX_WORD_BYTES` then is cut, and ends with
    ``~`` and a digest of the whole.
    """
    return f"{_word(event.plan)}.{_word(event.lane)}.{event.status}"


def message_of(event: Outgoing) -> Message:
    """Return the message: its body is the event's bytes as they were posted."""
    from aio_pika import DeliveryMode, Message  # noqa: PLC0415 - an extra, imported only where a URL is set

    return Message(
        event.raw,
        content_type=EVENT_CONTENT_TYPE,
        message_id=_cut(event.event_id, MAX_ID_BYTES),
        delivery_mode=DeliveryMode.PERSISTENT,
        headers={INDEX_HEADER: event.index},
    )


def _word(name: str | None) -> str:
    if name is None:
        return NO_NAME
    if name == NO_NAME:
        return f"%{ord(NO_NAME):02X}"
    return _cut(name.translate(_UNSAFE), MAX_WORD_BYTES)


def _cut(text: str, most_bytes: int) -> str:
    """Return the text, or where it is too long its beginning and a digest, so that different texts stay different."""
    raw = text.encode()
    if len(raw) <= most_bytes:
        return text
    digest = hashlib.sha256(raw).hexdigest()[:_DIGEST_CHARS]
    return f"{raw[: most_bytes - _DIGEST_CHARS - 1].decode(errors='ignore')}~{digest}"
