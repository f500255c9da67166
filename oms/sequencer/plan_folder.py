"""Plan files on their way into force: the folder on start, on reload and on SIGHUP, and one that comes by HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from oms.domain.errors import Fault, InvalidInputError
from oms.domain.plan_links import calls_of, shown_cycle
from oms.sequencer.load_plans import LoadedVersion, LoadPlans, PutPlan, load_plans, put_plans
from oms.sequencer.writer import Writer
from oms.storage.plan_files import LoadedPlan, PlanFileError, PlanFileFault, read_folder, read_plan

log = structlog.get_logger(__name__)


async def reload_folder(writer: Writer, folder: Path) -> dict[str, Any]:
    """Read ``folder`` and put its good plans in force; return what was loaded, refused and withdrawn.

    Raises:
        UnavailableError: the database cannot take it now; the plans in force stay as they are.
    """
    content = await asyncio.to_thread(read_folder, folder)
    (loaded,) = await writer.run_each(
        load_plans,
        [
            LoadPlans(
                plans=[(loaded.file, loaded.plan) for loaded in content.loaded],
                refused_files=[refused.file for refused in content.refused],
                refused_plans=[refused.plan_id for refused in content.refused if refused.plan_id is not None],
                is_whole=content.readable,
            )
        ],
    )
    faults = [fault for refused in content.refused for fault in refused.faults]
    by_file = {loaded.file: loaded for loaded in content.loaded}
    faults += [_circle_fault(by_file[refused.file], refused.circle) for refused in loaded.refused]
    for fault in faults:
        log.error("plan_refused", fault=str(fault))
    for plan in loaded.withdrawn:
        log.warning("plan_withdrawn", plan=plan, detail="its file is gone; its jobs run to their end")
    return {
        "loaded": [asdict(version) for version in loaded.loaded],
        "refused": [asdict(fault) for fault in faults],
        "withdrawn": loaded.withdrawn,
    }


def _circle_fault(loaded: LoadedPlan, circle: list[str]) -> PlanFileFault:
    """Return the fault of a plan that closes a circle of calls, at the first of its calls on it."""
    place = loaded.positions.of(calls_of(loaded.plan)[circle[1]])
    return PlanFileFault(loaded.file, *place, shown_cycle(circle))


async def put_plan_text(writer: Writer, text: bytes) -> LoadedVersion:
    """Put one plan in force that came as text, YAML or JSON.

    Raises:
        InvalidInputError: it is refused; each fault has line and column.
    """
    try:
        plan = await asyncio.to_thread(read_plan, text, file="body")
    except PlanFileError as error:
        raise InvalidInputError(
            f"The plan is refused: {error.faults[0]}",
            faults=tuple(Fault(("body", fault.line, fault.column), fault.detail) for fault in error.faults),
        ) from None
    return await writer.run(put_plans, PutPlan(plan))
