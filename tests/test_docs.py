"""The documents say what the code does: every setting, call and command is there, and the links lead somewhere.

``python -m tests.test_docs`` writes the settings' page anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic_settings import BaseSettings

from act.api import events, export, forks, metrics, stream
from act.api import health as act_health
from act.api import jobs as act_jobs
from act.api import proofs as act_proofs
from act.config import Settings as ActSettings
from hmskit.settings import environment_name, shown_default
from oms.api import control, health, jobs, lanes, plans, tasks
from oms.cli import cli as oms_cli
from oms.config import Settings as OmsSettings

ROOT = Path(__file__).parent.parent
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
INTRODUCTION = (
    "Each is a variable of the environment; a flag of the service's `serve` command beats it. `oms settings` and "
    "`act settings` show the values now."
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def settings_page() -> str:
    """Return the settings' page as the code has it."""
    parts = [
        "# Settings",
        INTRODUCTION,
        "## OMS",
        _table(OmsSettings),
        "## ACT",
        _table(ActSettings),
    ]
    return "\n\n".join(parts) + "\n"


def _table(settings: type[BaseSettings]) -> str:
    rows = [
        f"| `{environment_name(settings, name)}` | `--{name.replace('_', '-')}` | `{shown_default(field)}` "
        f"| {field.description} |"
        for name, field in settings.model_fields.items()
    ]
    return "\n".join(["| variable | flag | default | what it is |", "|---|---|---|---|", *rows])


def test_the_settings_page_is_what_the_code_has() -> None:
    assert SETTINGS_PAGE.read_text() == settings_page(), "run: python -m tests.test_docs"


def calls() -> list[str]:
    routers = (jobs.router, tasks.router, control.router, lanes.router, plans.router, health.router)
    return [
        f"{method} {route.path_format}"
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    ]


@pytest.mark.parametrize("call", calls())
def test_every_call_of_oms_has_its_section(call: str) -> None:
    assert f"`{call}`" in (ROOT / "docs" / "http.md").read_text()


def act_calls() -> list[str]:
    return [
        f"{method} {route.path}"
        for module in (events, stream, export, forks, act_jobs, act_proofs, act_health, metrics)
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    ]


@pytest.mark.parametrize("call", act_calls())
def test_every_call_of_act_has_its_section(call: str) -> None:
    assert call in (ROOT / "docs" / "act.md").read_text()


def test_every_promise_of_the_ledger_is_a_test_by_its_name() -> None:
    promised = set(re.findall(r"^\| P([0-9]+) \|", (ROOT / "docs" / "ledger.md").read_text(), re.MULTILINE))
    tested = {
        number
        for file in (ROOT / "tests").rglob("test_*.py")
        for number in re.findall(r"^(?:async )?def test_p([0-9]+)_", file.read_text(), re.MULTILINE)
    }
    assert promised == tested == set(map(str, range(1, 13)))


def commands(group: Any, prefix: str) -> list[str]:
    found = []
    for name, command in sorted(group.commands.items()):
        found += commands(command, f"{prefix} {name}") if hasattr(command, "commands") else [f"{prefix} {name}"]
    return found


def all_commands() -> list[str]:
    from act.cli import main as act_cli

    return commands(typer.main.get_command(oms_cli), "oms") + commands(typer.main.get_command(act_cli), "act")


@pytest.mark.parametrize("command", all_commands())
def test_every_command_is_in_the_commands_page(command: str) -> None:
    assert f"`{command}" in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_names_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for script in ("scripts/demo", "scripts/test"):
        assert script in text
        assert (ROOT / script).stat().st_mode & 0o111


def test_ci_runs_the_readmes_test_command() -> None:
    assert "scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_the_openapi_document_needs_no_other_host() -> None:
    app = FastAPI()
    for router in (jobs.router, tasks.router, lanes.router, plans.router, health.router):
        app.include_router(router)
    assert "://" not in str(app.openapi()["paths"])


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(settings_page())
