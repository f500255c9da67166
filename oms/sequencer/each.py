"""Run a verb on each of a batch's wishes: a refused one gets its error in its place, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from oms.domain.errors import OmsError
from oms.storage.transaction import Transaction

W = TypeVar("W")
R = TypeVar("R")


def each(tx: Transaction, wishes: Sequence[W], one: Callable[[Transaction, W], R]) -> list[R | OmsError]:
    """Return the answer or the refusal of each wish, in order. A refusal must come before anything was changed."""
    answers: list[R | OmsError] = []
    for wish in wishes:
        try:
            answers.append(one(tx, wish))
        except OmsError as error:
            answers.append(error)
    return answers
