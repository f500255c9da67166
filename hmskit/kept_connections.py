"""Connections that are kept for the next transaction, instead of being taken from the engine's pool for each.

SQLAlchemy's pool makes a new object for each connection it lends, and resets it when it comes back: that costs more
than to begin and commit. A connection that a block leaves in order is kept for the next one; any other goes back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine


class KeptConnections:
    """Lends connections of an engine, one block's at a time, from any thread. ``close`` gives back what is kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._free: list[Connection] = []
        self._waiting = 0
        self._is_closed = False

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection without a transaction. Where the block raises, or leaves one open, it is not kept.

        Raises:
            DBAPIError: the database cannot be reached.
            sqlalchemy.exc.TimeoutError: as many as the engine's pool has are lent, and none came back.
        """
        connection = self._take()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if connection.closed or connection.invalidated or connection.in_transaction() or not self._keep(connection):
            connection.close()

    def close(self) -> None:
        """Give back what is kept, and keep nothing from now on."""
        self._is_closed = True
        self.give_back()

    def give_back(self) -> None:
        """Give the pool back what is kept: somebody else needs a connection of the engine."""
        with self._lock:
            kept, self._free = self._free, []
        for connection in kept:
            connection.close()

    def _take(self) -> Connection:
        with self._lock:
            if self._free:
                return self._free.pop()
            self._waiting += 1
        try:
            return self._engine.connect()
        finally:
            with self._lock:
                self._waiting -= 1

    def _keep(self, connection: Connection) -> bool:
        """Keep a connection; False where others wait for the pool to have one, or nothing is kept any more."""
        with self._lock:
            if self._waiting or self._is_closed:
                return False
            self._free.append(connection)
            return True
