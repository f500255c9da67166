"""The plumbing that both services share."""
