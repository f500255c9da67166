"""The demo: both services, a passport office, and a check of the ledger; or the replay of a real event log."""

from oms.demo.run import run_demo

__all__ = ["run_demo"]
