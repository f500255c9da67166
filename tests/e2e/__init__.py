"""End to end: real processes, over HTTP."""
