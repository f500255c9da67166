"""Moments on a wall clock, for tests of lanes with hours."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

NEW_YORK = "America/New_York"


def at(text: str, zone: str = NEW_YORK) -> int:
    """Return the moment of a local time such as ``2025-11-21 17:00``, milliseconds since the epoch."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def utc(ms: int) -> str:
    """Return a moment as the API shows it."""
    moment = datetime.fromtimestamp(ms / 1000, ZoneInfo("UTC"))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"
