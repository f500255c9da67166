"""Keep where running jobs stand inside their blocks: rows of ``branches`` and ``blocks``, in one transaction.

A job without blocks has none, and nothing here is asked about it. All of it is changed under the job's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from sqlalchemy import Table, bindparam, delete, select, update
from sqlalchemy.sql.elements import ColumnElement

from hmskit.prepared import Prepared, insert_rows
from oms.domain import paths
from oms.domain.run import BlockKind, BlockRun, Branch, RunState
from oms.storage.tables import blocks, branches
from oms.storage.transaction import Transaction, at_places, place_of

BRANCH_COLUMNS = tuple(f.name for f in fields(Branch))
BLOCK_COLUMNS = tuple(f.name for f in fields(BlockRun))
_BRANCH_STATE = ("state", "position", "task_id", "output")
_BLOCK_STATE = ("state", "begun", "done", "failed", "due_at", "child_job", "output")

_STATE = {state.value: state for state in RunState}
_KIND = {kind.value: kind for kind in BlockKind}
Key = tuple[int, str]


def _here(table: Table) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.job_id == bindparam("this_job"), table.c.path == bindparam("this_path")


def _set(table: Table, columns: Sequence[str]) -> Prepared:
    statement = update(table).where(*_here(table)).values({name: bindparam(name) for name in columns})
    return Prepared(statement, [*columns, "this_job", "this_path"])


_LOAD_BRANCHES, _LOAD_BLOCKS = (
    Prepared(select(table).where(at_places(table.c.job_id, table.c.path, bindparam("places"))), ["places"])
    for table in (branches, blocks)
)
_ONE_BRANCH, _ONE_BLOCK = (
    Prepared(select(table).where(*_here(table)), ["this_job", "this_path"]) for table in (branches, blocks)
)
_CHILDREN = select(branches).where(branches.c.job_id == bindparam("this_job"), branches.c.block == bindparam("block"))
_ALL_CHILDREN = Prepared(_CHILDREN.order_by(branches.c.number), ["this_job", "block"])
_CHILDREN_IN = Prepared(
    _CHILDREN.where(branches.c.state == bindparam("this_state")).order_by(branches.c.number).limit(bindparam("limit")),
    ["this_job", "block", "this_state", "limit"],
)
_WAITING_FOR = Prepared(
    select(blocks)
    .where(
        blocks.c.job_id == bindparam("this_job"),
        blocks.c.signal == bindparam("this_signal"),
        blocks.c.state == bindparam("this_state"),
    )
    .order_by(blocks.c.since, blocks.c.path)
    .limit(bindparam("limit")),
    ["this_job", "this_signal", "this_state", "limit"],
)
_OUTPUTS = Prepared(
    select(blocks.c.job_id, blocks.c.scope, blocks.c.name, blocks.c.output).where(
        at_places(blocks.c.job_id, blocks.c.scope, bindparam("places")), blocks.c.output.is_not(None)
    ),
    ["places"],
)
_BRANCHES_OF_JOB, _BLOCKS_OF_JOB = (
    Prepared(select(table).where(table.c.job_id == bindparam("this_job")), ["this_job"]) for table in (branches, blocks)
)
_GIVEN_IN = Prepared(
    select(blocks).where(
        blocks.c.job_id == bindparam("this_job"),
        blocks.c.scope == bindparam("this_scope"),
        blocks.c.output.is_not(None),
        blocks.c.path.like(bindparam("below")),
    ),
    ["this_job", "this_scope", "below"],
)
_INSERT_BRANCHES = insert_rows(branches, BRANCH_COLUMNS)
_INSERT_BLOCKS = insert_rows(blocks, BLOCK_COLUMNS)
_UPDATE_BRANCH = _set(branches, _BRANCH_STATE)
_UPDATE_BLOCK = _set(blocks, _BLOCK_STATE)
_DELETE_BRANCH = Prepared(delete(branches).where(*_here(branches)), ["this_job", "this_path"])
_DELETE_BLOCK = Prepared(delete(blocks).where(*_here(blocks)), ["this_job", "this_path"])
_branch_row = attrgetter(*BRANCH_COLUMNS)
_block_row = attrgetter(*BLOCK_COLUMNS)
_changed_branch_row = attrgetter(*_BRANCH_STATE, "job_id", "path")
_changed_block_row = attrgetter(*_BLOCK_STATE, "job_id", "path")
NO_LIMIT = 2**31 - 1


class Runs:
    """The branches and blocks that a transaction has read, made, changed and dropped.

    A row is one object here, as often as it is asked for. Changes are written by `flush`.
    """

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._branches: dict[Key, Branch | None] = {}
        self._blocks: dict[Key, BlockRun | None] = {}
        self._new: dict[type, dict[Key, Any]] = {Branch: {}, BlockRun: {}}
        self._changed: dict[type, dict[Key, Any]] = {Branch: {}, BlockRun: {}}
        self._removed: dict[type, dict[Key, Any]] = {Branch: {}, BlockRun: {}}
        self._whole: dict[int, dict[str, dict[str, Branch]]] = {}

    def prefetch(self, wanted: Iterable[tuple[int, str]]) -> None:
        """Read, in two statements, what lies on the way to branches, given by job and path."""
        keys = {
            (job_id, path)
            for job_id, branch in wanted
            for path in paths.ancestors(branch)
            if (job_id, path) not in self._branches
        }
        if keys:
            self._load(keys)

    def read_all(self, job_id: int) -> None:
        """Read all of a job in two statements; after that nothing is looked for in it one by one."""
        if job_id not in self._whole:
            inside: dict[str, dict[str, Branch]] = {}
            for row in self.all_of(job_id):
                if isinstance(row, Branch):
                    inside.setdefault(row.block, {})[row.path] = row
            self._whole[job_id] = inside

    def branch(self, job_id: int, path: str) -> Branch | None:
        """Return a branch; None where there is none."""
        if job_id in self._whole:
            return self._branches.get((job_id, path))
        if (job_id, path) not in self._branches:
            rows = _ONE_BRANCH.rows(self._tx.connection, job_id, path)
            self._branches[job_id, path] = branch_of_row(rows[0]) if rows else None
        return self._branches[job_id, path]

    def block(self, job_id: int, path: str) -> BlockRun | None:
        """Return a block; None where it has not begun, or is over."""
        key = (job_id, path)
        if job_id in self._whole:
            return self._blocks.get(key)
        if key not in self._blocks:
            rows = _ONE_BLOCK.rows(self._tx.connection, job_id, path)
            self._blocks[key] = block_of_row(rows[0]) if rows else None
        return self._blocks[key]

    def branches_of(self, job_id: int, block: str, state: RunState | None, limit: int | None) -> list[Branch]:
        """Return a block's own branches in the order of their numbers."""
        if job_id in self._whole:
            inside = self._whole[job_id].get(block, {}).values()
            found = sorted((row for row in inside if state in (None, row.state)), key=attrgetter("number"))
            return found[:limit]
        self.flush()
        connection = self._tx.connection
        if state is None:
            rows = _ALL_CHILDREN.rows(connection, job_id, block)
        else:
            rows = _CHILDREN_IN.rows(connection, job_id, block, state.value, NO_LIMIT if limit is None else limit)
        return [self._known(self._branches, branch_of_row(row)) for row in rows]

    def first_waiting(self, job_id: int, block: str) -> Branch | None:
        """Return the first of a block's branches that have not begun: one step along the index, however many wait."""
        self.flush()
        rows = _CHILDREN_IN.rows(self._tx.connection, job_id, block, RunState.WAITING.value, 1)
        found: Branch | None = self._known(self._branches, branch_of_row(rows[0])) if rows else None
        return found

    def waiting_for(self, job_id: int, signal: str) -> BlockRun | None:
        """Return the wait for an event that began first, of those that run; None where none does."""
        self.flush()
        rows = _WAITING_FOR.rows(self._tx.connection, job_id, signal, RunState.RUNNING.value, 1)
        found: BlockRun | None = self._known(self._blocks, block_of_row(rows[0])) if rows else None
        return found

    def all_of(self, job_id: int) -> list[Branch | BlockRun]:
        """Return all branches and blocks of a job."""
        self.flush()
        found_branches = map(branch_of_row, _BRANCHES_OF_JOB.rows(self._tx.connection, job_id))
        found_blocks = map(block_of_row, _BLOCKS_OF_JOB.rows(self._tx.connection, job_id))
        found = [self._known(self._branches, row) for row in found_branches]
        return found + [self._known(self._blocks, row) for row in found_blocks]

    def given_in(self, job_id: int, branch: str, scope: str) -> list[BlockRun]:
        """Return the blocks in a branch whose output belongs to a scope."""
        self.flush()
        rows = _GIVEN_IN.rows(self._tx.connection, job_id, scope, f"{branch}/%")  # paths hold neither % nor _
        return [self._known(self._blocks, block_of_row(row)) for row in rows]

    def outputs(self, scopes: Sequence[Key]) -> list[tuple[int, str, str, str]]:
        """Return job, scope, name and output of the named blocks of jobs, in these scopes of them."""
        self.flush()
        return [tuple(row) for row in _OUTPUTS.rows(self._tx.connection, self._places(scopes))]

    def add(self, row: Branch | BlockRun) -> None:
        """Insert a row at the flush."""
        key = (row.job_id, row.path)
        if key in self._removed[type(row)]:
            self.flush()  # where one was dropped before
        self._place(row)[key] = row
        self._new[type(row)][key] = row
        if isinstance(row, Branch) and row.job_id in self._whole:
            self._whole[row.job_id].setdefault(row.block, {})[row.path] = row

    def changed(self, row: Branch | BlockRun) -> None:
        """Write a row at the flush."""
        key = (row.job_id, row.path)
        if key not in self._new[type(row)] and key not in self._removed[type(row)]:
            self._changed[type(row)][key] = row

    def remove(self, row: Branch | BlockRun) -> None:
        """Delete a row at the flush."""
        key = (row.job_id, row.path)
        self._place(row)[key] = None
        if isinstance(row, Branch) and row.job_id in self._whole:
            self._whole[row.job_id].get(row.block, {}).pop(row.path, None)
        self._changed[type(row)].pop(key, None)
        if self._new[type(row)].pop(key, None) is None:
            self._removed[type(row)][key] = row

    def forget(self, job_id: int) -> None:
        """Write a job's changes so far, and read its rows anew when they are asked for."""
        self.flush()
        self._whole.pop(job_id, None)
        for known in (self._branches, self._blocks):
            for key in [key for key in known if key[0] == job_id]:
                del known[key]

    def flush(self) -> None:
        """Write the changes so far; the objects stay valid."""
        connection = self._tx.connection
        _DELETE_BRANCH.many(connection, list(self._removed[Branch]))
        _DELETE_BLOCK.many(connection, list(self._removed[BlockRun]))
        _INSERT_BRANCHES.many(connection, [_branch_row(row) for row in self._new[Branch].values()])
        _INSERT_BLOCKS.many(connection, [_block_row(row) for row in self._new[BlockRun].values()])
        _UPDATE_BRANCH.many(connection, [_changed_branch_row(row) for row in self._changed[Branch].values()])
        _UPDATE_BLOCK.many(connection, [_changed_block_row(row) for row in self._changed[BlockRun].values()])
        for written in (self._new, self._changed, self._removed):
            for rows in written.values():
                rows.clear()

    def _load(self, keys: set[Key]) -> None:
        of_blocks = {(job_id, paths.block_of(path)) for job_id, path in keys}
        connection = self._tx.connection
        found = map(branch_of_row, _LOAD_BRANCHES.rows(connection, self._places(sorted(keys))))
        self._fill(self._branches, keys, found)
        found_blocks = map(block_of_row, _LOAD_BLOCKS.rows(connection, self._places(sorted(of_blocks))))
        self._fill(self._blocks, of_blocks, found_blocks)

    def _fill(self, known: dict[Key, Any], keys: set[Key], rows: Iterable[Any]) -> None:
        """Take rows in; what is known already, be it that there is none, stays as it is."""
        news = keys - known.keys()
        known.update(dict.fromkeys(news))
        known.update({key: row for row in rows if (key := (row.job_id, row.path)) in news})

    def _places(self, keys: Sequence[Key]) -> Any:  # noqa: ANN401 - as the database takes a list
        return self._tx.dialect.list_parameter([place_of(*key) for key in keys])

    def _place(self, row: Branch | BlockRun) -> dict[Key, Any]:
        return self._branches if isinstance(row, Branch) else self._blocks

    def _known(self, known: dict[Key, Any], row: Any) -> Any:  # noqa: ANN401 - a branch or a block
        """Return the object that stands for a row here already, else this one from now on."""
        key = (row.job_id, row.path)
        if known.get(key) is None:
            known[key] = row
        return known[key]


def runs_of(tx: Transaction) -> Runs:
    """Return the transaction's branches and blocks."""
    if tx.runs is None:
        tx.runs = Runs(tx)
    assert isinstance(tx.runs, Runs)
    return tx.runs


def branch_of_row(row: Sequence[Any]) -> Branch:
    """Make the branch that a row of the table ``branches`` holds."""
    branch = Branch(*row)  # the columns stand in the fields' order, which a test holds
    branch.state = _STATE[branch.state]
    return branch


def block_of_row(row: Sequence[Any]) -> BlockRun:
    """Make the block that a row of the table ``blocks`` holds."""
    block = BlockRun(*row)
    block.state = _STATE[block.state]
    block.kind = _KIND[block.kind]
    return block
