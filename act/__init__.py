"""ACT, the flight log: an append-only ledger of every state change."""

__version__ = "0.1.0"
