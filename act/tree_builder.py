"""Bring the tree on where it is behind: in a ledger that is older than it, or that an older release appends to.

Page by page, between the appends; the ledger takes events all the while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from act.domain.errors import UnavailableError
from act.ledger import Ledger
from act.storage.tree import behind

PAGE = 5_000
"""How many entries are added at once: appends wait for as long as that takes."""
LOOK_SEC = 1.0
SAY_EVERY_SEC = 5.0

log = structlog.get_logger(__name__)


async def keep_up(ledger: Ledger, *, steady: Callable[[], float] = time.monotonic) -> None:
    """Look every second; returns only by being cancelled. While it has much to do, it logs how far it is."""
    while True:
        try:
            left = await ledger.read(behind)
            said_at = steady()
            while left > 0:
                left = await ledger.grow_tree(count=PAGE)
                if steady() - said_at >= SAY_EVERY_SEC:
                    said_at = steady()
                    log.info("tree_grows", entries_left=left)
        except UnavailableError as error:
            log.info("tree_waits", why=error.detail)
        await asyncio.sleep(LOOK_SEC)
