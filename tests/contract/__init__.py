"""The event contract: golden events, kept for ever."""
