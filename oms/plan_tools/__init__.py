"""Tools for those who write plans: draw one, and walk a job through it without a server."""
