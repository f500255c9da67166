"""Check plan files together, as ``oms plan check`` does: their faults, and what will hurt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oms.domain.plan_links import calls_of, refused_for_cycles, shown_cycle
from oms.domain.plan_lint import missing_plans, warnings
from oms.storage.plan_files import PlanFileError, PlanFileFault, read_placed_plan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from oms.domain.plan import Plan
    from oms.storage.yaml_document import Positions


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What was found in a file.

    Attributes:
        file: its name.
        plan: its plan; None where it has none that can be used.
        faults: why, in the order of the file.
        warnings: what is allowed and will hurt, in the order of the file.
    """

    file: str
    plan: Plan | None
    faults: tuple[PlanFileFault, ...]
    warnings: tuple[PlanFileFault, ...] = ()


def check_files(files: Iterable[Path]) -> list[CheckedFile]:
    """Check some files. Of plans that call each other in a circle, the last by the files' order is at fault."""
    found: dict[str, CheckedFile | tuple[Plan, Positions]] = {}
    for path in files:
        file = str(path)
        try:
            found[file] = read_placed_plan(path.read_bytes(), file=file)
        except PlanFileError as error:
            found[file] = CheckedFile(file, None, error.faults)
        except OSError as error:
            fault = PlanFileFault(file, 1, 1, f"cannot be read: {error.strerror}")
            found[file] = CheckedFile(file, None, (fault,))
    plans: dict[str, Plan] = {}
    for outcome in found.values():
        if not isinstance(outcome, CheckedFile):
            plans.setdefault(outcome[0].id, outcome[0])
    circles = refused_for_cycles(list(plans.values()), {})
    return [
        outcome if isinstance(outcome, CheckedFile) else _checked(file, *outcome, set(plans), circles)
        for file, outcome in found.items()
    ]


def _checked(
    file: str, plan: Plan, positions: Positions, known: set[str], circles: dict[str, list[str]]
) -> CheckedFile:
    circle = circles.get(plan.id)
    if circle is not None:
        place = positions.of(calls_of(plan).get(circle[1], ()))
        return CheckedFile(file, None, (PlanFileFault(file, *place, shown_cycle(circle)),))
    told = [
        PlanFileFault(file, *positions.of(fault.path, on_key=fault.on_key, offset=fault.offset), fault.message)
        for fault in (*warnings(plan), *missing_plans(plan, known))
    ]
    return CheckedFile(file, plan, (), tuple(sorted(told)))
