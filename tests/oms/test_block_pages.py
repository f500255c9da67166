"""docs/blocks: the plans of each page are walked, what it prints is what comes, and it can be cancelled and restarted.

``python -m tests.oms.test_block_pages`` writes what the commands print into the pages anew.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from typer.testing import CliRunner

from oms.cli import cli
from oms.storage.plan_check import check_files

FOLDER = Path(__file__).parents[2] / "docs" / "blocks"
PAGES = [page for page in sorted(FOLDER.glob("*.md")) if page.name != "README.md"]
_PLAN = re.compile(r"```yaml\n# (\S+)\n(.*?)```", re.DOTALL)
_DATA = re.compile(r"`(\w+\.json)`:\n\n```json\n(.*?)```", re.DOTALL)
_CONSOLE = re.compile(r"```console\n\$ (oms plan try .*?)\n(.*?)```", re.DOTALL)


def write_files(text: str, folder: Path) -> list[Path]:
    """Write a page's plans and data into a folder; return the plans."""
    for name, content in _DATA.findall(text):
        (folder / name).write_text(content)
    for name, content in _PLAN.findall(text):
        (folder / name).write_text(content)
    return [folder / name for name, _ in _PLAN.findall(text)]


def printed(command: str, folder: Path) -> str:
    """Return what a command prints, without the table of the tasks."""
    with chdir(folder):
        result = CliRunner().invoke(cli, shlex.split(command)[1:])
    lines = [line.rstrip() for line in result.output.splitlines()]
    path = [line for line in lines if line and not line.startswith((" task", " TASK-", " ─"))]
    return "\n".join(path) + "\n"


def consoles(text: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Give each command of a page, what the page says that it prints, and what it prints."""
    write_files(text, folder)
    for command, shown in _CONSOLE.findall(text):
        yield command, shown, printed(command, folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_prints_what_comes(page: Path, tmp_path: Path) -> None:
    found = list(consoles(page.read_text(), tmp_path))
    assert found
    for command, shown, comes in found:
        assert shown == comes, f"{command}: run python -m tests.oms.test_block_pages"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_plans_of_a_page_have_no_faults_and_no_warnings(page: Path, tmp_path: Path) -> None:
    checked = check_files(write_files(page.read_text(), tmp_path))
    assert checked
    assert [(*one.faults, *one.warnings) for one in checked if one.faults or one.warnings] == []


if __name__ == "__main__":
    for each in PAGES:
        with TemporaryDirectory() as name:
            page_text = each.read_text()
            for asked, was, now in consoles(page_text, Path(name)):
                page_text = page_text.replace(f"$ {asked}\n{was}```", f"$ {asked}\n{now}```", 1)
            each.write_text(page_text)
