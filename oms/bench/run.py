"""``oms bench``: start what is measured, measure, and say so."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from oms.bench.backlog import measure_backlog
from oms.bench.connection import address_of
from oms.bench.context import Bench
from oms.bench.databases import Databases
from oms.bench.delivery import measure_catch_up, measure_lag, measure_relay
from oms.bench.driver import LoadError
from oms.bench.figures import median_of
from oms.bench.growth import measure_ledger
from oms.bench.load import allow_connections
from oms.bench.machine import disk, machine, settings, versions
from oms.bench.progress import Progress
from oms.bench.report import print_report
from oms.bench.sizes import FULL, QUICK, Size
from oms.bench.soak import measure_idle, measure_soak
from oms.bench.target import OwnTarget, Target, TargetError
from oms.bench.targets import SERVICES, verdicts
from oms.bench.throughput import measure_throughput
from oms.bench.waiting import measure_handoff, measure_parked
from oms.demo.pair import ServiceDiedError, ServiceProcess
from oms.demo.run import PLAIN_WIDTH, stoppable

FORMAT = 1
"""Of the JSON: counted up where a key's meaning changes."""
_INTERRUPTED = 130
_SPARE_FILES = 200
_EXPECTED = (LoadError, OSError, ServiceDiedError, TargetError)


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of measurement.

    Attributes:
        name: in the JSON, and for ``--only``.
        title: in words.
        measure: does it.
        needs: ``services``: that they are ours; ``act``: that ACT's address is known; None: just OMS.
        quick_sec: about how long it takes in the quick run: there, what would end too late is not begun.
        is_asked_for: it is made only where it is named.
    """

    name: str
    title: str
    measure: Callable[[Bench], dict[str, Any]]
    quick_sec: float
    needs: str | None = None
    is_asked_for: bool = False


SECTIONS = (
    Section("idle", "the services idle", measure_idle, 1, "services"),
    Section("throughput", "throughput, in turns with the no-op", measure_throughput, 15),
    Section("handoff", "parked pulls, little load", measure_handoff, 2),
    Section("parked", "many parked pulls", measure_parked, 4),
    Section("backlog", "cost by backlog, in turns", measure_backlog, 14, "services"),
    Section("lag", "the ledger's lag", measure_lag, 3, "act"),
    Section("relay", "with and without relay and ACT, in turns", measure_relay, 5, "services"),
    Section("ledger", "cost by ledger size, in turns", measure_ledger, 7, "services"),
    Section("catch_up", "catch-up after an outage", measure_catch_up, 6, "services"),
    Section("soak", "memory under a long load", measure_soak, 10, "services", is_asked_for=True),
)


def run_bench(
    *,
    quick: bool = False,
    oms_url: str | None = None,
    act_url: str | None = None,
    seconds: float | None = None,
    json_file: Path | None = None,
    only: Sequence[str] = (),
    size: Size | None = None,
    servers: tuple[str | None, str | None] = (None, None),
    towers: int = 1,
) -> int:
    """Measure; print tables, then one line of JSON.

    Args:
        quick: a reduced run, within a minute.
        oms_url: measure the OMS there, from outside, and leave the benchmark's plans and jobs in it.
        act_url: its ACT.
        seconds: of each throughput measurement.
        json_file: written too, indented.
        only: the sections to measure; empty: all of the run.
        size: takes the place of both runs' sizes.
        servers: PostgreSQL servers for OMS's and ACT's databases; None: SQLite files.
        towers: how many OMS share the throughput's load.

    Returns:
        The exit status: 0 where it could be measured, whatever came out.
    """
    size = size or (QUICK if quick else FULL)
    if seconds is not None:
        size = replace(size, seconds=seconds)
    complaints = Console(stderr=True)
    try:
        _check_arguments(oms_url, act_url, only)
        if towers > 1 and servers[0] is None:
            raise ValueError("--towers needs --oms-database-url: a SQLite file is one process's alone")
        databases = Databases(*servers)
        with stoppable(), tempfile.TemporaryDirectory(prefix="oms-bench-") as folder, closing(databases):
            report = _run(size, Path(folder), (oms_url, act_url), only, complaints, databases=databases, towers=towers)
    except KeyboardInterrupt:
        complaints.print("stopped; the services have ended and their folder is gone", highlight=False)
        return _INTERRUPTED
    except ValueError as error:
        complaints.print(f"oms: {error}", highlight=False, markup=False, soft_wrap=True)
        return 2
    except _EXPECTED as error:
        complaints.print(f"oms: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    found = verdicts(report["results"])
    report["targets"] = [asdict(verdict) for verdict in found]
    print_report(console, report, found)
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _check_arguments(oms_url: str | None, act_url: str | None, only: Sequence[str]) -> None:
    if act_url is not None and oms_url is None:
        raise ValueError("--act goes with --oms: name both, or none for a pair of its own")
    for url in (oms_url, act_url):
        if url is not None:
            address_of(url)
    known = [section.name for section in SECTIONS]
    for name in only:
        if name not in known:
            raise ValueError(f"--only {name}: there is no such measurement; there are {', '.join(known)}")


def _run(
    size: Size,
    folder: Path,
    urls: tuple[str | None, str | None],
    only: Sequence[str],
    complaints: Console,
    *,
    databases: Databases,
    towers: int,
) -> dict[str, Any]:
    began_at = datetime.now(UTC)
    files = allow_connections()
    if size.parked + _SPARE_FILES > files:
        size = replace(size, parked=max(1, files - _SPARE_FILES))
    about = {"versions": versions(), "machine": machine(), "settings": settings(folder, towers=towers)}
    about["settings"]["databases"] = databases.describe()
    about["disk"] = disk(folder, seconds=size.sync_sec)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(complaints))
        progress.begin(f"{size.name} run: starting")
        noop = ServiceProcess("oms.bench.noop", folder, [])
        stack.callback(noop.stop, kill=True)
        noop.start()
        main = _main_target(stack, folder, urls, databases=databases, towers=towers)
        bench = Bench(size, folder, noop, main, progress, databases=databases)
        stack.enter_context(bench.driver)
        if not bench.owns_services:
            bench.note(
                "the services are not ours: what needs their processes is left out; the no-op ran on this machine"
            )
        if about["disk"]["in_memory"]:
            bench.note(f"the data is on a {about['disk']['file_system']}: nothing reaches a disk; set TMPDIR")
        _measure(bench, only)
    return {
        "bench": FORMAT,
        "size": size.name,
        "began_at": began_at.isoformat(timespec="seconds"),
        "took_sec": progress.passed_sec,
        **about,
        "sizes": asdict(size),
        "sections_sec": bench.sections_sec,
        "results": bench.results,
        "notes": bench.notes,
    }


def _main_target(
    stack: ExitStack, folder: Path, urls: tuple[str | None, str | None], *, databases: Databases, towers: int
) -> Target:
    oms_url, act_url = urls
    if oms_url is None:
        return stack.enter_context(OwnTarget(folder / "main", databases, towers=towers))
    target = stack.enter_context(Target(oms_url, act_url))
    target.put_plans()
    if act_url is not None:
        target.ledger_size()
    return target


def _measure(bench: Bench, only: Sequence[str]) -> None:
    for section in SECTIONS:
        if section.name not in only and (only or section.is_asked_for):
            continue
        has = {None: True, "services": bench.owns_services, "act": bench.main.act_url is not None}[section.needs]
        if not has:
            bench.note(f"not measured from outside: {section.title}")
        elif bench.size.limit_sec is not None and bench.progress.passed_sec + section.quick_sec > bench.size.limit_sec:
            bench.note(f"not measured, the time was over: {section.title}")
        else:
            bench.progress.begin(section.title)
            began_sec = bench.progress.passed_sec
            bench.results[section.name] = section.measure(bench)
            bench.sections_sec[section.name] = bench.progress.passed_sec - began_sec
    if isinstance(bench.main, OwnTarget):
        starts = [bench.main.start_up_sec, *bench.start_ups]
        bench.results["start_up"] = {
            name: median_of([start_up.get(name) for start_up in starts]) for name in SERVICES
        } | {"rounds": starts}
