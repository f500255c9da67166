"""Keep every version of every plan, and which of them are in force."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, insert, select, update

from hmskit.prepared import Prepared
from oms.domain.plan import Plan, plan_digest
from oms.storage.plan_cache import PlanCache
from oms.storage.tables import plans
from oms.storage.transaction import Transaction, in_list

_IN_FORCE = Prepared(
    select(plans.c.plan, plans.c.version).where(plans.c.in_force, in_list(plans.c.plan, bindparam("names"))), ["names"]
)
_ALL_IN_FORCE = select(plans.c.plan, plans.c.version).where(plans.c.in_force).order_by(plans.c.plan)
_LOCK_IN_FORCE = _ALL_IN_FORCE.with_for_update()


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """One version of a plan, as it is kept. ``file`` is None for a plan that came by HTTP."""

    plan: str
    version: int
    digest: str
    document: str
    file: str | None
    in_force: bool
    created_at: int


def in_force(connection: Connection) -> dict[str, int]:
    """Return the version in force of each plan that has one."""
    return {row.plan: row.version for row in connection.execute(_ALL_IN_FORCE)}


def in_force_of(tx: Transaction, names: Iterable[str]) -> dict[str, int]:
    """Return the version in force of each of ``names``; those that have none stay out."""
    return dict(map(tuple, _IN_FORCE.rows(tx.connection, tx.dialect.list_parameter(sorted(set(names))))))


def compiled_in_force(connection: Connection, cache: PlanCache) -> list[Plan]:
    """Return the compiled plans in force, in the order of their ids."""
    return [cache.get(connection, plan, version) for plan, version in in_force(connection).items()]


def lock_in_force(tx: Transaction) -> None:
    """Let nobody else put plans in force, or out of it, until the end of ``tx``: the lanes' caps come of all of them.

    Whoever does so now is waited for. It is rare, and nobody who hands out tasks does it.
    """
    if tx.dialect.is_shared:
        tx.connection.execute(_LOCK_IN_FORCE)


def put_plan(tx: Transaction, plan: Plan, *, file: str | None) -> int:
    """Put ``plan`` in force and return its version: the old one where its content was known, else a new one."""
    digest = plan_digest(plan)
    known = tx.connection.execute(
        select(plans.c.version, plans.c.in_force, plans.c.file).where(plans.c.plan == plan.id, plans.c.digest == digest)
    ).one_or_none()
    if known is not None and known.in_force and known.file == file:
        return int(known.version)
    withdraw(tx, [plan.id])
    if known is not None:
        tx.connection.execute(
            update(plans)
            .where(plans.c.plan == plan.id, plans.c.version == known.version)
            .values(in_force=True, file=file)
        )
        return int(known.version)
    newest = tx.connection.execute(select(func.max(plans.c.version)).where(plans.c.plan == plan.id)).scalar_one()
    version = (newest or 0) + 1
    tx.connection.execute(
        insert(plans),
        {
            "plan": plan.id,
            "version": version,
            "digest": digest,
            # In the file's order: branches begin in it.
            "document": json.dumps(plan.document, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
            "file": file,
            "in_force": True,
            "created_at": tx.now_ms,
        },
    )
    return version


def missing(tx: Transaction, *, kept_files: Iterable[str], kept_plans: Iterable[str]) -> list[str]:
    """Return the plans in force whose file is gone; those that came by HTTP stay.

    Args:
        tx: the open transaction.
        kept_files: the faulty files: what they last held stays in force.
        kept_plans: ids that are declared by some file, under whatever name it has now.
    """
    files, names = set(kept_files), set(kept_plans)
    rows = tx.connection.execute(select(plans.c.plan, plans.c.file).where(plans.c.in_force, plans.c.file.is_not(None)))
    return [row.plan for row in rows if row.file not in files and row.plan not in names]


def withdraw(tx: Transaction, names: Iterable[str]) -> None:
    """Take plans out of force."""
    tx.foreign_lanes.clear()
    for name in names:
        tx.connection.execute(update(plans).where(plans.c.plan == name, plans.c.in_force).values(in_force=False))


def versions(connection: Connection, plan: str | None = None) -> Mapping[str, list[PlanVersion]]:
    """Return every version by plan, oldest first; of one plan where it is named."""
    statement = select(plans).order_by(plans.c.plan, plans.c.version)
    if plan is not None:
        statement = statement.where(plans.c.plan == plan)
    found: dict[str, list[PlanVersion]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.plan, []).append(PlanVersion(*row))
    return found
