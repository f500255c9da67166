"""Public holidays by country or subdivision, from the package ``holidays``: ``US``, ``US-CA``, ``DE-BY``.

The package takes a while to import, so that only a plan that names holidays pays for it; a year's days are computed
once per process. Observed days count (a Monday off for a Sunday's holiday).
"""

from __future__ import annotations

from datetime import date
from functools import cache, lru_cache

from oms.domain.calendar_error import CalendarError
from oms.domain.naming import did_you_mean, listed, nearest, quote

KEPT_YEARS = 1_000
"""Years of holidays kept in memory, over all calendars: a year of a calendar is a set of about 15 dates."""


def check_holidays(name: str) -> str:
    """Return the name of a holiday calendar as it is: a country's ISO 3166 code, or ``<country>-<subdivision>``.

    Raises:
        CalendarError: there is no such country, or no such subdivision of it.
    """
    known = _countries()
    country, dash, part = name.partition("-")
    if country not in known:
        near = did_you_mean(country, known) or '; expected a country such as "US" or a part of one such as "US-CA"'
        raise CalendarError("holidays", f"there is no holiday calendar {quote(country)}{near}")
    if dash and part not in known[country]:
        near = _near_part(country, part)
        raise CalendarError(
            "holidays", f"holidays of {country} have no part {quote(part)}{near}", offset=len(country) + 1
        )
    return name


def is_holiday(name: str | None, day: date) -> bool:
    """Tell whether a day is a holiday of a calendar that ``check_holidays`` has passed; None has no holidays."""
    return name is not None and day in _holidays(name, day.year)


@cache
def _countries() -> dict[str, tuple[str, ...]]:
    """Return the codes of each country's subdivisions, by the country's code."""
    from holidays import list_supported_countries  # noqa: PLC0415 - slow, see the module's docstring

    return {country: tuple(parts) for country, parts in list_supported_countries().items()}


def _near_part(country: str, part: str) -> str:
    """Return the hint for an unknown subdivision; one written out, such as ``US-California``, has a code."""
    from holidays import country_holidays  # noqa: PLC0415

    parts = _countries()[country]
    if not parts:
        return f"; expected {quote(country)}"
    codes = {alias.casefold(): code for alias, code in country_holidays(country).subdivisions_aliases.items()}
    named = codes.get(part.casefold()) or nearest(part, parts)
    return f"; did you mean {quote(f'{country}-{named}')}?" if named else f"; expected one of {listed(parts)}"


@lru_cache(maxsize=KEPT_YEARS)
def _holidays(name: str, year: int) -> frozenset[date]:
    """Return a year's holidays; a New Year's Day that is observed in December is one of the year before."""
    from holidays import country_holidays  # noqa: PLC0415

    country, _, part = name.partition("-")
    return frozenset(country_holidays(country, part or None, years=year))
