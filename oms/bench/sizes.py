"""How much is measured: the full run, and the quick one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The sizes of every measurement.

    Attributes:
        seconds: of one throughput measurement, its warm-up included.
        bulk_sec: of one measurement of bulk starts: a list of a thousand takes a tenth of a second or two, so that a
            shorter time would see only a few.
        rounds: how often what is compared is measured, in turns.
        mixed_connections: the mixed load's connections, each against the no-op at as many.
        has_turns_of_its_own: starts, batches and bulk starts are each set against a no-op of their own round, not
            against one that they share.
        sync_sec: how long the disk is asked how often it syncs.
        idle_sec: how long idle services are watched.
        handoff_sec: how long parked pulls are answered.
        parked: how many pulls are parked at once.
        quiet_sec: how long they are watched.
        lag_sec: how long the ledger's lag is measured.
        outage_events: the backlog of an outage.
        outage_limit_sec: how long it may take to make it.
        backlogs: how many jobs are queued; the first is what the others are set against.
        has_restart: the pair with the greatest backlog is stopped and started again.
        page_sec: how long one page of two services is read, in turns.
        ledgers: how many events are in the ledger; the first is what the other is set against.
        settle_limit_sec: how long a measurement waits until ACT has everything.
        fill_limit_sec: the same, after a fill.
        soak_sec: how long the soak loads; it is measured only where it is asked for.
        limit_sec: measurements that would not end by then are left out; None: all are made.
    """

    name: str
    seconds: float
    bulk_sec: float
    rounds: int
    mixed_connections: tuple[int, ...]
    has_turns_of_its_own: bool
    sync_sec: float
    idle_sec: float
    handoff_sec: float
    parked: int
    quiet_sec: float
    lag_sec: float
    outage_events: int
    outage_limit_sec: float
    backlogs: tuple[int, ...]
    has_restart: bool
    page_sec: float
    ledgers: tuple[int, int]
    settle_limit_sec: float
    fill_limit_sec: float
    soak_sec: float
    limit_sec: float | None


FULL = Size(
    name="full",
    seconds=4.0,
    bulk_sec=4.0,
    rounds=5,
    mixed_connections=(1, 8, 32, 64),
    has_turns_of_its_own=True,
    sync_sec=0.5,
    idle_sec=5.0,
    handoff_sec=20.0,
    parked=1_000,
    quiet_sec=10.0,
    lag_sec=15.0,
    outage_events=200_000,
    outage_limit_sec=60.0,
    backlogs=(1_000, 100_000, 1_000_000),
    has_restart=True,
    page_sec=10.0,
    ledgers=(10_000, 3_000_000),
    settle_limit_sec=120.0,
    fill_limit_sec=1_800.0,
    soak_sec=600.0,
    limit_sec=None,
)

QUICK = Size(
    name="quick",
    seconds=0.5,
    bulk_sec=0.5,
    rounds=3,
    mixed_connections=(32,),
    has_turns_of_its_own=False,
    sync_sec=0.5,
    idle_sec=0.6,
    handoff_sec=1.5,
    parked=1_000,
    quiet_sec=1.2,
    lag_sec=1.5,
    outage_events=10_000,
    outage_limit_sec=1.0,
    backlogs=(1_000, 20_000),
    has_restart=False,
    page_sec=0.6,
    ledgers=(10_000, 50_000),
    settle_limit_sec=10.0,
    fill_limit_sec=20.0,
    soak_sec=10.0,
    limit_sec=60.0,
)
