"""Print a run: tables for people. Plain text where there is no terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from oms.bench.plans import LANES
from oms.bench.targets import SERVICES, Verdict

NAMES = {"batches": "batches of 100", "bulk_start": "bulk start, lists of 1,000", "starts": "starts, one by one"}
WORDS = ("from", "more", "request", "set against it", "target", "what")
"""Columns of words, which begin at the left."""
NONE = "-"
YEAR_SEC = 365 * 86_400


def print_report(console: Console, report: dict[str, Any], verdicts: list[Verdict]) -> None:
    """Print everything that was measured."""
    _print_head(console, report)
    results = report["results"]
    for name, show in (
        ("throughput", _throughput),
        ("throughput", _years),
        ("throughput", _latencies),
        ("handoff", lambda _: _waiting(results)),
        ("lag", lambda _: _ledger(results)),
        ("backlog", _backlog),
        ("ledger", _timelines),
        ("idle", lambda _: _processes(results)),
    ):
        if name in results:
            console.print(show(results[name]))
    for note in report["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(_targets(verdicts, report))


def _print_head(console: Console, report: dict[str, Any]) -> None:
    machine, disk, settings = report["machine"], report["disk"], report["settings"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items() if number)
    memory = f"{_number(machine['memory_mib'])} MiB"
    sync = f"journal_mode {settings['journal_mode']}, synchronous {settings['synchronous']}"
    cache = f"cache {settings['cache_kib_per_connection']} KiB a connection"
    lines = [
        f"oms bench, {report['size']} run, {report['began_at']}, {report['took_sec']:.0f} s",
        f"machine: {machine['cpu']}, {machine['cores']} cores, {memory}, {machine['kernel']}",
        f"disk: {_number(disk['fdatasync_per_sec'])} fdatasync/s (4 KiB appends), {disk['file_system']}",
        f"versions: {versions}",
        f"databases: OMS {settings['databases']['oms']}; ACT {settings['databases']['act']}",
        f"settings: {sync}, {cache}; {settings['processes']}; {settings['server']}",
    ]
    sizes = report["sizes"]
    among = ", ".join(map(str, sizes["mixed_connections"]))
    most = f"up to {max(sizes['backlogs']):,} queued and {max(sizes['ledgers']):,} events"
    reduced = "" if report["size"] == "full" else " (reduced)"
    rounds = f"{sizes['rounds']} rounds of {sizes['seconds']:g} s"
    lines.append(f"sizes{reduced}: {rounds}, mixed load at {among} connections, {most}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 or column in WORDS else "right", overflow="fold")
    return table


def _throughput(throughput: dict[str, Any]) -> Table:
    table = _table(
        "Throughput, in turns with the no-op GET (median of the rounds; min to max)",
        "load",
        "connections",
        "requests/s",
        "activities/s",
        "jobs/s",
        "no-op/s",
        "set against it",
        "ratio",
        "ledger caught up",
        "noisy rounds",
        "client core",
        "us/activity OMS, ACT",
    )
    for name, figures in throughput.items():
        cpu = figures["cpu_us_per_activity"]
        table.add_row(
            NAMES.get(name, "mixed"),
            str(figures["connections"]),
            _number(figures["requests_per_sec"]),
            _number(figures["activities_per_sec"]),
            _number(figures["jobs_per_sec"]),
            _number(figures["noop_per_sec"]),
            figures["counted"],
            _ratio(figures["ratio"]),
            _ratio(figures["ratio_caught_up"]) if not figures["kept_up"] else "kept up",
            _noisy(figures),
            _number(figures["client_cores"], 2),
            ", ".join(_number(cpu.get(service)) for service in SERVICES),
        )
    return table


def _years(throughput: dict[str, Any]) -> Table:
    """Say what the machine carries in a year, were it never busier nor quieter than it was measured."""
    table = _table(
        "A year of it: jobs of three activities each, such as passports", "load", "connections", "million jobs a year"
    )
    for name, figures in throughput.items():
        if figures["activities_per_sec"] and figures["ratio"]["median"]:
            jobs_per_sec = figures["activities_per_sec"] / len(LANES)
            share = figures["ratio_caught_up"]["median"] / figures["ratio"]["median"]
            millions = jobs_per_sec * share * YEAR_SEC / 1e6
            table.add_row(NAMES.get(name, "mixed"), str(figures["connections"]), _number(millions))
    return table


def _latencies(throughput: dict[str, Any]) -> Table:
    table = _table("Latencies, ms", "load", "connections", "request", "p50", "p95", "p99")
    for name, figures in throughput.items():
        for kind, shares in figures["latency_ms"].items():
            table.add_row(
                NAMES.get(name, "mixed"), str(figures["connections"]), kind, *(_number(ms, 1) for ms in shares.values())
            )
    return table


def _waiting(results: dict[str, Any]) -> Table:
    table = _table("Parked pulls, little load", "parked", "from", "p50 ms", "p99 ms", "jobs/s", "OMS core while quiet")
    for name in ("handoff", "parked"):
        if (figures := results.get(name)) is None:
            continue
        quiet = figures["quiet_oms_cores"]
        for key, what in (("start_to_pull_ms", "a start"), ("complete_to_next_ms", "the complete before")):
            table.add_row(
                f"{figures['parked']:,}",
                what,
                _number(figures[key]["p50"], 1),
                _number(figures[key]["p99"], 1),
                _number(figures["jobs_per_sec"], 1),
                _number(quiet, 3),
            )
    return table


def _ledger(results: dict[str, Any]) -> Table:
    table = _table("The ledger's delivery", "what", "figure", "more")
    lag = results["lag"]
    table.add_row(
        "lag p50, p99",
        f"{_number(lag['lag_ms']['p50'])}, {_number(lag['lag_ms']['p99'])} ms",
        f"at {_number(lag['jobs_per_sec'])} jobs/s, {_number(lag['of_most'], 2)} of the most; "
        f"{_number(lag['lag_ms']['count'])} events",
    )
    if relay := results.get("relay"):
        table.add_row(
            "mixed load, relay and ACT on to off",
            _ratio(relay["ratio"]),
            f"{_number(relay['requests_per_sec_on'])} to {_number(relay['requests_per_sec_off'])} requests/s; "
            f"noisy rounds {_noisy(relay)}",
        )
    if catch_up := results.get("catch_up"):
        table.add_row(
            "catch-up after an outage",
            f"{_number(catch_up['events_per_sec'])} events/s",
            f"{_number(catch_up['backlog_events'])} events in {_number(catch_up['drained_sec'], 1)} s, begun after "
            f"{_number(catch_up['noticed_sec'], 1)} s, beside {_number(catch_up['normal_events_per_sec'])} events/s; "
            f"an hour's outage at as many: {_number(catch_up['hour_of_outage_minutes'], 1)} min",
        )
    return table


def _backlog(backlog: dict[str, Any]) -> Table:
    least = f"{backlog['least']:,}"
    table = _table(
        f"Cost by backlog, in turns with {least} queued",
        "queued",
        "what",
        "figure",
        f"with {least}",
        "times as long",
        "noisy rounds",
    )
    for queued, level in backlog["levels"].items():
        table.add_row(
            f"{int(queued):,}",
            f"pull + complete/s, {backlog['connections']} connections",
            _number(level["cycles_per_sec"]),
            _number(level["cycles_per_sec_least"]),
            _ratio(level["cost"]),
            _noisy(level),
        )
        for name, page in level["pages"].items():
            table.add_row(
                "",
                f"/{name} page, p50 ms",
                _number(page["p50_ms"], 2),
                _number(page["p50_ms_least"], 2),
                _ratio(page["cost"]),
                _noisy(page),
            )
    return table


def _timelines(ledger: dict[str, Any]) -> Table:
    table = _table(
        "Cost by ledger size, in turns", "events", "what", "figure", f"with {ledger['events_least']:,}", "times as long"
    )
    page = ledger["timeline"]
    table.add_row(
        f"{ledger['events']:,}",
        "/stream?job=, p50 ms",
        _number(page["p50_ms"], 2),
        _number(page["p50_ms_least"], 2),
        _ratio(page["cost"]),
    )
    table.add_row("", "events/s taken by ACT alone", _number(ledger["append_per_sec"]), "", "")
    return table


def _processes(results: dict[str, Any]) -> Table:
    table = _table("Processes", "when", "OMS cores", "OMS MiB", "ACT cores", "ACT MiB")
    backlog = results.get("backlog", {})
    mixed = results.get("throughput", {}).get("mixed_32", {})
    lines = [
        ("idle", results.get("idle")),
        ("mixed load, 32 connections", mixed),
        (f"{backlog.get('most', 0):,} queued", backlog.get("with_most")),
    ]
    for when, figures in lines:
        if figures:
            cells = [
                _number(figures[key].get(service), digits)
                for service in SERVICES
                for key, digits in (("cores", 2), ("rss_mib", 0))
            ]
            table.add_row(when, *cells)
    for when, start_up in (
        ("start-up to ready, new", results.get("start_up", {})),
        ("start-up to ready, as full", backlog.get("start_up_sec_with_most")),
    ):
        if start_up:
            oms, act = (f"{_number(start_up.get(service), 2)} s" for service in SERVICES)
            table.add_row(when, oms, "", act, "")
    return table


def _targets(verdicts: list[Verdict], report: dict[str, Any]) -> Table:
    reduced = "" if report["size"] == "full" else f" (a {report['size']} run is reduced: figures of few, short rounds)"
    table = _table(f"Targets{reduced}", "what", "target", "measured", "")
    words = {True: "met", False: "NOT MET", None: "not measured"}
    styles = {True: "green", False: "red", None: "dim"}
    for verdict in verdicts:
        measured = NONE if verdict.measured is None else f"{verdict.measured:,.3g}{verdict.unit}"
        table.add_row(verdict.what, verdict.target, measured, f"[{styles[verdict.met]}]{words[verdict.met]}[/]")
    return table


def _number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _ratio(ratio: dict[str, Any]) -> str:
    if ratio["median"] is None:
        return NONE
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def _noisy(figures: dict[str, Any]) -> str:
    """Return how many rounds other processes disturbed, of how many."""
    if all(cores is None for cores in figures["other_cores"]):
        return NONE
    return f"{figures['noisy_rounds']} of {len(figures['noisy'])}"
