"""The benchmark runs: a tiny one, which yields every figure, and one from outside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from oms.bench.databases import Databases
from oms.bench.run import SECTIONS, run_bench
from oms.bench.sizes import QUICK
from oms.bench.target import OwnTarget
from oms.cli import cli

TINY = replace(
    QUICK,
    name="tiny",
    seconds=0.25,
    bulk_sec=0.25,
    rounds=1,
    mixed_connections=(4,),
    sync_sec=0.05,
    idle_sec=0.05,
    handoff_sec=0.2,
    parked=12,
    quiet_sec=0.3,
    lag_sec=0.3,
    outage_events=300,
    outage_limit_sec=0.3,
    backlogs=(700, 800),
    page_sec=0.05,
    ledgers=(100, 200),
    soak_sec=0.5,
    limit_sec=None,
)
QUANTILES = {"p50", "p95", "p99"}


def holes(value: Any, path: str = "") -> list[str]:
    """Return where a result has nothing."""
    if value is None:
        return [path]
    if isinstance(value, dict):
        return [hole for key, one in value.items() for hole in holes(one, f"{path}.{key}")]
    if isinstance(value, list):
        return [hole for place, one in enumerate(value) for hole in holes(one, f"{path}.{place}")]
    return []


def test_a_tiny_run_yields_every_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert run_bench(size=TINY, json_file=file) == 0
    said = capsys.readouterr().out
    report = json.loads(said.splitlines()[-1])
    assert json.loads(file.read_text()) == report
    assert {
        "bench",
        "size",
        "took_sec",
        "versions",
        "machine",
        "disk",
        "settings",
        "results",
        "targets",
        "notes",
    } <= set(report)
    assert report["settings"]["synchronous"] == "FULL"
    assert report["disk"]["fdatasync_per_sec"] > 0
    assert all(report["versions"][name] for name in ("python", "sqlite", "fastapi", "uvicorn", "httptools"))
    results = report["results"]
    assert set(results) == {section.name for section in SECTIONS if not section.is_asked_for} | {"start_up"}
    assert report["notes"] == []
    _check_throughput(results["throughput"])
    assert results["relay"]["ratio"]["median"] > 0
    assert results["lag"]["lag_ms"]["count"] > 0
    assert results["catch_up"]["backlog_events"] >= 300
    assert results["handoff"]["start_to_pull_ms"]["count"] > 0
    assert results["parked"]["parked"] == 12
    assert set(results["backlog"]["levels"]) == {"800"}
    assert results["backlog"]["levels"]["800"]["cycles_per_sec"] > 0
    assert results["ledger"]["events"] > results["ledger"]["events_least"] >= 100
    assert results["start_up"]["oms"] > 0
    for title in ("Throughput", "Latencies", "Parked pulls", "delivery", "Cost by backlog", "ledger size", "Targets"):
        assert title in said


def _check_throughput(throughput: dict[str, Any]) -> None:
    assert set(throughput) == {"mixed_4", "starts", "batches", "bulk_start"}
    for figures in throughput.values():
        assert figures["ratio"]["median"] > 0
        assert figures["noop_per_sec"] > 0
        assert len(figures["noisy"]) == TINY.rounds
        assert figures["bad"] == 0
    for name in ("mixed_4", "batches"):
        assert throughput[name]["activities_per_sec"] > 0
    assert set(throughput["mixed_4"]["latency_ms"]) == {"start", "pull", "complete"}
    assert all(set(shares) == QUANTILES for shares in throughput["mixed_4"]["latency_ms"].values())
    if Path("/proc/self/stat").exists():
        assert holes(throughput["mixed_4"]) == []
        assert throughput["mixed_4"]["cpu_us_per_activity"]["oms"] > 0


def test_services_that_are_up_are_measured_from_outside(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with OwnTarget(tmp_path / "pair", Databases()) as pair:
        only = ["handoff", "backlog"]
        assert run_bench(size=TINY, oms_url=pair.oms_url, act_url=pair.act_url, only=only) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["results"]) == {"handoff"}
    assert report["results"]["handoff"]["start_to_pull_ms"]["count"] > 0
    assert report["notes"][-1] == "not measured from outside: cost by backlog, in turns"


def test_services_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench(size=TINY, oms_url="http://127.0.0.1:1") == 1
    assert "http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--act", "http://127.0.0.1:8002"], "--act goes with --oms"),
        (["--oms", "https://oms.example"], "https://oms.example"),
        (["--only", "backlogs"], "backlog, "),
    ],
)
def test_what_cannot_be_asked_for(arguments: list[str], said: str) -> None:
    answer = CliRunner().invoke(cli, ["bench", *arguments])
    assert answer.exit_code == 2
    assert said in answer.stderr
