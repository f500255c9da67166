"""How each block begins."""

from __future__ import annotations

from oms.domain import paths
from oms.domain.condition import Condition
from oms.domain.digest import canonical_json
from oms.domain.expression import Expression
from oms.domain.plan import Block, Choose, ForEach, Parallel, Repeat, SubPlan, Wait
from oms.domain.run import BlockKind, BlockRun, Branch, Ground, RunState

WAIT_TIMER = "wait"
MORE_TIMER = "more"
CHILD_TIMER = "child"
"""What a timer is for: a wait's time is up, more of a block may begin, there is news of a job that is a step."""


def begin_block(ground: Ground, branch: Branch, node: Block) -> tuple[BlockRun, list[Branch]] | None:
    """Begin a block; return it, with the branches that run now. None: it has nothing to do, and is over.

    Items of a ``for_each`` are noted, and none has begun.

    Raises:
        ConditionError: an expression cannot be decided.
    """
    match node:
        case Parallel():
            block = _block(ground, branch, BlockKind.PARALLEL, total=len(node.branches), wanted=node.wanted)
            names = [name for name, _ in node.branches]
            return block, [_branch(ground, block, number, name) for number, name in enumerate(names)]
        case ForEach():
            return _begin_for_each(ground, branch, node)
        case Repeat():
            block = _block(ground, branch, BlockKind.REPEAT, total=node.max_rounds)
            return block, [_branch(ground, block, 1, "1")]
        case Choose():
            return _begin_choose(ground, branch, node)
        case Wait():
            return _begin_wait(ground, branch, node)
        case SubPlan():
            return _block(ground, branch, BlockKind.PLAN, name=node.id), []


def begin_undo(ground: Ground, job_id: int, number: int, scope: str) -> Branch:
    """Begin to undo an activity, given by its number in the plan, of an item; return the branch that does it."""
    place = Branch(job_id, "", "", 0, "", scope, RunState.RUNNING)
    block = _block(ground, place, BlockKind.UNDO, path=paths.undo_path(scope, number))
    return _branch(ground, block, 0, "0")


def begin_items(ground: Ground, block: BlockRun, node: ForEach, *, most: int) -> tuple[list[Branch], int]:
    """Begin as many further items as may run, up to ``most``; return them, and how many may run."""
    free = (node.max_parallel or block.total) - (block.begun - block.done - block.failed)
    wanted = min(free, block.total - block.begun)
    limit = min(wanted, most)
    items = ground.branches_of(block.path, RunState.WAITING, limit=limit) if limit > 0 else []
    for item in items:
        item.state = RunState.RUNNING
        ground.changed(item)
        ground.item_begins(item)
    if items:
        block.begun += len(items)
        ground.changed(block)
    return items, wanted


def begin_round(ground: Ground, block: BlockRun) -> Branch:
    """Begin the next round of a ``repeat``."""
    block.begun += 1
    ground.changed(block)
    return _branch(ground, block, block.begun, str(block.begun))


def wait_on(ground: Ground, block: BlockRun) -> None:
    """Let a wait hear when its time is up."""
    if block.due_at is not None:
        ground.set_timer(block, WAIT_TIMER, max(block.due_at, ground.now_ms))


def holds(ground: Ground, condition: Condition | None, scope: str) -> bool:
    """Decide a condition in an item, or in the job itself; where there is none, it holds.

    Raises:
        ConditionError: it cannot be decided.
    """
    if condition is None:
        return True
    facts = ground.facts(scope)
    return condition.holds(
        input=facts.input, outputs=facts.outputs, reference=facts.reference, variables=facts.variables
    )


def value_of(ground: Ground, expression: Expression, scope: str) -> object:
    """Return what an expression gives in an item, or in the job itself.

    Raises:
        ConditionError: it cannot be decided.
    """
    facts = ground.facts(scope)
    return expression.value(
        input=facts.input, outputs=facts.outputs, reference=facts.reference, variables=facts.variables
    )


def _begin_for_each(ground: Ground, branch: Branch, node: ForEach) -> tuple[BlockRun, list[Branch]] | None:
    items = value_of(ground, node.items, branch.scope)
    assert isinstance(items, list)  # an expression of that kind gives nothing else
    block = _block(ground, branch, BlockKind.FOR_EACH, total=len(items), begun=0, name=node.id)
    if not items:
        if node.id is None:
            ground.remove(block)
        else:
            block.state, block.output = RunState.DONE, "[]"
            ground.output_given(block)
        return None
    for number, item in enumerate(items):
        _branch(ground, block, number, str(number), state=RunState.WAITING, item=canonical_json(item))
    return block, []


def _begin_choose(ground: Ground, branch: Branch, node: Choose) -> tuple[BlockRun, list[Branch]] | None:
    for number, option in enumerate(node.options):
        if holds(ground, option.when, branch.scope):
            block = _block(ground, branch, BlockKind.CHOOSE)
            return block, [_branch(ground, block, number, str(number))]
    return None


def _begin_wait(ground: Ground, branch: Branch, node: Wait) -> tuple[BlockRun, list[Branch]] | None:
    due_ms = None
    if node.until is not None:
        moment = value_of(ground, node.until, branch.scope)
        assert isinstance(moment, int)
        due_ms = moment
    elif node.for_sec is not None or node.timeout_sec is not None:
        due_ms = ground.now_ms + 1000 * (node.for_sec or node.timeout_sec or 0)
    if node.signal is None and due_ms is not None and due_ms <= ground.now_ms:
        return None
    block = _block(ground, branch, BlockKind.WAIT, name=node.id, due_ms=due_ms, signal=node.signal)
    wait_on(ground, block)
    return block, []


def _block(
    ground: Ground,
    branch: Branch,
    kind: BlockKind,
    *,
    total: int = 1,
    wanted: int | None = None,
    begun: int | None = None,
    name: str | None = None,
    due_ms: int | None = None,
    signal: str | None = None,
    path: str | None = None,
) -> BlockRun:
    block = BlockRun(
        job_id=branch.job_id,
        path=paths.entry_path(branch.path, branch.position) if path is None else path,
        scope=branch.scope,
        kind=kind,
        name=name,
        state=RunState.RUNNING,
        total=total,
        wanted=total if wanted is None else wanted,
        begun=(1 if kind is BlockKind.REPEAT else total) if begun is None else begun,
        done=0,
        failed=0,
        since=ground.now_ms,
        due_at=due_ms,
        signal=signal,
    )
    ground.add(block)
    return block


def _branch(
    ground: Ground,
    block: BlockRun,
    number: int,
    name: str,
    *,
    state: RunState = RunState.RUNNING,
    item: str | None = None,
) -> Branch:
    path = paths.branch_path(block.path, number)
    branch = Branch(
        job_id=block.job_id,
        path=path,
        block=block.path,
        number=number,
        name=name,
        scope=path if block.kind is BlockKind.FOR_EACH else block.scope,
        state=state,
        item=item,
    )
    ground.add(branch)
    return branch
