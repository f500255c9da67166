"""``oms demo``: the main job in one go, on services of its own."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console

from oms.demo.crew import Crew
from oms.demo.event_log import Case, EventLogError, read_event_log
from oms.demo.ledger import Ledger, LedgerError, differences, wait_until_delivered
from oms.demo.meters import Meters, StalledError
from oms.demo.pair import Pair, ServiceDiedError
from oms.demo.passports import AI, PLAN, Office, OfficeError, Ticket, start_renewals
from oms.demo.replay import ReplayError, print_replayed, replay
from oms.demo.timeline import print_timeline
from oms.worker import OmsClient, OmsClientError

TIMELINES = 3
STALL_SEC = 30.0
RETRY_FOR_SEC = 2.0
"""On one machine, a service that does not answer for so long has died."""
MOST_SHOWN = 20
PLAIN_WIDTH = 200
_PLAN_FILE = "passport.plan.yaml"
_INTERRUPTED = 130
_EXPECTED = (
    EventLogError,
    LedgerError,
    OfficeError,
    OmsClientError,
    ReplayError,
    ServiceDiedError,
    StalledError,
)


def run_demo(jobs: int, keep: bool, log: Path | None) -> int:
    """Start both services, run passport renewals (or an event log) through them, and check the ledger.

    Args:
        jobs: how many passport renewals.
        keep: leave the services up until Ctrl-C.
        log: replay this event log instead.

    Returns:
        The exit status: 0 only where the ledger and OMS agree about every job.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)  # a file or a pipe has no width; nothing need be cut
    try:
        cases = None if log is None else read_event_log(log)
        with stoppable(), tempfile.TemporaryDirectory(prefix="oms-demo-") as folder:
            return _run(console, Path(folder), jobs, cases, keep=keep)
    except KeyboardInterrupt:
        console.print("stopped; the services have ended and their folder is gone", highlight=False)
        return _INTERRUPTED
    except _EXPECTED as error:
        console.print(f"demo: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 1


def _run(console: Console, folder: Path, jobs: int, cases: list[Case] | None, *, keep: bool) -> int:
    plans = folder / "plans"
    plans.mkdir()
    (plans / _PLAN_FILE).write_bytes((files("oms.demo") / "plans" / _PLAN_FILE).read_bytes())
    began_at = time.monotonic()
    with Pair(folder, plans) as pair:
        http = httpx.Client(trust_env=False, timeout=60)  # no proxy stands between processes of one machine
        with (
            OmsClient(pair.oms_url, http=http, retry_for_sec=RETRY_FOR_SEC) as oms,
            Ledger(pair.act_url, http=http) as ledger,
        ):
            console.print(
                f"OMS {pair.oms_url} and ACT {pair.act_url} are up after {time.monotonic() - began_at:.1f} s",
                highlight=False,
            )
            try:
                if cases is None:
                    agree = _renew_passports(console, oms, ledger, jobs, pair.check_alive)
                else:
                    agree = _replay_log(console, oms, ledger, cases, pair.check_alive)
            except (OmsClientError, LedgerError):
                pair.check_alive()  # where a service has died, that is what went wrong
                raise
        if keep:
            _keep(console, pair)
    return 0 if agree else 1


def _renew_passports(
    console: Console, oms: OmsClient, ledger: Ledger, count: int, check_alive: Callable[[], None]
) -> bool:
    began_at = time.monotonic()
    with Crew() as crew:
        tickets = start_renewals(oms, count)
        console.print(f"{count} passport renewals started", highlight=False)
        labels = {"forms read by the AI agent": count, "photos checked by clerks": count}
        with Meters(console, {**labels, "passports printed in batches": count}) as meters:

            def check() -> None:
                check_alive()
                crew.check()

            office = Office(oms, crew, tickets)
            office.open(check)

            def all_printed() -> bool:
                check()
                meters.show(
                    forms_read_by_the_AI_agent=sum(worker.done for worker in office.readers),
                    photos_checked_by_clerks=sum(worker.done for worker in office.clerks),
                    passports_printed_in_batches=(printed := sum(worker.done for worker in office.printers)),
                )
                return printed >= count

            meters.wait_for(all_printed, stall_sec=STALL_SEC)
        seconds = time.monotonic() - began_at
    return _check_jobs(console, oms, ledger, tickets, seconds)


def _check_jobs(console: Console, oms: OmsClient, ledger: Ledger, tickets: list[Ticket], seconds: float) -> bool:
    """Print the timelines and the summary; return whether the ledger and OMS agree."""
    if not wait_until_delivered(oms, limit_sec=STALL_SEC):
        console.print("OMS has not posted all its events to ACT in time", style="red", highlight=False)
    found: list[str] = []
    events = done = moved = 0
    timelines: list[list[dict[str, Any]]] = []
    with Meters(console, {"jobs compared with the ledger": len(tickets)}) as meters:
        for number, ticket in enumerate(tickets):
            job, rows = oms.job(ticket.job_id), ledger.rows(ticket.job_id)
            found += differences(job, ledger.job(ticket.job_id), rows)
            if job["state"] != "done":
                found.append(f"{ticket.job_id}: is {job['state']}, not done")
            if number < TIMELINES and rows:
                timelines.append(rows)
            events += len(rows)
            done += job["state"] == "done"
            moved += sum(row["status"] in ("released", "rerouted") for row in rows)
            meters.show(jobs_compared_with_the_ledger=number + 1)
    for rows in timelines:
        print_timeline(console, rows)
    console.print()
    for difference in found[:MOST_SHOWN]:
        console.print(f"differs: {difference}", style="red", highlight=False, markup=False)
    if len(found) > MOST_SHOWN:
        console.print(f"... and {len(found) - MOST_SHOWN} more differences", highlight=False)
    console.print(
        f"{done} of {len(tickets)} passports in {seconds:.1f} s; {events:,} events in the ledger; "
        f"people gave back or moved {moved} task{'' if moved == 1 else 's'}.",
        highlight=False,
    )
    if found:
        console.print(f"The ledger and OMS differ in {len(found)} points.", style="red", highlight=False)
    else:
        console.print(
            "The ledger and OMS agree about every job: no event is missing, and every activity is done once.",
            style="green",
            highlight=False,
        )
    return not found


def _replay_log(
    console: Console, oms: OmsClient, ledger: Ledger, cases: list[Case], check_alive: Callable[[], None]
) -> bool:
    replayed = replay(cases, oms, ledger, console, check=check_alive)
    if rows := ledger.rows(replayed.typical_job_id):
        print_timeline(console, rows)
        console.print()
    print_replayed(console, replayed)
    return not replayed.differences


def _keep(console: Console, pair: Pair) -> None:
    """Leave the services up until Ctrl-C."""
    console.print(
        f"""
The services stay up until Ctrl-C. Their pages: {pair.oms_url}/docs and {pair.act_url}/docs
Be a citizen, the AI agent, and the auditor:
  curl -X POST {pair.oms_url}/start -d '{{"plan":"{PLAN}","reference":"my-ticket"}}'
  curl '{pair.oms_url}/pull?lane={AI}'
  curl -X POST {pair.oms_url}/complete -d '{{"task_id":"TASK-...","output":{{"passport_no":"987654321"}}}}'
  curl '{pair.act_url}/stream?job=JOB-1'
  curl {pair.oms_url}/lanes""",
        highlight=False,
        markup=False,
    )
    while True:
        pair.check_alive()
        try:
            time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("stopping", highlight=False)
            return


@contextmanager
def stoppable() -> Generator[None]:
    """Make SIGTERM and a closed terminal what Ctrl-C is, and the first of them the last that is heard.

    The processes and the folder go before this process does, and no second Ctrl-C may come between.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
