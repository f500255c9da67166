"""How the domain talks about names: the nearest valid one, and lists of them in a sentence."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMPARED = 200
SHOWN = 10
"""Names that a message lists before it says how many more there are."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like ``name``, or None when none is near; letter case does not count.

    Of very many names only those with the same first character are compared, and of them the first: each comparison
    takes microseconds, and a hostile file makes a million of them.
    """
    by_folded = {other.casefold(): other for other in sorted(names, reverse=True)}
    if len(by_folded) > COMPARED:
        alike = sorted(folded for folded in by_folded if folded[:1] == name[:1].casefold())
        by_folded = {folded: by_folded[folded] for folded in alike[:COMPARED]}
    close = difflib.get_close_matches(name[:100].casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean "x"?``, or nothing when no name is near."""
    near = nearest(name, names)
    return "" if near is None else f"; did you mean {quote(near)}?"


def quote(name: str) -> str:
    """Return the name in double quotes, cut to 60 characters, with control characters made visible."""
    shown = name if len(name) <= 60 else f"{name[:57]}..."  # noqa: PLR2004 - the docstring's number
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown) + '"'


def listed(names: Iterable[str]) -> str:
    """Return ``a, b, c``, at most ten of them."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def way(names: Sequence[str]) -> str:
    """Return ``"a" -> "b" -> "a"``; of a long way the ten first names and the last."""
    more = [f"{len(names) - SHOWN - 1} more", quote(names[-1])] if len(names) > SHOWN + 1 else map(quote, names[SHOWN:])
    return " -> ".join([*map(quote, names[:SHOWN]), *more])


def shown(value: object) -> str:  # noqa: PLR0911 - one return per kind of value
    """Return a JSON value in a few words: ``the text "x"``, ``the number 3``, ``a list of 2``, ``a mapping``."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {quote(value)}"
        case float():
            return f"the number {value!r}"
        case int():
            return f"the number {value}" if value.bit_length() < 100 else "a number of many digits"  # noqa: PLR2004
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "a mapping"
        case _:
            return f"a value of type {type(value).__name__}"
