"""What a figure depends on: the versions, the machine, its disk, and the settings."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

import oms
from hmskit.sqlite import CACHE_KIB, writer_engine

PACKAGES = (
    "fastapi",
    "starlette",
    "pydantic",
    "pydantic-core",
    "uvicorn",
    "uvloop",
    "httptools",
    "sqlalchemy",
    "cel-expr-python",
    "jsonschema-rs",
)
_APPEND = b"\0" * 4096
_IN_MEMORY = ("tmpfs", "ramfs")
_SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


def versions() -> dict[str, str | None]:
    """Return the versions of all that has a part in it."""
    found: dict[str, str | None] = {
        "oms": oms.__version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def machine() -> dict[str, Any]:
    """Return what the machine is; None for what it does not say."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = _line_of(Path("/proc/meminfo"), "MemTotal")
    return {
        "cpu": _line_of(Path("/proc/cpuinfo"), "model name") or platform.processor() or None,
        "cores": cores,
        "memory_mib": None if memory is None else int(memory.split()[0]) // 1024,
        "kernel": f"{platform.system()} {platform.release()}",
    }


def disk(folder: Path, *, seconds: float) -> dict[str, Any]:
    """Append 4 KiB and sync, again and again; return how often a second, and the file system."""
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    file = folder / "sync.probe"
    count = 0
    with file.open("ab", buffering=0) as out:
        began = time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            out.write(_APPEND)
            sync(out.fileno())
            count += 1
    file.unlink()
    kind = _file_system(folder)
    return {"fdatasync_per_sec": count / took, "file_system": kind, "in_memory": kind in _IN_MEMORY}


def settings(folder: Path, *, towers: int = 1) -> dict[str, Any]:
    """Return the settings that decide, as a SQLite database says them that is opened as the services open theirs."""
    file = folder / "settings.probe"
    engine = writer_engine(make_url(f"sqlite:///{file}"))
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous")
        }
    engine.dispose()
    for path in folder.glob(f"{file.name}*"):
        path.unlink()
    return {
        "journal_mode": pragmas["journal_mode"],
        "synchronous": _SYNCHRONOUS.get(pragmas["synchronous"], pragmas["synchronous"]),
        "cache_kib_per_connection": CACHE_KIB,
        "processes": f"{towers} OMS, one ACT, one no-op, each with one event loop; the load in a process of its own",
        "server": "uvicorn, httptools, uvloop where it is there; no access log",
    }


def _line_of(file: Path, name: str) -> str | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _file_system(folder: Path) -> str | None:
    """Return the kind of file system that a folder is on; None where there is no ``/proc``."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    path = folder.resolve()
    above = [mount for mount in mounts if path.is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2] if above else None
