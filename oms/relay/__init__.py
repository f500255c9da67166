"""The relay: outbox to ACT, at least once, in order per job."""
