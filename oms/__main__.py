"""``python -m oms``."""

from oms.cli import main

main()
