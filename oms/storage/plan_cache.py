"""Compiled plans, kept in memory by id and version."""

from __future__ import annotations

import threading

from pydantic_core import from_json
from sqlalchemy import Connection, bindparam, select

from oms.domain.plan import Plan
from oms.domain.plan_reader import parse_plan
from oms.storage.tables import plans

MAX_COMPILED_PLANS = 2_000

_DOCUMENT = select(plans.c.document).where(
    plans.c.plan == bindparam("this_plan"), plans.c.version == bindparam("this_version")
)


class PlanCache:
    """Compiled plans by id and version, the ones compiled last. Versions never change, so nothing here goes stale.

    Attributes:
        batch_lanes: lanes of theirs that have batches with a limit.
    """

    def __init__(self) -> None:
        self.batch_lanes: frozenset[str] = frozenset()
        self._plans: dict[tuple[str, int], Plan] = {}
        self._lock = threading.Lock()

    def get(self, connection: Connection, plan: str, version: int) -> Plan:
        """Return the compiled plan.

        Raises:
            LookupError: there is no such version.
        """
        key = (plan, version)
        known = self._plans.get(key)
        if known is not None:
            return known
        document = connection.execute(_DOCUMENT, {"this_plan": plan, "this_version": version}).scalar_one_or_none()
        if document is None:
            raise LookupError(f"plan {plan!r} has no version {version}")
        compiled = parse_plan(from_json(document))
        with self._lock:
            self._plans[key] = compiled
            self.batch_lanes |= {lane.id for lane in compiled.lanes if lane.batch_max is not None}
            while len(self._plans) > MAX_COMPILED_PLANS:
                del self._plans[next(iter(self._plans))]
        return compiled
