"""``python -m act``."""

from act.cli import main

main()
