"""The ledger: what its delivery costs, how far it lags, and how it catches up after an outage."""

from __future__ import annotations

import socket
import time
from typing import Any

from act.contract import parse_time_ms
from oms.bench.context import Bench
from oms.bench.figures import in_turns, median_of, noise_of, quantiles, ratio_of
from oms.bench.fill import EVENTS_PER_JOB
from oms.bench.target import TargetError, started
from oms.bench.throughput import BATCH_CONNECTIONS, measure_mixed

CONNECTIONS = 32
NORMAL_EVENTS_PER_SEC = 500.0
OUTAGE_SEC = 3_600.0
_NORMAL_CONNECTIONS = 8
_PAGE = 1_000
_POLL_SEC = 0.05
_CAUGHT_UP_EVENTS = 500
"""So few on their way are normal: the outage's backlog is gone."""
_FILL_SEC = 5.0


def measure_relay(bench: Bench) -> dict[str, Any]:
    """Measure the mixed load with ACT there and with an ACT that refuses connections, in turns."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and nobody answers
        act_url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with bench.open_target("alone", act_url=act_url) as alone:
            off, on = in_turns(
                bench.size.rounds,
                lambda: bench.run(alone, "mixed", connections=CONNECTIONS, seconds=bench.size.seconds),
                lambda: bench.run(bench.main, "mixed", connections=CONNECTIONS, seconds=bench.size.seconds),
            )
    with_act = [run["per_sec"]["requests"] for run in on]
    without = [run["per_sec"]["requests"] for run in off]
    return {
        "connections": CONNECTIONS,
        "requests_per_sec_on": median_of(with_act),
        "requests_per_sec_off": median_of(without),
        "ratio": ratio_of(with_act, without),
        **noise_of(on, off),
    }


def measure_lag(bench: Bench) -> dict[str, Any]:
    """Measure the time from an event to its receipt by ACT, at about half of the greatest mixed load.

    Both times are of one machine's clock. An event's time is that of its transaction, so that the commit is
    part of the lag.
    """
    throughput = bench.results.get("throughput", {})
    most = throughput.get(f"mixed_{CONNECTIONS}") or measure_mixed(bench, CONNECTIONS)
    rate = (most["jobs_per_sec"] or 1.0) / 2
    bench.settle(bench.main)
    size_before = bench.main.ledger_size()
    run = bench.load("mixed", bench.main.oms_url, connections=CONNECTIONS, seconds=bench.size.lag_sec, rate=rate)
    settle_sec = bench.settle(bench.main)
    lags_ms: list[float] = []
    after = size_before - 1
    while rows := bench.main.rows_after(after, limit=_PAGE):
        after = rows[-1]["id"]
        times = [(parse_time_ms(row["ts"]), parse_time_ms(row["received_at"])) for row in rows]
        lags_ms += [received - at for at, received in times if run["from_ms"] <= at < run["until_ms"]]
    return {
        "jobs_per_sec": run["jobs"] / run["seconds"] if run["seconds"] else None,
        "events_per_sec": len(lags_ms) * 1000 / (run["until_ms"] - run["from_ms"]),
        "of_most": run["jobs"] / run["seconds"] / most["jobs_per_sec"] if run["seconds"] else None,
        "lag_ms": quantiles(lags_ms),
        "settle_sec": settle_sec,
        "latency_ms": run["latency_ms"],
        "other_cores": run["other_cores"],
    }


def measure_catch_up(bench: Bench) -> dict[str, Any]:
    """Stop ACT, let events pile up, start it again, and measure how fast it gets them beside a normal load."""
    act = bench.main.services["act"]
    bench.settle(bench.main)
    act.stop()
    give_up_at = time.monotonic() + bench.size.outage_limit_sec
    seconds = min(_FILL_SEC, bench.size.outage_limit_sec)
    while (backlog := bench.main.pending()) < bench.size.outage_events and time.monotonic() < give_up_at:
        bench.load("batches", bench.main.oms_url, connections=BATCH_CONNECTIONS, seconds=seconds)
    started(act)
    normal = NORMAL_EVENTS_PER_SEC / EVENTS_PER_JOB
    with bench.driver.start(
        "mixed",
        bench.main.oms_url,
        connections=_NORMAL_CONNECTIONS,
        seconds=bench.size.settle_limit_sec * 2,
        warm_up_share=0.0,
        rate=normal,
    ) as load:
        drained = _drain(bench, backlog)
        load.end()
        beside = load.result(bench.size.settle_limit_sec)
    per_sec = drained["events_per_sec"]
    net = per_sec - NORMAL_EVENTS_PER_SEC if per_sec is not None else 0.0
    return {
        "backlog_events": backlog,
        **drained,
        "normal_events_per_sec": NORMAL_EVENTS_PER_SEC,
        "hour_of_outage_minutes": OUTAGE_SEC * NORMAL_EVENTS_PER_SEC / net / 60 if net > 0 else None,
        "latency_ms": beside["latency_ms"],
        "other_cores": beside["other_cores"],
    }


def _drain(bench: Bench, backlog: int) -> dict[str, Any]:
    """Wait until ACT has the backlog; return how fast it came, from the first of it on.

    ACT's size tells how far it is; OMS, whom it costs to count, is asked only towards the end.
    """
    began = time.perf_counter()
    give_up_at = began + bench.size.settle_limit_sec
    first_size = bench.main.ledger_size()
    moved_at: float | None = None
    while time.perf_counter() < give_up_at:
        size, now = bench.main.ledger_size(), time.perf_counter()
        if moved_at is None and size > first_size:
            moved_at, first_size = now, size
        if moved_at is not None and size - first_size >= backlog - _CAUGHT_UP_EVENTS * 2:
            pending = bench.main.pending()
            if pending <= _CAUGHT_UP_EVENTS:
                return {
                    "noticed_sec": moved_at - began,
                    "drained_sec": now - moved_at,
                    "events_per_sec": (size - first_size) / (now - moved_at) if now > moved_at else None,
                }
        time.sleep(_POLL_SEC)
    raise TargetError(f"ACT did not get a backlog of {backlog:,} events within {bench.size.settle_limit_sec:.0f} s")
