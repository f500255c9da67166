"""Where in a plan something is, in words: which branch, item or round."""

from __future__ import annotations

from oms.domain import paths
from oms.domain.plan import Choose, ForEach, Parallel, Plan, Repeat
from oms.plan_tools.drawing.words import ELSE, UNDO, printable


def place_words(plan: Plan, branch: str) -> str:
    """Return ``branch photo, page 2, round 1`` for the path of a branch; nothing for the plan's sequence itself."""
    return ", ".join(_words(plan, inner) for inner in paths.ancestors(branch))


def _words(plan: Plan, branch: str) -> str:
    block = paths.block_of(branch)
    number = int(branch.rpartition(".")[2])
    if paths.is_undo(block):
        undone = int(block.rpartition(paths.UNDO)[2])
        return f"{UNDO} of {printable(plan.steps[undone].activity)}"
    match paths.block_at(plan, block):
        case Parallel() as node:
            return f"branch {printable(node.branches[number][0])}"
        case ForEach() as node:
            return f"{node.variable} {number + 1}"
        case Repeat():
            return f"round {number}"
        case Choose() as node:
            return ELSE if node.options[number].when is None else f"option {number + 1}"
        case other:
            raise AssertionError(f"{type(other).__name__} has no branches")
