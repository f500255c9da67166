"""Canonical JSON, and the keyed digests by which the ledger speaks of values that it must not hold."""

from __future__ import annotations

import hmac
import json
from typing import Any

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def canonical_json(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Write a JSON value the one way: sorted keys, no blanks. Equal texts are equal values, whatever their order."""
    return _encode(value)


def keyed_digest(key: bytes, text: str) -> str:
    """Return HMAC-SHA-256 of ``text`` under a job's own random key, in lower-case hex.

    A plain hash of a passport number could be found by trying them all; without the key this cannot, and once
    the key is destroyed nobody can (RFC 2104).
    """
    return hmac.digest(key, text.encode(), "sha256").hex()
