"""``python -m act``."""

from act.cli import main

if __name__ == "__main__":  # a process that this one starts imports it by another name
    main()
