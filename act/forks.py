"""The forks that were refused: counted, kept in the database, and logged so that somebody looks.

Two histories of one job are a bug, a restored backup, or somebody who lies. What was refused stands in the table
``forks`` beside the answer that refused it: the count since the start forgets, the table does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from act.domain.errors import ForkError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Forks:
    """What a process knows of them.

    Attributes:
        recorded: how many different ones the ledger's database keeps, of all processes and times.
        refused: how often this process has refused one since its start; a producer that tries again counts again.
    """

    recorded: int
    refused: int = 0

    def note(self, error: ForkError) -> None:
        """Count one that was just refused, and raise the alarm."""
        self.refused += 1
        log.error("fork_refused", **error.members)
