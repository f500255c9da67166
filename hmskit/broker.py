"""A connection to RabbitMQ that comes back by itself, and says how it is.

Nothing waits for the broker, and truth is never in it: whoever uses a `Link` must be able to do without. What is
particular about it, and what is done about it:

* A connection that died without a word is noticed by heartbeats (`HEARTBEAT_SEC`) only after some time; who uses it
  has proof of its own that messages go through, and says `Link.is_well` when it has that proof, not before.
* The client library answers a lost connection with `asyncio.CancelledError` in whoever waits for it. That is no
  cancellation of ours, and must not end the loop for good.
* Closing waits for the other side, which may be gone: it has a limit, like everything else here.
* The URL holds a password. Neither the logs nor the health have it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import structlog

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection

HEARTBEAT_SEC = 10
CONNECT_SEC = 10.0
CLOSE_SEC = 1.0
FIRST_BACKOFF_SEC = 0.05
MAX_BACKOFF_SEC = 5.0
EXTRA = "the RabbitMQ client is not installed: pip install 'hms-orchestration[rabbitmq]'"
BLOCKED = "the broker takes no messages: it has a memory or disk alarm"

log = structlog.get_logger(__name__)


class BrokerError(Exception):
    """The broker does not do what is needed; the message says what, in words."""


def read_amqp_url(value: object) -> object:
    """Check a setting that names a broker; an empty text is None. For a pydantic ``before`` validator.

    Raises:
        ValueError: it is no such URL, or the client is not installed. The message does not repeat it.
    """
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    example = "write it like amqp://user:password@host:5672/vhost"
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError:  # its text may hold a piece of the password
        raise ValueError(f"the URL cannot be read: {example}; in a password, write / as %2F and @ as %40") from None
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError(f"a broker's URL begins with amqp:// or amqps://: {example}")
    if not parts.hostname or port == 0 or "/" in parts.path[1:]:
        raise ValueError(f"the URL names no broker: {example}; in a vhost, write / as %2F")
    if find_spec("aio_pika") is None:
        raise ValueError(EXTRA)
    return value.strip()


@dataclass(frozen=True, slots=True)
class Health:
    """How a link is.

    Attributes:
        error: why it does not work; None while it does.
        since: when that began, RFC 3339 UTC.
    """

    error: str | None
    since: str

    def report(self) -> dict[str, Any]:
        """Return it as ``/readyz`` shows it."""
        return {"ok": self.error is None, "error": self.error, "since": self.since}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Link:
    """One connection to the broker, for as long as the service runs.

    Args:
        url: ``amqp://`` or ``amqps://``.
        name: what the broker's lists call the connection.
        use: uses an open connection, and returns or raises when it is of no more use. It must end soon when it is
            cancelled.
        random_unit: from 0 to below 1, for the backoff's jitter.

    Raises:
        BrokerError: the client is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        use: Callable[[AbstractConnection], Awaitable[None]],
        random_unit: Callable[[], float] = random.random,
    ) -> None:
        if find_spec("aio_pika") is None:
            raise BrokerError(EXTRA)
        self._url = url
        self._name = name
        self._use = use
        self._random_unit = random_unit
        self._failures = 0
        self._well_at: float | None = None
        self.health = Health("not connected yet", _now())

    async def run(self) -> None:
        """Connect, use the connection, and again when it is lost. Returns only by being cancelled."""
        while True:
            try:
                await self._connect_and_use()
                error: BaseException = BrokerError("the connection was closed")
            except Exception as failed:  # noqa: BLE001 - a fault of ours must not end it for good; it is shown
                error = failed
            except asyncio.CancelledError as cancelled:
                if _is_being_cancelled():
                    raise
                error = cancelled
            self.is_failing(self._in_words(error))
            await asyncio.sleep(self._backoff_sec())

    def is_well(self) -> None:
        """Note that messages go through: called by who uses the connection, as often as it likes."""
        if self._well_at is None:
            self._well_at = time.monotonic()
        if self.health.error is not None:
            log.info("broker_works", link=self._name, was=self.health.error)
            self.health = Health(None, _now())

    def is_failing(self, error: str) -> None:
        """Note that messages do not go through now; the connection may still be of use."""
        if self.health.error != error:
            log.warning("broker_fails", link=self._name, detail=error)
            self.health = Health(error, _now() if self.health.error is None else self.health.since)

    async def _connect_and_use(self) -> None:
        from aio_pika.connection import Connection, make_url  # noqa: PLC0415 - an extra

        for noisy in ("aio_pika", "aiormq"):
            # They log every lost connection with a stack, and every frame; what matters is in our own lines.
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        self._well_at = None
        heartbeat = parse_qs(urlsplit(self._url).query).get("heartbeat", [HEARTBEAT_SEC])[0]
        connection = Connection(
            make_url(self._url, heartbeat=heartbeat), client_properties={"connection_name": self._name}
        )
        try:
            async with asyncio.timeout(CONNECT_SEC):
                await connection.connect()
            await self._use(connection)
        finally:
            await _close(connection)

    def _backoff_sec(self) -> float:
        """Return how long to wait before the next try: full jitter, and short again after it has worked a while."""
        if self._well_at is not None and time.monotonic() - self._well_at > MAX_BACKOFF_SEC:
            self._failures = 0
        ceiling_sec = min(MAX_BACKOFF_SEC, FIRST_BACKOFF_SEC * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._random_unit() * ceiling_sec

    def _in_words(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            text = "the broker does not answer"
        elif isinstance(error, asyncio.CancelledError):
            text = "the connection was lost"
        else:
            text = str(error) or type(error).__name__
            if "Connection.OpenOk" in text:  # what the client makes of the refusal does not say why
                text = "the broker refuses the vhost: it does not exist, or the user has no permission for it"
        password = urlsplit(self._url).password
        for secret in (password, unquote(password or "")):
            text = text.replace(secret, "***") if secret else text
        return " ".join(text.split())


async def is_blocked(connection: AbstractConnection) -> bool:
    """Tell whether the broker has said that it takes no messages (``connection.blocked``)."""
    if connection.transport is None:
        return False
    try:
        async with asyncio.timeout(0):
            await connection.transport.ready()  # returns at once where it is not blocked
    except TimeoutError:
        return True
    return False


async def _close(connection: AbstractConnection) -> None:
    """Close the connection, for so long at most; whatever comes of it, it is not used any more."""
    try:
        async with asyncio.timeout(CLOSE_SEC):
            await connection.close()
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise
    except Exception:  # noqa: BLE001, S110 - it was lost before, or nobody answers: there is nothing to do about it
        pass
    await connection.close()  # after a failed one, this only marks it as closed


def _is_being_cancelled() -> bool:
    """Tell a cancellation of the running task from the one that the client raises for a lost connection."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
