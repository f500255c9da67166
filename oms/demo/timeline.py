"""A job's timeline out of ACT, as a table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {
    "done": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "red",
    "released": "yellow",
    "rerouted": "yellow",
    "started": "cyan",
}


def print_timeline(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print a job's rows, oldest first: time since its start, lane, status, attempt, worker, and what it says more."""
    first = rows[0]
    since = datetime.fromisoformat(first["ts"])
    console.print()
    console.print(Text.assemble((first["job_id"], "bold"), f"  {first['plan']}  ticket {first['reference']}"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("  time", "lane", "status", "attempt", "worker", ""):
        table.add_column(title, justify="right" if title == "attempt" else "left", no_wrap=bool(title))
    for row in rows:
        passed_sec = (datetime.fromisoformat(row["ts"]) - since).total_seconds()
        table.add_row(
            f"  +{passed_sec:.3f} s",
            Text(row["lane"] or "(job)", style="" if row["lane"] else "dim"),
            Text(row["status"], style=_STYLES.get(row["status"], "")),
            str(row["attempt"]) if row["attempt"] else "",
            Text(row["worker"] or "", style="dim"),
            Text(_remark(row), style="dim"),
        )
    console.print(table)


def _remark(row: dict[str, Any]) -> str:
    """Return what else matters in a row: the activity where the lane does not say it, or why it was moved."""
    detail, status = row["detail"], row["status"]
    if status in ("rerouted", "released") and detail.get("reason"):
        return str(detail["reason"])
    if status == "failed" and detail.get("error_type"):
        return str(detail["error_type"])
    return row["activity"] or "" if row["activity"] != row["lane"] else ""
