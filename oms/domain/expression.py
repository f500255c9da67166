"""What a CEL expression in a plan gives on a job's data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Expression(Protocol):
    """An expression, checked when its plan was loaded."""

    @property
    def source(self) -> str:
        """The expression as written."""

    def value(
        self,
        *,
        input: Mapping[str, Any],  # noqa: A002 - the word that plans use
        outputs: Mapping[str, Any],
        reference: str,
        variables: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401 - JSON
        """Return what it gives: JSON; a list; whole milliseconds since the epoch; a whole number.

        Raises:
            ConditionError: it cannot be decided on this data.
        """
