"""What a trial is to do: which plan, with what input, and what the workers and the world outside do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oms.domain.naming import did_you_mean, listed, quote
from oms.domain.plan import Plan, Wait, nodes_in
from oms.domain.plan_links import called_plans

REFERENCE = "TRY-1"
Outputs = Mapping[str, Any]


class TrialError(Exception):
    """A trial that cannot be; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    Attributes:
        plan: a job of it is walked through.
        start_ms: when the job starts, milliseconds since the epoch.
        others: the plans that it calls.
        input: the job's.
        reference: the job's.
        outputs: what workers give, by activity: always the same, or a list, one for each task of the activity in the
            order in which they were queued; after its end the last one again. Activities that are not here give ``{}``.
        failures: how many attempts fail first, by activity.
        signals: what comes from outside, by name, in order; each comes when a job waits for it.
        absent: lanes in which nobody works.
    """

    plan: Plan
    start_ms: int
    others: Sequence[Plan] = ()
    input: Mapping[str, Any] = field(default_factory=dict)
    reference: str = REFERENCE
    outputs: Mapping[str, Outputs | Sequence[Outputs]] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    signals: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    @property
    def plans(self) -> list[Plan]:
        """All the plans, the one that is tried first."""
        return [self.plan, *self.others]

    def check(self) -> None:
        """Return if all that is named is there.

        Raises:
            TrialError: it is not.
        """
        self._check_plans()
        activities = {step.activity for plan in self.plans for step in plan.steps}
        _check_names(self.outputs, activities, "an output is given for the activity")
        _check_names(self.failures, activities, "attempts are to fail of the activity")
        lanes = {lane.id for plan in self.plans for lane in plan.lanes}
        _check_names(self.absent, lanes, "nobody is to work in the lane")
        waits = [node for plan in self.plans for node in nodes_in(plan) if isinstance(node, Wait)]
        signals = {wait.signal for wait in waits if wait.signal is not None}
        _check_names(self.signals, signals, "there is a signal")
        for activity, given in self.outputs.items():
            if isinstance(given, Sequence) and not given:
                raise TrialError(f"the outputs of {quote(activity)} are an empty list; leave it out, or give one")

    def _check_plans(self) -> None:
        known: set[str] = set()
        for plan in self.plans:
            if plan.id in known:
                raise TrialError(f"two of the files are about the plan {quote(plan.id)}")
            known.add(plan.id)
        for plan in self.plans:
            for called in sorted(called_plans(plan) - known):
                near = did_you_mean(called, known)
                message = f"the plan {quote(plan.id)} calls {quote(called)}{near}"
                raise TrialError(f"{message}; name that plan's file, too: oms plan try FILE OTHER_FILE...")


def _check_names(names: Iterable[str], known: set[str], what: str) -> None:
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or (f"; there are {listed(sorted(known))}" if known else "; there is none")
            raise TrialError(f"{what} {quote(name)}, which no plan here has{near}")
