"""The house rules that can be checked: who may import whom, how long a module may be, what stays out of the rules."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 400

# What each part may import of the packages here, the most specific part first (docs/architecture.md). "*": all.
ALLOWED: dict[str, set[str]] = {
    "oms/domain/": {"oms.domain"},
    "oms/storage/": {"oms.storage", "oms.domain", "act.contract", "hmskit"},
    "oms/sequencer/": {"oms.sequencer", "oms.domain", "oms.storage", "act.contract"},
    "oms/api/": {"oms.api", "oms.sequencer", "oms.domain", "oms.config", "hmskit"},
    "oms/relay/": {
        "hmskit",
        "oms.relay",
        "oms.storage",
        "oms.sequencer",
        "oms.domain.errors",
        "act.contract",
        "act.client",
    },
    "oms/worker/": {"oms.worker"},
    "oms/plan_tools/drawing/": {"oms.plan_tools.drawing", "oms.domain"},
    "oms/plan_tools/": {"oms.plan_tools", "oms.sequencer", "oms.storage", "oms.domain", "act.contract"},
    "oms/demo/": {"oms.demo", "oms.worker", "act.client", "act.contract"},
    "oms/bench/": {"oms.bench", "oms.demo", "act.client", "act.contract", "hmskit"},
    "oms/config.py": {"hmskit.broker"},
    "oms/": {"oms", "hmskit", "act.client", "act.contract"},
    "act/contract.py": set(),
    "act/client.py": {"act.contract", "hmskit.one_connection"},
    "act/domain/": {"act.domain", "act.contract"},
    "act/storage/": {"act.storage", "act.domain", "act.contract", "hmskit"},
    "act/fanout/": {"act.fanout", "act.ledger", "act.storage", "act.domain", "act.contract", "hmskit"},
    # The auditor's pages show; they neither append nor sign.
    "act/web/": {
        "act.web",
        "act.api.query",
        "act.ledger",
        "act.proofs",
        "act.signer",
        "act.storage",
        "act.domain",
        "act.contract",
    },
    "act/": {"act", "hmskit"},
    "hmskit/": {"hmskit"},
}

# Third-party packages that a part may import; parts that are not here may import any dependency.
ALLOWED_OUTSIDE: dict[str, set[str]] = {
    # holidays and cronsim are tables and arithmetic over dates, without a clock of their own. So is the standard
    # library's zoneinfo: it reads a zone's rules from files once, as code is loaded; no rule can see them change.
    "oms/domain/": {"cel_expr_python", "cronsim", "holidays", "jsonschema_rs"},
    "oms/plan_tools/drawing/": set(),
    "oms/worker/": {"httpx"},
    "act/contract.py": {"pydantic", "pydantic_core"},
    "act/client.py": {"httpx", "pydantic_core"},
}

# The rules know no clock, no randomness, no files and no network.
PURE = {"oms/domain/", "oms/plan_tools/drawing/", "act/domain/"}
NOT_IN_RULES = {"time", "random", "secrets", "os", "socket", "subprocess", "threading", "asyncio", "sqlite3", "uuid"}


def modules() -> list[Path]:
    return [path for package in ("oms", "act", "hmskit") for path in sorted((ROOT / package).rglob("*.py"))]


def part_of(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    return next(part for part in ALLOWED if name.startswith(part))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(path: Path) -> list[str]:
    part = part_of(path)
    found = []
    for name in imports(path):
        top = name.partition(".")[0]
        if top in ("oms", "act", "hmskit"):
            inside = ALLOWED[part]
            is_package_name = any(allowed.startswith(f"{name}.") for allowed in inside)
            if not is_package_name and not any(name == one or name.startswith(f"{one}.") for one in inside):
                found.append(name)
        elif top not in sys.stdlib_module_names:
            if part in ALLOWED_OUTSIDE and top not in ALLOWED_OUTSIDE[part]:
                found.append(name)
        elif part in PURE and top in NOT_IN_RULES:
            found.append(name)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_what_its_part_may(path: Path) -> None:
    assert breaches(path) == []


def test_the_check_finds_a_breach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "oms" / "domain" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("import time\nimport sqlalchemy\nfrom oms.api import edge\nfrom oms.domain import plan\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert breaches(bad) == ["time", "sqlalchemy", "oms.api", "oms.api.edge"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_stays_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
