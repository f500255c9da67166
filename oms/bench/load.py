"""A load process: ``python -m oms.bench.load SCENARIO URL``; its last line of output is one JSON object.

It can be used by hand, beside a profiler: ``python -m oms.bench.load mixed http://127.0.0.1:8001 --connections 32``
(put `oms.bench.plans.plan_files` in force first, with ``POST /plans``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from oms.bench.connection import AnswerError, Connection
from oms.bench.cycle import run_cycles
from oms.bench.figures import quantiles
from oms.bench.handoff import run_handoffs
from oms.bench.pages import run_pages
from oms.bench.processes import Meter
from oms.bench.scenarios import SCENARIOS, Scenario, Tally
from oms.bench.throttle import Throttle

WARM_UP_SHARE = 0.2
"""What happens in the first part, while caches and connections warm up, is not counted, unless it is asked for."""
SERVE = "--serve"
FILLS = ("queue_jobs", "write_ledger")
LEAST_ANSWERS = 4
"""Where an answer takes long, the counted part lasts until there are so many."""
POLL_SEC = 0.02
END_LIMIT_SEC = 10.0


async def run_timed(options: argparse.Namespace) -> dict[str, Any]:
    """Run a scenario on every connection until the time is over; return counts and latencies of the counted part.

    The counted part begins and ends with an answer: where one answer carries a thousand jobs, a clock that cuts
    between two would be off by one of few. SIGTERM ends it early.
    """
    tally = Tally(throttle=Throttle(options.rate))
    watch = dict(options.watch)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    urls = options.url.split(",")
    opened = [await Connection.open(urls[place % len(urls)]) for place in range(options.connections)]
    ran_from = time.perf_counter()
    running = [
        asyncio.create_task(_until_over(SCENARIOS[options.scenario], tally, connection, f"{options.prefix}-{place}"))
        for place, connection in enumerate(opened)
    ]
    await _pause(options.seconds * options.warm_up_share, stop)
    tally.counting = True
    meter = Meter(watch)
    began, cpu_began, wall_began = tally.last_at, time.process_time(), time.time()
    await _pause(options.seconds * (1 - options.warm_up_share), stop)
    give_up_at = time.perf_counter() + END_LIMIT_SEC
    while tally.counts["requests"] < LEAST_ANSWERS and time.perf_counter() < give_up_at and not stop.is_set():
        await _pause(POLL_SEC, stop)
    tally.counting = False
    took = tally.last_at - began
    cpu, wall_ended = time.process_time() - cpu_began, time.time()
    usage = meter.read()
    tally.over = True
    _, late = await asyncio.wait(running, timeout=END_LIMIT_SEC)
    for task in late:
        task.cancel()
    ran = time.perf_counter() - ran_from
    for connection in opened:
        connection.close()
    return {
        "seconds": took,
        "ran_sec": ran,
        "from_ms": int(wall_began * 1000),
        "until_ms": int(wall_ended * 1000),
        "client_cores": cpu / max(wall_ended - wall_began, 1e-9),
        "other_cores": usage.other_cores,
        "cores": usage.cores,
        "rss_mib": usage.rss_mib,
        **tally.counts,
        "totals": tally.totals,
        "first_bad": tally.first_bad,
        "latency_ms": {kind: quantiles(values) for kind, values in tally.latencies_ms.items()},
    }


async def _until_over(scenario: Scenario, tally: Tally, connection: Connection, name: str) -> None:
    try:
        await scenario(tally, connection, name)
    except (AnswerError, OSError) as error:
        tally.add_bad(f"{type(error).__name__}: {error}")


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run what the options name."""
    url, prefix, seconds, watch = options.url, options.prefix, options.seconds, dict(options.watch)
    if options.scenario == "cycle":
        return await run_cycles(url, connections=options.connections, seconds=seconds, prefix=prefix, watch=watch)
    if options.scenario in FILLS:
        return await _fill(options)
    if options.scenario == "pages":
        return await run_pages(
            (url, options.other_url),
            options.path,
            among=(options.among, options.other_among),
            seconds=seconds,
            rounds=options.rounds,
            watch=watch,
        )
    if options.scenario == "handoff":
        return await run_handoffs(
            url, parked=options.parked, quiet_sec=options.quiet_sec, seconds=seconds, prefix=prefix, watch=watch
        )
    return await run_timed(options)


async def _fill(options: argparse.Namespace) -> dict[str, Any]:
    from oms.bench.fill import queue_jobs, write_ledger  # noqa: PLC0415 - the event contract takes long to import

    if options.scenario == "queue_jobs":
        return await queue_jobs(options.url, count=options.count, prefix=options.prefix)
    return await write_ledger(options.url, count=options.count)


def _watched(text: str) -> tuple[str, int]:
    name, _, pid = text.partition("=")
    return name, int(pid)


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m oms.bench.load", description="One load on one service.")
    parser.add_argument("scenario", choices=[*SCENARIOS, *FILLS, "cycle", "handoff", "pages"])
    parser.add_argument("url", help="of OMS, ACT or the no-op: http://127.0.0.1:8001")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up-share", type=float, default=WARM_UP_SHARE, help="the part that is not counted")
    parser.add_argument("--prefix", default=secrets.token_hex(4), help="for the jobs' references; new in every run")
    parser.add_argument("--rate", type=float, help="mixed: jobs a second on all connections together")
    parser.add_argument("--path", default="/", help="pages: what to read; {n} is a number from 1 to --among")
    parser.add_argument("--among", type=int, default=1)
    parser.add_argument("--other-url", help="pages: the service that is read in turns with the first")
    parser.add_argument("--other-among", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="pages: into how many parts the time is cut")
    parser.add_argument("--count", type=int, default=1_000, help="queue_jobs: jobs; write_ledger: events")
    parser.add_argument("--parked", type=int, default=3, help="handoff: how many pulls wait")
    parser.add_argument("--quiet-sec", type=float, default=0.0, help="handoff: how long they wait before anything")
    parser.add_argument("--watch", type=_watched, action="append", default=[], metavar="NAME=PID")
    return parser.parse_args(arguments)


def allow_connections() -> int:
    """Raise this process's limit of open files as far as it goes; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65_536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def main() -> None:
    """Run as a process: one load, or with `SERVE` one after the other, a JSON list of arguments a line."""
    allow_connections()
    if sys.argv[1:] == [SERVE]:
        for line in sys.stdin:
            _say(_run(read_options(json.loads(line))))
        return
    figures = _run(read_options())
    _say(figures)
    if "error" in figures:
        sys.exit(1)


def _run(options: argparse.Namespace) -> dict[str, Any]:
    try:
        return _runner()(run(options))
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who reads the figures
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"}


def _say(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def _runner() -> Callable[[Coroutine[Any, Any, dict[str, Any]]], dict[str, Any]]:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run
    return uvloop.run


if __name__ == "__main__":
    main()
