"""Try a plan: walk a job through it with the real verbs, on a temporary database and a clock that jumps."""
