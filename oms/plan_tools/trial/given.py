"""Read what a trial is given on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oms.domain.naming import quote, shown
from oms.plan_tools.trial.wanted import TrialError


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        TrialError: there is none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise TrialError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TrialError(f"{file}: is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise TrialError(f"{file}: is to hold a JSON object; found {shown(found)}")
    return found


def read_outputs(file: Path) -> dict[str, Any]:
    """Return outputs by activity: an object, or a list of objects.

    Raises:
        TrialError: the file holds something else.
    """
    outputs = read_object(file)
    for activity, given in outputs.items():
        each = given if isinstance(given, list) else [given]
        wrong = next((one for one in each if not isinstance(one, dict)), None)
        if wrong is not None or given is None:
            message = "is to be an object, or a list of objects"
            raise TrialError(f"{file}: the output of {quote(activity)} {message}; found {shown(wrong)}")
    return outputs


def read_failures(given: Sequence[str]) -> dict[str, int]:
    """Return how many attempts fail, by activity, of ``activity:n``.

    Raises:
        TrialError: it is written otherwise.
    """
    found = {}
    for one in given:
        activity, _, count = one.rpartition(":")
        if not activity or not (count.isascii() and count.isdecimal()) or len(count) > 6:  # noqa: PLR2004
            raise TrialError(f"--fail is an activity and a number, such as check_photo:2; found {quote(one)}")
        found[activity] = int(count)
    return found


def read_signals(given: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the data of events by their name, in order, of ``name`` and of ``name=data.json``.

    Raises:
        TrialError: a file holds no JSON object.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for one in given:
        name, equals, file = one.partition("=")
        found.setdefault(name, []).append(read_object(Path(file)) if equals else {})
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")
