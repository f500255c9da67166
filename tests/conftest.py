"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import sys

pytest_plugins = ["tests.databases"]

if importlib.util.find_spec("sniffio") is None:
    # httpx asks for it at each request to an application in the process, and Python then looks through its whole path.
    sys.modules["sniffio"] = None  # type: ignore[assignment]
