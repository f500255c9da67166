"""Plan files: a text or a folder of them becomes plans, or faults as ``file:line:column: what``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from oms.domain.naming import quote
from oms.domain.plan import Plan
from oms.domain.plan_faults import PlanError, plan_id_of
from oms.domain.plan_reader import parse_plan
from oms.storage.yaml_document import MAX_BYTES, DocumentError, Positions, compose, load_document

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "DocumentError",
    "LoadedPlan",
    "PlanFileError",
    "PlanFileFault",
    "PlanFolder",
    "RefusedFile",
    "load_document",
    "plan_file_schema",
    "read_folder",
    "read_placed_plan",
    "read_plan",
]

_ID_LINE = re.compile(r"""(?m)^id:[ ]+["']?([\w-]+)["']?[ ]*(?:\#.*)?$|\A\s*\{\s*"id"\s*:\s*"([\w-]+)\"""")
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True, order=True)
class PlanFileFault:
    """One thing that is wrong with a plan file; line and column count from 1."""

    file: str
    line: int
    column: int
    detail: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.detail}"


class PlanFileError(ValueError):
    """A plan file that cannot be used.

    Attributes:
        faults: all that were found, at least one, in the order of the file.
        plan_id: the plan it is about, where that can still be read.
    """

    def __init__(self, faults: Iterable[PlanFileFault], plan_id: str | None = None) -> None:
        self.faults = tuple(sorted(set(faults)))
        self.plan_id = plan_id
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A plan, the name of the file that it is from, and where its values stand there."""

    file: str
    plan: Plan
    positions: Positions = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that is not in force.

    Attributes:
        file: its name.
        plan_id: the plan it is about, where that can be read: its last good version stays in force.
        faults: why, at least one, in the order of the file.
    """

    file: str
    plan_id: str | None
    faults: tuple[PlanFileFault, ...]


class PlanFolder(NamedTuple):
    """What a folder holds.

    Attributes:
        loaded: the good plans, by file name.
        refused: the other plan files, by file name.
        readable: False when the folder itself cannot be read, so that nothing is known of the plans in it.
    """

    loaded: list[LoadedPlan]
    refused: list[RefusedFile]
    readable: bool = True


def read_plan(text: str | bytes, *, file: str) -> Plan:
    """Return the plan that a file holds.

    Args:
        text: its content, YAML or JSON; bytes are UTF-8.
        file: its name, for the faults.

    Raises:
        PlanFileError: with every fault found.
    """
    return read_placed_plan(text, file=file)[0]


def read_folder(folder: Path) -> PlanFolder:
    """Return the plans of a folder, and the files that are refused, both by file name.

    A plan file ends in ``.yaml``, ``.yml`` or ``.json`` and does not start with a dot; folders inside are not looked
    at. Where two files are about one plan, the first by name has it, even if that one is refused itself: an old copy
    must not come into force because the new one is broken. A folder that cannot be read is one refused file, and not
    ``readable``: that its plans are not there says nothing about them.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir() if _is_plan_file(entry))
    except OSError as error:
        return PlanFolder([], [_unreadable(str(folder), error)], readable=False)
    loaded: list[LoadedPlan] = []
    refused: list[RefusedFile] = []
    owners: dict[str, str] = {}
    for name in names:
        try:
            with (folder / name).open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
            plan, positions = read_placed_plan(content, file=name)
        except OSError as error:
            refused.append(_unreadable(name, error))
        except PlanFileError as error:
            refused.append(RefusedFile(name, error.plan_id, error.faults))
            if error.plan_id is not None:
                owners.setdefault(error.plan_id, name)
        else:
            owner = owners.setdefault(plan.id, name)
            if owner == name:
                loaded.append(LoadedPlan(name, plan, positions))
            else:
                detail = f"the plan {quote(plan.id)} is already in {owner}; a plan has one file"
                refused.append(RefusedFile(name, plan.id, (PlanFileFault(name, *positions.of(("id",)), detail),)))
    return PlanFolder(loaded, refused)


def plan_file_schema() -> dict[str, Any]:
    """Return the JSON Schema 2020-12 of plan files, for editors.

    It knows the shapes, not the rules between parts: a file that it takes may still name an undeclared lane.
    """
    text = resources.files("oms.domain").joinpath("plan.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def read_placed_plan(text: str | bytes, *, file: str) -> tuple[Plan, Positions]:
    """Do the same as ``read_plan``, and return also where the values of the file stand.

    Raises:
        PlanFileError: with every fault found.
    """
    if isinstance(text, bytes):
        text = _decoded(text, file)
    document, positions, found = compose(text)
    faults = [PlanFileFault(file, fault.line, fault.column, fault.detail) for fault in found]
    if document is None:
        raise PlanFileError(faults, _id_from_text(text))
    try:
        plan = parse_plan(document)
    except PlanError as error:
        known = {(fault.line, fault.column) for fault in found}
        for fault in error.faults:
            place = positions.of(fault.path, on_key=fault.on_key, offset=fault.offset)
            if place not in known:  # else it only follows from what is wrong with the text there
                faults.append(PlanFileFault(file, *place, fault.message))
        raise PlanFileError(faults, plan_id_of(document)) from None
    if faults:
        raise PlanFileError(faults, plan.id)
    return plan, positions


def _decoded(content: bytes, file: str) -> str:
    """Return the text of UTF-8 bytes.

    Raises:
        PlanFileError: they are too many, or not UTF-8.
    """
    if len(content) > MAX_BYTES:
        raise PlanFileError([PlanFileFault(file, 1, 1, f"the file is larger than {MAX_BYTES // 1024} KiB")])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(errors="replace")
        place = Positions(before).at(len(before))
        detail = f"the file is not UTF-8: the byte 0x{content[error.start]:02x} starts no character"
        raise PlanFileError([PlanFileFault(file, *place, detail)]) from None


def _id_from_text(text: str) -> str | None:
    """Return the plan's id of a text that cannot be read to its end, if its top level still shows it."""
    found = _ID_LINE.search(text)
    return plan_id_of({"id": found[1] or found[2]}) if found else None


def _is_plan_file(entry: Path) -> bool:
    return entry.suffix in SUFFIXES and not entry.name.startswith(".") and not entry.is_dir()


def _unreadable(file: str, error: OSError) -> RefusedFile:
    fault = PlanFileFault(file, 1, 1, f"cannot be read: {error.strerror or type(error).__name__}")
    return RefusedFile(file, None, (fault,))
