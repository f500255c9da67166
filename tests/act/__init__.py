"""ACT: its rules, its database, its HTTP, and the process as users run it."""
