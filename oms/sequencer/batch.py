"""Commands that share a transaction: each verb runs once, on the wishes of all of them."""

from __future__ import annotations

from typing import Any

from oms.sequencer.command import Command
from oms.storage.transaction import Transaction

Answers = list[tuple[Command, list[Any] | Exception]]
"""Commands, each with the answers to its wishes, or with why there are none."""


def run_verbs(tx: Transaction, commands: list[Command]) -> Answers:
    """Run each verb once, on the wishes of all its commands; give each command its share of the answers.

    The commands of a batch wait at the same time, so any order among them is a right one.
    """
    by_verb: dict[Any, list[Command]] = {}
    for command in commands:
        by_verb.setdefault(command.verb, []).append(command)
    answers: Answers = []
    for verb, group in by_verb.items():
        results = iter(verb(tx, [wish for command in group for wish in command.wishes]))
        answers += [(command, [next(results) for _ in command.wishes]) for command in group]
    return answers
