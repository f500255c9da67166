"""Go through everything that a plan's sequence holds, each with its place in the document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms.domain.plan import Choose, ForEach, Node, Parallel, Repeat, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oms.domain.plan import Plan
    from oms.domain.plan_faults import Path


def walk_plan(plan: Plan) -> Iterator[tuple[Path, Node]]:
    """Yield every activity and block of a plan, also those in ``undo``, in the order of the file, with its path."""
    return walk_nodes(plan.sequence, ("sequence",))


def walk_nodes(nodes: tuple[Node, ...], path: Path) -> Iterator[tuple[Path, Node]]:
    """Do the same for a list of steps that stands at ``path``."""
    for number, node in enumerate(nodes):
        here = (*path, number)
        yield here, node
        for below, steps in inner_steps(node):
            yield from walk_nodes(steps, (*here, *below))


def inner_steps(node: Node) -> Iterator[tuple[Path, tuple[Node, ...]]]:
    """Yield the lists of steps right inside a node, each with the path from there."""
    match node:
        case Step():
            yield ("undo",), node.undo
        case Parallel():
            for name, steps in node.branches:
                yield ("parallel", name), steps
        case ForEach():
            yield ("do",), node.steps
        case Repeat():
            yield ("repeat",), node.steps
        case Choose():
            for number, option in enumerate(node.options):
                yield ("choose", number, "else" if option.when is None else "do"), option.steps
