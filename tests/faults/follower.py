"""A reader that follows the ledger live through everything that happens to it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx

from tests.faults.clients import AGAIN_SEC, Way, check_not_now


class Follower:
    """Follows the whole ledger; comes back with ``Last-Event-ID``, to another process, when a stream ends.

    Args:
        http: for any address; without a limit on how long a stream may be silent.
        way: to the ledgers.

    Attributes:
        rows: what it has seen.
        streams: how many streams it took.
    """

    def __init__(self, http: httpx.AsyncClient, way: Way) -> None:
        self._http = http
        self._way = way
        self.rows: list[dict[str, Any]] = []
        self.streams = 0

    async def run(self) -> None:
        """Follow until cancelled.

        Raises:
            AssertionError: a row is missing, comes twice, or comes out of its order.
        """
        while True:
            with suppress(httpx.HTTPError):
                await self._follow()
            self._way.turn()
            await asyncio.sleep(AGAIN_SEC)

    async def until(self, size: int) -> None:
        """Wait until so many rows were seen."""
        while len(self.rows) < size:  # noqa: ASYNC110 - the rows come one by one, and many
            await asyncio.sleep(AGAIN_SEC)

    async def _follow(self) -> None:
        headers = {"accept": "text/event-stream"}
        if self.rows:
            headers["last-event-id"] = str(self.rows[-1]["id"])
        async with self._http.stream("GET", f"{self._way.url}/stream", headers=headers) as answer:
            if answer.status_code == 503:
                await answer.aread()
                check_not_now(answer)
                return
            assert answer.status_code == 200, answer.status_code
            self.streams += 1
            number: str | None = None
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "id":
                    number = value
                elif field == "data":
                    self._take(number, json.loads(value))

    def _take(self, number: str | None, row: dict[str, Any]) -> None:
        assert str(row["id"]) == number, f"row {row['id']} came as {number}"
        assert row["id"] == len(self.rows), f"row {row['id']} came as number {len(self.rows)}"
        self.rows.append(row)
