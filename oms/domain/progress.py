"""What comes next in a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oms.domain.condition import ConditionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oms.domain.plan import Plan, Step


@dataclass(frozen=True, slots=True)
class Facts:
    """What a job knows when a step is decided.

    Attributes:
        input: the job's input.
        outputs: the outputs of the activities that are done, by name; a skipped step has none.
        reference: the citizen's ticket.
    """

    input: Mapping[str, Any]
    outputs: Mapping[str, Any]
    reference: str


@dataclass(frozen=True, slots=True)
class Advance:
    """Where a job goes.

    Attributes:
        skipped: the steps on the way whose ``when`` was false, in order.
        index: the place of ``step``; the number of steps when the job is through.
        step: the step to do now; None when the job is through.
    """

    skipped: tuple[Step, ...]
    index: int
    step: Step | None


class Undecided(Exception):  # noqa: N818 - a state of the job that fails it, not a mistake of the caller
    """A step's ``when`` could not be decided, so the job cannot go on.

    Attributes:
        skipped: the steps before it whose ``when`` was false, in order.
        index: the place of ``step``.
        step: the step that could not be decided.
        cause: why.
    """

    def __init__(self, *, skipped: tuple[Step, ...], index: int, step: Step, cause: ConditionError) -> None:
        super().__init__(f"{step.activity}: {cause.code}")
        self.skipped = skipped
        self.index = index
        self.step = step
        self.cause = cause


def advance(plan: Plan, *, after: int, facts: Facts) -> Advance:
    """Return the first step past index ``after`` that applies, and the steps skipped on the way to it.

    A new job passes ``after=-1``. Pure: a completion that is replayed after a crash takes the same branch.

    Raises:
        Undecided: a ``when`` could not be decided on these facts; the steps skipped before it are in the error.
    """
    skipped: list[Step] = []
    for index in range(after + 1, len(plan.steps)):
        step = plan.steps[index]
        try:
            if step.when is None or step.when.holds(
                input=facts.input, outputs=facts.outputs, reference=facts.reference
            ):
                return Advance(tuple(skipped), index, step)
        except ConditionError as error:
            raise Undecided(skipped=tuple(skipped), index=index, step=step, cause=error) from error
        skipped.append(step)
    return Advance(tuple(skipped), len(plan.steps), None)
