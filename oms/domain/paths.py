"""Where in a job something is, written so that a person can read it.

A path leads from the plan's sequence down: ``2`` is the third entry of the sequence, a block; ``2.1`` is that block's
second branch (of ``parallel`` and ``choose``), second item (of ``for_each``) or first round (of ``repeat``, whose
rounds count from 1); ``2.1/0`` is the first entry in there. ``undo4`` is what undoes the activity with number 4 of the
plan, after the path of the item that the activity belonged to; what is to be undone waits as ``undo.0``, ``undo.1``
and so on, which are no places. The empty path is the sequence itself.
"""

from __future__ import annotations

from oms.domain.plan import Block, Choose, ForEach, Node, Parallel, Plan, Repeat, Step

UNDO = "undo"


def entry_path(branch: str, position: int) -> str:
    """Return the path of an entry in a branch."""
    return f"{branch}/{position}" if branch else str(position)


def branch_path(block: str, number: int) -> str:
    """Return the path of a block's branch, item or round."""
    return f"{block}.{number}"


def undo_path(scope: str, number: int) -> str:
    """Return the path of the block that undoes an activity, given by its number in the plan, of an item."""
    return f"{scope}/{UNDO}{number}" if scope else f"{UNDO}{number}"


def parent_of(block: str) -> str:
    """Return the path of the branch in which a block stands."""
    return block.rpartition("/")[0]


def block_of(branch: str) -> str:
    """Return the path of the block to which a branch belongs; the sequence itself has none."""
    return branch.rpartition(".")[0]


def ancestors(branch: str) -> list[str]:
    """Return the paths of a branch and of the branches around it, without the sequence itself, the outermost first."""
    parts = branch.split("/") if branch else []
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def is_in_undo(path: str) -> bool:
    """Tell whether something undoes an activity, or lies in what does."""
    return any(part.startswith(UNDO) for part in path.split("/"))


def is_given_up(path: str, position: int) -> bool:
    """Tell whether something goes where a job runs again from an entry of the sequence; what undid something does."""
    return is_in_undo(path) or int(path.partition("/")[0].partition(".")[0]) >= position


def is_undo(block: str) -> bool:
    """Tell whether a block undoes an activity."""
    return block.rpartition("/")[2].startswith(UNDO)


def nodes_of(plan: Plan, branch: str) -> tuple[Node, ...]:
    """Return the steps that a branch runs."""
    nodes = plan.sequence
    for part in branch.split("/") if branch else ():
        entry, _, number = part.rpartition(".")
        nodes = _inside(plan, nodes, entry, int(number))
    return nodes


def block_at(plan: Plan, path: str) -> Block:
    """Return the block at a path that is none of an undo."""
    node = nodes_of(plan, parent_of(path))[int(path.rpartition("/")[2])]
    assert not isinstance(node, Step)
    return node


def scopes_of(plan: Plan, branch: str) -> tuple[str, ...]:
    """Return the items that a branch is inside of, by their paths; first the job's own, the empty one."""
    scopes = [""]
    nodes, path = plan.sequence, ""
    for part in branch.split("/") if branch else ():
        entry, _, number = part.rpartition(".")
        path = f"{path}/{part}" if path else part
        if not entry.startswith(UNDO) and isinstance(nodes[int(entry)], ForEach):
            scopes.append(path)
        nodes = _inside(plan, nodes, entry, int(number))
    return tuple(scopes)


def scope_of(plan: Plan, branch: str) -> str:
    """Return the path of the innermost item that a branch is inside of; empty where it is in none."""
    return scopes_of(plan, branch)[-1]


def variable_of(plan: Plan, scope: str) -> str:
    """Return the name of an item's variable."""
    node = block_at(plan, block_of(scope))
    assert isinstance(node, ForEach)
    return node.variable


def _inside(plan: Plan, nodes: tuple[Node, ...], entry: str, number: int) -> tuple[Node, ...]:
    if entry.startswith(UNDO):
        return plan.steps[int(entry.removeprefix(UNDO))].undo
    node = nodes[int(entry)]
    match node:
        case Parallel():
            return node.branches[number][1]
        case Choose():
            return node.options[number].steps
        case ForEach() | Repeat():
            return node.steps
        case _:
            raise AssertionError(f"{type(node).__name__} has no branches")
